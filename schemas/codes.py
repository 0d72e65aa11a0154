"""The one table of codes that stand in frames and trajectories: status, mode, reason, flag."""

from enum import IntEnum, IntFlag


class Status(IntEnum):
    """What became of the action that was in force during the interval that ends at a tick."""

    NONE = 0  # no action was ever issued or reported for this entity
    UNKNOWN = 1  # not yet reported: the first action issued under the id is assumed
    APPLIED = 2
    EXPIRED = 3
    REFUSED = 4
    LOCAL_FALLBACK = 5


class Mode(IntEnum):
    """Who decided the action of one entity at one tick."""

    PLAN = 0  # imagined and optimised at this tick
    FOLLOW = 1  # the rest of an earlier plan
    ACTOR = 2  # the learned policy
    FALLBACK = 3  # the verified controller of the spec
    HOLD = 4  # an operator's hold: the last applied value stays
    OVERRIDE = 5  # an operator's value
    REFUSED = 6  # nothing may be published


LEARNED = (Mode.PLAN, Mode.FOLLOW, Mode.ACTOR)
"""Modes whose proposals come from a model."""


class Reason(IntFlag):
    """Why the gate changed, replaced or refused a proposal, and what else to know (bits)."""

    NOT_FINITE = 1 << 0  # the proposal held a NaN or an infinity
    RANGE = 1 << 1  # outside [low, high], projected
    RATE = 1 << 2  # faster than the rate limit against the applied value, projected
    ROUNDED = 1 << 3  # an integer or categorical action was rounded
    CONSTRAINT = 1 << 4  # a hard constraint would be violated
    UNCERTAIN = 1 << 5  # the ensemble disagrees more than the gate's limit
    STALE = 1 << 6  # an observation is older than gate.stale_after
    HOLD = 1 << 7
    OVERRIDE = 1 << 8
    NO_BELIEF = 1 << 9  # the belief was rebuilt or is missing: not planned on
    NO_MODEL = 1 << 10  # no bundle matches the spec
    LATE = 1 << 11  # the frame was older than the deadline: belief updated, not planned
    SHAPE = 1 << 12  # the proposal had a wrong shape
    SAFETY = 1 << 13  # the learned safety critic (tightens only)
    ACCELERATION = 1 << 14  # the change against the last change is too large, projected
    LATCHED = 1 << 15  # the gate had to intervene too often: the fallback until re-armed


class Flag(IntFlag):
    """What happened to an entity at this tick, as the aligner saw it."""

    JOINED = 1 << 0  # its first frame, or its first after it was forgotten
    RESET = 1 << 1  # its plant reported the end of an episode


def names(flags: IntFlag) -> list[str]:
    """The names of the set bits of `flags`, lowest first."""
    return [member.name for member in type(flags) if member in flags and member.name]
