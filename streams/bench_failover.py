"""How long entities wait when a worker is killed, or joins: with a twin, restarted, taken over."""

import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final
from uuid import uuid4

import msgspec
import numpy as np
from confluent_kafka import TopicPartition

from infra.broker import Broker
from infra.kafka import client_config, delete_topics, ensure_topics
from planner.library import SHIPPED
from schemas.codes import Flag, Status
from schemas.frames import Frame, FrameHeader, encode_frame
from schemas.messages import Action, Applied, decode
from schemas.system import SystemSpec, load_spec
from schemas.topics import cohort_partitions, partition_of, topic, topics_of, worker_group
from streams.app import SESSION_S
from streams.belief import Row, encode_row
from streams.chaos.stage import Stage, wait_until, write_spec
from streams.supervise import Process, ProcessFailed, Supervisor
from streams.topic_io import bounds, make_consumer, make_producer, read_to_end

_READY_S: Final = 60.0
_STEADY_S: Final = 2.0  # of stream before something is done to it
_LOOK_S: Final = 0.25  # as `rehearse run` looks after its processes
_BEFORE_US: Final = 1_000_000  # of the stream that counts before it
BELIEFS, _COHORTS = 10_000, 32
_HIDDEN, _LATENT = 208, 16  # with which a belief has 1 kB
LIMITS_MS: Final[Mapping[str, float]] = {
    "restarted": 3_000.0,
    "spared": 3_000.0,
    "taken_over": 1e3 * SESSION_S + 2_000.0,
    "joined": 1_000.0,
    "restored": 5_000.0,
}
"""What is wanted; of a kill beside a twin, that no tick is lost."""


@dataclass(frozen=True)
class Window:
    """A stretch of the stream, us, in which something was done to a worker."""

    name: str
    from_us: int
    to_us: int


def bench_failover(
    bootstrap: str, repeat: int = 2, say: Callable[[str], None] = print
) -> dict[str, Any]:
    """Times each way to lose or gain a worker; topics of its own, deleted afterwards.

    A small nav2d (8 robots at 10 Hz) drives under the wall clock. By what is done: `gap_ms`, the
    longest time between two actions that an entity applied (medians over `repeat`, and all of
    them), and `ticks_lost`, entities' ticks without an applied action, in all; beside `limit_ms`.

    steady: both run, and in addition `twice`, the share of actions that both sent;  first_killed,
    twin_killed: SIGKILL of one, the other goes on;  restarted: no twin, a supervisor
    starts the worker again;  spared: it has a spare of the worker ready;  joined: a second worker
    of the group;  taken_over: it is left alone;  left: it ends in order, and the first is alone;
    restored: a worker without a folder, from its start until it has all of 10,000 beliefs of 1 kB
    (`ms`, in place of a gap).

    Raises `ProcessFailed` where a process does not do its part.
    """
    if repeat < 1:
        raise ValueError(f"repeat {repeat}: at least once")
    with TemporaryDirectory(prefix="rehearse-bench-") as temporary:
        folder = Path(temporary)
        gaps = _gaps(Broker(bootstrap, folder, 0), folder / "gaps", repeat, say)
        say("restoring beliefs")
        restored = restore(bootstrap, folder / "restore")
    found: dict[str, Any] = {
        name: {**figures, "limit_ms": LIMITS_MS.get(name)} for name, figures in gaps.items()
    }
    found["restored"] = {**restored, "limit_ms": LIMITS_MS["restored"]}
    return {**found, "session_s": SESSION_S, "period_ms": 100}


def held(result: Mapping[str, Any]) -> bool:
    """Whether nothing took longer than it may, and no kill beside a twin cost a tick."""
    kinds = [found for found in result.values() if isinstance(found, Mapping)]
    quick = all(
        found.get("gap_ms", found.get("ms")) <= found["limit_ms"]
        for found in kinds
        if found["limit_ms"] is not None
    )
    return quick and not any(result[name]["ticks_lost"] for name in ("first_killed", "twin_killed"))


# gaps


def _gaps(
    broker: Broker, folder: Path, repeat: int, say: Callable[[str], None]
) -> dict[str, dict[str, Any]]:
    name = f"bench{uuid4().hex[:10]}"
    with Stage(broker, folder, name, "wall", 900.0, 0, SHIPPED / "nav2d", twin=True) as stage:
        stage.start_loop()
        _wait_ready(stage, (*stage.workers, "align"))
        stage.start_plant()
        scene = _Scene(stage)
        _wait(lambda: len(_applied(stage)) > 0, "the first applied action")
        for turn in range(repeat):
            say(f"round {turn + 1} of {repeat}")
            scene.with_a_twin()
        stage.supervisor.stop("twin")
        for turn in range(repeat):
            say(f"without a twin: round {turn + 1} of {repeat}")
            scene.alone(turn)
        stage.supervisor.stop("plant")
        reports, actions = _applied(stage), _messages(stage, "actions", Action, None)
        stage.stop_all()
        stage.forget()
    found = measure(reports, scene.windows)
    found["steady"]["twice"] = twice(actions, [w for w in scene.windows if w.name == "steady"])
    return found


