"""Whether the doctor says of sensors' schemas what a run would find out."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from schemas.system import parse_spec
from streams.checks.codecs import codecs
from streams.checks.finding import Finding, Place
from tests.registry_server import RegistryServer, serving
from tests.streams.codecs.sensors import AVRO
from tests.streams.specs import SMALL

LEVEL = json.dumps(
    {
        "type": "record",
        "name": "Level",
        "fields": [
            {"name": "at", "type": "long"},
            {"name": "d", "type": "double"},
            {"name": "flow", "type": {"type": "array", "items": "double"}},
        ],
    }
)
PART = json.dumps({"type": "record", "name": "L", "fields": [{"name": "at", "type": "long"}]})


@pytest.fixture
def server() -> Iterator[RegistryServer]:
    with serving() as found:
        yield found


def finding(codec: Any, url: str | None = None) -> Finding:
    document = yaml.safe_load(SMALL.format(system="tanks"))
    document["sensors"]["level"]["codec"] = codec
    extra = {"schema.registry.url": url} if url else {}
    spec = parse_spec(json.dumps(document))
    (found,) = codecs(Place(Path(), spec=spec, extra=extra))
    return found


def test_json_needs_no_word() -> None:
    assert list(codecs(Place(Path(), spec=parse_spec(SMALL.format(system="tanks"))))) == []
    assert list(codecs(Place(Path()))) == []


@pytest.mark.parametrize(
    ("codec", "level", "word"),
    [
        ({"avro": {"schema": LEVEL}}, "ok", "in the spec"),
        ({"avro": {"schema": json.dumps(AVRO)}}, "problem", "'at'"),
        ({"avro": {"schemas": {1: PART, 2: LEVEL}}}, "ok", "schema 2"),
        ({"avro": {"schemas": {2: PART, 1: LEVEL}}}, "warning", "d, flow"),
        ({"raw": {"fields": {"at": "<i8"}}}, "problem", "'d'"),
        ("arrow", "ok", "arrow"),
    ],
)
def test_what_a_spec_says_by_itself(codec: Any, level: str, word: str) -> None:
    found = finding(codec)
    assert (found.level, word in found.what) == (level, True), found.what
    assert found.remedy or level == "ok"


def test_what_a_registry_says(server: RegistryServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REHEARSE_SCHEMA_REGISTRY", raising=False)
    subject = "tanks.sensors.level-value"
    steps = [finding("avro"), finding("avro", "http://127.0.0.1:9"), finding("avro", server.url)]
    server.add(subject, PART)
    steps.append(finding("avro", server.url))
    server.add(subject, LEVEL)
    steps.append(finding("avro", server.url))
    server.add(subject, json.dumps(AVRO))
    steps.append(finding("avro", server.url))
    found = [(step.level, bool(step.remedy)) for step in steps]
    assert found == [
        ("problem", True),
        ("problem", True),
        ("warning", True),
        ("warning", True),
        ("ok", False),
        ("problem", True),
    ]
    assert "does not answer" in steps[1].what
    assert "no subject" in steps[2].what
    assert "'at'" in steps[5].what
