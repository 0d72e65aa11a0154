"""Readings per second through the aligner's own process, beside what librdkafka alone takes in."""

import json
import resource
import threading
import time
from collections.abc import Mapping
from functools import cache
from statistics import median
from typing import Any, Final, NamedTuple
from uuid import uuid4

import numpy as np
import numpy.typing as npt
from confluent_kafka import TopicPartition

from infra.kafka import KafkaSetupError, client_config, delete_topics, ensure_topics
from schemas.system import SystemSpec, parse_spec
from schemas.topics import topics_of
from streams.align_kafka import run_align
from streams.codecs import make_writer
from streams.topic_io import bounds, make_consumer, make_producer, send

_SPEC: Final = """
system: {system}
entity: device
tick: 100 ms
lateness: 1 s
cohorts: {cohorts}
sensors:
  state:
    topic: {topic}
    codec: {codec}
    time: {{field: ts, unit: us}}
    every: 100 ms
    max_age: 1 s
    channels:
      temperature: {{unit: K, range: [0, 1000]}}
      pressure: {{unit: Pa, range: [0, 1e6]}}
      speed: {{unit: m/s, range: [-100, 100]}}
      load: {{unit: "1", range: [0, 1]}}
actions:
  setting: {{unit: "1", low: 0, high: 1}}
fallback: {{kind: value}}
budget: {{tiers: {{one: {{candidates: 5, horizon: 1, iterations: 1}}}}}}
"""
_FIELDS: Final = ("ts", "temperature", "pressure", "speed", "load")
_AVRO: Final = {
    "type": "record",
    "name": "State",
    "fields": [
        {"name": "ts", "type": "long"},
        *({"name": name, "type": "double"} for name in _FIELDS[1:]),
    ],
}
_PROTO: Final = "\n".join(
    (
        'syntax = "proto3";',
        "message State {",
        "  int64 ts = 1;",
        *(f"  double {name} = {number};" for number, name in enumerate(_FIELDS[1:], 2)),
        "}",
    )
)
CODECS: Final[dict[str, object]] = {
    "json": "json",
    "avro": {"avro": {"schemas": {1: json.dumps(_AVRO)}}},
    "protobuf": {"protobuf": {"schemas": {1: _PROTO}}},
    "arrow": "arrow",
    "raw": {"raw": {"fields": {"ts": "<i8", **dict.fromkeys(_FIELDS[1:], "<f8")}}},
}
"""What may be measured: the codec's name → what the spec says; no registry is needed."""
BEGIN_US: Final = 1_700_000_000_000_000
"""Event time of the first readings, but for one microsecond."""
_TAILS: Final = 4_096  # different readings, but for their times
_AT_ONCE: Final = 10_000
_WAIT_S: Final = 60.0


class Spent(NamedTuple):
    """What one run came to."""

    per_s: float
    cpu_s_per_million: float


def bench_align(
    bootstrap: str,
    readings: int = 2_000_000,
    keys: int = 200,
    partitions: int = 4,
    repeat: int = 3,
    extra: Mapping[str, str] | None = None,
    codec: str = "json",
) -> dict[str, Any]:
    """Medians over `repeat` interleaved runs; topics of its own, deleted afterwards.

    Every key sends one reading of `codec` per tick of 100 ms, a time and four channels: one reading
    per window, so that the most has to be written. Aligned means consumed, decoded, validated,
    aligned, and every frame confirmed by the broker, in one process, by the code of `run_align`.

    Gives `readings_per_s`, `cpu_s_per_million` (CPU seconds of the process, librdkafka's threads
    included), `limit_per_s` and `limit_cpu_s_per_million` (raw consumption of the same topic),
    `share_of_limit`, and the `runs` behind the medians.
    """
    name = f"bench{uuid4().hex[:10]}"
    config = client_config(bootstrap, extra)
    source = f"{name}.readings"
    if codec not in CODECS:
        raise ValueError(f"{codec!r}: there are the codecs {', '.join(CODECS)}")
    specs = [spec_of(f"{name}-{run}", source, partitions, codec) for run in range(repeat)]
    wanted = {t.name: (t.name, t.partitions, t.config) for s in specs for t in topics_of(s)}
    wanted[source] = (source, partitions, {})
    try:
        ensure_topics(config, wanted.values())
        fill(config, specs[0], readings, keys, partitions)
        raws, runs, frames = [], [], 0
        for spec in specs:
            raws.append(limit(config, source, readings))
            spent, summary = align(config, spec, readings)
            runs.append(spent)
            frames = summary["frames"]
    finally:
        delete_topics(config, wanted)
    rate, raw = median(run.per_s for run in runs), median(run.per_s for run in raws)
    return {
        "codec": codec,
        "readings": readings,
        "keys": keys,
        "partitions": partitions,
        "frames": frames,
        "readings_per_s": round(rate),
        "limit_per_s": round(raw),
        "share_of_limit": round(rate / raw, 4),
        "cpu_s_per_million": round(median(run.cpu_s_per_million for run in runs), 3),
        "limit_cpu_s_per_million": round(median(run.cpu_s_per_million for run in raws), 3),
        "runs": [round(run.per_s) for run in runs],
        "limits": [round(run.per_s) for run in raws],
    }