class _Scene:
    """What is done to the workers of a stage, one after the other, and when."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.worker = stage.process("worker")
        self.twin = stage.process("twin")
        self.windows: list[Window] = []

    def with_a_twin(self) -> None:
        """Both run; either is killed, and comes back when it was measured."""
        with self._window("steady"):
            time.sleep(2 * _STEADY_S)
        for name, process in (("first_killed", self.worker), ("twin_killed", self.twin)):
            with self._window(name):
                _kill(process)
                time.sleep(_STEADY_S)
            self._return(process)

    def alone(self, turn: int) -> None:
        """Killed and restarted, twice; joined by a second one; killed, and followed by that one."""
        for name in ("restarted", "spared"):
            if name == "spared":
                self._make_spare()
            with self._window(name):
                _kill(self.worker)
                self._return(self.worker, looks=True)
        name = f"second-{turn}"
        with self._window("joined"):
            arguments = self.stage.worker_arguments(name, self.stage.folder / name)
            second = self.stage.start_guest(name, *arguments)
            self._until_heard(name)
            time.sleep(_STEADY_S)
        with self._window("taken_over"):
            _kill(self.worker)
            time.sleep(SESSION_S)
            self._until_all_are_answered()
        self._return(self.worker)
        with self._window("left"):
            second.ask_to_stop()
            second.wait()
            self._until_all_are_answered()

    def _window(self, name: str) -> "_Open":
        time.sleep(_STEADY_S)
        return _Open(self.windows, name)

    def _return(self, process: Process, looks: bool = False) -> None:
        """Starts it again, as a supervisor that `looks` now and then would, and waits for it."""
        if looks:
            time.sleep(_LOOK_S)
        before = _starts(process)
        process.start()
        _wait(lambda: _starts(process) > before, f"the return of {process.name}")
        self._until_all_are_answered()

    def _make_spare(self) -> None:
        """Has one stand ready in the worker's place, this once."""
        worker = self.worker
        worker.spared = True

        def ready() -> bool:
            worker.keep_spare()
            return worker.spare is not None and worker.spare.ready

        _wait(ready, "a spare")
        worker.spared = False

    def _until_heard(self, worker: str) -> None:
        _wait(lambda: worker in {a.worker for a in _newest_actions(self.stage)}, f"{worker} acts")

    def _until_all_are_answered(self) -> None:
        """Each robot applies an action that was sent from now on."""
        now = time.time_ns() // 1_000
        robots = {r.entity for r in _applied(self.stage)}

        def all_are() -> bool:
            found = _applied(self.stage, newest=200)
            return robots <= {r.entity for r in found if r.time > now and _counts(r)}

        _wait(all_are, "answers for all")


class _Open:
    """A window that ends when its block does."""

    def __init__(self, windows: list[Window], name: str) -> None:
        self._windows, self._name = windows, name

    def __enter__(self) -> None:
        self._from_us = time.time_ns() // 1_000 - _BEFORE_US

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            now = time.time_ns() // 1_000
            self._windows.append(Window(self._name, self._from_us, now))


def measure(reports: Sequence[Applied], windows: Sequence[Window]) -> dict[str, dict[str, Any]]:
    """By name of the windows: the longest gap of each, their median, and the ticks lost in all."""
    found: dict[str, list[tuple[float, int]]] = {}
    for window in windows:
        inside = [r for r in reports if window.from_us <= r.time <= window.to_us and _counts(r)]
        times: dict[str, list[int]] = {}
        ticks: dict[str, set[int]] = {}
        for report in inside:
            times.setdefault(report.entity, []).append(report.time)
            ticks.setdefault(report.entity, set()).add(report.tick)
        gaps = [b - a for stamps in times.values() for a, b in pairwise(sorted(stamps))]
        lost = sum(max(known) - min(known) + 1 - len(known) for known in ticks.values())
        found.setdefault(window.name, []).append((max(gaps, default=0) / 1e3, lost))
    return {
        name: {
            "gap_ms": round(float(np.median([gap for gap, _ in seen])), 1),
            "gaps_ms": [round(gap, 1) for gap, _ in seen],
            "ticks_lost": sum(lost for _, lost in seen),
        }
        for name, seen in found.items()
    }


def twice(actions: Sequence[Action], windows: Sequence[Window]) -> float:
    """Share of entities' ticks in the windows that more than one worker answered."""
    by: dict[tuple[str, int], set[str]] = {}
    for action in actions:
        if any(window.from_us <= action.time <= window.to_us for window in windows):
            by.setdefault((action.entity, action.tick), set()).add(action.worker)
    return round(sum(len(workers) > 1 for workers in by.values()) / max(1, len(by)), 4)


def _counts(report: Applied) -> bool:
    return report.status == Status.APPLIED


def _kill(process: Process) -> None:
    os.kill(process.pid, signal.SIGKILL)
    process.wait()


