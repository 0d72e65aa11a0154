"""The decoders: valid bytes of each, how it is called, and the errors that are its answer."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import polars as pl

from infra.settings import KafkaSetupError, read_settings
from infra.traces import TraceError, read_trace
from planner.graphs import GraphError, check_graph
from planner.library import SHIPPED
from planner.manifest import MANIFEST, BundleError, read_manifest
from schemas.expression import Expression
from schemas.expression_tree import ExpressionError
from schemas.frames import FrameError, decode_frame, encode_frame
from schemas.messages import Action, Applied, Control, DeadLetter, Outcome, Watermark, decode
from schemas.system import SpecError, load_spec, parse_spec, shipped_systems, spec_path
from schemas.trajectories import decode_trajectory
from streams.belief import RowError, decode_row
from streams.codecs.base import MAX_READINGS
from streams.decode import ReportDecoder, SensorDecoder
from streams.imports.gather import contents, gather
from streams.imports.log import LogError
from streams.imports.mapping import MappingError, parse_mapping
from streams.imports.units import LibraryError
from streams.recording import Recording, RecordingError
from tests.fuzz import seeds
from tests.streams.codecs.sensors import AVRO, PROTO, sensor
from tests.streams.imports import logs
from tests.streams.specs import small_spec

SPEC = small_spec()


class Target(NamedTuple):
    """`run` takes one input; what it may raise is in `answers`, everything else is a defect."""

    seeds: Callable[[], Sequence[bytes]]
    run: Callable[[bytes], object]
    answers: tuple[type[Exception], ...] = ()


def _text(parse: Callable[[str], object]) -> Callable[[bytes], object]:
    return lambda data: parse(data.decode("utf-8", "replace"))


def _in_file(name: str, read: Callable[[Path], object]) -> Callable[[bytes], object]:
    """Hands a decoder a file with the bytes."""
    place = cache(lambda: Path(tempfile.mkdtemp(prefix="fuzz-")))

    def run(data: bytes) -> object:
        path = place() / name
        path.write_bytes(data)
        return read(path)

    return run


def _messages(data: bytes) -> None:
    for kind in (Action, Applied, Control, DeadLetter, Outcome, Watermark):
        with suppress(msgspec.MsgspecError):
            decode(kind, data)


def _sensor(codec: Any) -> Callable[[bytes], object]:
    made = cache(lambda: SensorDecoder(sensor(codec)))

    def run(data: bytes) -> None:
        rows = made().decode(np.zeros(2, np.int64), [data, data])
        assert len(rows.places) <= 2 * MAX_READINGS
        assert {bad.place for bad in rows.bad} <= {0, 1}

    return run


def _reports(data: bytes) -> None:
    ReportDecoder(SPEC, "tick").decode(np.zeros(1, np.int64), [data])


def _schema(kind: str) -> Callable[[bytes], object]:
    """A schema of somebody's registry, and a message under it."""

    def run(data: bytes) -> None:
        text = data.decode("utf-8", "replace")
        try:
            made = SensorDecoder(sensor({kind: {"schemas": {7: text}}}))
        except SpecError:
            return
        head = b"\0\0\0\0\7"
        made.decode(np.zeros(2, np.int64), [head + b"\0" * 40, head + bytes(range(40))])

    return run


def _bundle(path: Path) -> None:
    for graph in (SHIPPED / "nav2d").glob("*.onnx"):
        if not (path.parent / graph.name).exists():
            (path.parent / graph.name).write_bytes(graph.read_bytes())
    read_manifest(path.parent)


def _recording(path: Path) -> None:
    found = Recording(path.parent, {})
    for _, _, value in found.records("frames"):
        assert isinstance(value, bytes)


_TABLES = re.sub(r"(motion|place|drive)\.\*", "drive.*", logs.TABLE_MAP)
_MAPS = {
    "drive.csv": _TABLES,
    "drive.parquet": _TABLES,
    "ros2.mcap": logs.ROS_MAP,
    "flat.mcap": logs.FLAT_MAP,
    "drive.bag": logs.ROS_MAP,
    "drive.ulg": logs.ULOG_MAP,
}


def _log(path: Path) -> None:
    located = parse_mapping(_MAPS[path.name], logs.SPEC)
    contents(path, located)
    gather(located, logs.SPEC, [path])


def _in_log(name: str) -> Target:
    return Target(lambda: seeds.log(name), _in_file(name, _log), (LogError, LibraryError))


def _specs() -> list[bytes]:
    return [spec_path(name).read_bytes() for name in shipped_systems()] + [seeds.SMALL]


def _expressions() -> list[bytes]:
    found = [load_spec(name).reward_text for name in shipped_systems()]
    return [text.encode() for text in found if text] + [b"where(a > 1, exp(b), -clip(a, 0, 1))"]


TARGETS: dict[str, Target] = {
    "messages": Target(seeds.messages, _messages),
    "reports": Target(seeds.messages, _reports),
    "json": Target(seeds.json_readings, _sensor("json")),
    "json-many": Target(seeds.json_readings, _sensor({"json": {"records": "readings"}})),
    "avro": Target(seeds.avro_readings, _sensor({"avro": {"schemas": {7: json.dumps(AVRO)}}})),
    "protobuf": Target(seeds.protobuf_readings, _sensor({"protobuf": {"schemas": {7: PROTO}}})),
    "arrow": Target(seeds.arrow_readings, _sensor("arrow")),
    "raw": Target(seeds.raw_readings, _sensor({"raw": {"fields": seeds.LAYOUT, "many": True}})),
    "avro-schema": Target(lambda: [json.dumps(AVRO).encode()], _schema("avro")),
    "frame": Target(
        lambda: [encode_frame(SPEC, of) for of in seeds.frames(SPEC)],
        lambda data: decode_frame(SPEC, data),
        (FrameError,),
    ),
    "trajectory": Target(
        lambda: seeds.trajectories(SPEC), lambda data: decode_trajectory(SPEC, data), (FrameError,)
    ),
    "row": Target(seeds.rows, decode_row, (RowError,)),
    "spec": Target(_specs, _text(parse_spec), (SpecError,)),
    "expression": Target(_expressions, _text(Expression.parse), (ExpressionError,)),
    "mapping": Target(
        lambda: [text.encode() for text in _MAPS.values()],
        _text(lambda text: parse_mapping(text, logs.SPEC)),
        (MappingError,),
    ),
    "manifest": Target(
        lambda: [(SHIPPED / "nav2d" / MANIFEST).read_bytes()],
        _in_file(MANIFEST, _bundle),
        (BundleError,),
    ),
    "graph": Target(
        lambda: [p.read_bytes() for p in sorted(SHIPPED.glob("*/actor.onnx"))],
        check_graph,
        (GraphError,),
    ),
    "recording": Target(
        seeds.chunks, _in_file("frames-000000.parquet", _recording), (RecordingError,)
    ),
    "trace-csv": Target(
        lambda: [b"time,requests\n2024-01-01 00:00,3\n2024-01-01 00:01,4\n", b"time,rps\n1,2\n2,3"],
        _in_file("load.csv", read_trace),
        (TraceError,),
    ),
    "trace-parquet": Target(
        lambda: [seeds.parquet(pl.DataFrame({"time": [60, 120], "requests": [3.0, 4.0]}))],
        _in_file("load.parquet", read_trace),
        (TraceError,),
    ),
    "settings": Target(
        lambda: [b"# comment\nsecurity.protocol=SASL_SSL\nsasl.password = a=b\n"],
        _in_file("client.properties", read_settings),
        (KafkaSetupError,),
    ),
    **{f"import-{name}": _in_log(name) for name in _MAPS},
}
