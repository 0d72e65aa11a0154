"""Actions: one is applied per entity and tick, the first of its id; none stale, none too far."""

from itertools import pairwise
from typing import Final

import numpy as np

from schemas.codes import Status
from schemas.messages import Action, Applied, action_id
from schemas.system import SystemSpec
from schemas.topics import cohort_of
from streams.chaos.facts import Facts, Findings

TOLERANCE: Final = 1e-9  # of a limit, in the action's unit: sums of floats
_ANSWERS: Final = (Status.APPLIED, Status.EXPIRED, Status.REFUSED)


def check_applied(facts: Facts, findings: Findings) -> dict[str, int]:
    """What the actuators reported, entity by entity; gives how many actions met which end."""
    counts = dict.fromkeys((s.name.lower() for s in _ANSWERS), 0)
    counts |= {"local_fallback": 0, "actions": sum(map(len, facts.actions.values()))}
    for entity, reports in facts.applied.items():
        answered, fallen = -(2**62), -(2**62)
        applied: set[int] = set()
        for _, report in reports:
            status = Status(report.status)
            counts[status.name.lower()] += 1
            if status is Status.LOCAL_FALLBACK:
                if report.tick < fallen:
                    findings.add("order", f"{entity}: fallback of {report.tick} after {fallen}")
                fallen = max(fallen, report.tick)
                continue
            if status is Status.APPLIED and report.tick in applied:
                findings.add("once", f"{entity}: tick {report.tick} was applied twice")
            elif report.tick <= answered:
                findings.add("order", f"{entity}: {report.tick} was answered after {answered}")
            answered = max(answered, report.tick)
            if status is Status.APPLIED:
                applied.add(report.tick)
                _check_one(facts, findings, report)
    return counts


def _check_one(facts: Facts, findings: Findings, report: Applied) -> None:
    """An applied action is the first of its id, and was still valid."""
    where = f"{report.entity}, tick {report.tick}"
    sent = facts.actions.get((report.entity, report.tick), [])
    if report.id != action_id(facts.log.spec.system, report.entity, report.tick):
        findings.add("first", f"{where}: id {report.id} is not that of entity and tick")
    elif not sent:
        findings.add("first", f"{where}: it was applied, but no worker sent it")
    elif sent[0].values != report.values:
        findings.add("first", f"{where}: {report.values} was applied, {sent[0].values} sent first")
    elif report.time > sent[0].valid_until:
        late_us = report.time - sent[0].valid_until
        findings.add("stale", f"{where}: it was applied {late_us} us after valid_until")


def check_envelope(facts: Facts, findings: Findings) -> dict[str, int]:
    """Every action is in range, and within its rate of the value applied in its frame."""
    spec, blind = facts.log.spec, 0
    for (entity, tick), sent in facts.actions.items():
        frame = facts.frame_of(cohort_of(entity, spec.cohorts), tick)
        if frame is None or entity not in frame.entities:
            findings.add("envelope", f"{entity}, tick {tick}: an action without a frame")
            continue
        before = frame.applied[frame.entities.index(entity)]
        blind += bool(np.isnan(before).any())
        for action in sent:
            if why := _outside(spec, action, before):
                findings.add("envelope", f"{entity}, tick {tick}: {why}")
    return {"without_rate": blind}


def _outside(spec: SystemSpec, action: Action, before: "np.typing.NDArray[np.float64]") -> str:
    """Why an action is outside its envelope; `before` [A] is in force, NaN where unknown."""
    if set(action.values) != set(spec.action_columns):
        return f"it sets {sorted(action.values)}"
    values = np.array([action.values[name] for name in spec.action_columns])
    if not np.isfinite(values).all():
        return f"{values} is not finite"
    if (values < spec.action_low).any() or (values > spec.action_high).any():
        return f"{values} is outside {spec.action_low} to {spec.action_high}"
    if (spec.action_integer & (values != np.rint(values))).any():
        return f"{values} is not whole"
    origin = np.clip(before, spec.action_low, spec.action_high)
    origin = np.where(spec.action_integer, np.rint(origin), origin)
    rise = np.where(np.isnan(origin), 0.0, values - origin)
    if (rise > spec.rate_up + TOLERANCE).any() or (-rise > spec.rate_down + TOLERANCE).any():
        return f"{values} after {before}: faster than {spec.rate_up} up, {spec.rate_down} down"
    return ""


def gaps_ms(facts: Facts) -> dict[str, int]:
    """Entity → the longest time between two actions that it applied, by Kafka's clock.

    Also that from its last one to its last report: an entity that only fell back from then on waits
    to the end.
    """
    gaps = {}
    for entity, reports in facts.applied.items():
        stamps = [entry.stamp_ms for entry, said in reports if said.status == Status.APPLIED]
        ends = [reports[-1][0].stamp_ms] if stamps else []
        gaps[entity] = max(_steps(stamps + ends), default=0)
    return gaps


def _steps(stamps: list[int]) -> list[int]:
    return [after - before for before, after in pairwise(stamps)]


def applied_values(facts: Facts) -> dict[tuple[str, int], dict[str, float]]:
    """(entity, tick) → what was applied first."""
    found: dict[tuple[str, int], dict[str, float]] = {}
    for entity, reports in facts.applied.items():
        for _, said in reports:
            if said.status == Status.APPLIED:
                found.setdefault((entity, said.tick), said.values)
    return found
