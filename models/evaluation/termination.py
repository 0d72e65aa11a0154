"""How well the end of an episode is foreseen: log loss, Brier score, and who tells ends apart."""

from typing import Any

import numpy as np
import numpy.typing as npt

from models.evaluation import scores
from models.evaluation.foresee import columns_of
from models.evaluation.windows import WARM, Imagined, Windows
from schemas.system import SystemSpec

F64 = npt.NDArray[np.float64]


def ending(spec: SystemSpec, futures: Imagined, windows: Windows) -> F64:
    """`[T, B]` foreseen probability that an episode ends with a tick that it reached.

    By the spec's expression on the imagined channels where it has one, else by the learned head;
    futures count as far as they have not ended before.
    """
    alive = futures.alive.astype(np.float64)
    if spec.termination is not None:
        ended = spec.termination.numpy(columns_of(spec, futures, windows))
        alive = np.where(np.broadcast_to(ended, alive.shape), 0.0, 1.0)
    ahead = np.ones_like(alive[:1])
    going = np.concatenate([ahead, np.cumprod(alive, axis=0)[:-1]])
    # Half a future on each side: of 80 futures none ending is not proof that none can.
    return np.asarray(((going * (1 - alive)).sum(1) + 0.5) / (going.sum(1) + 1.0))


def judge_ends(spec: SystemSpec, foreseen: F64, windows: Windows) -> dict[str, Any]:
    """Scores of `foreseen` `[T, B]` over all ticks; without any end only how many ticks there were.

    `brier_base` is the Brier score of who always says the share of ticks that are ends.
    """
    truth = np.moveaxis(windows.alive[:, WARM:], 1, 0)
    known = np.isfinite(truth)
    ends, foreseen = truth[known] < 0.5, foreseen[known]
    source = "learned head" if spec.termination is None else "expression"
    found: dict[str, Any] = {"by": source, "ticks": len(ends), "ends": int(ends.sum())}
    if not ends.any():
        return found
    base = float(ends.mean())
    return found | {
        "log_loss": scores.log_loss(foreseen, ends),
        "log_loss_base": scores.log_loss(np.full(len(ends), base), ends),
        "brier": scores.brier(foreseen, ends),
        "brier_base": base * (1 - base),
        "auroc": scores.auroc(foreseen, ends),
    }
