"""What surrounds the loop: the order of work, the sharing of a deadline, the tally."""

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from planner.budget import FreeBudget, WallBudget
from schemas.codes import Mode, Reason
from schemas.frames import Frame, encode_frame
from schemas.messages import Action
from schemas.system import load_spec
from schemas.trajectories import decode_trajectory
from streams.bundles import Shelf
from streams.decide import decide, step
from streams.desk import MAX_IN_FLIGHT, CohortError, Desk, Options
from streams.publish import DeliveryError, Record
from streams.supervise import TryAgain
from streams.tally import Tally, percentiles
from streams.turns import Turns
from streams.twin import Twin
from streams.watchdog import Watchdog, WorkerError
from tests.planner.worlds import make_frame

SPEC = load_spec("nav2d")


@dataclass
class Outside:
    """Stands for the broker, so that a test can confirm when it wants, and see what came when."""

    log: list[str] = field(default_factory=list)
    sent: list["asyncio.Future[int]"] = field(default_factory=list)
    written: list["asyncio.Future[int]"] = field(default_factory=list)
    records: list[list[Record]] = field(default_factory=list)
    hurried: list[bool] = field(default_factory=list)

    def send(self, records: list[Record], hurry: bool = True) -> "asyncio.Future[int]":
        kinds = sorted({record.topic.split(".")[1] for record in records})
        self.log.append(f"send {','.join(kinds)}")
        self.hurried.append(hurry)
        self.records.append(records)
        future = asyncio.get_running_loop().create_future()
        self.sent.append(future)
        return future

    def read(self, partition: int, cohort: int) -> bytes | None:
        return None

    async def write(self, publisher: Any, partition: int, cohort: int, row: bytes) -> None:
        self.log.append("write")
        self.written.append(asyncio.get_running_loop().create_future())
        await self.written[-1]

    def event(self, frame: Frame, offset: int) -> Any:
        message = SimpleNamespace(
            topic="nav2d.frames", partition=3, offset=offset, key=b"3", value=b"x", timestamp=0.0
        )
        return SimpleNamespace(
            value=encode_frame(SPEC, frame),
            message=message,
            ack=lambda: self.log.append(f"ack {offset}"),
        )


def make_desk(outside: Any, **options: Any) -> Desk:
    shelf = Shelf(SPEC, [], "cpu")
    return Desk(SPEC, outside, outside, shelf, Options("w", **options))


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def publish(desk: Desk, outside: Outside, tick: int) -> None:
    frame = make_frame(SPEC, np.zeros((2, 6)), tick=tick)
    event = outside.event(frame, offset=tick)
    row, decisions = step(SPEC, None, desk.row(event, frame), frame, FreeBudget(0))
    acted = await desk.act(frame, row, decisions, 0)
    await desk.publish(event, frame, row, decisions, acted)


async def test_order_of_work() -> None:
    """Actions and trajectory confirmed, then the row written and confirmed, then the frame."""
    outside = Outside()
    desk = make_desk(outside)
    await publish(desk, outside, 0)
    await settle()
    assert outside.log == ["send actions", "send trajectories"]
    assert outside.hurried == [True, False], "nobody waits for the log"
    outside.sent[1].set_result(0)
    await settle()
    assert outside.log[2:] == []
    outside.sent[0].set_result(0)
    await settle()
    assert outside.log[2:] == ["write"]
    outside.written[0].set_result(0)
    await settle()
    assert outside.log[2:] == ["write", "ack 0"]
    assert desk.tally.frames == 1


async def test_rows_of_a_cohort_are_written_in_the_order_of_its_ticks() -> None:
    outside = Outside()
    desk = make_desk(outside)
    for tick in (0, 1):
        await publish(desk, outside, tick)
    for future in reversed(outside.sent):  # the second frame is confirmed before the first
        future.set_result(0)
        await settle()
    assert outside.log.count("write") == 1
    outside.written[0].set_result(0)
    await settle()
    outside.written[1].set_result(0)
    await settle()
    assert outside.log[-4:] == ["write", "ack 0", "write", "ack 1"]


@pytest.mark.parametrize("where", ["sent", "written"])
async def test_what_is_not_confirmed_is_not_acknowledged(where: str) -> None:
    outside = Outside()
    desk = make_desk(outside)
    for tick in (0, 1):
        await publish(desk, outside, tick)
    if where == "written":
        for future in outside.sent:
            future.set_result(0)
        await settle()
    getattr(outside, where)[0].set_exception(DeliveryError("no"))
    await settle()
    for future in outside.sent[2:]:
        if not future.done():
            future.set_result(0)
    await desk.drain()
    assert isinstance(desk.failure, DeliveryError)
    assert not [entry for entry in outside.log if entry.startswith("ack")]


async def test_a_shadow_sends_no_action() -> None:
    outside = Outside()
    desk = make_desk(outside, role="shadow")
    await publish(desk, outside, 0)
    assert outside.log == ["send ", "send trajectories"]


