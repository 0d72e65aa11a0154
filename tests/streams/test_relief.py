"""A worker that gets more frames than it can decide: the older ones go by, told and counted."""

import asyncio
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from faust.types import TP

from schemas.messages import DeadLetter, decode
from streams.decide import decide
from streams.desk import Clock, Desk
from streams.publish import Record
from streams.relief import Relief
from tests.planner.worlds import make_frame
from tests.streams.test_desk import SPEC, Outside, Stream, make_desk

FRAMES = TP("nav2d.frames", 3)


class Broker(Outside):
    """Confirms at once, and keeps dead letters."""

    def send(self, records: list[Record], hurry: bool = True) -> "asyncio.Future[int]":
        future = super().send(records, hurry)
        future.set_result(0)
        self.letters = [
            decode(DeadLetter, record.value or b"")
            for record in records
            if record.topic == "nav2d.deadletter"
        ]
        return future

    async def write(self, publisher: Any, partition: int, cohort: int, row: bytes) -> None:
        self.log.append("write")


async def take(desk: Desk, broker: Broker, *ticks: int) -> None:
    made = [broker.event(make_frame(SPEC, np.zeros((2, 6)), tick=tick), tick) for tick in ticks]
    await decide(Stream(made), desk)
    await asyncio.gather(*desk._tails.values())


async def test_frames_go_by_unread_and_a_letter_says_which() -> None:
    broker = Broker()
    desk = make_desk(broker)
    await take(desk, broker, 0, 1)
    await desk.pass_over({tuple(FRAMES): 5, ("nav2d.frames", 0): 9})  # type: ignore[dict-item]
    (letter,) = broker.letters
    assert (letter.partition, letter.offset, letter.end, letter.reason) == (3, 2, 5, "shed")
    assert desk.written_s == 0.0, "of the frame taken up last"
    assert letter.detail.startswith("3 frames")
    await take(desk, broker, 2, 3, 4, 5, 6)
    acked = [entry for entry in broker.log if entry.startswith("ack")]
    assert acked == [f"ack {offset}" for offset in range(7)]
    assert (desk.tally.frames, desk.tally.passed_over, desk.tally.gaps) == (4, 3, 1)
    assert desk.tally.summary()["frames_shed"] == 3


@pytest.mark.parametrize(("clock", "high", "grows", "shed"), [
    ("wall", 200, 2, True), ("wall", 200, 0.5, True), ("wall", 40, 0.1, False),
    ("event", 200, 2, False),
])  # fmt: skip
async def test_only_what_cannot_be_caught_up_with_soon_goes_by(
    clock: Clock, high: float, grows: float, shed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a backlog of `high` frames, 20 a second are decided while others come."""
    now = 0.0
    clocks = SimpleNamespace(monotonic=lambda: now, time=lambda: now)
    monkeypatch.setattr("streams.relief.time", clocks)
    desk = make_desk(Broker(), clock=clock)
    desk.written_s, asked = 0.0, 0

    async def ends(places: list[TP]) -> dict[TP, int]:
        nonlocal asked
        asked += 1
        return dict.fromkeys(places, int(high))

    consumer = SimpleNamespace(assignment=lambda: {FRAMES}, ends=ends)
    app = SimpleNamespace(consumer=consumer, rebalancing=False)
    relief = Relief(app, desk)
    for frame in range(160):
        now, high = now + 0.05, high + grows
        desk.tally.frames = frame + 1
        desk.read[tuple(FRAMES)] = frame + 1  # type: ignore[index]
        await relief.look()
        await asyncio.sleep(0)
    assert bool(desk._over) == shed
    assert (asked > 0) == (clock == "wall")
    desk.written_s, asked = now + 8.0, 0
    for _ in range(100):  # what comes in time leaves nothing to ask
        now += 0.05
        desk.tally.frames += 1
        await relief.look()
    assert asked == 0
    app.rebalancing, desk.tally.frames = True, 0
    desk._over.clear()
    for _ in range(100):
        now += 0.05
        desk.tally.frames += 1
        await relief.look()
        await asyncio.sleep(0)
    assert not desk._over
