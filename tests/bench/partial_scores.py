"""How far beliefs are from the truth, and whether they know it."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence

import numpy as np

from tests.bench.partial_filters import Belief
from tests.bench.partial_world import F64, Bools, Log

LEVEL, REACH = 0.9, 1.6449
"""Share of truths that a belief's interval is to hold; half its width in standard deviations."""
COLUMNS = {
    "position": "position, m",
    "position_lost": "where it was lost",
    "velocity": "velocity, m/s",
    "velocity_lost": "where position was lost",
    "read_out": "velocity, linear read-out",
    "held_90": "90 % of position hold",
    "held_90_lost": "where it was lost",
    "nees": "NEES of 4",
}
Scores = dict[str, float]


def scores(belief: Belief, log: Log, warm: int) -> Scores:
    """Root mean square errors along an axis, and the share of truths within 90 %, from `warm` on.

    Those that end in `lost` are of the ticks without a reading alone.
    """
    lost = log.lost[warm:]
    everywhere = np.ones_like(lost)
    position, velocity = (
        (belief.position, log.truth[..., :2]),
        (belief.velocity, log.truth[..., 2:]),
    )
    found: Scores = {}
    for name, where in (("", everywhere), ("_lost", lost)):
        found[f"position{name}"] = _error(*position, where, warm)
        found[f"velocity{name}"] = _error(*velocity, where, warm)
        if belief.std is not None:
            off = np.abs(belief.position - log.truth[..., :2])[warm:]
            found[f"held_90{name}"] = float((off <= REACH * belief.std[warm:])[where].mean())
    if belief.read_out is not None:
        found["read_out"] = _error(belief.read_out, log.truth[..., 2:], everywhere, warm)
    return found


def _error(belief: F64, truth: F64, where: Bools, warm: int) -> float:
    return math.sqrt(float(np.square(belief - truth)[warm:][where].mean()))


def table(runs: Sequence[Mapping[str, Scores]]) -> str:
    """One row per filter: medians over the runs, and from the least to the greatest."""
    head = ["filter", *COLUMNS.values()]
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for name in runs[0]:
        cells = [_cell([run[name][key] for run in runs if key in run[name]]) for key in COLUMNS]
        lines.append(f"| {' | '.join([name, *cells])} |")
    return "\n".join(lines)


def _cell(values: Sequence[float]) -> str:
    if not values:
        return "–"
    middle, least, most = (_short(f(values)) for f in (statistics.median, min, max))
    return middle if least == most else f"{middle} ({least} to {most})"


def _short(value: float) -> str:
    return (
        f"{value:.2f}" if value >= 0.995 else f"{value:.3f}" if value >= 0.0995 else f"{value:.4f}"
    )
