"""Several aligners on a real broker: each takes its share, also after another number of them."""

from __future__ import annotations

from contextlib import ExitStack
from threading import Event

import msgspec
import pytest

from infra.kafka import KafkaSetupError
from schemas.messages import DeadLetter
from schemas.system import SystemSpec
from schemas.topics import cohort_of
from streams.align_kafka import run_align
from streams.align_share import Share
from streams.topic_check import for_one_aligner
from tests.system.loop import messages
from tests.system.test_align_kafka import (
    COHORTS,
    NAMES,
    Devices,
    Kafka,
    aligning,
    frames_of,
    new_system,
    wait_for,
    wait_for_tick,
)

pytestmark = pytest.mark.broker


def go_on(spec: SystemSpec, kafka: Kafka, begin: int, end: int) -> None:
    devices = Devices(spec, kafka)
    for tick in range(begin, end):
        devices.tick(tick)
    devices.producer.flush()
    wait_for_tick(spec, kafka, end - 1, COHORTS)


def test_shares_are_taken_and_given_back(kafka: Kafka) -> None:
    """One aligner, then three, then one again, as if it had been one all the time."""
    spec = new_system(kafka)
    with aligning(spec, kafka) as alone:
        go_on(spec, kafka, 1, 5)
    with ExitStack() as stack:
        parts = [
            stack.enter_context(aligning(spec, kafka, share=Share(part, 3))) for part in (1, 2, 3)
        ]
        go_on(spec, kafka, 5, 10)
        # An entity in the partition of another share, as by a device with another partitioner.
        stray = next(name for name in NAMES if cohort_of(name, 3) != 0)
        devices = Devices(spec, kafka)
        value = msgspec.json.encode({"at": devices.due(10), "a": 1, "v": [1, 1]})
        devices.producer.produce(devices.sensor, value, stray, 0)
        devices.producer.flush()
        wait_for(lambda: len(messages(spec, kafka, "deadletter", DeadLetter)) == 1)
    with aligning(spec, kafka) as again:
        go_on(spec, kafka, 10, 13)

    frames = frames_of(spec, kafka)
    assert sorted((f.tick, f.cohort) for f in frames) == sorted(
        (tick, cohort) for tick in range(1, 13) for cohort in {cohort_of(n, 3) for n in NAMES}
    )
    for frame in frames:
        for name, row in zip(frame.entities, frame.values, strict=True):
            assert row[0] == (1 if frame.tick == 10 and name == stray else row[0])
            if not (frame.tick == 10 and name == stray):
                assert row[0] == NAMES.index(name) + frame.tick / 100
    (letter,) = messages(spec, kafka, "deadletter", DeadLetter)
    assert (letter.reason, letter.key) == ("misplaced", stray)
    epochs = [run["epoch"] for run in (alone, *parts, again)]
    assert epochs[0] == 0
    assert min(epochs[1:4]) == 1
    assert epochs[4] > max(epochs[1:4])
    assert sum(part["frames"] for part in parts) == 5 * COHORTS


def test_what_cannot_be_shared_is_refused_with_a_remedy(kafka: Kafka) -> None:
    spec = new_system(kafka)
    devices = Devices(spec, kafka)
    assert for_one_aligner(spec, kafka["bootstrap.servers"], kafka) == []
    for number, name in enumerate(NAMES):
        devices.producer.produce(devices.sensor, b"{}", name, number % 3)
    devices.producer.flush()
    (line,) = for_one_aligner(spec, kafka["bootstrap.servers"], kafka)
    assert line.startswith(f"{devices.sensor}: ")
    assert "of 5 sampled records" in line
    run = (spec, kafka["bootstrap.servers"], kafka, Event())
    with pytest.raises(KafkaSetupError, match="murmur2"):
        run_align(*run, share=Share(1, 3))
    with pytest.raises(KafkaSetupError, match="divides"):
        run_align(*run, share=Share(1, 2))
