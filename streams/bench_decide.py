"""Decisions per second of the worker's own process, with the broker on the same machine.

Frames are made beforehand, by the aligner's core; nav2d's actor decides, nothing is planned. Beside
it what the same work takes in a loop without Kafka, and what librdkafka alone takes for the same
records: frames in, actions out.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, Final, NamedTuple
from uuid import uuid4

import numpy as np
import psutil
from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from infra.kafka import client_config, delete_topics, ensure_topics
from planner.budget import FreeBudget
from planner.session import load_bundle
from schemas.frames import decode_frame, encode_frame
from schemas.messages import EPOCH_HEADER
from schemas.system import SystemSpec
from schemas.topics import cohort_of, topic, worker_group
from streams.action_records import ActionRecords
from streams.align import Aligner
from streams.belief import Row
from streams.bench_systems import Case, make_system, standing
from streams.decide import step
from streams.demo_scene import DemoOptions, Scene
from streams.demo_stage import Stage
from streams.publish import Headers
from streams.supervise import Process, ProcessFailed
from streams.topic_io import bounds, make_consumer, make_producer

_COHORTS: Final = 4
_PATIENCE_S: Final = 120.0
_LOOK_S: Final = 0.01
_FIRST: Final = 0.1  # of the decisions, which are not counted: the worker wakes up over them


class Timed(NamedTuple):
    """Decisions per second, and CPU seconds of all workers per million decisions."""

    per_s: float
    cpu_s_per_million: float


class Work(NamedTuple):
    """Frames [cohorts × ticks] as they stand on the topic: (cohort, bytes), by tick."""

    frames: Sequence[tuple[int, bytes]]
    decisions: int


def bench_decide(
    bootstrap: str,
    extra: Mapping[str, str] | None = None,
    *,
    decisions: int = 160_000,
    entities: int = 200,
    workers: int = 1,
    runs: int = 3,
) -> dict[str, Any]:
    """Medians over `runs` rounds, each beside the limits; topics of its own, deleted afterwards.

    Args:
        decisions: of each round.
        entities: of a cohort; there are four, on a partition each.
        workers: processes that share the cohorts, 4 at most.

    Gives `decisions_per_s` and `cpu_s_per_million` of the workers, from a tenth of the decisions on
    until the broker has the last action; `step_per_s`: decode, decide and encode in a loop, on one
    thread; `raw_per_s`: frames consumed and as many records of the same size produced by librdkafka
    alone; the shares of both; `modes`: who decided.
    """
    if not 1 <= workers <= _COHORTS:
        raise ValueError(f"{workers} workers for {_COHORTS} cohorts: 1 to {_COHORTS}")
    case = Case(entities * _COHORTS, 1, 10, _COHORTS)
    config = client_config(bootstrap, extra)
    with TemporaryDirectory(prefix="rehearse-bench-") as temporary:
        folder = Path(temporary)
        spec, file, bundle = make_system(case, f"bench{uuid4().hex[:10]}", folder)
        scene = Scene(spec, file, folder, None, {}, None, {})
        ticks = max(2, -(-decisions // case.entities))
        rounds = list(_frames(spec, case.entities, ticks, runs))
        out = f"{spec.system}.raw"
        try:
            ensure_topics(config, [(out, _COHORTS, {})])
            with Stage(scene, DemoOptions(), bootstrap, extra or {}) as stage:
                started = [_start(stage, number, bundle) for number in range(workers)]
                _wait_for(stage, workers)
                loops, steps, raws = [], [], []
                for work in rounds:
                    loops.append(_round(stage, started, work))
                    made = list(_decide(spec, bundle, work))
                    steps.append(work.decisions / sum(seconds for seconds, _ in made))
                    raws.append(_raw(stage, work, [n for _, n in made], out))
                stage.supervisor.stop()
                summaries = [process.summary() for process in started]
        finally:
            delete_topics(config, [out])
    return {
        "workers": workers,
        "entities": case.entities,
        "cohorts": _COHORTS,
        "decisions": rounds[0].decisions,
        "modes": _modes(summaries),
        **_figures(loops, steps, raws),
    }


def _figures(
    loops: Sequence[Timed], steps: Sequence[float], raws: Sequence[float]
) -> dict[str, Any]:
    rate, step_rate, raw = median(t.per_s for t in loops), median(steps), median(raws)
    return {
        "decisions_per_s": round(rate),
        "cpu_s_per_million": round(median(t.cpu_s_per_million for t in loops), 2),
        "step_per_s": round(step_rate),
        "share_of_step": round(rate / step_rate, 3),
        "raw_per_s": round(raw),
        "share_of_raw": round(rate / raw, 3),
        "runs": [round(timed.per_s) for timed in loops],
    }


def _modes(summaries: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    names = dict.fromkeys(name for found in summaries for name in found.get("modes", {}))
    return {n: sum(found.get("modes", {}).get(n, 0) for found in summaries) for n in names}


def _frames(spec: SystemSpec, entities: int, ticks: int, runs: int) -> Iterator[Work]:
    """What `runs` rounds of `ticks` ticks decide; one aligner makes all of them."""
    aligner = Aligner(spec, start_tick=1)
    rows = aligner.intern([f"device-{number:05d}" for number in range(entities)])
    (sensor,) = spec.sensors.values()
    said = standing(spec, entities)
    values = np.hstack([said[channel.name] for channel in spec.channels])
    for first in range(1, 1 + runs * ticks, ticks):
        frames, decided = [], 0
        for tick in range(first, first + ticks):
            due = np.full(entities, spec.epoch_us + tick * spec.period_us)
            aligner.readings(sensor.name, rows, due, values)
            aligner.watermark(sensor.topic, int(due[0]))
            for frame in aligner.close():
                frames.append((frame.cohort, encode_frame(spec, frame)))
                decided += len(frame.entities)
        yield Work(frames, decided)


def _start(stage: Stage, number: int, bundle: Path) -> Process:
    name, folder = f"worker-{number}", stage.scene.folder
    where = (
        "--id",
        name,
        "--data-dir",
        str(folder / name),
        "--bundle",
        str(bundle),
        *stage.connection(),
    )
    spec = str(stage.scene.spec_file)
    return stage.supervisor.start(name, "worker", spec, "--clock", "event", *where)


def _wait_for(stage: Stage, workers: int) -> None:
    """Until each worker has its partitions: what is rebalanced meanwhile would be timed."""
    admin = AdminClient({**client_config(stage.bootstrap, stage.extra)})
    group = worker_group(stage.scene.spec)
    limit = time.monotonic() + _PATIENCE_S
    while time.monotonic() < limit:
        stage.supervisor.check()
        found = admin.describe_consumer_groups([group], request_timeout=1.0)[group]
        try:
            members = found.result(2.0).members
        except (KafkaException, TimeoutError):
            members = []
        if len(members) == workers and all(m.assignment.topic_partitions for m in members):
            return
        time.sleep(0.1)
    raise ProcessFailed(f"{workers} workers have no partitions after {_PATIENCE_S:g} s")


def _round(stage: Stage, started: Sequence[Process], work: Work) -> Timed:
    """Puts the frames on their topic and times the actions that come of them."""
    spec = stage.scene.spec
    counter = _Counter(stage, topic(spec, "actions"))
    try:
        before = counter.count()
        _publish(stage, topic(spec, "frames"), work)
        cpu = [psutil.Process(process.pid) for process in started]
        wanted = before + int(_FIRST * work.decisions)
        first = _until(stage, counter, wanted, cpu)
        last = _until(stage, counter, before + work.decisions, cpu)
    finally:
        counter.close()
    counted = last.actions - first.actions
    per_s, used = counted / (last.at - first.at), last.cpu_s - first.cpu_s
    return Timed(per_s, used / counted * 1e6)


class _Seen(NamedTuple):
    """So many actions there were at a moment, and so much CPU time (s) had been spent by then."""

    at: float
    actions: int
    cpu_s: float


def _until(
    stage: Stage, counter: "_Counter", wanted: int, processes: Sequence[psutil.Process]
) -> _Seen:
    limit = time.monotonic() + _PATIENCE_S
    while (count := counter.count()) < wanted:
        stage.supervisor.check()
        if time.monotonic() > limit:
            raise ProcessFailed(f"{count} of {wanted} actions after {_PATIENCE_S:g} s")
        time.sleep(_LOOK_S)
    spent = [process.cpu_times() for process in processes]
    return _Seen(time.perf_counter(), count, sum(s.user + s.system for s in spent))


class _Counter:
    """How many records a topic has had, by the ends of its partitions."""

    def __init__(self, stage: Stage, name: str) -> None:
        self._consumer: Consumer = make_consumer(stage.bootstrap, stage.extra)
        self._name = name

    def count(self) -> int:
        """Of all partitions."""
        return sum(high for _, high in bounds(self._consumer, self._name).values())

    def close(self) -> None:
        """Leaves."""
        self._consumer.close()


def _publish(stage: Stage, name: str, work: Work) -> None:
    producer = make_producer(stage.bootstrap, stage.extra)
    epoch: Headers = [(EPOCH_HEADER, b"0")]
    for cohort, value in work.frames:
        producer.produce(name, value, str(cohort).encode(), cohort % _COHORTS, headers=epoch)
        producer.poll(0)
    if producer.flush(_PATIENCE_S):
        raise ProcessFailed("the broker did not take the frames")


def _decide(spec: SystemSpec, folder: Path, work: Work) -> Iterator[tuple[float, int]]:
    """Decides each frame as the worker does; seconds, and bytes of its actions."""
    bundle = load_bundle(folder, "cpu")
    records = ActionRecords(spec, "worker-0", 0)
    rows: dict[int, Row] = {}
    for cohort, value in work.frames:
        began = time.perf_counter()
        frame = decode_frame(spec, value)
        rows[cohort], made = step(spec, bundle, rows.get(cohort), frame, FreeBudget(0))
        actions = records.make(frame, made, 0)
        seconds = time.perf_counter() - began
        yield seconds, sum(len(record.value or b"") for record in actions)


def _raw(stage: Stage, work: Work, sizes: Sequence[int], out: str) -> float:
    """Actions per second where nothing is decided: frames consumed, records of that size sent."""
    spec = stage.scene.spec
    consumer = make_consumer(stage.bootstrap, stage.extra)
    producer = make_producer(stage.bootstrap, stage.extra)
    name, per_frame = topic(spec, "frames"), work.decisions // len(work.frames)
    value = bytes(sum(sizes) // work.decisions)
    ends = bounds(consumer, name)
    share = len(work.frames) // _COHORTS
    consumer.assign([TopicPartition(name, p, high - share) for p, (_, high) in ends.items()])
    began, left = time.perf_counter(), share * _COHORTS
    keys = [f"device-{number:05d}" for number in range(per_frame)]
    places = [(key.encode(), cohort_of(key, _COHORTS)) for key in keys]
    while left:
        for message in consumer.consume(min(left, 16), 0.05):
            if message.error() is not None:
                continue
            left -= 1
            for key, partition in places:
                producer.produce(out, value, key, partition)
            producer.poll(0)
    producer.flush(_PATIENCE_S)
    seconds = time.perf_counter() - began
    consumer.close()
    return share * _COHORTS * per_frame / seconds
