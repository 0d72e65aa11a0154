"""How far one may commit, whatever the order of acknowledgements, gaps and rewinds."""

from __future__ import annotations

import random

import pytest
from faust.types import TP

from streams.pending import Pending

HERE, THERE = TP("frames", 0), TP("frames", 1)


def test_a_record_that_is_not_acknowledged_holds_up_its_own_partition_alone() -> None:
    pending = Pending()
    for offset in range(5, 10):
        pending.handed_over(HERE, offset)
        pending.handed_over(THERE, offset)
        pending.acknowledged(THERE, offset)
        if offset != 5:
            pending.acknowledged(HERE, offset)
    assert (pending.committable(HERE), pending.committable(THERE)) == (5, 10)
    pending.acknowledged(HERE, 5)
    assert pending.committable(HERE) == 10


@pytest.mark.parametrize("seed", range(5))
def test_nothing_that_is_not_acknowledged_is_committed(seed: int) -> None:
    """Against the definition, with offsets that hold no record, in any order."""
    rng = random.Random(seed)
    pending, offsets = Pending(), sorted(rng.sample(range(300), 120))
    waiting: set[int] = set()
    todo = list(offsets)
    while todo or waiting:
        if todo and (not waiting or rng.random() < 0.5):
            waiting.add(offset := todo.pop(0))
            pending.handed_over(HERE, offset)
        else:
            offset = rng.choice(sorted(waiting))
            waiting.remove(offset)
            pending.acknowledged(HERE, offset)
        handed = offsets[: len(offsets) - len(todo)]
        assert pending.committable(HERE) == (min(waiting) if waiting else handed[-1] + 1)


def test_after_a_rewind_only_what_comes_anew_counts() -> None:
    pending = Pending()
    for offset in (3, 4, 5):
        pending.handed_over(HERE, offset)
    pending.forget(HERE)
    assert (pending.partitions(), pending.committable(HERE)) == ([], None)
    pending.acknowledged(HERE, 5)  # of before
    assert pending.committable(HERE) is None
    pending.handed_over(HERE, 3)
    pending.acknowledged(HERE, 3)
    assert (pending.partitions(), pending.committable(HERE)) == ([HERE], 4)
