"""A worker that gets more frames than it can decide: the newest count; what was shed is told."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from schemas.frames import encode_frame
from schemas.messages import DeadLetter, decode
from schemas.topics import topic
from streams.belief import decode_row
from streams.chaos.check_logged import check_trajectories
from streams.chaos.checker import check
from streams.chaos.facts import Findings, facts_of
from streams.chaos.log import read_log
from streams.chaos.undisturbed import undisturbed
from streams.desk import MAX_IN_FLIGHT
from streams.sink import run_sink
from streams.topic_io import make_producer, read_to_end
from tests.system.loop import records
from tests.system.processes import until
from tests.system.test_worker import SMALL, World, frames, make_world

pytestmark = [pytest.mark.broker, pytest.mark.system]
TICK_MS, SLOW_S = 40, 0.06  # two cohorts: 50 frames a second come, of which a third is decided


@pytest.fixture
def world(kafka: Mapping[str, str], tmp_path: Path) -> Iterator[World]:
    budget = {**SMALL["budget"], "deadline": "5 ms"}
    made = make_world(kafka, tmp_path, tick=f"{TICK_MS} ms", lateness="10 ms", budget=budget)
    made.slow_s, made.more = SLOW_S, {"clock": "wall"}
    yield made
    if made.process is not None and made.process.poll() is None:
        made.kill()


@contextmanager
def coming(world: World) -> Iterator[None]:
    """Frames come while the block runs, each when its tick is over."""
    spec, stop = world.spec, threading.Event()
    begin = (time.time_ns() // 1_000 - spec.epoch_us) // spec.period_us
    made = frames(spec, 30_000 // TICK_MS, begin=begin)
    producer = make_producer(world.kafka["bootstrap.servers"], world.kafka)

    def send() -> None:
        for frame in made:
            while frame.header.time_us > time.time_ns() // 1_000:
                producer.flush()
                time.sleep(TICK_MS / 1_000)
            if stop.is_set():
                break
            world.put(producer, encode_frame(spec, frame), frame.cohort)
        producer.flush()

    thread = threading.Thread(target=send, name="frames")
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def test_the_oldest_frames_go_by_and_the_newest_are_decided(world: World, tmp_path: Path) -> None:
    spec, kafka = world.spec, dict(world.kafka)
    bootstrap = kafka["bootstrap.servers"]

    def told() -> list[DeadLetter]:
        found = [decode(DeadLetter, m.value() or b"") for m in records(spec, kafka, "deadletter")]
        return [letter for letter in found if letter.reason == "shed"]

    def decided() -> dict[int, list[int]]:
        """Cohort → the offsets of its frames that were decided; it has a partition of its own."""
        found: dict[int, list[int]] = defaultdict(list)
        for message in records(spec, kafka, "beliefs"):
            row = decode_row(message.value() or b"")
            found[message.partition() or 0].append(row.offset)
        return found

    world.start()
    with coming(world):
        until(lambda: len(told()) > spec.cohorts, "a second time in which frames were passed over")
    came = defaultdict[int, set[int]](set)
    for message in read_to_end(bootstrap, kafka, topic(spec, "frames")):
        came[message.partition() or 0].add(message.offset() or 0)
    until(
        lambda: all(max(decided()[number], default=-1) == max(came[number]) for number in came),
        "the last decision",
    )
    summary, letters, done = world.stop(), told(), decided()

    shed = defaultdict[int, list[int]](list)
    for letter in letters:
        assert letter.end is not None
        shed[letter.partition] += range(letter.offset, letter.end)
    for number, offsets in came.items():
        assert sorted(shed[number] + done[number]) == sorted(offsets)
    assert summary["frames_shed"] == sum(map(len, shed.values())) > 0
    assert summary["frames"] == sum(map(len, done.values()))
    assert 0 < summary["gaps"] <= len(letters)
    assert summary["most_unacked"] <= MAX_IN_FLIGHT < summary["frames_shed"]

    ended = threading.Event()
    ended.set()
    run_sink(spec, bootstrap, kafka, ended, tmp_path / "out")
    log = read_log(spec, "wall", kafka, tmp_path / "out")
    verdict = check(log, undisturbed(spec, world.bundles))
    assert verdict.violations == 0, verdict.examples
    assert verdict.figures["frames_shed"] == summary["frames_shed"]
    assert verdict.figures["ranges_shed"] == verdict.reasons["shed"] == len(letters)
    log.topics[topic(spec, "deadletter")].clear()
    check_trajectories(facts_of(log), untold := Findings())
    assert untold.counts["trajectory"] == summary["frames_shed"]
