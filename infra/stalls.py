"""How long this machine stands still by itself: no software on it can be quicker than that.

The host of a virtual machine may stop its processors for tens of milliseconds, and often accounts
for it as if the program had run: neither stolen time nor a program's own processor time shows it.
What shows it is work that always takes the same, done again and again on every processor with as
much rest in between: where it suddenly takes longer, the machine stood still, or others had it.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any, Final

import numpy as np

PAUSE_MS: Final = 5.0
_PIECE_S: Final = 0.004
_TRIAL: Final = 20_000

Piece = tuple[float, float]


def measure_stalls(seconds: float = 20.0) -> dict[str, Any]:
    """Works at half load on every processor for `seconds`, in pieces of 4 ms.

    Returns `seconds`, `processors`, `pieces`; `pauses` (pieces that took `pause_ms` longer than
    the median of their processor) and how many a second, `pauses_per_s`; `stopped_share`, the part
    of the time that they took longer; `longest_ms`, and `piece_p99_ms` above the median. Run it on
    an idle machine: else it measures who else is there.
    """
    processors = _processors()
    with ProcessPoolExecutor(len(processors), mp_context=get_context("spawn")) as pool:
        runs = [pool.submit(_work, number, seconds) for number in processors]
        return summary([run.result() for run in runs], seconds)


def summary(runs: Sequence[Sequence[Piece]], seconds: float) -> dict[str, Any]:
    """What `measure_stalls` returns, of the pieces (begin, duration; s) of each processor."""
    extra = [np.array([took for _, took in run]) - np.median([t for _, t in run]) for run in runs]
    over = np.concatenate(extra) * 1e3
    pauses = over[over > PAUSE_MS]
    return {
        "seconds": seconds,
        "processors": len(runs),
        "pieces": len(over),
        "pause_ms": PAUSE_MS,
        "pauses": len(pauses),
        "pauses_per_s": round(len(pauses) / len(runs) / seconds, 3),
        "stopped_share": round(float(pauses.sum()) / 1e3 / len(runs) / seconds, 5),
        "longest_ms": round(float(over.max()), 2),
        "piece_p99_ms": round(float(np.percentile(over, 99)), 2),
    }


def _processors() -> list[int]:
    if sys.platform == "linux":
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))  # nobody can be bound to one there


def _work(processor: int, seconds: float) -> list[Piece]:
    if sys.platform == "linux":
        os.sched_setaffinity(0, {processor})
    count = _steps()
    pieces: list[Piece] = []
    end = time.monotonic() + seconds
    while (now := time.monotonic()) < end:
        _spend(count)
        took = time.monotonic() - now
        pieces.append((now, took))
        time.sleep(min(took, _PIECE_S))
    return pieces


def _steps() -> int:
    """How many steps take as long as a piece; the quickest of some trials."""
    best = min(_timed(_TRIAL) for _ in range(20))
    return max(1, int(_TRIAL * _PIECE_S / best))


def _timed(count: int) -> float:
    began = time.monotonic()
    _spend(count)
    return time.monotonic() - began


def _spend(count: int) -> int:
    total = 0
    for number in range(count):
        total += number
    return total
