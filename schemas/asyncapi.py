"""The AsyncAPI 3.0 document of the topics: of all systems at once, or of one spec in detail.

Everything in it comes from the topic table, the message types and the Arrow schemas. The document
of all systems is that of a spec whose names stand for anybody's. It lies in `asyncapi.yaml`; after
a change of messages or topics: `rehearse topics describe > schemas/asyncapi.yaml`.
"""

from pathlib import Path
from typing import Any, Final

import yaml

from schemas.asyncapi_payloads import (
    CONTENT_TYPES,
    Json,
    frame_rows,
    message_schemas,
    raw_headers,
    raw_payload,
    reading_payload,
    schema_binding,
    trajectory_rows,
)
from schemas.messages import WATERMARK_HEADER, action_id, cloudevents_headers
from schemas.spec_parts import SensorSpec
from schemas.system import SystemSpec, parse_spec, shipped_systems
from schemas.topics import TABLE, Kind, Topic, topics_of

VERSION: Final = "1.0.0"  # of the messages, not of the package: raise it when one of them changes
FILE: Final = Path(__file__).with_name("asyncapi.yaml")
JSON_TYPE: Final = "application/json"
ARROW_TYPE: Final = "application/vnd.apache.arrow.stream"
BINDING: Final = "0.5.0"  # of AsyncAPI's Kafka bindings
_HEAD: Final = "# Made by `rehearse topics describe`; change schemas/*.py, not this file.\n"

# Who sends and who reads each kind of topic, in the words of the command line.
PARTIES: Final[dict[Kind, tuple[tuple[str, ...], tuple[str, ...]]]] = {
    "raw": (("plant",), ("perceive",)),
    "sensors": (("plant", "perceive"), ("align",)),
    "frames": (("align",), ("worker",)),
    "actions": (("worker",), ("actuator", "align")),
    "applied": (("actuator",), ("align",)),
    "trajectories": (("worker",), ("sink", "monitor")),
    "beliefs": (("worker",), ("worker",)),
    "beliefs-twin": (("worker",), ("worker",)),
    "outcomes": (("plant",), ("monitor",)),
    "control": (("operator",), ("align", "worker", "actuator")),
    "deadletter": (("align", "worker", "perceive"), ("operator",)),
}
_MESSAGES: Final[dict[Kind, tuple[str, ...]]] = {
    "frames": ("Frame",),
    "actions": ("Action",),
    "applied": ("Applied", "Watermark"),
    "trajectories": ("Trajectory",),
    "beliefs": ("BeliefRow",),
    "beliefs-twin": ("BeliefRow",),
    "outcomes": ("Outcome",),
    "control": ("Control",),
    "deadletter": ("DeadLetter",),
}
_OF_SENSORS: Final[dict[Kind, str]] = {"raw": "Raw", "sensors": "Reading"}
_KEYS: Final = {
    "entity": "name of the entity",
    "cohort": "number of the cohort in decimal; the partition is cohort mod partitions",
    "none": "kind/entity, so that the last word on each is kept",
    "source": "key of the record that could not be used",
}
_ANYBODY: Final = """
system: SYSTEM
tick: 1 s
sensors:
  SENSOR: {every: 1 s, max_age: 1 s, channels: {CHANNEL: {unit: "its unit", range: [0, 1]}}}
actions: {ACTION: {unit: "its unit", low: 0, high: 1}}
fallback: {kind: value}
budget: {tiers: {TIER: {candidates: 5, horizon: 1, iterations: 1}}}
"""


def document(spec: SystemSpec | None = None) -> Json:
    """The AsyncAPI document of `spec`; without one, that of all systems, with `{system}` in it."""
    subject = spec or parse_spec(_ANYBODY)
    found = topics_of(subject)
    if spec is None:
        raw = f"{subject.system}.raw.SENSOR"
        found.insert(0, Topic(raw, "raw", 1, dict(TABLE["raw"].config)))
    topics = {_channel_id(t, subject): t for t in found}
    return {
        "asyncapi": "3.0.0",
        "info": _info(spec),
        "defaultContentType": JSON_TYPE,
        "servers": {"kafka": _server()},
        "channels": {name: _channel(t, subject, spec is None) for name, t in topics.items()},
        "operations": _operations(topics),
        "components": {
            "messages": _messages(subject, spec is None),
            "schemas": _schemas(subject, spec is None),
        },
    }


