"""Durations and ticks."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.clock import format_duration, parse_duration, tick_of, tick_time

TIMES = st.integers(-(2**52), 2**52)
PERIODS = st.integers(1, 10**10)


@pytest.mark.parametrize(
    ("text", "microseconds"),
    [("15 s", 15_000_000), ("20ms", 20_000), ("1.5 h", 5_400_000_000), (".5 s", 500_000)],
)
def test_durations_as_people_write_them(text: str, microseconds: int) -> None:
    assert parse_duration(text) == microseconds


@pytest.mark.parametrize("text", ["15", "s", "15 parsecs", "-1 s", "1 s 2 ms", ""])
def test_what_is_no_duration_is_refused_with_the_remedy(text: str) -> None:
    with pytest.raises(ValueError, match="write a number and one of us, ms, s"):
        parse_duration(text)


@given(st.integers(1, 10**15))
def test_formatting_loses_nothing(microseconds: int) -> None:
    assert parse_duration(format_duration(microseconds)) == microseconds


@given(TIMES, TIMES, PERIODS)
def test_a_reading_belongs_to_the_first_tick_at_or_after_it(
    time_us: int, epoch_us: int, period_us: int
) -> None:
    tick = tick_of(time_us, epoch_us, period_us)
    assert tick_time(tick - 1, epoch_us, period_us) < time_us
    assert time_us <= tick_time(tick, epoch_us, period_us)
