"""Alignment with everything at hand: one channel at one tick, from all readings ever made."""

import numpy as np
import numpy.typing as npt

from schemas.system import SystemSpec


def offline(
    times: npt.NDArray[np.int64],
    values: npt.NDArray[np.float64],
    now: int,
    spec: SystemSpec,
    align: str,
    max_age: int,
) -> float | None:
    """One channel at one tick; None where how long a tick waits for a neighbour decides."""
    end = int(np.searchsorted(times, now, side="right"))
    if not end or now - times[end - 1] > max_age:
        return float("nan")
    if align == "mean":  # of the last tick that had a reading
        tick_us = -(-int(times[end - 1]) // spec.period_us) * spec.period_us
        begin = int(np.searchsorted(times, tick_us - spec.period_us, side="right"))
        return float(values[begin:end].mean())
    last = float(values[end - 1])
    if align == "linear" and times[end - 1] < now:
        if end == len(times):
            return last
        gap = int(times[end] - times[end - 1])
        if gap > max_age:
            return last
        if gap > spec.lateness_us:
            return None
        return last + (float(values[end]) - last) * float((now - times[end - 1]) / gap)
    return last
