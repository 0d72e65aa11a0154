"""Valid inputs of each decoder, small, so that a change hits something that matters."""

from __future__ import annotations

import io
import json
import struct
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import fastavro
import polars as pl
import pyarrow as pa
from google.protobuf import message_factory

from infra.registry import Schema
from schemas.frames import Frame
from schemas.messages import (
    Action,
    Applied,
    Control,
    DeadLetter,
    Message,
    Outcome,
    Watermark,
    encode,
)
from schemas.system import SystemSpec
from streams.belief import Row, encode_row
from streams.codecs.protobuf_codec import compiled
from streams.recording import ChunkWriter, chunk_paths
from streams.recording_maker import raw_record
from tests.streams.codecs.sensors import AVRO, PROTO
from tests.streams.frames import frame, trajectory
from tests.streams.imports import logs
from tests.streams.specs import SMALL as SMALL_TEXT
from tests.streams.specs import small_spec

SMALL = SMALL_TEXT.format(system="tanks").encode()
LAYOUT = {"ts": "<i8", "a": "<f4", "pad": "V4", "v": "(2,)<f8", "b": ">u2"}
READING = {"ts": 1_700_000, "a": 1.5, "v": [1.0, 2.0], "note": "x", "b": 3.0}


def messages() -> list[bytes]:
    """One of each kind."""
    values = {"valve": 0.5, "pumps": 2.0}
    found: list[Message] = [
        Action("0" * 16, "tanks", "a", 3, 9, values, 12, mode=0, reasons=0),
        Applied("0" * 16, "a", 3, values, 1, 9),
        Control("override", 0, "a", values=values, by="operator"),
        DeadLetter("t", 0, 1, "late", "", "a", "AA=="),
        Outcome("a", 3, 9, {"reward": 1.5}),
        Watermark(17),
    ]
    return [encode(one) for one in found]


def json_readings() -> list[bytes]:
    """A reading, and several in one message."""
    return [json.dumps(READING).encode(), json.dumps({"readings": [READING, READING]}).encode()]


def avro_readings() -> list[bytes]:
    """A reading under schema 7."""
    stream = io.BytesIO(b"")
    stream.write(b"\0\0\0\0\7")
    schema = fastavro.parse_schema(json.loads(json.dumps(AVRO)))
    fastavro.schemaless_writer(stream, schema, READING)
    return [stream.getvalue()]


def protobuf_readings() -> list[bytes]:
    """A reading under schema 7, of the second message type."""
    file = compiled(Schema("PROTOBUF", PROTO))
    made = message_factory.GetMessageClass(file.message_types_by_name["Reading"])
    return [b"\0\0\0\0\7\2\2" + bytes(made(**READING).SerializeToString())]


def arrow_readings() -> list[bytes]:
    """A table with two readings, one of them with gaps."""
    schema = pa.schema(
        [
            ("note", pa.string()),
            ("v", pa.list_(pa.float32())),
            ("ts", pa.int64()),
            ("a", pa.float64()),
            ("b", pa.int32()),
        ]
    )
    batch = pa.RecordBatch.from_pylist([READING, {"ts": 5}], schema=schema)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema) as out:
        out.write_batch(batch)
    return [bytes(sink.getvalue())]


def raw_readings() -> list[bytes]:
    """One reading, and two."""
    one = struct.pack("<qf4xdd", 1_700_000, 1.5, 1.0, 2.0) + struct.pack(">H", 3)
    return [one, one + one]


def frames(spec: SystemSpec) -> list[Frame]:
    """A frame of each cohort."""
    return [frame(spec, cohort, 7, offsets={"t": {0: 3}}) for cohort in range(spec.cohorts)]


def trajectories(spec: SystemSpec) -> list[bytes]:
    """Without a model, with one, and a key frame."""
    return [
        trajectory(spec, 0, 7),
        trajectory(spec, 1, 8, size=3),
        trajectory(spec, 0, 64, rows()[0], size=3),
    ]


@cache
def rows() -> list[bytes]:
    """A belief row of a cohort."""
    spec = small_spec()
    return [encode_row(Row.empty(frame(spec, cohort, 7), "b" * 64, 4, 2)) for cohort in (0, 1)]


def parquet(table: pl.DataFrame) -> bytes:
    """A table as a file."""
    stream = io.BytesIO()
    table.write_parquet(stream)
    return stream.getvalue()


def chunks() -> list[bytes]:
    """A chunk of a recording."""
    folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
    writer = ChunkWriter(folder, "frames", "id")
    for offset in range(3):
        writer.add(raw_record("tanks.frames", 0, offset, 9, trajectory(small_spec(), 0, offset)))
    writer.flush()
    return [path.read_bytes() for path in chunk_paths(folder, "frames")]


def log(name: str) -> list[bytes]:
    """A log of a few readings, by its format's own writer."""
    makers: dict[str, Callable[[Path], logs.Log]] = {
        "drive.csv": logs.csv,
        "drive.parquet": logs.parquet,
        "drive.bag": logs.rosbag,
        "drive.ulg": logs.ulog,
        "ros2.mcap": lambda folder: logs.mcap_ros(folder, 2),
        "flat.mcap": logs.mcap_json,
    }
    whole = {topic: list(found) for topic, found in logs.TOPICS.items()}
    try:
        for topic, found in logs.TOPICS.items():
            found[:] = [r for robot in logs.ROBOTS for r in whole[topic] if r.robot == robot][::20]
        made = makers[name](Path(tempfile.mkdtemp(prefix="fuzz-")))
        return [path.read_bytes() for path in made.files]
    finally:
        for topic, found in logs.TOPICS.items():
            found[:] = whole[topic]