def spec_of(system: str, source: str, cohorts: int, codec: str) -> SystemSpec:
    """The system that aligns the readings on `source`."""
    form = json.dumps(CODECS[codec])
    text = _SPEC.format(system=system, topic=source, cohorts=cohorts, codec=form)
    return parse_spec(text, "bench.yaml")


class Meter:
    """Counts records as they come in; stops the run at the last, and times it from the first batch.

    What the first batch holds is not counted, as its own fetch and work came before the clock.
    """

    def __init__(self, total: int) -> None:
        self.stop = threading.Event()
        self._left, self._first = total, 0
        self._began, self._cpu = 0.0, 0.0
        self._limit = time.monotonic() + _WAIT_S

    def __call__(self, count: int) -> None:
        """Takes the number of records that came in."""
        self._left -= count
        if count and not self._began:
            self._first, self._began, self._cpu = count, time.perf_counter(), _cpu_s()
        if count:
            self._limit = time.monotonic() + _WAIT_S
        elif time.monotonic() > self._limit:
            raise KafkaSetupError(f"the broker sent nothing for {_WAIT_S:g} s; see its log")
        if self._left <= 0:
            self.stop.set()

    def spent(self, total: int) -> Spent:
        """Per reading after the first batch, until now."""
        counted = total - self._first
        if not counted:
            raise ValueError(f"{total} readings came in one batch: ask for more of them")
        seconds, cpu_s = time.perf_counter() - self._began, _cpu_s() - self._cpu
        return Spent(counted / seconds, cpu_s / counted * 1e6)


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def limit(config: Mapping[str, str], source: str, total: int) -> Spent:
    """What librdkafka's batches alone take in, with the settings of the aligner's consumer."""
    consumer = make_consumer(config["bootstrap.servers"], config)
    meter = Meter(total)
    try:
        places = bounds(consumer, source).items()
        consumer.assign([TopicPartition(source, number, low) for number, (low, _) in places])
        while not meter.stop.is_set():
            meter(len(consumer.consume(10_000, 0.05)))
        return meter.spent(total)
    finally:
        consumer.close()


def align(config: Mapping[str, str], spec: SystemSpec, total: int) -> tuple[Spent, dict[str, Any]]:
    """The aligner's own process over `total` readings: what was spent, and its summary."""
    meter = Meter(total)
    summary = run_align(
        spec, config["bootstrap.servers"], config, meter.stop, clock="event", on_batch=meter
    )
    return meter.spent(total), summary


def fill(
    config: Mapping[str, str],
    spec: SystemSpec,
    total: int,
    keys: int,
    partitions: int,
    source: str | None = None,
) -> None:
    """Sends `total` readings: every key once per tick, one after the other.

    They go to `source`, where that is given, instead of the topic of the spec.
    """
    producer = make_producer(config["bootstrap.servers"], config, linger_ms=20)
    sensor = spec.sensors["state"]
    writer = make_writer([sensor])
    names = [f"device-{number:05d}" for number in range(keys)]
    for begin in range(0, total, _AT_ONCE):
        numbers = range(begin, min(begin + _AT_ONCE, total))
        tails = values_of(np.array(numbers)).tolist()
        rows = [(_time(i, keys), *tail) for i, tail in zip(numbers, tails, strict=True)]
        values = writer.encode(_FIELDS, rows)
        for i, value in zip(numbers, values, strict=True):
            send(producer, source or sensor.topic, value, names[i % keys], i % keys % partitions)
        producer.poll(0)
    if producer.flush(_WAIT_S):
        raise KafkaSetupError(f"the broker did not take the readings within {_WAIT_S:g} s")


def values_of(numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """[n, 4] the channels of readings, by their numbers: those of one key differ."""
    return _tails()[numbers * 7919 % _TAILS]


@cache
def _tails() -> npt.NDArray[np.float64]:
    rows = np.random.default_rng(0).random((_TAILS, 4)) * [100, 1e5, 50, 1] + [250, 5e4, 0, 0]
    return rows.round(4)


def _time(number: int, keys: int) -> int:
    """The event time of a reading (us): every key has one in each tick."""
    tick, key = divmod(number, keys)
    return BEGIN_US + tick * 100_000 + 1 + key * 99_999 // keys
