"""The loop for an hour: whether memory stays flat, and committed offsets keep advancing."""

import time
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, NamedTuple
from uuid import uuid4

import numpy as np
import psutil
from confluent_kafka import KafkaException, TopicPartition

from infra.broker import Broker
from planner.library import SHIPPED
from schemas.topics import cohort_partitions, topic, worker_group
from streams.chaos.stage import PERIOD_S, Stage, wait_until
from streams.supervise import ProcessFailed
from streams.topic_io import make_consumer

_READY_S: Final = 120.0
_WARM: Final = 1 / 3
"""Of the samples, in which caches fill and libraries take what they keep."""
GROWTH_MB_PER_H: Final = 10.0
"""Of a process, above which its memory does not count as flat."""
_MB: Final = 1e6


class Sample(NamedTuple):
    """What is seen at a moment: s since the start, MB by process, frames there and committed."""

    at_s: float
    mb: Mapping[str, float]
    frames: int
    committed: int


def bench_soak(
    bootstrap: str,
    minutes: float = 60.0,
    every_s: float = 10.0,
    say: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Runs a small nav2d (8 robots at 10 Hz, wall clock, with a twin); topics of its own.

    Returns what `summary` says, `restarts` by process, and `samples` [n, 2 + processes]: seconds,
    MB of each process, frames behind.

    Raises `ProcessFailed` where a process does not do its part.
    """
    if minutes <= 0 or every_s <= 0:
        raise ValueError("minutes and the time between samples must be above 0")
    with TemporaryDirectory(prefix="rehearse-soak-") as temporary:
        folder, name = Path(temporary), f"soak{uuid4().hex[:10]}"
        broker = Broker(bootstrap, folder, 0)
        seconds, bundle = 60.0 * minutes + 2 * _READY_S, SHIPPED / "nav2d"
        with Stage(broker, folder, name, "wall", seconds, 0, bundle, twin=True) as stage:
            stage.start_loop()
            names = (*stage.workers, "align")
            if not wait_until(lambda: stage.ready(names), _READY_S, stage.watch):
                raise ProcessFailed(f"the loop is not ready after {_READY_S:g} s")
            stage.start_plant()
            if not wait_until(lambda: stage.ends("frames") > 0, _READY_S, stage.watch):
                raise ProcessFailed(f"no frame came within {_READY_S:g} s")
            samples = _watch(stage, 60.0 * minutes, every_s, say)
            restarts = {p.name: p.restarts for p in stage.supervisor.processes}
            stage.stop_all()
            stage.forget()
    processes = list(samples[0].mb)
    return {
        **summary(samples),
        "restarts": restarts,
        "columns": ["s", *(f"{name}_mb" for name in processes), "frames_behind"],
        "samples": [
            [round(s.at_s, 1), *(round(s.mb[n], 1) for n in processes), s.frames - s.committed]
            for s in samples
        ],
    }


def _watch(
    stage: Stage, seconds: float, every_s: float, say: Callable[[str], None]
) -> list[Sample]:
    spec = stage.spec
    consumer = make_consumer(stage.broker.bootstrap, {}, group_id=worker_group(spec))
    places = [TopicPartition(topic(spec, "frames"), n) for n in range(cohort_partitions(spec))]
    began, samples = time.monotonic(), []
    try:
        while (at_s := time.monotonic() - began) <= seconds:
            stage.watch()
            try:
                # What is committed first: it may not seem to be ahead.
                done = sum(max(0, p.offset) for p in consumer.committed(places, timeout=5))
                ends = [consumer.get_watermark_offsets(place, timeout=5)[1] for place in places]
            except KafkaException as error:
                raise ProcessFailed(f"the broker does not answer: {error}") from error
            mb = {p.name: _mb(p.pid) for p in stage.supervisor.processes}
            samples.append(Sample(at_s, mb, sum(ends), done))
            sizes = ", ".join(f"{name} {size:.0f} MB" for name, size in mb.items())
            say(f"{at_s / 60:.0f} of {seconds / 60:g} min: {sizes}; {sum(ends) - done} behind")
            time.sleep(max(0.0, min(every_s, seconds - at_s + 0.01)))
    finally:
        consumer.close()
    return samples


def _mb(pid: int) -> float:
    """What a process allocated (Linux: RssAnon).

    Pages of libraries are left out. They count as a process's own or as shared by who else has
    them, and as none while the system has no use for them.
    """
    memory = psutil.Process(pid).memory_info()
    return float(memory.rss - getattr(memory, "shared", 0)) / _MB


def summary(samples: Sequence[Sample]) -> dict[str, Any]:
    """Whether it held, and why.

    `memory`: by process MB at the first and last sample after the warm-up, the most, and
    `mb_per_h`, the slope of a line through them; `stalls`: samples before which frames came and
    nothing was committed; `most_behind`, in frames; `held`: no slope above `GROWTH_MB_PER_H`, and
    no stall.
    """
    steady = samples[int(len(samples) * _WARM) :]
    hours = np.array([s.at_s for s in steady]) / 3600.0
    memory = {}
    for name in steady[0].mb:
        mb = np.array([s.mb[name] for s in steady])
        slope = float(np.polyfit(hours, mb, 1)[0]) if len(mb) > 1 else 0.0
        sizes = {"mb_first": mb[0], "mb_last": mb[-1], "mb_most": mb.max(), "mb_per_h": slope}
        memory[name] = {key: round(float(size), 1) for key, size in sizes.items()}
    stalls = sum(
        after.frames > before.frames and after.committed <= before.committed
        for before, after in pairwise(samples)
    )
    flat = all(found["mb_per_h"] <= GROWTH_MB_PER_H for found in memory.values())
    return {
        "held": flat and stalls == 0,
        "minutes": round(samples[-1].at_s / 60.0, 1),
        "ticks": round(samples[-1].at_s / PERIOD_S),
        "memory": memory,
        "stalls": stalls,
        "frames": samples[-1].frames,
        "most_behind": max(s.frames - s.committed for s in samples),
    }
