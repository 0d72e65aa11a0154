"""Readings of a log on sensor topics, as their devices would send them."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np

from infra.kafka import KafkaSetupError
from infra.plants.base import Sample, SensorBatch
from schemas.system import SystemSpec
from streams.imports.gather import Gathered
from streams.make_topics import make_topics
from streams.plant import Stop
from streams.readings import ReadingEncoder, send_readings, send_watermark
from streams.record import OnProgress
from streams.target import Pace, shift_to_now
from streams.topic_io import TIMEOUT_S, bounds, make_consumer, make_producer

_STRETCH_US: Final = 1_000_000  # of event time that is encoded at once


def publish(
    spec: SystemSpec,
    gathered: Gathered,
    bootstrap: str,
    extra: Mapping[str, str] | None,
    *,
    rate: float | None = None,
    now: bool = False,
    stop: Stop | None = None,
    on_progress: OnProgress = lambda *_: None,
) -> dict[str, Any]:
    """Sends all readings by time to the sensor topics of `spec`, a watermark behind the last one.

    Args:
        spec: whose topics are written: see `target.target_of`. Missing ones are made.
        rate: multiple of real time; None: as fast as it goes.
        now: event times are shifted by whole ticks, so that the first reading is of now: what an
            aligner on the wall clock needs.

    Returns `topics`, `sent`, `seconds`, `shift_us`, `complete`. Actions of the log are not sent.

    Raises `KafkaSetupError`: the topics cannot be made, or the broker did not take everything.
    """
    make_topics(spec, bootstrap, extra)
    first = min(int(s.time_us[0]) for s in gathered.sensors.values() if len(s.time_us))
    shift = shift_to_now(spec, first) if now else 0
    encoder = ReadingEncoder(spec, gathered.entities, shift)
    producer, pace = make_producer(bootstrap, extra), Pace(rate)
    sent, complete, began = 0, True, time.monotonic()
    for sample in _samples(spec, gathered):
        for group in encoder.encode(sample, after_us=-(2**62)):
            pace.wait(group.send_us, stop)
            if stop is not None and stop.is_set():
                complete = False
                break
            send_readings(producer, group)
            producer.poll(0)
            sent += len(group.values)
        on_progress(sent, gathered.readings)
        if not complete:
            break
    if complete:
        last = max(int(s.time_us[-1]) for s in gathered.sensors.values() if len(s.time_us))
        send_watermark(producer, _places(spec, bootstrap, extra), last + shift)
    if left := producer.flush(TIMEOUT_S):
        raise KafkaSetupError(f"the broker did not take {left} readings within {TIMEOUT_S:g} s")
    return {
        "topics": [spec.sensors[name].topic for name in gathered.sensors],
        "sent": sent,
        "seconds": time.monotonic() - began,
        "shift_us": shift,
        "complete": complete,
    }


def _samples(spec: SystemSpec, gathered: Gathered) -> Iterator[Sample]:
    """A second of readings at a time, in the form in which plants hand them over."""
    nothing = np.zeros(0)
    times = [s.time_us for s in gathered.sensors.values()]
    for number in np.unique(np.concatenate(times) // _STRETCH_US).tolist():
        begin = number * _STRETCH_US - 1
        batches = []
        for name, stream in gathered.sensors.items():
            part = stream.between(begin, begin + _STRETCH_US)
            if not len(part.time_us):
                continue
            values: dict[str, Any] = {}
            column = 0
            for channel in spec.sensors[name].channels.values():
                block = part.values[:, column : column + channel.size]
                values[channel.name] = block[:, 0] if channel.shape is None else block
                column += channel.size
            batches.append(SensorBatch(name, part.entity.astype(np.int32), part.time_us, values))
        yield Sample(0, tuple(batches), nothing, nothing.astype(bool), {})


def _places(
    spec: SystemSpec, bootstrap: str, extra: Mapping[str, str] | None
) -> list[tuple[str, int]]:
    consumer = make_consumer(bootstrap, extra)
    try:
        names = dict.fromkeys(sensor.topic for sensor in spec.sensors.values())
        return [(name, number) for name in names for number in bounds(consumer, name)]
    finally:
        consumer.close()
