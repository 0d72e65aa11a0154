"""The worker on a real broker: frames in; actions, trajectories, beliefs out; kill and restart."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourceType,
)

from planner.budget import FreeBudget
from planner.session import load_bundle
from schemas.codes import Flag
from schemas.frames import ControlView, Frame, FrameHeader, encode_frame
from schemas.messages import Action, Control, DeadLetter, action_id, decode, encode
from schemas.system import SystemSpec, load_spec
from schemas.topics import cohort_of, cohort_partitions, partition_of, topic
from schemas.trajectories import KEY_FRAME_EVERY, Trajectory, decode_trajectory
from streams.belief import Row, decode_row
from streams.decide import recorded, step
from streams.supervise import STATUS_AGAIN
from streams.topic_io import make_producer
from tests.planner.worlds import double_integrator, write_bundle
from tests.support import shipped_text, unique
from tests.system.loop import make_topics, records

pytestmark = [pytest.mark.broker, pytest.mark.system]
FIRST = KEY_FRAME_EVERY - 10  # so that a short run meets a key frame
ENTITIES = tuple(f"robot-{i}" for i in range(8))
SMALL: dict[str, Any] = {
    "cohorts": 2,
    "budget": {
        "deadline": "30 ms",
        "tiers": {
            "shallow": {"candidates": 10, "horizon": 4, "iterations": 1},
            "deep": {"candidates": 20, "horizon": 4, "iterations": 3},
        },
    },
}


@dataclass
class World:
    """One system on the broker, its bundle, and a worker to start and to kill."""

    spec: SystemSpec
    kafka: Mapping[str, str]
    folder: Path
    bundles: list[Path]
    worker: str = "one"
    sluggish: bool = False
    stuck: bool = False
    slow_s: float = 0.0
    more: dict[str, Any] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    @property
    def data_dir(self) -> Path:
        return self.folder / f"data-{self.worker}"

    def start(self, stderr: int | None = None) -> None:
        config = {
            "spec": str(self.folder / "spec.yaml"),
            "bootstrap": self.kafka["bootstrap.servers"],
            "bundles": [str(path) for path in self.bundles],
            "data_dir": str(self.data_dir),
            "worker": self.worker,
            "summary": str(self.folder / f"summary-{self.worker}.json"),
            "sluggish": self.sluggish,
            "stuck": self.stuck,
            "slow_s": self.slow_s,
            "more": self.more,
        }
        file = self.folder / f"config-{self.worker}.json"
        file.write_text(json.dumps(config))
        command = [sys.executable, "-m", "tests.system.worker_process", str(file)]
        self.process = subprocess.Popen(command, stderr=stderr)

    def kill(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> dict[str, Any]:
        """Asks it to end; its summary."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(30) == 0
        summary: dict[str, Any] = json.loads(
            (self.folder / f"summary-{self.worker}.json").read_text()
        )
        return summary

    def send(self, frames: list[Frame], pause: float = 0.0) -> None:
        producer = make_producer(self.kafka["bootstrap.servers"], self.kafka)
        for frame in frames:
            self.put(producer, encode_frame(self.spec, frame), frame.cohort)
            producer.poll(pause)
        assert producer.flush(20) == 0

    def put(self, producer: Any, value: bytes, cohort: int) -> None:
        partition = partition_of(cohort, cohort_partitions(self.spec))
        producer.produce(topic(self.spec, "frames"), value, str(cohort).encode(), partition)

    def trajectories(self) -> list[Trajectory]:
        found = records(self.spec, self.kafka, "trajectories")
        return [decode_trajectory(self.spec, m.value() or b"") for m in found]

    def actions(self) -> list[Action]:
        return [decode(Action, m.value() or b"") for m in records(self.spec, self.kafka, "actions")]

    def beliefs(self) -> dict[int, Row]:
        """The newest row of each cohort in the changelog."""
        found = {m.key(): m.value() for m in records(self.spec, self.kafka, "beliefs")}
        rows = [decode_row(data or b"") for data in found.values()]
        return {row.cohort: row for row in rows}

    def wait_for(self, cohort_ticks: int, seconds: float = 60.0) -> None:
        """Until so many different (cohort, tick) stand in the changelog of the beliefs."""
        end = time.monotonic() + seconds
        seen: set[tuple[int, int]] = set()
        while len(seen) < cohort_ticks:
            assert time.monotonic() < end, f"{len(seen)} of {cohort_ticks} after {seconds} s"
            assert self.process is not None
            assert self.process.poll() is None, "the worker ended"
            found = records(self.spec, self.kafka, "beliefs")
            seen = {(r.cohort, r.tick) for r in (decode_row(m.value() or b"") for m in found)}
            time.sleep(0.2)


