"""The planner's memory: rows move with their entities, plans age, arrays come back."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from planner.memory import PlannerMemory
from schemas.system import load_spec

SPEC = load_spec("autoscale")


def some() -> PlannerMemory:
    """Three entities: planned at ticks 10 and 8 (horizons 12 and 2), and never."""
    memory = PlannerMemory.fresh(SPEC, 3)
    sequence = np.arange(36.0).reshape(3, 12, 1)
    planned_at = memory.planned_at.copy()
    planned_at[:2] = [10, 8]
    return replace(
        memory,
        sequence=sequence,
        planned_at=planned_at,
        length=np.array([12, 2, 0], dtype=np.int32),
        stakes=np.array([1.0, 2.0, 3.0]),
        fallback=np.arange(60.0).reshape(3, 20),
    )


def test_a_fresh_memory_knows_nothing() -> None:
    memory = PlannerMemory.fresh(SPEC, 2)
    assert memory.sequence.shape == (2, 12, 1)
    assert memory.fallback.shape == (2, 20)
    assert (memory.age(-5) == np.iinfo(np.int64).max).all()
    assert (memory.ahead(0, 3) == 1.0).all()  # the safe value


def test_plans_are_read_from_the_tick_on_and_their_last_action_repeats() -> None:
    memory = some()
    assert memory.age(11).tolist()[:2] == [1, 3]
    ahead = memory.ahead(11, 13)[..., 0]
    assert ahead[0].tolist() == [*np.arange(1.0, 12.0), 11.0, 11.0]
    assert (ahead[1] == 13.0).all()
    assert (memory.ahead(10**9, 2)[0] == 11.0).all()


def test_rows_move_with_their_entities() -> None:
    memory, fresh = some(), PlannerMemory.fresh(SPEC, 1)
    moved = memory.carry(SPEC, np.array([1, -1, 0]))
    for name, array in moved.arrays().items():
        before = memory.arrays()[name]
        np.testing.assert_array_equal(array[0], before[1])
        np.testing.assert_array_equal(array[1], fresh.arrays()[name][0])
        np.testing.assert_array_equal(array[2], before[0])
        assert array.dtype == before.dtype
    assert len(memory.carry(SPEC, np.array([], dtype=np.intp)).stakes) == 0


def test_arrays_come_back_and_may_be_read_only() -> None:
    memory = some()
    frozen = {name: array.copy() for name, array in memory.arrays().items()}
    for array in frozen.values():
        array.flags.writeable = False
    again = PlannerMemory.from_arrays(frozen)
    after = again.after_gate(np.array([True, False, True]), again.latch).forget_plans(
        np.array([1, 0, 0], bool)
    )
    assert after.gated.tolist() == [True, False, True]
    assert after.age(11).tolist()[:2] == [np.iinfo(np.int64).max, 3]
    assert memory.planned_at[0] == 10  # nothing was changed in place


def test_the_last_two_applied_values_are_known_where_no_tick_was_missed() -> None:
    first, second = np.full((3, 1), 20.0), np.full((3, 1), 22.0)
    memory = some().at(SPEC, first)
    assert np.isnan(memory.before).all()
    after = memory.at(SPEC, second)
    assert (after.before == 20.0).all()
    assert (after.applied == 22.0).all()
    assert np.isnan(memory.at(SPEC, second, follows=False).before).all()
    kept = after.without_plans(SPEC)
    assert (kept.before == 20.0).all()
    assert (kept.applied == 22.0).all()
    closed = after.after_gate(np.ones(3, bool), after.latch + 1)
    np.testing.assert_array_equal(closed.without_plans(SPEC).latch, after.latch + 1)


def test_a_row_of_an_older_version_knows_no_applied_values() -> None:
    arrays = some().at(SPEC, np.full((3, 1), 20.0)).arrays()
    older = {name: a for name, a in arrays.items() if name not in ("applied", "before", "latch")}
    memory = PlannerMemory.from_arrays(older)
    assert np.isnan(memory.applied).all()
    assert memory.before.shape == (3, 1)
    np.testing.assert_array_equal(memory.latch, PlannerMemory.fresh(SPEC, 3).latch)
    with pytest.raises(KeyError, match="stakes"):
        PlannerMemory.from_arrays({n: a for n, a in arrays.items() if n != "stakes"})


def test_what_somebody_else_did_is_no_motion_to_go_on_with() -> None:
    first, moved = np.full((3, 1), 20.0), np.array([[22.0], [60.0], [22.0]])  # 10 up at most
    ours = np.array([True, True, False])
    after = some().at(SPEC, first).at(SPEC, moved, ours=ours)
    assert after.before.ravel().tolist() == [20.0, 60.0, 22.0]
    near = np.full((3, 1), 30.0 + 1e-9)  # as a report may round it
    assert (some().at(SPEC, first).at(SPEC, near).before == 20.0).all()
