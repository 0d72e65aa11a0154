"""The sink on a real broker: nothing lost and nothing doubled, also when it is killed."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from confluent_kafka import KafkaError, KafkaException

import streams.sink
from infra.kafka import BrokerAwayError, delete_topics
from schemas.catalog import Catalog
from schemas.codes import Status
from schemas.messages import Applied, action_id, encode
from schemas.system import SystemSpec
from schemas.topics import topic
from streams import sink_files
from streams.sink import Sink, run_sink
from streams.sink_table import PATIENCE_S, SETTLE_S
from streams.topic_io import bounds, make_producer
from tests.streams.frames import NAMES, cohort_names, trajectory
from tests.streams.specs import SMALL, small_spec
from tests.support import unique
from tests.system.loop import make_topics

pytestmark = pytest.mark.broker
Kafka = dict[str, str]
SCRIPT = """
import sys, threading
from pathlib import Path
from schemas.system import load_spec
from streams import sink_merge
from streams.sink import run_sink
sink_merge.FAN_IN = 3
spec, kafka, out, catalog = sys.argv[1:]
print("ready", flush=True)
run_sink(load_spec(spec), kafka, None, threading.Event(), Path(out), catalog,
         flush_s=0.05, flush_rows=400)
"""


@pytest.fixture
def spec(kafka: Kafka) -> SystemSpec:
    made = small_spec(unique())
    make_topics(made, kafka)
    return made


def publish(
    spec: SystemSpec,
    kafka: Mapping[str, str],
    ticks: range,
    attempt: int = 0,
    valve: float = 0.5,
    reported: bool = True,
) -> None:
    """Trajectories of both cohorts, and the reports that the first attempts were applied."""
    producer = make_producer(kafka["bootstrap.servers"], kafka)
    for tick in ticks:
        for cohort in range(2):
            value = trajectory(spec, cohort, tick, attempt=attempt, valve=valve)
            producer.produce(topic(spec, "trajectories"), value, str(cohort), cohort)
        producer.poll(0)
    assert producer.flush(20) == 0
    if reported and not attempt:
        report(spec, kafka, ticks)


def report(spec: SystemSpec, kafka: Mapping[str, str], ticks: range) -> None:
    """Says that the first attempts of both cohorts were applied."""
    producer = make_producer(kafka["bootstrap.servers"], kafka)
    for tick in ticks:
        for entity in NAMES:
            values = {"valve": 0.5, "pumps": 2.0}
            identity = action_id(spec.system, entity, tick)
            said = Applied(identity, entity, tick, values, int(Status.APPLIED), 0)
            producer.produce(topic(spec, "applied"), encode(said), entity)
        producer.poll(0)
    assert producer.flush(20) == 0


def drained(spec: SystemSpec, kafka: Kafka, out: Path, catalog: str | None) -> dict[str, Any]:
    """A sink that is stopped at once reads what there is, stores it, and merges."""
    stop = threading.Event()
    stop.set()
    return run_sink(spec, kafka["bootstrap.servers"], kafka, stop, out, catalog)


def rows(out: Path) -> pl.DataFrame:
    files = sorted(out.rglob("*.parquet"))
    return pl.scan_parquet(files, hive_partitioning=False).collect()


def test_frames_become_rows_and_files_are_in_the_catalog(
    spec: SystemSpec, kafka: Kafka, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path}/catalog.sqlite"
    day = 86_400  # ticks of a second: the frames go over midnight
    publish(spec, kafka, range(day - 3, day + 4))
    publish(spec, kafka, range(day, day + 1), attempt=1, valve=0.9)
    publish(spec, kafka, range(day + 6, day + 8))
    summary = drained(spec, kafka, tmp_path, url)
    assert (summary["frames"], summary["attempts"], summary["frames_lost"]) == (18, 2, 4)
    assert summary["cohorts"] == {"0": 9, "1": 9}
    assert summary["counted"] == 9 * len(NAMES)
    table = rows(tmp_path)
    assert table.height == summary["rows"] == 10 * len(NAMES)
    again = table.filter(pl.col("tick") == day)
    assert again.sort("attempt")["counted"].to_list() == [True] * 5 + [False] * 5
    assert set(table["outcome"]) == {Status.APPLIED}
    catalog = Catalog(url)
    files = catalog.files(spec.system)
    assert [(f.day, f.first_tick, f.last_tick) for f in files] == [
        ("1970-01-01", day - 3, day - 1),
        ("1970-01-02", day, day + 7),
    ]
    assert [f.path for f in files] == sorted(summary["files"])
    (place,) = catalog.find_action(action_id(spec.system, "c", day + 7))
    found = pl.read_parquet(place.path, hive_partitioning=False)
    assert "c" in set(found.filter(pl.col("action_id") == place.action_id)["entity"])
    catalog.close()


def test_reports_that_come_late_are_waited_for(
    spec: SystemSpec, kafka: Kafka, tmp_path: Path
) -> None:
    publish(spec, kafka, range(5))
    publish(spec, kafka, range(5, 10), reported=False)
    stop, found = threading.Event(), list[dict[str, Any]]()
    arguments = (spec, kafka["bootstrap.servers"], kafka, stop, tmp_path)
    sink = threading.Thread(target=lambda: found.append(run_sink(*arguments, flush_s=0.2)))
    sink.start()
    try:
        while not list(tmp_path.rglob("*.parquet")):
            assert sink.is_alive()
            time.sleep(0.05)
        time.sleep(SETTLE_S + 1.0)
        report(spec, kafka, range(5, 10))
    finally:
        stop.set()
        sink.join()
    assert found[0]["counted"] == 10 * len(NAMES)
    assert rows(tmp_path)["counted"].all()


def test_a_report_that_never_comes_is_not_waited_for_when_its_actuator_goes_on(
    spec: SystemSpec, kafka: Kafka, tmp_path: Path
) -> None:
    publish(spec, kafka, range(2))
    publish(spec, kafka, range(2, 3), reported=False)
    stop = threading.Event()
    arguments = (spec, kafka["bootstrap.servers"], kafka, stop, tmp_path)
    sink = threading.Thread(target=lambda: run_sink(*arguments, flush_s=0.2))
    sink.start()
    try:
        time.sleep(SETTLE_S + 0.2)  # by the stamps of the log
        publish(spec, kafka, range(3, 4))
        limit = time.monotonic() + PATIENCE_S / 2
        while not list(tmp_path.rglob("*.parquet")) or not {2, 3} <= set(rows(tmp_path)["tick"]):
            assert sink.is_alive()
            assert time.monotonic() < limit, "it waits"
            time.sleep(0.1)
    finally:
        stop.set()
        sink.join()


def test_a_second_run_adds_only_what_is_new(spec: SystemSpec, kafka: Kafka, tmp_path: Path) -> None:
    publish(spec, kafka, range(10))
    first = drained(spec, kafka, tmp_path, None)
    assert drained(spec, kafka, tmp_path, None)["frames"] == 0
    publish(spec, kafka, range(9, 10), attempt=1)  # planned again, as after a crash
    publish(spec, kafka, range(10, 14))
    later = drained(spec, kafka, tmp_path, None)
    assert (first["frames"], later["frames"], later["attempts"]) == (20, 8, 2)
    table = rows(tmp_path)
    assert table.group_by("partition", "offset", "entity").len()["len"].to_list() == [1] * 75
    assert table.filter("counted").group_by("tick", "entity").len()["len"].max() == 1
    # Topics made anew under the old name begin at offset 0 again: theirs are other frames.
    delete_topics(kafka, [topic(spec, "trajectories"), topic(spec, "applied")])
    make_topics(spec, kafka)
    publish(spec, kafka, range(3))
    assert drained(spec, kafka, tmp_path, None)["frames"] == 6
    assert rows(tmp_path).height == 75 + 15


def test_a_killed_sink_loses_and_doubles_nothing(
    spec: SystemSpec, kafka: Kafka, tmp_path: Path
) -> None:
    spec_file, out = tmp_path / "spec.yaml", tmp_path / "out"
    spec_file.write_text(SMALL.format(system=spec.system))
    url = f"sqlite:///{tmp_path}/catalog.sqlite"
    arguments = [str(spec_file), kafka["bootstrap.servers"], str(out), url]
    root = str(Path(streams.sink.__file__).parents[1])
    done, before = 0, set[Path]()
    for kill in range(3):
        child = subprocess.Popen(
            [sys.executable, "-c", SCRIPT, *arguments],
            env={**os.environ, "PYTHONPATH": root, "OMP_NUM_THREADS": "1"},
        )
        limit = time.monotonic() + 60
        merged = set[Path]()
        while not merged:
            assert time.monotonic() < limit, "the sink merged nothing within a minute"
            assert child.poll() is None
            publish(spec, kafka, range(done, done + 8))
            done += 8
            time.sleep(0.1 * (1 + kill))  # so that it is killed at other places
            files = sink_files.listed(out, spec.system)
            merged |= {info.path for info in files if info.merges} - before
        child.kill()
        child.wait()
        before |= merged
    for _ in range(3):  # on a busy machine once is not enough: it reads for some seconds
        summary = drained(spec, kafka, out, url)
    table = rows(out)
    seen = Counter(zip(table["cohort"], table["tick"], table["entity"], strict=True))
    expected = {(c, t, e) for c in range(2) for t in range(done) for e in cohort_names(spec, c)}
    assert set(seen) == expected
    assert set(seen.values()) == {1}
    assert summary["frames_lost"] == 0
    catalog = Catalog(url)
    assert sum(f.rows for f in catalog.files(spec.system)) == len(expected)
    assert {f.path for f in catalog.files(spec.system)} == {str(p) for p in out.rglob("*.parquet")}
    catalog.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk of its own with room for a few files."""
    place = tmp_path / "small"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(place)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root may mount a disk")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk_is_waited_for_and_nothing_is_lost_or_doubled(
    spec: SystemSpec, kafka: Kafka, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where no broker answers when there is room again."""
    away = [
        KafkaException(KafkaError(KafkaError._UNKNOWN_PARTITION)),
        BrokerAwayError("no broker answers"),
    ]

    def answered(*asked: Any) -> dict[int, tuple[int, int]]:
        if away:
            raise away.pop()
        return bounds(*asked)

    sink = Sink(spec, kafka["bootstrap.servers"], kafka, small_disk, None)
    sink.flush_s, sink.flush_rows = 0.05, 40
    limit = time.monotonic() + 60

    def poll_until(name: str, count: int) -> None:
        while sink.counts[name] < count:
            assert time.monotonic() < limit, f"{name} is {sink.counts[name]}, not {count}"
            sink.poll(0.05)

    try:
        publish(spec, kafka, range(8))
        poll_until("rows", 5 * len(NAMES))
        filler = small_disk / "filler"
        with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        publish(spec, kafka, range(8, 60))
        poll_until("no_room", 1)
        filler.unlink()
        monkeypatch.setattr(streams.sink, "bounds", answered)
        poll_until("rows", 50 * len(NAMES))
        sink.drain()
        summary = sink.summary()
    finally:
        sink.close()
    assert (summary["frames"], summary["attempts"], summary["frames_lost"]) == (120, 0, 0)
    assert summary["counted"] == summary["rows"] == 60 * len(NAMES)
    table = rows(small_disk)
    assert table.group_by("partition", "offset", "entity").len()["len"].to_list() == [1] * 300
    assert table["counted"].all()
    assert not away


def test_unreadable_records_are_counted_and_passed(
    spec: SystemSpec, kafka: Kafka, tmp_path: Path
) -> None:
    producer = make_producer(kafka["bootstrap.servers"], kafka)
    deep = b'{"id":' + b"[" * 10_000 + b"]" * 10_000 + b"}"
    for value in (b"", b"nonsense", b"\xff" * 100):
        producer.produce(topic(spec, "trajectories"), value, "0", 0)
    for value in (b"", b"nonsense", b'{"id": "\xff"}', deep):
        producer.produce(topic(spec, "applied"), value, "a")
    producer.flush(10)
    publish(spec, kafka, range(2))
    summary = drained(spec, kafka, tmp_path, None)
    assert (summary["rejected"], summary["frames"]) == (3, 4)
    assert drained(spec, kafka, tmp_path, None)["rejected"] == 0, "they are not read again"