@pytest.mark.parametrize(("heard", "sent"), [(0, 2), (1, 1), (2, 0)])
async def test_a_twin_answers_for_whom_nobody_else_has(heard: int, sent: int) -> None:
    """It waits for the deadline, plans in half of it more, and says what it held back."""
    outside, twin = Outside(), Twin(SPEC.system, "w")
    desk = Desk(SPEC, outside, outside, Shelf(SPEC, [], "cpu"), Options("w", role="twin"), twin)  # type: ignore[arg-type]
    frame = make_frame(SPEC, np.zeros((2, 6)), tick=0)
    event, began = outside.event(frame, offset=0), time.monotonic_ns()
    for name in frame.entities[:heard]:
        twin.hear([Action("i", SPEC.system, name, 0, 0, {}, 0, mode=0, reasons=0, worker="one")])
    assert await desk.turn(frame, None) is None
    assert (time.monotonic_ns() - began >= 1_000 * SPEC.deadline_us) or not sent
    budget = desk.budget(frame)
    assert isinstance(budget, WallBudget if sent else FreeBudget)
    row, decisions = step(SPEC, None, None, frame, budget)
    acted = await desk.act(frame, row, decisions, began)
    assert (acted.held, acted.alone) == (not sent, False)
    assert desk.ahead(frame) is None
    await desk.publish(event, frame, row, decisions, acted)
    assert outside.log == ["send actions" if sent else "send ", "send trajectories"]
    assert len(outside.records[0]) == sent
    spent = decode_trajectory(SPEC, outside.records[1][0].value or b"").decisions.spent
    assert (spent.get("held", False), spent["fresh"]) == (not sent, True)
    assert (desk.tally.held, desk.tally.summary()["decisions"]) == ((1, 0) if not sent else (0, 2))
    assert twin.stand_in.alone(make_frame(SPEC, np.zeros((2, 6)), tick=1)) == (sent == 2)


async def test_a_cohort_that_does_not_fit_into_a_record_is_refused_before_anything_is_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("streams.desk.MOST_ROW_BYTES", 100)
    outside = Outside()
    with pytest.raises(CohortError, match=r"2 entities take .* raise `cohorts`"):
        await publish(make_desk(outside), outside, 0)
    assert outside.log == []


async def test_refused_entities_get_no_action() -> None:
    desk = make_desk(Outside())
    frame = make_frame(SPEC, np.zeros((3, 6)))
    _, decisions = step(SPEC, None, None, frame, FreeBudget(0))
    decisions.mode[1] = Mode.REFUSED
    keys = [record.key for record in desk._records.make(frame, decisions, 0)]
    assert keys == [b"e000", b"e002"]


async def test_only_under_the_wall_clock_is_a_frame_late(monkeypatch: pytest.MonkeyPatch) -> None:
    frame = make_frame(SPEC, np.zeros((1, 6)), tick=10)
    limit = frame.header.time_us + SPEC.lateness_us + SPEC.period_us
    for clock, now_us, late in (
        ("wall", limit, False),
        ("wall", limit + 1, True),
        ("event", limit + 10**9, False),
    ):
        monkeypatch.setattr(time, "time_ns", lambda now=now_us: now * 1_000)
        desk = make_desk(Outside(), clock=clock)
        assert (desk.budget(frame) is None) == late


def test_turns_share_what_is_left_of_a_ticks_deadline() -> None:
    turns = Turns(8_000)
    assert turns.take(1, 0, 4) == 2_000
    assert turns.take(1, 1_000_000, 4) == (8_000 - 1_000) // 3
    assert turns.take(1, 7_000_000, 4) == (8_000 - 7_000) // 2
    assert turns.take(1, 9_000_000, 4) == 0
    assert turns.take(2, 9_000_000, 4) == 2_000


def test_one_cohort_has_the_whole_deadline_each_tick() -> None:
    turns = Turns(8_000)
    assert [turns.take(tick, tick * 10**8, 1) for tick in range(3)] == [8_000] * 3


async def test_planning_ahead_is_for_when_all_are_answered_and_ends_with_the_tick() -> None:
    patient = SPEC.model_copy(
        update={"budget": SPEC.budget.model_copy(update={"ahead_us": 40_000})}
    )
    frame = make_frame(patient, np.zeros((2, 6)), tick=5)
    allowed = {}
    for name, spec, clock in (
        ("event", patient, "event"),
        ("old", patient, "wall"),  # the next tick was due long ago
        ("not asked for", _without_ahead(), "event"),
    ):
        desk = Desk(spec, Outside(), Outside(), Shelf(spec, [], "cpu"), Options("w", clock=clock))  # type: ignore[arg-type]
        row, _ = step(spec, None, None, frame, None)
        desk._rows = {0: row, 1: row}
        desk.budget(frame)
        assert desk.ahead(frame) is None, "the other cohort's frame waits"
        desk.budget(frame)
        allowed[name] = desk.ahead(frame) is not None
    assert allowed == {"event": True, "old": False, "not asked for": False}

    turns = Turns(8_000)
    turns.take(1, 0, 2)
    assert not turns.all_taken(2)  # another cohort's frame waits
    turns.take(1, 0, 2)
    assert turns.all_taken(2)


