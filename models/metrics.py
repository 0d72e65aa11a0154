"""The metrics that a workflow may ask for: names, values on held-out data, and bounds on them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from models.deployed import Acted
from models.evaluation.held_out import HORIZONS
from models.evaluation.recalibrate import rounded
from models.evaluation.result import Evaluation

ONE_STEP, RETURN, VIOLATIONS = "one_step_loss", "task_return", "constraint_violations"
ROLLOUT: Final = "rollout_error@"
FARTHEST: Final = max(HORIZONS)
ACTED: Final = (RETURN, VIOLATIONS)
"""The metrics that need a plant."""
USUAL: Final = (ONE_STEP, f"{ROLLOUT}5", f"{ROLLOUT}20")
"""Those that cost nothing beside the evaluation that every bundle gets."""
KNOWN: Final = f"{ONE_STEP}, {ROLLOUT}K (K from 1 to {FARTHEST}), {RETURN}, {VIOLATIONS}"


def checked_name(name: str) -> str:
    """`name`, where it is that of a metric. Raises `ValueError`."""
    if name in (ONE_STEP, *ACTED):
        return name
    ticks = name.removeprefix(ROLLOUT)
    if ticks != name and ticks.isdecimal() and 1 <= int(ticks) <= FARTHEST and ticks[0] != "0":
        return name
    raise ValueError(f"{name!r} is no metric; there are {KNOWN}")


def as_mapping(value: Any) -> Any:
    """Names, perhaps with bounds, as one mapping: of a list, of a mapping, or of both mixed."""
    if isinstance(value, dict):
        return value
    if not isinstance(value, list | tuple):
        raise ValueError(f"write a list of names, or a mapping to bounds; there are {KNOWN}")
    found: dict[Any, Any] = {}
    for one in value:
        pairs = one if isinstance(one, dict) else {one: None} if isinstance(one, str) else None
        if pairs is None:
            raise ValueError(f"{one!r}: write a name, or a name with its bound; there are {KNOWN}")
        for name, bound in pairs.items():
            if name in found:
                raise ValueError(f"{name} stands twice; remove one of them")
            found[name] = bound
    return found


def measured(
    asked: Mapping[str, float | None], found: Evaluation, act: Acted | str
) -> dict[str, dict[str, Any]]:
    """Per metric its value, or why there is none, and whether it keeps to its bound.

    Args:
        act: what the deployed policy did, or why it did nothing.
    """
    return {name: _one(name, bound, found, act) for name, bound in asked.items()}


def passed(metrics: Mapping[str, Mapping[str, Any]]) -> bool | None:
    """Whether all bounds are kept; None where there is none."""
    verdicts = [one["passed"] for one in metrics.values() if "passed" in one]
    return all(verdicts) if verdicts else None


def missed(metrics: Mapping[str, Mapping[str, Any]]) -> str:
    """The metrics beyond their bounds, for people; empty where there is none."""
    return ", ".join(f"{n} {_told(m)}" for n, m in metrics.items() if m.get("passed") is False)


def lines(metrics: Mapping[str, Mapping[str, Any]]) -> str:
    """A line for each metric."""
    width = max((len(name) for name in metrics), default=0)
    return "\n".join(f"{name:>{width}}  {_told(one)}" for name, one in metrics.items())


def _told(one: Mapping[str, Any]) -> str:
    value = one["value"]
    text = f"{value:.4g}" if value is not None else f"- ({one['reason']})"
    if "bound" in one:
        verdict = "passed" if one["passed"] else "missed"
        text += f"  {one['wanted']} {one['bound']:g}: {verdict}"
    return text


def _one(name: str, bound: float | None, found: Evaluation, act: Acted | str) -> dict[str, Any]:
    value = _value(name, found, act)
    told: dict[str, Any] = {"value": None, "reason": value}
    if isinstance(value, float):
        told = {"value": rounded(value)}
    if bound is None:
        return told
    least = name == RETURN
    kept = isinstance(value, float) and (value >= bound if least else value <= bound)
    wanted = "at least" if least else "at most"
    return {**told, "wanted": wanted, "bound": bound, "passed": kept}


def _value(name: str, found: Evaluation, act: Acted | str) -> float | str:
    """The value, or why there is none."""
    if name in ACTED:
        if isinstance(act, str):
            return act
        value = act.returned if name == RETURN else act.violations
        return "no constraint of the spec was seen" if value is None else value
    if name == ONE_STEP:
        return _mean(found.nll[0, :-1])
    ticks = int(name.removeprefix(ROLLOUT))
    if ticks > len(found.rmse):
        return f"held-out episodes reach {len(found.rmse)} ticks ahead"
    return _mean(found.of_persistence[ticks - 1, :-1])


def _mean(values: Any) -> float | str:
    """Over the channels that are known and move."""
    known = np.asarray(values, dtype=np.float64)
    known = known[np.isfinite(known)]
    value = float(known.mean()) if len(known) else math.nan
    return value if math.isfinite(value) else "no channel is known that moves"
