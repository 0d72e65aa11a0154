"""How long a call of each graph of a bundle takes: the median of warm calls at stated sizes."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from planner.session import Bundle

F32 = npt.NDArray[np.float32]

ROWS: Final = 200
"""Entities of a call of `believe` and `actor`."""
CANDIDATES: Final = 255
HORIZON: Final = 16
CALLS: Final = 20


def time_graphs(bundle: Bundle, calls: int = CALLS) -> dict[str, dict[str, Any]]:
    """Graph → `ms`, the median elapsed time of a warm call, and the `shape` that it was given.

    On as many threads as the bundle has, on whatever machine this is: figures of one machine and
    one run are to be compared with each other alone.
    """
    rng = np.random.default_rng(0)
    h, z, m = bundle.hidden, bundle.latent, bundle.members
    a, o = len(bundle.manifest.action_columns), len(bundle.manifest.columns)
    each = -(-CANDIDATES // m)

    def some(*shape: int) -> F32:
        return rng.standard_normal(shape).astype(np.float32)

    belief, actions = (some(ROWS, h), some(ROWS, z)), some(ROWS, a)
    obs, mask = some(ROWS, o), np.ones((ROWS, o), np.float32)
    start, noise = (some(m, each, h), some(m, each, z)), some(HORIZON, m, each, z)
    future, first = some(HORIZON, m, each, a), some(m, each, a)
    rows = {"rows": ROWS}
    many = {"members": m, "rows": each, "ticks": HORIZON}
    work: dict[str, tuple[dict[str, int], Callable[[], object]]] = {
        "believe": (rows, lambda: bundle.believe(*belief, actions, obs, mask)),
        "imagine": (many, lambda: bundle.imagine(*start, future, noise)),
    }
    if bundle.acts:
        work["actor"] = rows, lambda: bundle.act(*belief)
    if bundle.drives:
        work["drive"] = many, lambda: bundle.drive(*start, first, noise)
    return {
        name: {"ms": _median_ms(call, calls), "shape": shape, "calls": calls}
        for name, (shape, call) in work.items()
    }


def _median_ms(call: Callable[[], object], calls: int) -> float:
    seconds = []
    for turn in range(-2, calls):
        began = time.perf_counter()
        call()
        if turn >= 0:
            seconds.append(time.perf_counter() - began)
    return round(1e3 * float(np.median(seconds)), 3)
