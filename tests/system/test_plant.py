"""A plant on real topics: lockstep loses and repeats nothing, silence ends in a fallback."""

from __future__ import annotations

import threading
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt
import polars as pl
import pytest

from infra.plants.base import make_plant
from schemas.codes import Status
from schemas.messages import WATERMARK_HEADER, Applied, Outcome
from schemas.system import SystemSpec
from streams.plant import run_plant
from streams.topic_io import read_to_end
from tests.streams.specs import shipped_spec
from tests.support import unique
from tests.system.loop import constant_worker, make_topics, messages

pytestmark = pytest.mark.broker
Kafka = dict[str, str]
TICKS = 12


@pytest.fixture
def spec(kafka: Kafka) -> SystemSpec:
    made = shipped_spec("nav2d", unique())
    make_topics(made, kafka)
    return made


def test_lockstep_gives_every_tick_its_action(
    spec: SystemSpec, kafka: Kafka, tmp_path: Path
) -> None:
    plant, bootstrap = make_plant(spec, robots=5), kafka["bootstrap.servers"]
    with constant_worker(spec, kafka, plant.entities, (0.5, -0.5)):
        summary = run_plant(
            spec, plant, bootstrap, kafka, threading.Event(),
            ticks=TICKS, seed=3, log=tmp_path / "log.parquet",
        )  # fmt: skip
    assert (summary["ticks"], summary["missing"]) == (TICKS, 0)
    assert summary["statuses"] == {"applied": TICKS * 5}
    assert summary["modes"] == {"plan": TICKS * 5}
    assert summary["latency_ms"]["n"] == TICKS * 5
    reports = [(a.tick, a.entity) for a in messages(spec, kafka, "applied", Applied)]
    assert len(set(reports)) == len(reports) == TICKS * 5
    # What the topics carried is what the plant does on its own under these actions.
    alone = make_plant(spec, robots=5)
    alone.reset(3)
    returns = 0.0
    for _ in range(TICKS):
        returns += alone.step(plant_action()).reward.mean()
    assert summary["score"]["return"] == pytest.approx(returns, rel=1e-12)
    table = pl.read_parquet(tmp_path / "log.parquet")
    assert table.height == TICKS * 5
    assert set(table["acceleration[1]"]) == {-0.5}
    outcomes = messages(spec, kafka, "outcomes", Outcome)
    assert {o.tick for o in outcomes} == set(range(1, TICKS + 1))


def plant_action() -> npt.NDArray[np.float64]:
    return np.tile([0.5, -0.5], (5, 1))


def test_watermarks_follow_the_readings_that_they_close(spec: SystemSpec, kafka: Kafka) -> None:
    plant, bootstrap = make_plant(spec, robots=5), kafka["bootstrap.servers"]
    with constant_worker(spec, kafka, plant.entities, (0.1, 0.1)):
        run_plant(spec, plant, bootstrap, kafka, threading.Event(), ticks=TICKS)
    for name in (*(sensor.topic for sensor in spec.sensors.values()), f"{spec.system}.applied"):
        mark: dict[int | None, int] = {}
        for record in read_to_end(bootstrap, kafka, name):
            value, place = msgspec.json.decode(record.value() or b""), record.partition()
            if record.key() is None:
                assert dict(record.headers() or []) == {WATERMARK_HEADER: b"1"}
                assert value["watermark"] > mark.get(place, -(10**18))
                mark[place] = value["watermark"]
            else:
                time_us = value["time"] if "id" in value else value["ts"]
                after = "id" in value  # a report of tick k comes after the watermark of k
                assert time_us > mark.get(place, -(10**18)) - after
        assert set(mark.values()) == {TICKS * spec.period_us}, name


def test_without_a_worker_the_local_fallback_acts(spec: SystemSpec, kafka: Kafka) -> None:
    plant = make_plant(spec, robots=3)
    summary = run_plant(
        spec, plant, kafka["bootstrap.servers"], kafka, threading.Event(),
        ticks=3, patience_s=0.1, first_patience_s=0.1,
    )  # fmt: skip
    assert (summary["ticks"], summary["missing"]) == (3, 9)
    reports = messages(spec, kafka, "applied", Applied)
    assert {a.status for a in reports} == {Status.LOCAL_FALLBACK}
    assert {a.values["acceleration[0]"] for a in reports} == {0.0}
    assert sorted({a.tick for a in reports}) == [0, 1, 2]


def test_under_the_wall_clock_event_times_are_real_and_on_half_ticks(
    spec: SystemSpec, kafka: Kafka
) -> None:
    plant = make_plant(spec, robots=3)
    summary = run_plant(
        spec, plant, kafka["bootstrap.servers"], kafka, threading.Event(), ticks=4, lockstep=False
    )
    assert (summary["clock"], summary["ticks"]) == ("wall", 4)
    assert summary["send_lateness_ms"]["n"] > 0
    assert summary["stolen_ms"] is None or summary["stolen_ms"] >= 0
    for sensor in spec.sensors.values():
        for record in read_to_end(kafka["bootstrap.servers"], kafka, sensor.topic):
            assert record.key() is not None, "no watermarks under the wall clock"
            ts = msgspec.json.decode(record.value() or b"")["ts"]
            assert ts % 50_000 == 0
            _, appended_ms = record.timestamp()
            assert appended_ms * 1_000 >= ts - 1_000, "sent before it was due"


def test_a_stop_ends_a_plant_that_waits(spec: SystemSpec, kafka: Kafka) -> None:
    stop = threading.Event()
    stop.set()
    summary = run_plant(spec, make_plant(spec, robots=2), kafka["bootstrap.servers"], kafka, stop)
    assert summary["ticks"] == 0


def test_at_a_speed_event_time_runs_ahead_of_the_clock(spec: SystemSpec, kafka: Kafka) -> None:
    plant, bootstrap = make_plant(spec, robots=3), kafka["bootstrap.servers"]
    with constant_worker(spec, kafka, plant.entities, (0.5, 0.5)):
        summary = run_plant(
            spec, plant, bootstrap, kafka, threading.Event(), ticks=20, lockstep=False, speed=5.0
        )
    assert (summary["clock"], summary["ticks"]) == ("event", 20)
    assert summary["seconds"] >= 20 * 0.1 / 5 * 0.9, "not before its time"
    assert summary["statuses"]["applied"] > 0
    assert summary["tick_to_action_ms"]["n"] == summary["latency_ms"]["n"] > 0
    name = spec.sensors["odometry"].topic
    found = [msgspec.json.decode(m.value() or b"") for m in read_to_end(bootstrap, kafka, name)]
    marks = {m["watermark"] for m in found if "watermark" in m}
    assert marks == {tick * spec.period_us for tick in range(21)}
    assert {m["ts"] for m in found if "ts" in m} == {i * 50_000 for i in range(-1, 41)}
