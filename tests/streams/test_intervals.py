"""Intervals are sets of whole numbers."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from streams.intervals import Intervals

PAIRS = st.lists(st.tuples(st.integers(-20, 60), st.integers(0, 8)), max_size=30)


@given(PAIRS)
def test_they_hold_what_was_added_and_say_what_was_new(pairs: list[tuple[int, int]]) -> None:
    made, numbers = Intervals(), set[int]()
    for start, length in pairs:
        added = set(range(start, start + length))
        assert made.add(start, start + length) is not bool(added & numbers)
        numbers |= added
    assert {n for n in range(-40, 100) if n in made} == numbers
    assert len(made) == len(numbers)
    found = list(made)
    assert all(a < b for a, b in found)
    assert all(found[i][1] < found[i + 1][0] for i in range(len(found) - 1)), "joined and sorted"
    assert made.missing == (max(numbers) - min(numbers) + 1 - len(numbers) if numbers else 0)
    for number in range(-30, 80):
        after = made.next_after(number)
        assert after not in numbers
        assert all(n in numbers for n in range(number, after))
    assert list(Intervals(found)) == found


def test_single_numbers_in_a_row_make_one_interval() -> None:
    made = Intervals()
    assert [made.add(n) for n in (5, 6, 7, 6)] == [True, True, True, False]
    assert list(made) == [(5, 8)]
