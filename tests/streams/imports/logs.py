"""The same readings of two robots as a log of every format, each made by its library's writer."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import pytest

from schemas.system import SystemSpec, parse_spec

pytest.importorskip("mcap", reason="the import extra is not installed")

SPEC = parse_spec("""
system: rover
entity: robot
tick: 100 ms
lateness: 200 ms
forget_after: 5 s
cohorts: 1
sensors:
  motion:
    every: 50 ms
    max_age: 300 ms
    channels:
      speed: {unit: m/s, range: [-10, 10], align: mean}
      turning: {unit: rad/s, range: [-4, 4], align: latest}
  place:
    every: 80 ms
    max_age: 500 ms
    channels:
      position: {unit: m, shape: [2], range: [-100, 100], align: linear}
actions:
  drive: {unit: m/s, low: -5, high: 5}
fallback: {kind: value}
budget: {tiers: {one: {candidates: 5, horizon: 2, iterations: 1}}}
""")
BEGIN_NS = 1_700_000_000_000_000_000
ROBOTS = ("ada", "bob")


class Row(NamedTuple):
    """One reading: when it was logged, when it was made (both ns), of whom, and its numbers."""

    logged_ns: int
    time_ns: int
    robot: str
    numbers: tuple[float, float]


def rows(every_ms: int, seed: int) -> list[Row]:
    """Six seconds of readings, whole microseconds, logged a little later and out of order."""
    rng = np.random.default_rng(seed)
    found = []
    for robot in ROBOTS:
        for k in range(6_000 // every_ms):
            time_ns = BEGIN_NS + k * every_ms * 1_000_000 + int(rng.integers(0, 5_000)) * 1_000
            numbers = rng.uniform(-3, 3, 2).astype(np.float32).astype(float)
            late = int(rng.integers(0, 120_000)) * 1_000
            found.append(Row(time_ns + late, time_ns, robot, (numbers[0], numbers[1])))
    return sorted(found)


MOTION, PLACE, DRIVE = rows(50, 1), rows(80, 2), rows(150, 3)
TOPICS = {"motion": MOTION, "place": PLACE, "drive": DRIVE}

MESSAGES = """
sensors:
  motion:
    topic: "/{entity}/motion"
    time: {field: %s}
    channels: {speed: {field: %s}, turning: {field: %s}}
  place:
    topic: "/{entity}/place"
    time: {field: %s}
    channels: {position: {fields: [%s, %s]}}
actions:
  topic: "/{entity}/drive"
  time: {field: %s}
  values: {drive: {field: %s}}
"""
_TWIST = ("header.stamp", "twist.linear.x", "twist.angular.z")
ROS_MAP = MESSAGES % (*_TWIST, "header.stamp", "point.x", "point.y", *_TWIST[:2])
FLAT = ("stamp", "a", "b")
FLAT_MAP = MESSAGES % (*FLAT, *FLAT, *FLAT[:2])
TABLE_MAP = """
entity: {field: robot}
sensors:
  motion:
    file: motion.*
    time: {field: t, unit: us}
    channels: {speed: {field: a}, turning: {field: b}}
  place:
    file: place.*
    time: {field: t, unit: us}
    channels: {position: {fields: [a, b]}}
actions:
  file: drive.*
  time: {field: t, unit: us}
  values: {drive: {field: a}}
"""
ULOG_MAP = """
entity: ada
sensors:
  motion: {topic: motion, channels: {speed: {field: "v[0]"}, turning: {field: "v[1]"}}}
  place: {topic: place, channels: {position: {fields: ["v[0]", "v[1]"]}}}
