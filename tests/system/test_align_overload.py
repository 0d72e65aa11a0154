"""An aligner that gets twice what it can read: the newest counts, and what was shed is told."""

from __future__ import annotations

import re
import time

import pytest

from schemas.messages import DeadLetter, decode
from streams import align_kafka
from tests.system.loop import records
from tests.system.test_align_kafka import (
    NAMES,
    Devices,
    Kafka,
    aligning,
    frames_of,
    new_system,
    wait_for,
)

pytestmark = pytest.mark.broker
CAPACITY = 1_000  # records a second


def test_what_is_too_much_is_passed_over_and_told(
    kafka: Kafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(align_kafka, "_MOST", CAPACITY // 10)
    spec = new_system(kafka, tick="200 ms", lateness="100 ms", every="50 ms")
    devices, sent, reported = Devices(spec, kafka), 0, list[DeadLetter]()

    def overload(seconds: float) -> None:
        nonlocal sent
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            now = time.time_ns() // 1_000
            for number in range(CAPACITY // 5):
                devices.reading(NAMES[number % 5], now + number, 1.0)
            sent += CAPACITY // 5
            devices.producer.flush()
            time.sleep(0.08)  # twice as many as are read, at least

    def told() -> list[DeadLetter]:
        found = (decode(DeadLetter, m.value() or b"") for m in records(spec, kafka, "deadletter"))
        return [letter for letter in found if letter.reason == "shed"]

    def counted() -> int:
        found = [re.match(r"(\d+) records", letter.detail) for letter in told()]
        return sum(int(one[1]) for one in found if one)

    read: list[int] = []

    def slowly(count: int) -> None:
        read.append(count)
        time.sleep(count / CAPACITY)

    with aligning(spec, kafka, clock="wall", on_batch=slowly) as run:
        limit = time.monotonic() + 60
        while not reported and time.monotonic() < limit:
            overload(0.5)
            reported = told()
        while not any(f.values[:, 0].max() == 42 for f in frames_of(spec, kafka)[-9:]):
            for name in NAMES:
                devices.reading(name, time.time_ns() // 1_000, 42.0)
            sent += len(NAMES)
            devices.producer.flush()
            assert time.monotonic() < limit + 60
        wait_for(lambda: sum(read) + counted() == sent + 1)  # and the claim
    assert (shed := counted()) == run["dead_letters"]["shed"] == run["counters"]["shed"] > 0
    assert run["counters"]["readings"] + shed == sent
    assert {letter.topic for letter in reported} == {devices.sensor}
