"""An evaluation as JSON: in brief for manifests, in full for whoever asks."""

from typing import Any

import numpy as np

from models.evaluation.foresee import LEVELS
from models.evaluation.recalibrate import TOLD, Coverage, rounded
from models.evaluation.result import F64, Evaluation


def brief(found: Evaluation) -> dict[str, Any]:
    """Per k and column error, ratio and coverage; the rest in a few figures."""
    steps = {
        str(k): {c: _step(found, k - 1, i) for i, c in enumerate(found.columns)}
        for k in found.horizons
    }
    reward = {str(k): _step(found, k - 1, -1) for k in found.horizons}
    told = {
        "windows": len(found.windows),
        "innovation_band": found.innovation_band,
        "steps": steps,
        "left_out": list(found.left_out),
        "reward": reward if np.isfinite(found.rmse[:, -1]).any() else None,
        "termination": {k: _plain(v) for k, v in found.ends.items()},
        "recalibration": _recalibrated(found),
    }
    if found.violations is not None:
        told["violations"] = {
            k: {name: _plain(v) for name, v in one.items()} for k, one in found.violations.items()
        }
    return told


def full(found: Evaluation) -> dict[str, Any]:
    """Also the growth of errors, the scores of spreads, and coverage before and after."""
    names = (*found.columns, "reward")
    growth = {
        c: {
            "rmse": [rounded(x) for x in found.rmse[:, i]],
            "of_persistence": [rounded(x) for x in found.of_persistence[:, i]],
        }
        for i, c in enumerate(names)
    }
    spread = {
        str(k): {c: _spread(found, k - 1, i) for i, c in enumerate(names)} for k in found.horizons
    }
    content = brief(found) | {"growth": growth, "calibration": spread}
    if found.after is not None:
        content["recalibration"]["coverage"] = {
            str(k): {
                c: {
                    name: _covered(coverage, k - 1, i)
                    for name, coverage in (("before", found.before), ("after", found.after))
                }
                for i, c in enumerate(found.columns)
            }
            for k in found.horizons
        }
    return content


def percent(level: float) -> str:
    """`0.8` as `80`."""
    return f"{100 * level:.0f}"


def _step(found: Evaluation, t: int, c: int) -> dict[str, float | None]:
    return {
        "rmse": rounded(found.rmse[t, c]),
        "of_persistence": rounded(found.of_persistence[t, c]),
        "coverage80": rounded(found.coverage.share[LEVELS.index(0.8), t, c]),
        "bias": rounded(found.bias[t, c]),
    }


def _spread(found: Evaluation, t: int, c: int) -> dict[str, Any]:
    still = found.still[t, c]
    return {
        "windows": int(found.counts[t, c]),
        "nll": rounded(found.nll[t, c]),
        "crps": rounded(found.crps[t, c]),
        "crps_of_persistence": rounded(found.crps[t, c] / still) if still > 0 else None,
        "pit": [rounded(x) for x in found.pit[:, t, c]],
        **_covered(found.coverage, t, c),
    }


def _covered(coverage: Coverage, t: int, c: int) -> dict[str, dict[str, float | None]]:
    shown = (("coverage", coverage.share), ("width", coverage.width), ("error", coverage.error))
    return {
        name: {percent(level): rounded(x[LEVELS.index(level), t, c]) for level in TOLD}
        for name, x in shown
    }


def _plain(value: Any) -> Any:
    return rounded(value) if isinstance(value, float) else value


def _recalibrated(found: Evaluation) -> dict[str, Any] | None:
    if found.after is None:
        return None
    fitting = found.windows.fitting
    return {
        "by": "the bundle" if found.stored is not None else "fitted here",
        "fitted_on": int(fitting.sum()),
        "judged_on": int((~fitting).sum()),
        "blocks_judged_on": len(np.unique(found.windows.block[~fitting])),
        "within_bar_before": rounded(found.within(found.before)),
        "within_bar_after": rounded(found.within(found.after)),
        "worst_gap_before": _worst(found, found.gaps(found.before)),
        "worst_gap_after": _worst(found, found.gaps(found.after)),
    }


def _worst(found: Evaluation, gaps: F64) -> dict[str, dict[str, float | None]]:
    """Per channel and level the largest of the horizons' `gaps`, with its sign."""
    place = np.abs(np.nan_to_num(gaps)).argmax(1)
    worst = np.take_along_axis(gaps, place[:, None], 1)[:, 0]
    return {
        c: {percent(level): rounded(worst[i, o]) for i, level in enumerate(TOLD)}
        for o, c in enumerate(found.columns)
    }
