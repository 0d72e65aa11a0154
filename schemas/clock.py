"""Durations as people write them, and ticks as the loop counts them; all in int microseconds."""

import re
from typing import Final

UNITS: Final[dict[str, int]] = {
    "us": 1,
    "ms": 1_000,
    "s": 1_000_000,
    "min": 60_000_000,
    "h": 3_600_000_000,
    "d": 86_400_000_000,
}
_DURATION = re.compile(r"\s*([0-9]+(?:\.[0-9]*)?|\.[0-9]+)\s*([a-zµ]+)\s*")


def parse_duration(text: str) -> int:
    """Microseconds of a duration such as `15 s` or `1.5 h`; `ValueError` says what fits."""
    match = _DURATION.fullmatch(text)
    unit = match.group(2).replace("µ", "u") if match else ""
    if match is None or unit not in UNITS:
        raise ValueError(
            f"{text!r} is not a duration: write a number and one of {', '.join(UNITS)}, like '15 s'"
        )
    return round(float(match.group(1)) * UNITS[unit])


def format_duration(microseconds: int) -> str:
    """The shortest exact form of a duration, in the largest unit that divides it."""
    for unit in reversed(UNITS):
        if microseconds % UNITS[unit] == 0:
            return f"{microseconds // UNITS[unit]} {unit}"
    raise AssertionError("every integer is a multiple of 1 us")


def tick_of(time_us: int, epoch_us: int, period_us: int) -> int:
    """The tick that a reading at `time_us` belongs to: `ceil((t - epoch) / period)`."""
    return -((epoch_us - time_us) // period_us)


def tick_time(tick: int, epoch_us: int, period_us: int) -> int:
    """The decision time of `tick`, in microseconds since 1970 UTC."""
    return epoch_us + tick * period_us