def _starts(process: Process) -> int:
    """How often a worker said that it is ready."""
    log = process.log
    return log.read_text(errors="replace").count("worker ready") if log.exists() else 0


def _wait_ready(stage: Stage, names: Sequence[str]) -> None:
    _wait(lambda: stage.ready(names), f"the start of {', '.join(names)}")


def _wait(condition: Callable[[], bool], what: str) -> None:
    if not wait_until(condition, _READY_S, lambda: None):
        raise ProcessFailed(f"{what} did not come within {_READY_S:g} s")


def _applied(stage: Stage, newest: int | None = None) -> list[Applied]:
    return _messages(stage, "applied", Applied, newest)


def _newest_actions(stage: Stage) -> list[Action]:
    return _messages(stage, "actions", Action, 50)


def _messages(stage: Stage, kind: Any, struct: Any, newest: int | None) -> list[Any]:
    found = []
    name = topic(stage.spec, kind)
    for message in read_to_end(stage.broker.bootstrap, {}, name, newest):
        try:
            found.append(decode(struct, message.value() or b""))
        except msgspec.DecodeError:
            continue  # a watermark
    return found


# restoring


def restore(bootstrap: str, folder: Path) -> dict[str, Any]:
    """A worker without a folder of its own: from its start until it has every belief.

    Of each cohort it is sent the frame that its belief is of, which it knows for a repeated one
    only by that belief. `ms` until all of them are committed; of it `ready_ms` until it reads.
    """
    name = f"bench{uuid4().hex[:10]}"
    spec_file = write_spec(folder, name, cohorts=_COHORTS)
    spec = load_spec(spec_file)
    topics = topics_of(spec)
    config = client_config(bootstrap)
    ensure_topics(config, [(t.name, t.partitions, t.config) for t in topics])
    try:
        each = _write_beliefs(spec, bootstrap)
        with Supervisor(folder) as supervisor:
            where = ("--clock", "event", "--data-dir", str(folder / "w"), "--device", "cpu")
            own = (*where, "--bootstrap-servers", bootstrap)
            began = time.monotonic()
            worker = supervisor.start("worker", "worker", str(spec_file), *own)
            _wait_for_commits(spec, bootstrap, worker)
            took = time.monotonic() - began
            supervisor.stop()
        summary = worker.summary()
    finally:
        delete_topics(config, [t.name for t in topics])
    if summary["frames_repeated"] != _COHORTS:
        raise ProcessFailed(f"{summary['frames_repeated']} of {_COHORTS} beliefs were there")
    ready_ms = round(1e3 * summary["ready_s"], 1)
    return {"ms": round(1e3 * took, 1), "ready_ms": ready_ms, "beliefs": BELIEFS, "bytes": each}


def _write_beliefs(spec: SystemSpec, bootstrap: str) -> int:
    """Rows on the changelog, and the frames that they are of; gives the bytes of a belief."""
    producer, partitions = make_producer(bootstrap), cohort_partitions(spec)
    size = 0
    for cohort in range(_COHORTS):
        names = tuple(f"robot-{i:05d}" for i in range(cohort, BELIEFS, _COHORTS))
        frame = _frame(spec, cohort, names)
        row = replace(
            Row.empty(frame, "", _HIDDEN, _LATENT), innovation=np.zeros(len(names), np.float32)
        )
        place, key = partition_of(cohort, partitions), str(cohort).encode()
        packed = encode_row(row)
        size += len(packed)
        producer.produce(topic(spec, "beliefs"), packed, key, place)
        producer.produce(topic(spec, "frames"), encode_frame(spec, frame), key, place)
    if producer.flush(_READY_S):
        raise ProcessFailed("the broker did not take the beliefs")
    return size // BELIEFS


def _frame(spec: SystemSpec, cohort: int, names: tuple[str, ...]) -> Frame:
    time_us = spec.epoch_us + spec.period_us
    header = FrameHeader(spec.system, cohort, 1, time_us, interface_hash=spec.interface_hash)
    n = len(names)
    return Frame(
        header,
        names,
        np.zeros((n, len(spec.columns))),
        np.zeros((n, len(spec.channels)), np.float32),
        np.zeros((n, len(spec.action_columns))),
        np.full(n, Status.APPLIED, np.uint8),
        np.full(n, Flag.JOINED, np.uint8),
    )


def _wait_for_commits(spec: SystemSpec, bootstrap: str, worker: Process) -> None:
    """Until the worker's group has committed every frame."""
    consumer = make_consumer(bootstrap, group_id=worker_group(spec))
    name = topic(spec, "frames")
    ends = {number: high for number, (_, high) in bounds(consumer, name).items()}
    places = [TopicPartition(name, number) for number in ends]
    limit = time.monotonic() + _READY_S
    try:
        while any(p.offset < ends[p.partition] for p in consumer.committed(places, timeout=10)):
            if worker.poll() is not None or time.monotonic() > limit:
                raise ProcessFailed(f"the beliefs did not come:\n{worker.tail()}")
            time.sleep(0.02)
    finally:
        consumer.close()