@pytest.fixture
def world(kafka: Mapping[str, str], tmp_path: Path) -> Iterator[World]:
    made = make_world(kafka, tmp_path)
    yield made
    if made.process is not None and made.process.poll() is None:
        made.kill()


def make_world(kafka: Mapping[str, str], folder: Path, **changes: Any) -> World:
    """A small nav2d of its own name, with the `changes` to its spec; nothing is started."""
    text = shipped_text("nav2d", system=unique("worker"), **{**SMALL, **changes})
    (folder / "spec.yaml").write_text(text)
    spec = load_spec(folder / "spec.yaml")
    make_topics(spec, kafka)
    calibration = {"innovation_band": 1e6, "channel_scale": [1.0] * len(spec.columns)}
    bundle = write_bundle(
        folder / "bundles" / "first", spec, double_integrator(), calibration=calibration
    )
    return World(spec, kafka, folder, [bundle])


def frames(
    spec: SystemSpec,
    ticks: int,
    control: Mapping[int, ControlView] | None = None,
    begin: int = FIRST,
) -> list[Frame]:
    """`ticks` frames per cohort from `begin` on, some readings missing, in (tick, cohort) order."""
    rng = np.random.default_rng(7)
    made, view = [], ControlView()
    values = {c: rng.uniform(-3, 3, (len(_members(spec, c)), 6)) for c in range(spec.cohorts)}
    for tick in range(begin, begin + ticks):
        view = (control or {}).get(tick, view)
        for cohort in range(spec.cohorts):
            members = _members(spec, cohort)
            values[cohort] = values[cohort] + 0.05 * rng.normal(size=values[cohort].shape)
            seen = np.where(rng.random(values[cohort].shape) < 0.3, np.nan, values[cohort])
            first = tick == begin
            header = FrameHeader(
                spec.system,
                cohort,
                tick,
                spec.epoch_us + tick * spec.period_us,
                interface_hash=spec.interface_hash,
                control=view,
            )
            made.append(
                Frame(
                    header,
                    members,
                    values[cohort] if first else seen,
                    np.zeros((len(members), len(spec.channels)), np.float32),
                    rng.uniform(-1, 1, (len(members), 2)),
                    np.full(len(members), 2, np.uint8),
                    np.full(len(members), Flag.JOINED if first else 0, np.uint8),
                )
            )
    return made


def _members(spec: SystemSpec, cohort: int) -> tuple[str, ...]:
    return tuple(e for e in ENTITIES if cohort_of(e, spec.cohorts) == cohort)


def undisturbed(world: World, made: list[Frame]) -> dict[tuple[int, int], Row]:
    """The rows that `step` gives for the same frames, without Kafka, from the first frame on."""
    bundles = {b.digest: b for b in (load_bundle(path, "cpu") for path in world.bundles)}
    default = next(iter(bundles.values()))
    last: dict[int, Row] = {}
    rows = {}
    for frame in made:
        bundle = bundles[frame.header.control.bundle or default.digest]
        row, _ = step(world.spec, bundle, last.get(frame.cohort), frame, FreeBudget(0))
        rows[frame.cohort, frame.tick] = last[frame.cohort] = row
    return rows


def test_frames_become_actions_trajectories_and_beliefs(world: World) -> None:
    second = write_bundle(
        world.folder / "bundles" / "second", world.spec, double_integrator(), name="second"
    )
    digest = json.loads((second / "manifest.json").read_text())["digest"]
    release = FIRST + 20
    made = frames(world.spec, 30, {release: ControlView(bundle=digest)})
    world.bundles.append(second)
    producer = make_producer(world.kafka["bootstrap.servers"], world.kafka)
    control = Control("release", 0, bundle=digest)
    producer.produce(topic(world.spec, "control"), encode(control), control.key)
    producer.flush()
    world.start()
    world.send(made[:20])
    world.put(producer, b"no frame at all", 0)
    world.put(
        producer,
        encode_frame(world.spec, replace(made[0], header=replace(made[0].header, tick=FIRST + 3))),
        0,
    )
    producer.flush()
    world.send(made[20:])
    world.wait_for(len(made))
    summary = world.stop()

    assert summary["frames"] == len(made)
    assert (summary["frames_rejected"], summary["frames_repeated"], summary["gaps"]) == (1, 1, 0)
    letters = [
        decode(DeadLetter, m.value() or b"") for m in records(world.spec, world.kafka, "deadletter")
    ]
    assert [(x.topic, x.partition, x.offset, x.reason) for x in letters] == [
        (topic(world.spec, "frames"), 0, 10, "FrameError")
    ]
    _check_outputs(world, made)
    bundles = {
        (t.frame.tick >= release, t.decisions.bundle == digest) for t in world.trajectories()
    }
    assert bundles == {(False, False), (True, True)}