def document_yaml(spec: SystemSpec | None = None) -> str:
    """`document` as the text of a YAML file."""

    class Plain(yaml.SafeDumper):
        def ignore_aliases(self, data: Any) -> bool:
            return True

    body = yaml.dump(document(spec), Dumper=Plain, sort_keys=False, allow_unicode=True, width=96)
    return _HEAD + body


def _info(spec: SystemSpec | None) -> Json:
    title = "Rehearse" if spec is None else f"Rehearse: {spec.system}"
    what = (
        "The topics of every system. What depends on its spec (columns, units, number of "
        "partitions) is in `rehearse topics describe SPEC`."
        if spec is None
        else f"The topics of system {spec.system}: spec {spec.spec_hash}, interface "
        f"{spec.interface_hash}, objective {spec.objective_hash}."
    )
    apache = {"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"}
    return {"title": title, "version": VERSION, "description": what, "license": apache}


def _server() -> Json:
    return {
        "host": "{bootstrap}",
        "protocol": "kafka",
        "description": "Any Kafka cluster, or the embedded broker.",
        "variables": {
            "bootstrap": {
                "default": "127.0.0.1:9092",
                "description": "what --bootstrap-servers says",
            }
        },
    }


def _sensors_on(topic: Topic, spec: SystemSpec) -> list[str]:
    if topic.kind == "sensors":
        return [name for name, sensor in spec.sensors.items() if sensor.topic == topic.name]
    found = [sensor.name for sensor, raw in spec.perceived if raw.topic == topic.name]
    return found or ["SENSOR"]


def _channel_id(topic: Topic, spec: SystemSpec) -> str:
    if topic.kind not in _OF_SENSORS:
        return topic.kind
    names = "-".join(_sensors_on(topic, spec))
    return topic.kind if names == "SENSOR" else f"{topic.kind}-{names}"


def _message_names(topic: Topic, spec: SystemSpec) -> tuple[str, ...]:
    if topic.kind not in _OF_SENSORS:
        return _MESSAGES[topic.kind]
    stem = _OF_SENSORS[topic.kind]
    return (*(_named(stem, name) for name in _sensors_on(topic, spec)), "Watermark")


def _named(stem: str, sensor: str) -> str:
    return stem if sensor == "SENSOR" else f"{stem}-{sensor}"


def _reading(sensor: str) -> str:
    return _named("Reading", sensor)


def _raws(spec: SystemSpec, anybody: bool) -> dict[str, SensorSpec]:
    """Name of each raw message → the sensor that is made of it."""
    sensors = spec.sensors.values() if anybody else [sensor for sensor, _ in spec.perceived]
    return {_named("Raw", sensor.name): sensor for sensor in sensors}


def _channel(topic: Topic, spec: SystemSpec, anybody: bool) -> Json:
    row = TABLE[topic.kind]
    config: Json = {name: _number(value) for name, value in topic.config.items()}
    config["cleanup.policy"] = topic.config["cleanup.policy"].split(",")
    binding: Json = {"topicConfiguration": config, "bindingVersion": BINDING}
    channel: Json = {
        "address": topic.name,
        "title": row.what,
        "messages": {
            name: {"$ref": f"#/components/messages/{name}"} for name in _message_names(topic, spec)
        },
        "bindings": {"kafka": binding},
    }
    if not anybody:
        binding["partitions"] = topic.partitions
        return channel
    channel["address"] = topic.name.replace("SYSTEM", "{system}").replace("SENSOR", "{sensor}")
    channel["description"] = f"Partitions by {row.spread}; how many, the spec says."
    if row.spread == "one":
        binding["partitions"] = 1
        channel["description"] = "One partition."
    channel["parameters"] = {
        name: parameter
        for name, parameter in _parameters().items()
        if f"{{{name}}}" in channel["address"]
    }
    return channel


