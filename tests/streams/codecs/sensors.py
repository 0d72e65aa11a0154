"""Sensors of every codec, and what is read of them, for tests."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import yaml

from schemas.spec_parts import SensorSpec
from schemas.system import parse_spec
from streams.codecs.base import Field
from tests.streams.specs import SMALL

FIELDS = [Field("ts", required=True), Field("a"), Field("v", 2), Field("b")]
"""A time, a number, a vector of two, a number: five columns."""

AVRO: Mapping[str, Any] = {
    "type": "record",
    "name": "Reading",
    "namespace": "zoo",
    "fields": [
        {"name": "ts", "type": {"type": "long", "logicalType": "timestamp-micros"}},
        {"name": "a", "type": ["null", "double"], "default": None},
        {"name": "v", "type": ["null", {"type": "array", "items": ["null", "double"]}]},
        {"name": "note", "type": "string"},
        {"name": "b", "type": ["null", "float"], "default": None},
    ],
}
PROTO = """
syntax = "proto3";
package zoo;
message Note { string text = 1; }
message Reading {
  int64 ts = 1;
  optional double a = 2;
  repeated double v = 3;
  string note = 4;
  optional float b = 5;
}
message Readings { repeated Reading readings = 1; string note = 2; }
"""


def sensor(codec: Any, unit: str = "us", **more: Any) -> SensorSpec:
    """A sensor with the channels `a`, `v` (two components) and `b` in fields of these names."""
    found = {
        "time": {"field": "ts", "unit": unit},
        "every": "1 s",
        "max_age": "9 s",
        "codec": codec,
        "channels": {
            "a": {"unit": "m", "range": [-1e300, 1e300]},
            "v": {"unit": "m", "range": [-1e300, 1e300], "shape": [2]},
            "b": {"unit": "m", "range": [-1e300, 1e300]},
        },
        **more,
    }
    document = yaml.safe_load(SMALL.format(system="zoo"))
    document |= {"sensors": {"s": found}, "reward": "a"}
    return parse_spec(json.dumps(document)).sensors["s"]
