"""What is said of the peers: medians, whether all came out, and by how much ours is faster."""

from __future__ import annotations

import hashlib
import io
import json
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from infra.broker import Broker
from streams import bench_align
from tests.bench import kafka_streams
from tests.bench.bench_peers import MORE, Peer, Timed, bench_peers, table, text
from tests.bench.peer_output import KEYS, Output, check, row_of

ALL = Output(1_000, 0, 0, 0)
FIRST = bench_align.BEGIN_US // 100_000
VALUES = bench_align.values_of(np.arange(1_000)).tolist()
ROWS = [(FIRST + i // KEYS, f"device-{i % KEYS:05d}", VALUES[i]) for i in range(1_000)]


def test_ratios_are_those_of_medians_and_only_of_complete_output() -> None:
    ours = [Timed(100.0, 4.0, 1_000, ALL), Timed(300.0, 6.0, 1_000, ALL)]
    slow = [Timed(10.0, 50.0, 1_000, ALL), Timed(30.0, 50.0, 1_000, ALL)]
    lossy = [Timed(50.0, 5.0, 1_000, Output(999, 1, 0, 0)), *slow]
    theirs = {"slow": slow, "lossy": lossy, "broken": []}
    result = table(ours, 800.0, theirs, {"broken": "it fell over"})
    found = result["systems"]
    assert result["share_of_raw"] == 0.25
    assert found["slow"]["ours_is_times"] == 10.0
    assert found["slow"]["cpu_times"] == 10.0
    assert "ours_is_times" not in found["lossy"]
    assert found["broken"] == {"failed": "it fell over"}
    assert "10.0 x" in text(result)
    assert "incomplete" in text(result)
    mine = [ours[0]._replace(output=Output(1_001, 0, 1, 0))]
    found = table(mine, 800.0, {"slow": slow}, {})["systems"]
    assert "ours_is_times" not in found["slow"]


def test_output_is_compared_with_the_readings() -> None:
    assert check(ROWS, 800, 1_000) == Output(1_000, 0, 0, 0)
    assert check(reversed(ROWS[:800]), 800, 1_000) == Output(800, 0, 0, 0)
    assert check(ROWS[1:801], 800, 1_000) == Output(800, 1, 0, 0)
    assert check([*ROWS, ROWS[3], ROWS[3], ROWS[900]], 800, 1_000) == Output(1_003, 0, 3, 0)
    assert check([(*ROWS[0][:2], VALUES[1]), *ROWS[1:]], 800, 1_000) == Output(1_000, 0, 0, 1)
    assert check([(FIRST - 1, "device-00000", VALUES[0]), *ROWS], 800, 1_000).wrong == 1
    assert check([], 800, 1_000) == Output(0, 800, 0, 0)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (b"device-00007", {"ts": bench_align.BEGIN_US + 99_999}),
        (b"device-00007", {"start": 17, "end": 18, "value": {"ts": bench_align.BEGIN_US + 1}}),
        (None, {"key": "device-00007", "start": bench_align.BEGIN_US}),
    ],
)
def test_results_of_all_peers_are_understood(key: bytes | None, value: dict[str, Any]) -> None:
    numbers = {"temperature": 1.0, "pressure": 2.0, "speed": 3.0, "load": 4.0}
    value.get("value", value).update(numbers)
    assert row_of(key, json.dumps(value).encode()) == (FIRST, "device-00007", [1.0, 2.0, 3.0, 4.0])


def test_what_is_not_the_pinned_maven_is_not_unpacked(tmp_path: Path) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as files:
        member = tarfile.TarInfo("maven-1/bin/mvn")
        member.size = 2
        files.addfile(member, io.BytesIO(b"hi"))
    folder, good = tmp_path / "maven-1", hashlib.sha512(packed.getvalue()).hexdigest()
    with pytest.raises(ValueError, match="SHA-512"):
        kafka_streams.unpack(packed.getvalue(), "0" * 128, folder)
    assert not list(tmp_path.iterdir())
    kafka_streams.unpack(packed.getvalue(), good, folder)
    assert (folder / "bin" / "mvn").read_bytes() == b"hi"
    assert list(tmp_path.iterdir()) == [folder]


def test_without_a_jdk_the_reason_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert "JDK" in (kafka_streams.build() or "")


COPY = """
import sys
from confluent_kafka import Consumer, Producer
broker, source, out, total = sys.argv[1:]
consumer = Consumer({"bootstrap.servers": broker, "group.id": out, "auto.offset.reset": "earliest"})
consumer.subscribe([source])
producer = Producer({"bootstrap.servers": broker, "linger.ms": 1})
while True:
    for message in consumer.consume(1000, 0.1):
        producer.produce(out, message.value(), message.key())
    producer.flush()
"""


@pytest.mark.broker
@pytest.mark.system
def test_a_program_that_copies_its_readings_is_complete(broker: Broker) -> None:
    copier = Peer((sys.executable, "-c", COPY), 0.5)
    found = bench_peers(broker.bootstrap, {"copier": copier}, 40_000, repeat=1)["systems"]
    assert found["copier"]["wanted"] == 20_000
    assert found["copier"]["outputs"] == [Output(20_000 + MORE * KEYS, 0, 0, 0)._asdict()]
    assert found["copier"]["complete"]
    assert found["copier"]["ours_is_times"] > 0
    assert found["rehearse"]["complete"]
    assert found["rehearse"]["readings_per_s"] > 0