@pytest.mark.parametrize(("late", "waits"), [(False, True), (True, False)])
async def test_nobody_waits_for_the_actions_of_a_late_frame(late: bool, waits: bool) -> None:
    outside = Outside()
    desk = Desk(SPEC, outside, outside, Shelf(SPEC, [], "cpu"), Options("w", clock="wall"))  # type: ignore[arg-type]
    frame = make_frame(SPEC, np.zeros((2, 6)), tick=0)
    row, decisions = step(SPEC, None, None, frame, None if late else FreeBudget(0))
    acted = await desk.act(frame, row, decisions, 0)
    out = asyncio.create_task(desk.out(acted))
    await asyncio.sleep(0)
    assert out.done() == (not waits), "the broker has confirmed nothing yet"
    await out


def _without_ahead() -> Any:
    return SPEC.model_copy(update={"budget": SPEC.budget.model_copy(update={"ahead_us": None})})


def test_the_tally_names_modes_and_reasons() -> None:
    frame = make_frame(SPEC, np.zeros((3, 6)))
    _, decisions = step(SPEC, None, None, frame, None)
    tally = Tally(SPEC.system)
    tally.decided(decisions, 0.001)
    summary = tally.summary()
    assert summary["modes"] == {"fallback": 3}
    assert summary["gate"] == {"no_model": 3, "late": 3}
    assert summary["decisions"] == 3
    assert decisions.reasons[0] == Reason.NO_MODEL | Reason.LATE


def test_percentiles_of_nothing_and_of_a_hundred() -> None:
    assert percentiles([]) == {}
    assert percentiles(list(range(101)), 2.0)["p99"] == 198.0


class Clock:
    """Seconds, as a test sets them."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def stalled(looks: Sequence[tuple[float, int, int]]) -> float:
    """What a watchdog of 15 s patience, shown (seconds, frames, committed), has counted at last."""
    clock = Clock()
    dog = Watchdog(15.0, clock)
    for clock.now, frames, committed in looks:
        dog.look(frames, committed)
    return dog.stalled_s


def test_the_watchdog_barks_when_frames_go_by_and_nothing_is_committed() -> None:
    flow = [(0.1 * i, i, 7) for i in range(400)]
    assert stalled(flow[:100]) == pytest.approx(9.9)
    with pytest.raises(WorkerError, match="frames arrived") as caught:
        stalled(flow)
    assert isinstance(caught.value, TryAgain), "a new start mends it"


def test_the_watchdog_is_calm_while_commits_advance_or_nothing_happens() -> None:
    assert stalled([(0.1 * i, i, i // 20) for i in range(400)]) <= 2.0
    assert stalled([(0.0, 5, 5), *((float(i), 6, 5) for i in range(100))]) <= 1.0


def test_the_watchdog_lets_a_broker_be_away() -> None:
    before = [(0.1 * i, i, i) for i in range(50)]
    away = [(5.0 + 0.1 * i, 51, 49) for i in range(300)]  # two were confirmed, not committed
    back = [(35.0 + 0.1 * i, 52 + i, 49) for i in range(20)]
    assert 0.0 < stalled([*before, *away, *back]) < 5.0
    assert stalled([*before, *away, *back, (38.0, 80, 80)]) == 0.0


class Stream:
    """A Faust stream of given events."""

    def __init__(self, events: list[Any]) -> None:
        self.pending = events

    def noack(self) -> "Stream":
        return self

    async def events(self) -> Any:
        for event in self.pending:
            yield event


async def test_where_preparing_fails_what_was_decided_is_logged_and_acknowledged(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: Any) -> None:
        raise ValueError("a model that fails")

    monkeypatch.setattr("streams.decide.prepare", fail)
    outside = Outside()
    desk = make_desk(outside)
    made = [make_frame(SPEC, np.zeros((2, 6)), tick=tick) for tick in (0, 1)]

    async def confirm() -> None:
        while "ack 1" not in outside.log:
            for future in (*outside.sent, *outside.written):
                if not future.done():
                    future.set_result(0)
            await asyncio.sleep(0)

    stream = Stream([outside.event(frame, frame.tick) for frame in made])
    async with asyncio.timeout(5):
        await asyncio.gather(decide(stream, desk), confirm())
    assert desk._slots._value == MAX_IN_FLIGHT
    kinds = ["send actions", "send deadletter", "send trajectories", "write", "ack"]
    assert Counter(entry.rstrip(" 01") for entry in outside.log) == dict.fromkeys(kinds, 2)
    assert (desk.tally.frames, desk.tally.failures, desk.tally.gaps) == (2, 2, 0)
