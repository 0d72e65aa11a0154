"""Standbys on a real broker: one takes over from a stopped aligner, another from a killed one."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import msgspec
import pytest

from schemas.frames import Frame
from schemas.messages import Control, DeadLetter
from schemas.system import SystemSpec
from tests.system.loop import messages
from tests.system.test_align_kafka import (
    COHORTS,
    TEXT,
    WAIT_S,
    Devices,
    Kafka,
    frames_of,
    new_system,
    wait_for,
)

pytestmark = pytest.mark.broker


@contextmanager
def process(file: Path, kafka: Kafka, *more: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "streams.cli", "align", str(file), "--clock", "event"]
    command += ["--bootstrap-servers", kafka["bootstrap.servers"], "--json", *more]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    started = subprocess.Popen(command, text=True, **pipes)  # type: ignore[call-overload]
    with started:
        try:
            yield started
        finally:
            started.kill()


def that_count(frames: list[Frame]) -> dict[tuple[int, int], Frame]:
    """(cohort, tick) → the frame that consumers take: no repeated tick, and no lower epoch."""
    last: dict[int, Frame] = {}
    found = {}
    for frame in frames:
        before = last.get(frame.cohort)
        if before is None or (
            frame.tick > before.tick and frame.header.epoch >= before.header.epoch
        ):
            last[frame.cohort] = found[frame.cohort, frame.tick] = frame
    return found


def claims(spec: SystemSpec, kafka: Kafka) -> list[Control]:
    return [c for c in messages(spec, kafka, "control", Control) if c.kind == "align"]


def speaker(spec: SystemSpec, kafka: Kafka) -> int:
    """The process that was first to claim the highest epoch."""
    first = max(claims(spec, kafka), key=lambda claim: claim.epoch or 0)
    found = re.search(r"process (\d+)", first.by)
    assert found is not None
    return int(found[1])


def test_standbys_take_over_and_no_reading_is_lost(kafka: Kafka, tmp_path: Path) -> None:
    spec = new_system(kafka)
    devices, file = Devices(spec, kafka), tmp_path / "zoo.yaml"
    file.write_text(TEXT.format(system=spec.system, tick="100 ms", lateness="1 s", every="100 ms"))

    def go_on(begin: int, end: int) -> None:
        for tick in range(begin, end):
            devices.tick(tick)
            devices.producer.produce(devices.sensor, b"?", "ant", tick % 2)
        devices.producer.flush()
        wait_for(lambda: len(that_count(frames_of(spec, kafka))) == COHORTS * (end - 1))

    with ExitStack() as stack:
        active = stack.enter_context(process(file, kafka))
        wait_for(lambda: len(claims(spec, kafka)) == 1)
        standbys = {
            started.pid: started
            for started in (stack.enter_context(process(file, kafka, "--standby")) for _ in "ab")
        }
        go_on(1, 20)
        os.kill(active.pid, signal.SIGSTOP)
        go_on(20, 40)
        second = standbys.pop(speaker(spec, kafka))
        os.kill(active.pid, signal.SIGCONT)
        devices.tick(40)
        devices.producer.flush()
        _, said = active.communicate(timeout=WAIT_S)
        assert active.returncode == 2
        assert f"process {second.pid}" in said
        assert "--standby" in said

        second.kill()
        go_on(41, 60)
        ((third, last),) = standbys.items()
        assert speaker(spec, kafka) == third
        last.terminate()
        out, _ = last.communicate(timeout=WAIT_S)
        assert last.returncode == 0
    summary = msgspec.json.decode(out)
    assert summary["epoch"] == max(claim.epoch or 0 for claim in claims(spec, kafka))

    found = that_count(frames_of(spec, kafka))
    assert {tick for _, tick in found} == set(range(1, 60))
    for frame in found.values():
        for name, row in zip(frame.entities, frame.values, strict=True):
            number = ("ant", "bee", "cat", "dog", "elk").index(name)
            assert row.tolist() == pytest.approx(
                [number + frame.tick / 100, number + 0.02, frame.tick % 7]
            )
    letters = messages(spec, kafka, "deadletter", DeadLetter)
    assert {letter.reason for letter in letters} == {"malformed"}
    assert len({(d.topic, d.partition, d.offset) for d in letters}) >= 57
