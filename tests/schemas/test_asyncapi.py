"""The AsyncAPI document: not stale, whole, and true to the messages that are really sent."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pytest
import yaml

from schemas.asyncapi import ARROW_TYPE, FILE, PARTIES, document, document_yaml
from schemas.asyncapi_payloads import STRUCTS
from schemas.frames import FrameHeader, frame_schema, header_to_json
from schemas.messages import Action, Applied, action_id, encode
from schemas.system import SystemSpec, load_spec, parse_spec, shipped_systems
from schemas.topics import TABLE, topics_of
from schemas.trajectories import trajectory_schema
from tests.streams.specs import SMALL

SPECS: list[str | None] = [None, *shipped_systems()]


def spec_of(name: str | None) -> SystemSpec | None:
    return None if name is None else load_spec(name)


def references(part: Any) -> Iterator[str]:
    if isinstance(part, dict):
        if isinstance(part.get("$ref"), str):
            yield part["$ref"]
        part = list(part.values())
    if isinstance(part, list):
        for item in part:
            yield from references(item)


def resolve(content: Any, reference: str) -> Any:
    assert reference.startswith("#/"), f"{reference}: not in this document"
    for key in reference[2:].split("/"):
        assert key in content, f"{reference}: {key} is nowhere"
        content = content[key]
    return content


def test_committed_file_is_not_stale() -> None:
    assert yaml.safe_load(FILE.read_text()) == document(), (
        f"{FILE} is stale; run: rehearse topics describe > schemas/asyncapi.yaml"
    )


@pytest.mark.parametrize("name", SPECS)
def test_yaml_says_the_same_as_the_document(name: str | None) -> None:
    content = document(spec_of(name))
    assert yaml.safe_load(document_yaml(spec_of(name))) == content
    assert json.loads(json.dumps(content)) == content


@pytest.mark.parametrize("name", SPECS)
def test_required_fields_and_references(name: str | None) -> None:
    content = document(spec_of(name))
    assert content["asyncapi"] == "3.0.0"
    assert {"title", "version"} <= set(content["info"])
    assert all({"host", "protocol"} <= set(server) for server in content["servers"].values())
    found = list(references(content))
    assert len(found) > 40
    for reference in found:
        resolve(content, reference)
    for section in content["components"].values():
        assert all(re.fullmatch(r"[A-Za-z0-9._-]+", key) for key in section)


@pytest.mark.parametrize("name", SPECS)
def test_parameters_are_those_of_the_address(name: str | None) -> None:
    for channel in document(spec_of(name))["channels"].values():
        assert re.findall(r"{(\w+)}", channel["address"]) == list(channel.get("parameters", {}))


@pytest.mark.parametrize("name", SPECS)
def test_every_channel_has_senders_readers_and_messages(name: str | None) -> None:
    content = document(spec_of(name))
    ways: dict[str, set[str]] = {}
    for operation in content["operations"].values():
        ways.setdefault(operation["channel"]["$ref"], set()).add(operation["action"])
    assert ways == {f"#/channels/{key}": {"send", "receive"} for key in content["channels"]}
    assert all(channel["messages"] for channel in content["channels"].values())
    used = {key for channel in content["channels"].values() for key in channel["messages"]}
    assert used == set(content["components"]["messages"])


def test_table_of_parties_is_complete() -> None:
    assert set(PARTIES) == set(TABLE)


@pytest.mark.parametrize("name", shipped_systems())
def test_channels_of_a_spec_are_its_topics(name: str) -> None:
    spec = load_spec(name)
    described = {}
    for channel in document(spec)["channels"].values():
        binding = channel["bindings"]["kafka"]
        described[channel["address"]] = (binding["partitions"], binding["topicConfiguration"])
    wanted = {topic.name: topic for topic in topics_of(spec)}
    assert set(described) == set(wanted)
    for address, (partitions, config) in described.items():
        assert partitions == wanted[address].partitions
        plain = {key: config[key] for key in config if key != "cleanup.policy"}
        plain["cleanup.policy"] = ",".join(config["cleanup.policy"])
        assert {key: str(value) for key, value in plain.items()} == wanted[address].config


def test_two_sensors_on_one_topic_are_one_channel() -> None:
    text = SMALL.format(system="tanks").replace("  level:", "  level:\n    topic: shared")
    second = "  lid:\n    {topic: shared, every: 1 s, max_age: 1 s, channels: {open: {unit: '1', "
    text = text.replace("actions:", second + "range: [0, 1]}}}\nactions:", 1)
    channels = document(parse_spec(text))["channels"]
    assert channels["sensors-level-lid"]["address"] == "shared"
    assert list(channels["sensors-level-lid"]["messages"]) == [
        "Reading-level",
        "Reading-lid",
        "Watermark",
    ]


AVRO = '{"type": "record", "name": "R", "fields": [{"name": "at", "type": "long"}]}'
PAYLOADS: dict[str, tuple[str, list[str]]] = {
    "json": ("application/json", ["properties", "d"]),
    "{json: {records: .}}": ("application/json", ["items", "properties", "d"]),
    "{json: {records: a.b}}": ("application/json", ["properties", "a.b", "items", "properties"]),
    "{avro: {records: a.b}}": (
        "application/vnd.apache.avro+binary",
        ["properties", "a", "properties", "b", "items", "properties", "d"],
    ),
    f"{{avro: {{schema: {AVRO}}}}}": ("application/vnd.apache.avro+binary", ["schema", "fields"]),
    "{protobuf: {schema: message R}}": ("application/vnd.google.protobuf", ["schemaFormat"]),
    "arrow": (ARROW_TYPE, ["items", "properties", "d"]),
    "{raw: {fields: {at: <i8}}}": ("application/octet-stream", ["x-packed", "at"]),
}


@pytest.mark.parametrize("codec", PAYLOADS)
def test_readings_are_described_as_their_codec_has_them(codec: str) -> None:
    text = SMALL.format(system="tanks").replace("  level:", f"  level:\n    codec: {codec}")
    components = document(parse_spec(text))["components"]
    message = components["messages"]["Reading-level"]
    kind, path = PAYLOADS[codec]
    assert message["contentType"] == kind
    framed = message["bindings"]["kafka"].get("schemaIdPayloadEncoding") == "confluent"
    assert framed == (codec == "{avro: {records: a.b}}")
    payload = resolve({"components": components}, message["payload"]["$ref"])
    for key in path:
        assert key in payload
        payload = payload[key]


def test_columns_of_arrow_messages() -> None:
    spec = load_spec("nav2d")
    content = document(spec)
    schemas: dict[str, pa.Schema] = {
        "Frame": frame_schema(spec),
        "Trajectory": trajectory_schema(spec),
    }
    for name, schema in schemas.items():
        assert content["components"]["messages"][name]["contentType"] == ARROW_TYPE
        items = content["components"]["schemas"][name]["items"]
        assert list(items["properties"]) == items["required"] == schema.names
    fields = content["components"]["schemas"]["Frame"]["items"]["properties"]
    assert fields["velocity[1]"]["description"] == "in m/s"
    assert fields["velocity[1]"]["x-arrow-type"] == str(pa.float64())
    assert fields["applied:acceleration[0]"]["description"] == "in m/s²"
    assert "4 refused" in fields["status"]["description"]


def test_reading_says_field_unit_and_range() -> None:
    schema = document(load_spec("autoscale"))["components"]["schemas"]["Reading-load"]
    assert schema["required"] == ["ts"]
    assert schema["properties"]["ts"]["description"] == "event time in s"
    assert schema["properties"]["rps"]["maximum"] == 1e6
    assert schema["properties"]["rps"]["description"] == "in 1/s"


def test_properties_are_the_keys_of_real_messages() -> None:
    schemas = document()["components"]["schemas"]
    assert {struct.__name__ for struct in STRUCTS} <= set(schemas)
    identity = action_id("autoscale", "web", 7)
    action = Action(identity, "autoscale", "web", 7, 1, {"replicas": 3.0}, 2, mode=0, reasons=0)
    applied = Applied(identity, "web", 7, {"replicas": 3.0}, status=2, time=1)
    for message in (action, applied):
        sent = json.loads(encode(message))
        schema = schemas[type(message).__name__]
        assert set(sent) == set(schema["properties"]) >= set(schema["required"])
    assert schemas["Applied"]["properties"]["status"]["enum"] == [0, 1, 2, 3, 4, 5]
    header = header_to_json(FrameHeader("autoscale", 0, 7, 1))
    assert set(header) == set(schemas["FrameHeader"]["properties"])


def test_document_of_all_systems_names_none() -> None:
    text = document_yaml()
    assert "{system}.sensors.{sensor}" in text
    assert "SYSTEM" not in text
    assert "SENSOR" not in text
    for name in ("Reading", "Frame", "Trajectory"):
        schema = document()["components"]["schemas"][name]
        assert "CHANNEL" in schema.get("items", schema)["properties"]
        assert "required" not in schema.get("items", schema)