actions: {topic: drive, values: {drive: {field: "v[0]"}}}
"""


class Log(NamedTuple):
    """Files, and the mapping that says what in them is what."""

    files: list[Path]
    mapping: str


def csv(folder: Path, dates: bool = False) -> Log:
    """A file per sensor; times in microseconds, or as dates."""
    return _tables(folder, "csv", dates)


def parquet(folder: Path, dates: bool = False) -> Log:
    """A file per sensor; times in microseconds, or as dates."""
    return _tables(folder, "parquet", dates)


def _tables(folder: Path, ending: str, dates: bool) -> Log:
    files = []
    for name, found in TOPICS.items():
        table = pl.DataFrame(
            {
                "t": [row.time_ns // 1_000 for row in found],
                "robot": [row.robot for row in found],
                "a": [row.numbers[0] for row in found],
                "b": [row.numbers[1] for row in found],
            }
        )
        if dates:
            table = table.with_columns(pl.from_epoch("t", time_unit="us"))
        path = folder / f"{name}.{ending}"
        if ending == "csv":
            table.write_csv(path)
        else:
            table.write_parquet(path)
        files.append(path)
    return Log(files, TABLE_MAP)


def _ros(store: Any, name: str, row: Row, **more: Any) -> tuple[Any, str]:
    types, prefix = store.types, "geometry_msgs/msg/"
    seconds, left = divmod(row.time_ns, 1_000_000_000)
    stamp = types["builtin_interfaces/msg/Time"](sec=seconds, nanosec=left)
    header = types["std_msgs/msg/Header"](stamp=stamp, frame_id="", **more)
    first, second = row.numbers
    if name == "place":
        point = types[prefix + "Point"](x=first, y=second, z=0.0)
        return types[prefix + "PointStamped"](header=header, point=point), prefix + "PointStamped"
    vector = types[prefix + "Vector3"]
    twist = types[prefix + "Twist"](
        linear=vector(x=first, y=0.0, z=0.0), angular=vector(x=0.0, y=0.0, z=second)
    )
    return types[prefix + "TwistStamped"](header=header, twist=twist), prefix + "TwistStamped"


def _topics() -> list[tuple[str, str, list[Row]]]:
    return [
        (f"/{robot}/{name}", name, [row for row in found if row.robot == robot])
        for name, found in TOPICS.items()
        for robot in ROBOTS
    ]


def rosbag(folder: Path) -> Log:
    """A ROS 1 bag with stamped messages, and a topic that nobody wants."""
    from rosbags.rosbag1 import Writer
    from rosbags.typesys import Stores, get_typestore

    store = get_typestore(Stores.ROS1_NOETIC)
    path = folder / "log.bag"
    with Writer(path) as writer:
        for topic, name, found in _topics():
            kind = _ros(store, name, found[0], seq=0)[1]
            connection = writer.add_connection(topic, kind, typestore=store)
            for row in found:
                message, _ = _ros(store, name, row, seq=0)
                data = store.serialize_ros1(message, kind)
                writer.write(connection, row.logged_ns, data)
        text = store.types["std_msgs/msg/String"](data="hello")
        other = writer.add_connection("/chatter", "std_msgs/msg/String", typestore=store)
        writer.write(other, BEGIN_NS, store.serialize_ros1(text, "std_msgs/msg/String"))
    return Log([path], ROS_MAP)


def rosbag2(folder: Path) -> Log:
    """A ROS 2 bag: a folder."""
    from rosbags.rosbag2 import Writer
    from rosbags.typesys import Stores, get_typestore

    store = get_typestore(Stores.ROS2_HUMBLE)
    path = folder / "bag2"
    with Writer(path, version=9) as writer:
        for topic, name, found in _topics():
            kind = _ros(store, name, found[0])[1]
            connection = writer.add_connection(topic, kind, typestore=store)
            for row in found:
                data = store.serialize_cdr(_ros(store, name, row)[0], kind)
                writer.write(connection, row.logged_ns, data)
    return Log([path], ROS_MAP)


def mcap_ros(folder: Path, version: int) -> Log:
    """MCAP with messages of ROS 1 or ROS 2."""
    from mcap.writer import Writer
    from rosbags.typesys import Stores, get_typestore

    store = get_typestore(Stores.ROS1_NOETIC if version == 1 else Stores.ROS2_HUMBLE)
    more: dict[str, Any] = {"seq": 0} if version == 1 else {}
    path = folder / "log.mcap"
    with path.open("wb") as stream:
        writer: Any = Writer(stream)
        writer.start()
        for topic, name, found in _topics():
            kind = _ros(store, name, found[0], **more)[1]
            text, _ = store.generate_msgdef(kind, ros_version=version)
            schema = writer.register_schema(
                kind.replace("/msg/", "/") if version == 1 else kind,
                f"ros{version}msg",
                text.encode(),
            )
            channel = writer.register_channel(topic, "ros1" if version == 1 else "cdr", schema)
            for row in found:
                message, _ = _ros(store, name, row, **more)
                serialize = store.serialize_ros1 if version == 1 else store.serialize_cdr
                data = bytes(serialize(message, kind))
                writer.add_message(channel, row.logged_ns, data, row.logged_ns)
        writer.finish()
    return Log([path], ROS_MAP)


def _flat(row: Row) -> dict[str, Any]:
    seconds, left = divmod(row.time_ns, 1_000_000_000)
    return {"stamp": {"sec": seconds, "nsec": left}, "a": row.numbers[0], "b": row.numbers[1]}


def mcap_json(folder: Path) -> Log:
    """MCAP with messages in JSON."""
    from mcap.writer import Writer

    path = folder / "log.mcap"
    with path.open("wb") as stream:
        writer: Any = Writer(stream)
        writer.start()
        for topic, _, found in _topics():
            channel = writer.register_channel(topic, "json", 0)
            for row in found:
                data = json.dumps(_flat(row)).encode()
                writer.add_message(channel, row.logged_ns, data, row.logged_ns)
        writer.finish()
    return Log([path], FLAT_MAP)


def mcap_protobuf(folder: Path) -> Log:
    """MCAP with messages in Protobuf."""
    from google.protobuf import descriptor_pb2, descriptor_pool, timestamp_pb2
    from google.protobuf.message_factory import GetMessageClass
    from mcap_protobuf.writer import Writer

    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(timestamp_pb2.DESCRIPTOR.serialized_pb)
    file = descriptor_pb2.FileDescriptorProto(
        name="reading.proto",
        package="rover",
        syntax="proto3",
        dependency=["google/protobuf/timestamp.proto"],
    )
    message = file.message_type.add(name="Reading")
    message.field.add(
        name="stamp", number=1, type=11, label=1, type_name=".google.protobuf.Timestamp"
    )
    message.field.add(name="a", number=2, type=1, label=1)
    message.field.add(name="b", number=3, type=1, label=1)
    pool.Add(file)
    reading: Callable[..., Any] = GetMessageClass(pool.FindMessageTypeByName("rover.Reading"))
    path = folder / "log.mcap"
    with path.open("wb") as stream, Writer(stream) as writer:
        for topic, _, found in _topics():
            for row in found:
                seconds, left = divmod(row.time_ns, 1_000_000_000)
                made = reading(a=row.numbers[0], b=row.numbers[1])
                made.stamp.seconds, made.stamp.nanos = seconds, left
                writer.write_message(topic, made, row.logged_ns, row.logged_ns)
    return Log([path], FLAT_MAP)


def ulog(folder: Path) -> Log:
    """A ULog file of one robot, written by hand: pyulog writes only what it has read."""
    parts = [b"ULog\x01\x12\x35\x01", struct.pack("<Q", 0)]

    def record(kind: str, body: bytes) -> None:
        parts.append(struct.pack("<HB", len(body), ord(kind)) + body)

    record("B", bytes(40))
    for name in TOPICS:
        record("F", f"{name}:uint64_t timestamp;float[2] v;".encode())
    for number, name in enumerate(TOPICS):
        record("A", struct.pack("<BH", 0, number) + name.encode())
    for number, found in enumerate(TOPICS.values()):
        for row in found:
            if row.robot == "ada":
                time_us = row.time_ns // 1_000
                record("D", struct.pack("<HQff", number, time_us, *row.numbers))
    path = folder / "log.ulg"
    path.write_bytes(b"".join(parts))
    return Log([path], ULOG_MAP)


def expected(robot: str, spec: SystemSpec = SPEC) -> dict[str, dict[int, float]]:
    """Column → tick → value by plain loops over all readings, whatever came after them."""
    period = spec.period_us
    first = min(row.time_ns // 1_000 for row in MOTION + PLACE)
    found: dict[str, dict[int, float]] = {name: {} for name in ("speed", "turning", "x", "y")}
    for tick in range(-(-first // period), -(-(BEGIN_NS // 1_000 + 6_000_000) // period)):
        now = tick * period
        motion = [(r.time_ns // 1_000, r.numbers) for r in MOTION if r.robot == robot]
        window = [numbers[0] for time, numbers in motion if now - period < time <= now]
        if window:
            found["speed"][tick] = sum(window) / len(window)
        past = [(time, numbers) for time, numbers in sorted(motion) if time <= now]
        if past and now - past[-1][0] <= 300_000:
            found["turning"][tick] = past[-1][1][1]
        place = sorted((r.time_ns // 1_000, r.numbers) for r in PLACE if r.robot == robot)
        before = [item for item in place if item[0] <= now]
        after = [item for item in place if item[0] > now]
        if before and after:
            (t0, p0), (t1, p1) = before[-1], after[0]
            share = (now - t0) / (t1 - t0)
            for name, a, b in zip(("x", "y"), p0, p1, strict=True):
                found[name][tick] = a + (b - a) * share
    return found
