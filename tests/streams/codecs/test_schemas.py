"""Schemas by id from a registry over HTTP: found, unknown, silent, and asked for in measure."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from infra.registry import Registry, RegistryDown, UnknownSchema, registry_settings
from schemas.spec_parts import SensorSpec
from streams.codecs import make_writer
from streams.codecs.base import Refused
from streams.codecs.schemas import Schemas
from streams.decode import SensorDecoder
from tests.registry_server import RegistryServer, serving
from tests.streams.codecs.sensors import AVRO, PROTO, sensor

TEXT = json.dumps(AVRO)


@pytest.fixture
def server() -> Iterator[RegistryServer]:
    with serving() as found:
        yield found


def registry(server: RegistryServer) -> Registry:
    return Registry({"url": server.url})


def wait_for(done: Callable[[], Any]) -> Any:
    limit = time.monotonic() + 60
    while (found := done()) is None:
        assert time.monotonic() < limit, "waited in vain"
        time.sleep(0.01)
    return found


def refusal(schemas: Schemas, number: int) -> Refused | None:
    try:
        schemas.find(number)
    except Refused as refused:
        return refused
    return None


def test_a_schema_is_fetched_once(server: RegistryServer) -> None:
    number = server.add("s-value", TEXT)
    schemas = Schemas(registry(server))
    assert schemas.find(number) is None, "nobody waits"
    assert wait_for(lambda: schemas.find(number)).text == TEXT
    assert [schemas.find(number) for _ in range(3)] == [schemas.find(number)] * 3
    assert server.requests == ["GET /schemas/ids/1"]


def test_the_newest_schema_is_there_before_a_message_names_it(server: RegistryServer) -> None:
    server.add("s-value", "{}")
    number = server.add("s-value", TEXT)
    schemas = Schemas(registry(server))
    schemas.prepare(["s-value", "nobody-value"])
    wait_for(lambda: "GET /subjects/nobody-value/versions/latest" in server.requests or None)
    assert schemas.find(number) is not None
    assert not any("ids" in request for request in server.requests)


def test_an_unknown_id_is_refused_and_asked_for_again_later(server: RegistryServer) -> None:
    now = [0.0]
    schemas = Schemas(registry(server), clock=lambda: now[0])
    schemas.find(1)
    first = wait_for(lambda: refusal(schemas, 1))
    assert (first.reason, "not found" in first.detail) == ("unknown_schema", True)
    server.add("s-value", TEXT)
    assert refusal(schemas, 1) is not None, "remembered for a while"
    now[0] = 11.0
    assert wait_for(lambda: schemas.find(1)).text == TEXT


def test_a_flood_of_unknown_ids_asks_for_few_of_them(server: RegistryServer) -> None:
    schemas = Schemas(registry(server))
    for number in range(1, 200):
        wait_for(lambda n=number: refusal(schemas, n))  # type: ignore[misc]
    assert len(server.requests) < 100


def test_a_silent_registry_is_waited_for_but_not_for_ever(server: RegistryServer) -> None:
    number, now = server.add("s-value", TEXT), [0.0]
    server.failing = True
    schemas = Schemas(registry(server), patience_s=60, clock=lambda: now[0])
    schemas.find(number)
    wait_for(lambda: len(server.requests) > 1 or None)
    assert schemas.find(number) is None, "it is still on its way"
    now[0] = 61.0
    refused = refusal(schemas, number)
    assert refused is not None
    assert refused.reason == "no_registry"
    assert server.url in refused.detail
    assert "503" in refused.detail
    other = refusal(schemas, 77)
    assert other is not None, "nor does another id begin to wait anew"
    server.failing = False
    assert wait_for(lambda: None if refusal(schemas, number) else schemas.find(number))


def test_no_registry_is_said_with_the_remedy() -> None:
    refused = refusal(Schemas(), 7)
    assert refused is not None
    assert "schema.registry.url" in refused.detail


def test_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REHEARSE_SCHEMA_REGISTRY", raising=False)
    assert registry_settings({"security.protocol": "SSL"}) == {}
    given = {"schema.registry.url": "http://a", "schema.registry.basic.auth.user.info": "me:secret"}
    assert registry_settings({**given, "x": "y"}) == {
        "url": "http://a",
        "basic.auth.user.info": "me:secret",
    }
    monkeypatch.setenv("REHEARSE_SCHEMA_REGISTRY", "http://b")
    assert registry_settings(None) == {"url": "http://b"}
    assert registry_settings(given)["url"] == "http://a"


def test_the_address_is_shown_without_the_password() -> None:
    assert Registry({"url": "https://me:secret@host:1,http://b"}).url == "https://host:1,http://b"


def test_nobody_at_the_address_is_said_plainly() -> None:
    gone = Registry({"url": "http://127.0.0.1:9"})
    with pytest.raises(RegistryDown, match=r"127\.0\.0\.1:9 does not answer"):
        gone.schema(1)
    with pytest.raises(RegistryDown, match="do not fit"):
        Registry({"url": "http://127.0.0.1:9", "no.such": "x"}).schema(1)


def test_references_come_with_a_schema(server: RegistryServer) -> None:
    common = {"type": "record", "name": "zoo.Number", "fields": [{"name": "x", "type": "double"}]}
    server.add("common", json.dumps(common))
    whole = {
        "type": "record",
        "name": "zoo.R",
        "fields": [{"name": "ts", "type": "long"}, {"name": "a", "type": "zoo.Number"}],
    }
    reference = [{"name": "zoo.Number", "subject": "common", "version": 1}]
    number = server.add("s-value", json.dumps(whole), references=reference)
    found = registry(server).schema(number)
    assert list(found.imports) == ["zoo.Number"]
    with pytest.raises(UnknownSchema, match="nobody"):
        registry(server).latest("nobody")


# from a plant's writer to a reading's columns, by id


def both(made: SensorSpec, server: RegistryServer) -> tuple[list[bytes], SensorDecoder]:
    rows = [[1_000 + i, i / 2, [i / 4, -i / 8], i] for i in range(5)]
    messages = make_writer([made], registry(server)).encode(["ts", "a", "v", "b"], rows)
    return messages, SensorDecoder(made, Schemas(registry(server)))


CODECS: dict[str, Any] = {
    "json": "json",
    "json list": {"json": {"records": "."}},
    "json field": {"json": {"records": "of it"}},
    "avro": "avro",
    "avro list": {"avro": {"records": "."}},
    "avro field": {"avro": {"records": "readings", "subject": "own"}},
    "protobuf": "protobuf",
    "protobuf field": {"protobuf": {"records": "readings"}},
    "protobuf file": {
        "protobuf": {"schema": PROTO, "message": "zoo.Readings", "records": "readings"}
    },
    "protobuf ids": {"protobuf": {"schemas": {3: PROTO}, "message": "zoo.Reading"}},
    "arrow": "arrow",
    "raw": {"raw": {"fields": {"ts": "<i8", "a": "<f8", "v": "(2,)<f8", "b": "<i4"}}},
}


@pytest.mark.parametrize("name", CODECS)
def test_what_a_plant_writes_is_what_the_aligner_reads(name: str, server: RegistryServer) -> None:
    messages, decoder = both(sensor(CODECS[name]), server)
    wait_for(lambda: decoder.awaits(messages) is None or None)
    rows = decoder.decode(np.arange(len(messages)), messages)
    assert rows.bad == []
    assert rows.time_us.tolist() == [1_000, 1_001, 1_002, 1_003, 1_004]
    expected = [[i / 2, i / 4, -i / 8, i] for i in range(5)]
    np.testing.assert_array_equal(rows.values, expected)


def test_a_plant_writes_under_the_subjects_newest_schema(server: RegistryServer) -> None:
    later = {**AVRO, "fields": [*AVRO["fields"], {"name": "c", "type": "int", "default": 0}]}
    later["fields"][3] = {"name": "note", "type": "string", "default": ""}
    made = sensor("avro")
    number = server.add(f"{made.topic}-value", json.dumps(later))
    messages, _ = both(made, server)
    assert {message[:5] for message in messages} == {b"\0" + number.to_bytes(4, "big")}
    assert list(server.subjects) == [f"{made.topic}-value"], "nothing was registered"


def test_a_schema_of_another_format_is_refused(server: RegistryServer) -> None:
    made = sensor("avro")
    number = server.add("other", PROTO, "PROTOBUF")
    decoder = SensorDecoder(made, Schemas(registry(server)))
    message = [b"\0" + number.to_bytes(4, "big") + b"\2"]
    wait_for(lambda: decoder.awaits(message) is None or None)
    (bad,) = decoder.decode(np.arange(1), message).bad
    assert (bad.reason, "PROTOBUF" in bad.detail) == ("bad_schema", True)


def test_without_a_schema_a_plant_says_what_to_do() -> None:
    with pytest.raises(ValueError, match=r"sensor s: no registry is named"):
        make_writer([sensor("avro")])
