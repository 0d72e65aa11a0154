"""Formats in a spec: short and long forms, files beside it, and what is refused, with its line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from schemas.formats import AvroFormat, JsonFormat, RawFormat
from schemas.system import SpecError, load_spec, parse_spec
from tests.streams.specs import SMALL

TEXT = SMALL.format(system="tanks")
PLAIN = parse_spec(TEXT)


def text_with(codec: str) -> str:
    return TEXT.replace("  level:", f"  level:\n    codec: {codec}")


def form_of(codec: str) -> Any:
    return parse_spec(text_with(codec)).sensors["level"].codec


def test_json_is_what_nothing_says() -> None:
    assert PLAIN.sensors["level"].codec == JsonFormat() == form_of("json")
    assert parse_spec(text_with("json")).spec_hash == PLAIN.spec_hash
    assert PLAIN.model_dump()["sensors"]["level"]["codec"] == "json"


@pytest.mark.parametrize(
    "codec",
    [
        "avro",
        "{avro: {schemas: {3: x, 4: y}, subject: s}}",
        "{protobuf: {message: zoo.R, records: a.b}}",
        "{json: {records: .}}",
        '{raw: {fields: {at: <i8, d: "(2,)<f4"}, many: true}}',
    ],
)
def test_a_spec_survives_being_written_and_read(codec: str) -> None:
    spec = parse_spec(text_with(codec))
    assert spec.spec_hash != PLAIN.spec_hash
    assert spec.interface_hash == PLAIN.interface_hash, "a bundle does not see the codec"
    short = spec.model_dump(mode="json")["sensors"]["level"]["codec"]
    again = parse_spec(text_with(json.dumps(short)))
    assert again.sensors["level"].codec == spec.sensors["level"].codec
    assert again.spec_hash == spec.spec_hash


def test_schemas_are_files_beside_the_spec_or_stand_in_it(tmp_path: Path) -> None:
    schema = {"type": "record", "name": "R", "fields": []}
    (tmp_path / "level.avsc").write_text(json.dumps(schema))
    (tmp_path / "tanks.yaml").write_text(text_with("{avro: {schema: level.avsc}}"))
    named = load_spec(tmp_path / "tanks.yaml").sensors["level"].codec
    assert isinstance(named, AvroFormat)
    assert json.loads(named.schema_text or "") == schema
    assert not named.framed
    inside = form_of("{avro: {schema: {type: record, name: R, fields: []}}}")
    assert json.loads(inside.schema_text) == schema
    ids = form_of("{avro: {schemas: {7: [null, long]}}}")
    assert (ids.framed, ids.schemas) == (True, {7: '["null", "long"]'})
    field = "{name: x, type: [null, long], default: null}"
    (made,) = form_of(f"{{avro: {{schemas: {{7: {{fields: [{field}]}}}}}}}}").schemas.values()
    assert json.loads(made)["fields"][0] == {"name": "x", "type": ["null", "long"], "default": None}


def test_a_raw_reading_is_packed() -> None:
    form = form_of('{raw: {fields: {at: <i8, d: <f4, gap: V2, flow: "(2,)>f8"}}}')
    assert isinstance(form, RawFormat)
    assert form.dtype.itemsize == 8 + 4 + 2 + 16
    assert form.dtype["flow"] == np.dtype((">f8", (2,)))


@pytest.mark.parametrize(
    ("codec", "word"),
    [
        ("xml", "name one codec of json, avro"),
        ("[avro]", "codec"),
        ("{avro: {}, json: {}}", "name one codec"),
        ("{avro: 3}", "a mapping"),
        ("{avro: {schema: gone.avsc}}", "gone.avsc cannot be read"),
        ("{avro: {schema: x, subject: y}}", "messages are bare"),
        ("{avro: {schemas: {-1: x}}}", "whole number"),
        ("{avro: {schemes: {}}}", "no such field"),
        ("{protobuf: {records: .}}", "no list"),
        ("{raw: {}}", "required"),
        ("{raw: {fields: {at: int3}}}", "no NumPy type"),
        ("{raw: {fields: {at: U9}}}", "neither a number"),
        ("{raw: {fields: {at: O}}}", "neither a number"),
        ('{raw: {fields: {at: "(9,9)<f8"}}}', "neither a number"),
        ('{raw: {fields: {at: "(99999,)<f8"}}}', "are allowed"),
    ],
)
def test_what_is_refused_names_the_line(codec: str, word: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse_spec(text_with(codec), "tanks.yaml")
    assert "tanks.yaml:9: sensors.level.codec" in str(caught.value)
    assert word in str(caught.value)
