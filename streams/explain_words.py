"""The codes of a decision in words that somebody on call understands."""

from __future__ import annotations

from typing import Final

from schemas.codes import Mode, Reason, Status

MODES: Final[dict[Mode, str]] = {
    Mode.PLAN: "planned at this tick",
    Mode.FOLLOW: "the rest of an earlier plan",
    Mode.ACTOR: "the learned policy (actor)",
    Mode.FALLBACK: "the verified fallback",
    Mode.HOLD: "an operator's hold: the value in force stays",
    Mode.OVERRIDE: "an operator's value",
    Mode.REFUSED: "refused: nothing was published",
}
REASONS: Final[dict[Reason, str]] = {
    Reason.NOT_FINITE: "the proposal was not a finite number: the fallback took its place",
    Reason.RANGE: "the value was outside [low, high]: moved to the nearest end",
    Reason.RATE: "the value was too far from the one in force: as far as its rate limit allows",
    Reason.ROUNDED: "rounded to what the actuator can do",
    Reason.CONSTRAINT: "a hard constraint would be broken: projected, or else the fallback; an "
    "operator's values and the fallback are let out all the same",
    Reason.UNCERTAIN: "the members of the model disagree too much: the fallback took its place",
    Reason.STALE: "an observation was too old (gate.stale_after): the fallback took its place",
    Reason.HOLD: "an operator holds this entity",
    Reason.OVERRIDE: "an operator set a value by hand",
    Reason.NO_BELIEF: "the belief was missing or just rebuilt: the fallback took its place",
    Reason.NO_MODEL: "no bundle fits the spec: the fallback decides",
    Reason.LATE: "the frame came too late to be planned on",
    Reason.SHAPE: "the proposal had a wrong shape: the fallback took its place",
    Reason.SAFETY: "the critic foresees a broken constraint: the fallback took its place",
    Reason.ACCELERATION: "the change was too sudden: as sudden as the acceleration limit allows",
    Reason.LATCHED: "the gate intervened too often: the fallback until re-armed (rehearse rearm)",
}
STATUS: Final[dict[str, str]] = {  # by the name that an explanation has for it
    Status.NONE.name.lower(): "no action was ever reported",
    Status.UNKNOWN.name.lower(): "not reported yet: the action that was issued is assumed",
    Status.APPLIED.name.lower(): "applied",
    Status.EXPIRED.name.lower(): "expired: the actuator's local fallback",
    Status.REFUSED.name.lower(): "refused by the actuator",
    Status.LOCAL_FALLBACK.name.lower(): "the actuator's local fallback",
}


def gate_words(reasons: int) -> list[dict[str, str]]:
    """What the gate noted, each bit by name and in words."""
    return [
        {"reason": str(reason.name).lower(), "words": words}
        for reason, words in REASONS.items()
        if reasons & reason
    ]