def _check_outputs(world: World, made: list[Frame]) -> None:
    """Every decision is that of a pinned replay; each entity has one action per tick."""
    spec, logged = world.spec, {(t.frame.cohort, t.frame.tick): t for t in world.trajectories()}
    bundles = {b.digest: b for b in (load_bundle(path, "cpu") for path in world.bundles)}
    sent = {(a.entity, a.tick): a for a in world.actions()}
    assert len(sent) == len(world.actions()) == sum(len(f.entities) for f in made)
    last: dict[int, Row] = {}
    for frame in made:
        trajectory = logged.pop((frame.cohort, frame.tick))
        spent = trajectory.decisions.spent
        bundle = bundles[trajectory.decisions.bundle]
        row, decisions = step(spec, bundle, last.get(frame.cohort), frame, *recorded(spent))
        last[frame.cohort] = row
        assert spent["belief"] == row.digest
        np.testing.assert_array_equal(trajectory.decisions.action, decisions.action)
        np.testing.assert_array_equal(trajectory.decisions.reasons, decisions.reasons)
        for entity, values in zip(frame.entities, decisions.action.tolist(), strict=True):
            action = sent[entity, frame.tick]
            assert action.id == action_id(spec.system, entity, frame.tick)
            assert list(action.values.values()) == values
            assert action.valid_until > action.time == frame.header.time_us
        if frame.tick % KEY_FRAME_EVERY == 0:
            assert decode_row(trajectory.row or b"").digest == row.digest
        else:
            assert trajectory.row is None
    assert not logged
    assert {c: r.digest for c, r in world.beliefs().items()} == {
        c: r.digest for c, r in last.items()
    }


@pytest.mark.parametrize("lost", [False, True], ids=["store kept", "store lost"])
def test_killed_and_restarted_no_frame_is_lost(world: World, lost: bool) -> None:
    """SIGKILL in mid-stream; the restarted worker goes on from its beliefs as if nothing was."""
    made = frames(world.spec, 60)
    world.start()
    world.send(made[:50], pause=0.01)
    world.wait_for(30)
    world.kill()
    if lost:
        shutil.rmtree(world.data_dir)
    world.send(made[50:70])
    world.start()
    world.wait_for(70)
    world.send(made[70:], pause=0.01)
    world.wait_for(len(made))
    summary = world.stop()

    rows = undisturbed(world, made)
    assert summary["gaps"] == 0
    for trajectory in world.trajectories():
        frame = trajectory.frame
        assert trajectory.decisions.spent["belief"] == rows[frame.cohort, frame.tick].digest
    done = Counter((t.frame.cohort, t.frame.tick) for t in world.trajectories())
    assert set(done) == set(rows)
    newest = world.beliefs()
    for cohort, row in newest.items():
        assert row.tick == FIRST + 59
        assert row.digest == rows[cohort, row.tick].digest
    ids = {(a.entity, a.tick): a.id for a in world.actions()}
    assert len({a.id for a in world.actions()}) == len(ids) == sum(len(f.entities) for f in made)


def test_a_second_worker_joins_and_takes_over_from_the_first(world: World) -> None:
    """Partitions move twice, once in order and once after SIGKILL; every belief goes on."""
    made = frames(world.spec, 60)
    world.start()
    world.send(made[:40], pause=0.01)
    world.wait_for(10)  # the first has decided before the second can
    second = replace(world, worker="two", process=None)
    second.start()
    try:
        world.send(made[40:80], pause=0.1)
        world.wait_for(60)
        world.kill()
        world.send(made[80:])
        second.wait_for(len(made))
        summary = second.stop()
    finally:
        if second.process is not None and second.process.poll() is None:
            second.kill()
    rows = undisturbed(world, made)
    done: dict[tuple[int, int], set[str]] = {}
    for trajectory in world.trajectories():
        place = trajectory.frame.cohort, trajectory.frame.tick
        done.setdefault(place, set()).add(trajectory.decisions.spent["belief"])
    assert done == {place: {row.digest} for place, row in rows.items()}
    assert summary["gaps"] == 0
    workers = {a.worker for a in world.actions()}
    assert workers == {"one", "two"}


def test_two_workers_of_one_id_do_not_share_a_folder(world: World) -> None:
    world.start()
    second = replace(world, process=None)
    end = time.monotonic() + 60
    while not (world.data_dir / "attempt").exists():
        assert time.monotonic() < end
        time.sleep(0.05)
    second.start()
    assert second.process is not None
    assert second.process.wait(60) == 2
    world.stop()


