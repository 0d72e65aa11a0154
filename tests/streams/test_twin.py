"""When a twin answers for the first worker: never twice, never for nobody, never not at all."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from planner.memory import PlannerMemory
from schemas.frames import Frame
from schemas.messages import Action
from schemas.system import load_spec
from streams.decide import step
from streams.twin import StandIn, Twin, without_plans
from tests.planner.worlds import make_frame

SPEC = load_spec("nav2d")
ENTITIES = 3


def frame_at(tick: int, entities: int = ENTITIES) -> Frame:
    return make_frame(SPEC, np.zeros((entities, 6)), tick=tick)


def action(entity: str, tick: int, worker: str = "one", system: str = "nav2d") -> Action:
    return Action("id", system, entity, tick, 0, {}, 0, mode=0, reasons=0, worker=worker)


# Of each tick: which entities the first worker answers before the twin's wait is over, and after.
Ticks = list[tuple[set[int], set[int]]]
some = st.sets(st.integers(0, ENTITIES - 1))


@given(st.lists(st.tuples(some, some), min_size=1, max_size=12))
def test_every_entity_is_answered_by_one_in_time_and_by_both_only_when_the_first_is_late(
    ticks: Ticks,
) -> None:
    twin = StandIn("nav2d", "two")
    lost: list[bool] = []  # of each tick: whether the first worker was silent in time, and late
    for tick, (early, late) in enumerate(ticks):
        frame = frame_at(tick)
        names = frame.entities
        alone = twin.alone(frame)
        assert alone == (lost[-1:] == [True]), "alone: nobody else answered the tick before"
        before = set() if alone else early  # who is alone does not wait to hear of them
        for i in sorted(before):
            twin.heard(action(names[i], tick))
        assert twin.owed(frame) == {name for i, name in enumerate(names) if i not in before}
        sent = twin.answers(frame)
        assert sent | {names[i] for i in before} == set(names), "somebody answers for each"
        assert not sent & {names[i] for i in before}, "who was answered in time is not again"
        for i in sorted(early | late):
            twin.heard(action(names[i], tick))
        lost.append(len(sent) == len(names) and not early | late)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, ENTITIES - 1)), max_size=20))
def test_what_is_heard_counts_for_older_ticks_and_in_any_order(
    heard: list[tuple[int, int]],
) -> None:
    names = frame_at(0).entities
    forward, backward = StandIn("nav2d", "two"), StandIn("nav2d", "two")
    for order, twin in ((heard, forward), (heard[::-1], backward)):
        for tick, i in order:
            twin.heard(action(names[i], tick))
    for tick in range(7):
        frame = frame_at(tick)
        assert forward.owed(frame) == backward.owed(frame)
        newest = {i: max((t for t, j in heard if j == i), default=-1) for i in range(ENTITIES)}
        assert forward.owed(frame) == {names[i] for i, at in newest.items() if at < tick}


def test_ones_own_actions_and_those_of_another_system_are_nobodys_answer() -> None:
    twin, frame = StandIn("nav2d", "two"), frame_at(4)
    for name in frame.entities:
        twin.heard(action(name, 4, worker="two"))
        twin.heard(action(name, 4, system="nav3d"))
    assert twin.owed(frame) == set(frame.entities)


def test_nobody_is_owed_an_answer_where_nobody_is() -> None:
    twin, empty = StandIn("nav2d", "two"), frame_at(4, entities=0)
    assert twin.answers(empty) == frozenset()
    assert not twin.alone(frame_at(5)), "an empty cohort is no sign that the first one is gone"


async def test_a_wait_ends_with_the_last_answer_and_at_its_limit() -> None:
    twin, frame = Twin("nav2d", "two"), frame_at(0)
    began = time.monotonic_ns()
    await twin.wait(frame, began + 20_000_000)
    assert time.monotonic_ns() >= began + 20_000_000
    waiting = asyncio.create_task(twin.wait(frame, began + 10**15))
    for name in frame.entities:
        await asyncio.sleep(0)
        assert not waiting.done()
        twin.hear([action(name, 0)])
    async with asyncio.timeout(60):
        await waiting


def test_a_row_without_plans_keeps_its_belief_and_the_fallbacks_state() -> None:
    frame = frame_at(7)
    row, _ = step(SPEC, None, None, frame, None)
    memory = PlannerMemory.from_arrays(row.memory)
    arrays = {
        **memory.arrays(),
        "planned_at": memory.planned_at * 0 + 7,
        "stakes": memory.stakes + 1,
        "latch": memory.latch + 1,
    }
    bare = without_plans(replace(row, memory=arrays), SPEC)
    assert bare is not None
    assert bare.digest == row.digest
    for name, fresh in PlannerMemory.fresh(SPEC, ENTITIES).arrays().items():
        kept = name in ("fallback", "applied", "before", "latch")
        np.testing.assert_array_equal(bare.memory[name], arrays[name] if kept else fresh)
    logged = without_plans(row, SPEC, {frame.entities[1]: [1, 7, 7, 0]})
    assert logged is not None
    assert logged.memory["latch"][1].tolist() == [1, 7, 7, 0]
    assert (logged.memory["latch"][0] == memory.latch[0]).all()
    assert without_plans(None, SPEC) is None