def _number(value: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(value)
        except ValueError:
            continue
    return value


def _parameters() -> Json:
    return {
        "system": {
            "description": "`system` of the spec",
            "examples": shipped_systems(),
        },
        "sensor": {"description": "name of a sensor in the spec, unless the spec names its topic"},
    }


def _operations(topics: dict[str, Topic]) -> Json:
    operations = {}
    for name, topic in topics.items():
        for action, parties in zip(("send", "receive"), PARTIES[topic.kind], strict=True):
            for party in parties:
                operations[f"{party}-{action}-{name}"] = {
                    "action": action,
                    "channel": {"$ref": f"#/channels/{name}"},
                    "summary": f"{party}: {TABLE[topic.kind].what}",
                }
    return operations


def _messages(spec: SystemSpec, anybody: bool) -> Json:
    of_kind = {name: kind for kind, names in _MESSAGES.items() for name in names}
    of_kind |= {_reading(name): "sensors" for name in spec.sensors}
    raws = _raws(spec, anybody)
    of_kind |= dict.fromkeys(raws, "raw")
    messages = {name: _message(name, kind) for name, kind in of_kind.items()}
    for name, sensor in raws.items():
        messages[name] |= {"headers": raw_headers(sensor)}
        if sensor.perceive is not None and sensor.perceive.kind == "jpeg":
            messages[name] |= {"contentType": "image/jpeg"}
    for name, sensor in spec.sensors.items():
        messages[_reading(name)] |= {"contentType": CONTENT_TYPES[sensor.codec.kind]}
        messages[_reading(name)]["bindings"]["kafka"] |= schema_binding(sensor)
    mark = {"type": "string", "const": "1"}
    messages["Action"]["headers"] = {
        "type": "object",
        "properties": _cloudevents("{system}" if anybody else spec.system),
    }
    messages["Watermark"] |= {
        "summary": "No key: nothing earlier follows on this topic; sent to every partition.",
        "headers": {"type": "object", "properties": {WATERMARK_HEADER: mark}},
        "bindings": {"kafka": {"key": {"type": "null"}, "bindingVersion": BINDING}},
    }
    return dict(sorted(messages.items()))


def _cloudevents(system: str) -> Json:
    pairs = cloudevents_headers(system, "action", action_id(system, "entity", 0))
    return {name: {"type": "string", "examples": [value.decode()]} for name, value in pairs}


def _message(name: str, kind: Kind) -> Json:
    row = TABLE[kind]
    types = {"json": JSON_TYPE, "arrow": ARROW_TYPE, "raw": "application/octet-stream"}
    key = {"type": "string", "description": _KEYS[row.key]}
    return {
        "name": name,
        "contentType": types[row.codec],
        "summary": row.what,
        "payload": {"$ref": f"#/components/schemas/{name}"},
        "bindings": {"kafka": {"key": key, "bindingVersion": BINDING}},
    }


def _schemas(spec: SystemSpec, anybody: bool) -> Json:
    schemas = message_schemas()
    schemas |= {_reading(name): reading_payload(sensor) for name, sensor in spec.sensors.items()}
    schemas |= {name: raw_payload(sensor) for name, sensor in _raws(spec, anybody).items()}
    schemas |= {"Frame": frame_rows(spec), "Trajectory": trajectory_rows(spec)}
    schemas["BeliefRow"] = {
        "type": "string",
        "format": "binary",
        "description": "A cohort's beliefs; read by workers only, see streams/belief.py.",
    }
    if anybody:
        _stand_for_anybody(schemas)
    return dict(sorted(schemas.items()))


def _stand_for_anybody(schemas: Json) -> None:
    """A name that stands for others is not required of anybody's message."""
    note = "CHANNEL and ACTION stand for each flat column of the spec's channels and actions."
    for schema in (schemas["Reading"], schemas["Frame"], schemas["Trajectory"]):
        schema["description"] += f" {note}"
        schema.get("items", schema).pop("required")