def test_a_second_worker_of_one_id_is_refused_whatever_its_folder(world: World) -> None:
    made = frames(world.spec, 12)
    world.start()
    world.send(made[: len(made) // 2])
    world.wait_for(len(made) // 2)
    second = replace(world, process=None, folder=world.folder / "elsewhere")
    second.folder.mkdir()
    (second.folder / "spec.yaml").write_text((world.folder / "spec.yaml").read_text())
    second.start(stderr=subprocess.PIPE)
    assert second.process is not None
    _, told = second.process.communicate(timeout=60)
    assert second.process.returncode == 2
    assert "one is already running with another data folder (one@" in told.decode()
    assert "--id" in told.decode()
    world.send(made[len(made) // 2 :])
    world.wait_for(len(made))
    assert world.stop()["frames"] == len(made), "the first one was not disturbed"


def test_a_shadow_logs_and_publishes_nothing(world: World) -> None:
    world.more = {"role": "shadow"}
    made = frames(world.spec, 5)
    world.start()
    world.send(made)
    world.wait_for(len(made))
    world.stop()
    assert world.actions() == []
    assert len(world.trajectories()) == len(made)
    assert all(t.decisions.spent["shadow"] for t in world.trajectories())


def test_a_row_of_another_version_is_anchored_anew(world: World) -> None:
    """What cannot be read must not silence a cohort, nor the others."""
    producer = make_producer(world.kafka["bootstrap.servers"], world.kafka)
    producer.produce(topic(world.spec, "beliefs"), b"\x00 not a row", b"0", 0)
    producer.flush()
    made = frames(world.spec, 4)
    world.start()
    world.send(made)
    end = time.monotonic() + 60
    while len(world.trajectories()) < len(made):
        assert time.monotonic() < end
        time.sleep(0.2)
    summary = world.stop()
    assert summary["rows_unreadable"] == 1
    _check_outputs(world, made)


def test_frames_that_come_while_the_tables_recover_are_decided(world: World) -> None:
    """Faust empties its buffers at the end of a recovery, and has no offset yet to go back to."""
    producer = make_producer(world.kafka["bootstrap.servers"], world.kafka)
    producer.produce(topic(world.spec, "beliefs"), b"\x00 not a row", b"0", 0)
    producer.flush()
    made = frames(world.spec, 3)
    world.send(made)
    world.sluggish = True
    world.start()
    end = time.monotonic() + 30
    while len(world.trajectories()) < len(made):
        assert time.monotonic() < end
        time.sleep(0.2)
    assert world.stop()["gaps"] == 0
    _check_outputs(world, made)


def _largest_belief(world: World, size: int) -> None:
    """What the broker takes as a record of the changelog, in bytes."""
    entry = ConfigEntry("max.message.bytes", str(size), incremental_operation=AlterConfigOpType.SET)
    name = topic(world.spec, "beliefs")
    resource = ConfigResource(ResourceType.TOPIC, name, incremental_configs=[entry])
    admin = AdminClient(dict(world.kafka))
    for future in admin.incremental_alter_configs([resource]).values():
        future.result(20)


def test_a_refused_changelog_record_stops_the_worker_and_loses_nothing(world: World) -> None:
    made = frames(world.spec, 8)
    _largest_belief(world, 100)
    world.start()
    world.send(made[:8])
    assert world.process is not None
    assert world.process.wait(60) == 2
    assert world.beliefs() == {}
    _largest_belief(world, 1_000_000)
    world.send(made[8:])
    world.start()
    world.wait_for(len(made))
    summary = world.stop()
    assert (summary["frames"], summary["gaps"]) == (len(made), 0)
    rows = undisturbed(world, made)
    assert {c: r.digest for c, r in world.beliefs().items()} == {
        cohort: rows[cohort, FIRST + 7].digest for cohort in range(world.spec.cohorts)
    }


def test_a_worker_that_hangs_is_ended_by_its_watchdog_and_goes_on_when_started_again(
    world: World,
) -> None:
    """Its loop is blocked, so that nothing in it could say so; frames go on arriving."""
    made = frames(world.spec, 60)
    world.stuck, world.more = True, {"patience_s": 0.5}
    world.start()
    assert world.process is not None
    sent, end = 0, time.monotonic() + 60
    while world.process.poll() is None:
        assert time.monotonic() < end, "it still hangs"
        world.send(made[sent : sent + 2])
        sent = min(sent + 2, len(made) - 20)  # at last the same again: repeated frames
        time.sleep(0.1)
    assert world.process.wait() == STATUS_AGAIN
    assert world.beliefs() == {}
    world.stuck, world.more = False, {}
    world.start()
    world.send(made[sent:])
    world.wait_for(len(made))
    assert world.stop()["gaps"] == 0
