"""Which windows and episodes were foreseen worst, in which channel."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from models.data import Sequences
from models.evaluation.recalibrate import rounded
from models.evaluation.result import Evaluation
from models.evaluation.scores import average
from models.evaluation.windows import WARM

F64 = npt.NDArray[np.float64]

SHOWN = 4


@dataclass(frozen=True)
class Odd:
    """A window: where it is from, its worst channel, and how bad it is there.

    `times` is the channel's mean CRPS over the window in units of what is usual at the same ticks.
    """

    window: int
    channel: int
    times: float
    run: int
    entity: str
    tick: int


def badness(found: Evaluation) -> F64:
    """`[B, C - 1]` mean CRPS of each window as a multiple of the usual; NaN where nothing moves."""
    seen = found.foreseen
    usual = average(seen.crps, 1)
    moves = average(found.persistence) > 1e-6 * seen.scale
    ratio = seen.crps / np.where(moves & (usual > 0), usual, np.nan)[:, None]
    return average(ratio)[:, : len(found.columns)]


def worst_windows(found: Evaluation, data: Sequences, count: int = SHOWN) -> tuple[Odd, ...]:
    """The `count` worst windows, no two of one block, worst first."""
    bad = np.nan_to_num(badness(found), nan=-1.0)
    chosen: list[Odd] = []
    blocks: set[int] = set()
    for window in np.argsort(-bad.max(1), kind="stable"):
        block, channel = int(found.windows.block[window]), int(bad[window].argmax())
        if len(chosen) == count or bad[window, channel] <= 0:
            break
        if block in blocks:
            continue
        blocks.add(block)
        row = found.windows.starts[window] + WARM
        place = int(data.run[row]), str(data.entity[row]), int(data.tick[row])
        chosen.append(Odd(int(window), channel, float(bad[window, channel]), *place))
    return tuple(chosen)


def worst_episodes(
    found: Evaluation, data: Sequences, count: int = SHOWN
) -> tuple[dict[str, Any], ...]:
    """The `count` segments of the data whose windows are worst on average, as rows of a table."""
    bad = average(badness(found).T)
    segment = data.first[found.windows.starts]
    firsts, number = np.unique(segment, return_inverse=True)
    total = np.bincount(number, np.nan_to_num(bad))
    windows = np.bincount(number)
    mean = total / windows
    return tuple(
        {
            "run": int(data.run[firsts[i]]),
            "entity": str(data.entity[firsts[i]]),
            "from tick": int(data.tick[firsts[i]]),
            "ticks": int(data.last[firsts[i]] - firsts[i]),
            "windows": int(windows[i]),
            "times the usual CRPS": rounded(float(mean[i])),
        }
        for i in np.argsort(-mean, kind="stable")[:count]
    )


def typical_windows(found: Evaluation, count: int = SHOWN) -> tuple[int, ...]:
    """Windows from the best to the 95th percentile, of those that reach the longest horizon."""
    bad = np.nan_to_num(average(badness(found).T))
    whole = np.flatnonzero(np.isfinite(found.windows.alive[:, -1]))
    order = whole[np.argsort(bad[whole], kind="stable")]
    places = np.linspace(0.05, 0.95, count) * (len(order) - 1)
    return tuple(int(order[int(place)]) for place in places)
