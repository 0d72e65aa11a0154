"""How well broken constraints are foreseen by a learned head: Brier score, and who tells them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from models.evaluation import scores
from models.evaluation.windows import WARM, Windows
from planner.session import Bundle
from schemas.system import SystemSpec

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
Cost = Callable[[F32, F32, F32, F32], F32]
"""`[T, M, N]` of what `imagine` takes: the probability that a constraint is broken."""


def cost_of(bundle: Bundle) -> Cost | None:
    """The graph `cost` of a bundle; None where it has none."""
    return bundle.cost if bundle.foresees else None


def violated(
    spec: SystemSpec, columns: Mapping[str, npt.NDArray[Any]], shape: tuple[int, ...]
) -> F64:
    """1 where a constraint, hard or soft, is broken, 0 where all hold, of `shape`.

    NaN where none is known to be broken, and a column that one of them reads is missing.
    """
    broken, unknown = np.zeros(shape, dtype=bool), np.zeros(shape, dtype=bool)
    for condition, _ in spec.constraints.values():
        missing = np.zeros(shape, dtype=bool)
        for name in condition.names:
            missing |= np.isnan(columns[name])
        broken |= ~np.broadcast_to(condition.numpy(columns), shape) & ~missing
        unknown |= missing
    return np.where(unknown & ~broken, np.nan, broken.astype(np.float64))


def seen_violations(spec: SystemSpec, obs: npt.NDArray[Any], action: npt.NDArray[Any]) -> F64:
    """`violated` of observations `[..., O]` and the actions `[..., A]` in force until then."""
    columns = {name: obs[..., i] for i, name in enumerate(spec.columns)}
    columns |= {name: action[..., i] for i, name in enumerate(spec.action_columns)}
    return violated(spec, columns, obs.shape[:-1])


def judge_violations(
    spec: SystemSpec, foreseen: F64, windows: Windows, horizons: tuple[int, ...]
) -> dict[str, Any]:
    """Per horizon the scores of `foreseen` `[T, B]` against what was seen.

    `brier_base` is the Brier score of who always says the share of windows that break one.
    """
    truth = seen_violations(spec, windows.obs[:, WARM:], windows.action[:, WARM:]).T
    return {str(k): _scored(foreseen[k - 1], truth[k - 1]) for k in horizons}


def _scored(foreseen: F64, truth: F64) -> dict[str, Any]:
    known = np.isfinite(truth)
    broken, foreseen = truth[known] > 0.5, foreseen[known]
    found: dict[str, Any] = {"windows": len(broken), "broken": int(broken.sum())}
    if not len(broken):
        return found
    base = float(broken.mean())
    found |= {"brier": scores.brier(foreseen, broken), "brier_base": base * (1 - base)}
    if 0 < base < 1:
        found["auroc"] = scores.auroc(foreseen, broken)
    return found
