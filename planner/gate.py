"""The last check of an action: pure functions, no model, nothing outside the envelope leaves.

`CHECKS` is the order in which a proposal is looked at; each check is one function below, about
ten lines, and sets one bit of `schemas.codes.Reason`. A check does one of four things with the
entities that fail it: it *projects* the value onto what is allowed, *replaces* it by the
verified fallback (which then passes through the same remaining checks), lets the *operator*
decide, or *refuses* (nothing is published, and the actuator's local fallback takes over when its
last action expires).

The **envelope** of an entity is the box of values it may be given at this tick: within `[low,
high]` of the spec, within the rate limit of the value that was *applied* last, within the
acceleration limit of the change from the value applied *before* it to that one, whole numbers for
integer actuators. An applied value outside `[low, high]` counts as the nearest value inside, and
an unknown one (NaN) sets no limit, because there is nothing to change slowly from. The envelope is
never empty: where an actuator is too fast to stop before the end of its range, the limit on
acceleration yields to range and rate. What somebody else did to it (a local fallback, a hand on it)
is no motion to go on with: it counts as at rest (`planner.memory`).

`uncertainty` is the disagreement of the ensemble about the observations to come, in units of each
channel's usual spread; the spec's `max_uncertainty` is a limit on that, and a bundle may bring one
of its own: the lower counts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from planner import projection
from schemas.codes import LEARNED, Mode, Reason
from schemas.frames import Frame
from schemas.messages import ALL
from schemas.system import SystemSpec

F64 = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

_IS_LEARNED = np.isin(np.arange(256), LEARNED)  # by mode


@dataclass(frozen=True)
class Gated:
    """What the gate decided for E entities.

    action     [E,A] float64: what may be published; NaN where refused
    reasons    [E] uint32 bits of `codes.Reason`
    mode       [E] uint8 `codes.Mode`: who decided in the end
    blamed     [E] uint32 those of the reasons that a learned proposal gave
    """

    action: F64
    reasons: npt.NDArray[np.uint32]
    mode: npt.NDArray[np.uint8]
    blamed: npt.NDArray[np.uint32]

    @property
    def published(self) -> Mask:
        """[E] whether there is an action to publish."""
        return np.asarray(self.mode != Mode.REFUSED)


@dataclass
class _State:
    """What the checks read and write; arrays as in `gate`."""

    spec: SystemSpec
    frame: Frame
    action: F64
    fallback: F64
    applied: F64
    slow: tuple[F64, F64]
    low: F64
    high: F64
    uncertainty: F64
    believed: Mask
    risk: F64 | None
    latched: Mask
    model: bool
    late: bool
    limits: tuple[float, ...]
    mode: npt.NDArray[np.uint8]
    reasons: npt.NDArray[np.uint32]
    blamed: npt.NDArray[np.uint32]
    given: Mask  # [E,A] by an operator

    def mark(self, rows: Mask, reason: Reason) -> None:
        if rows.any():
            self.reasons[rows] |= np.uint32(reason)
            self.blamed[rows & self.learned] |= np.uint32(reason)

    def replace(self, rows: Mask, reason: Reason) -> None:
        """The fallback takes the place of `rows`."""
        if not rows.any():
            return
        self.mark(rows, reason)
        self.action[rows] = self.fallback[rows]
        self.mode[rows] = Mode.FALLBACK

    @property
    def learned(self) -> Mask:
        """[E] whether the present value comes from a model."""
        return np.asarray(_IS_LEARNED[self.mode])


def envelope(spec: SystemSpec, applied: F64, before: F64 | None = None) -> tuple[F64, F64]:
    """Lowest and highest value [..., A] that may follow `applied` [..., A], and `before` that.

    low <= high everywhere: what is out of reach of the acceleration is the nearer end of the box.
    """
    low, high = reachable(spec, applied)
    if before is None or not spec.limits_acceleration:
        return low, high
    origin = origin_of(spec, applied)
    with np.errstate(over="ignore"):  # what is beyond all numbers is beyond the box
        kept = origin + (origin - origin_of(spec, before))  # as fast as now
        least, most = kept - spec.accel_down, kept + spec.accel_up
    whole = spec.action_integer
    least, most = np.where(whole, np.ceil(least), least), np.where(whole, np.floor(most), most)
    return (
        np.where(np.isnan(least), low, np.clip(least, low, high)),
        np.where(np.isnan(most), high, np.clip(most, low, high)),
    )


def reachable(spec: SystemSpec, applied: F64) -> tuple[F64, F64]:
    """Lowest and highest value [..., A] within range, and rate of `applied` [..., A].

    low <= high everywhere: the applied value, moved into range and rounded, is always between.
    """
    low, high, whole = spec.action_low, spec.action_high, spec.action_integer
    origin = origin_of(spec, applied)
    least = np.where(np.isnan(origin), low, np.maximum(low, origin - spec.rate_down))
    most = np.where(np.isnan(origin), high, np.minimum(high, origin + spec.rate_up))
    return np.where(whole, np.ceil(least), least), np.where(whole, np.floor(most), most)


def origin_of(spec: SystemSpec, applied: F64) -> F64:
    """[..., A] what limits count from: `applied` moved into range and rounded; NaN stays."""
    origin = np.clip(applied, spec.action_low, spec.action_high)
    return np.where(spec.action_integer, np.rint(origin), origin)


def gate(
    spec: SystemSpec,
    proposal: F64,
    fallback: F64,
    frame: Frame,
    last_applied: F64,
    uncertainty: npt.NDArray[np.floating],
    *,
    before: F64 | None = None,
    mode: npt.NDArray[np.uint8] | None = None,
    believed: Mask | None = None,
    risk: F64 | None = None,
    latched: Mask | None = None,
    model: bool = True,
    late: bool = False,
    max_uncertainty: float | None = None,
) -> Gated:
    """Lets a safe action out for each of the E entities of `frame`, or none.

    Args:
        spec: the system; its ranges, rates, constraints and gate limits.
        proposal: [E,A] the planner's action; any other shape is replaced as a whole.
        fallback: [E,A] what the verified controller would do.
        frame: the observations, ages and the operators' control records.
        last_applied: [E,A] the value in force; NaN where unknown.
        uncertainty: [E] see above; NaN counts as too much where there is a limit.
        before: [E,A] the value in force at the tick before; NaN (or None for all) where unknown.
        mode: [E] who made the proposal; `Mode.PLAN` for all where left out.
        believed: [E] False where the belief is missing or was rebuilt at this tick.
        risk: [E] what the learned critic foresees (`planner.critic`), None without one; NaN is too
            much. It only tightens: what it finds safe passes all other checks as well.
        latched: [E] who stays with the fallback until re-armed; see `planner.latch`.
        model: False where no bundle matches the spec.
        late: the frame was older than the deadline when it was taken up (it is only noted).
        max_uncertainty: the bundle's own limit.
    """
    count, actions = len(frame.entities), len(spec.action_columns)
    applied = np.asarray(last_applied, dtype=np.float64)
    low, high = envelope(spec, applied, before)
    state = _State(
        spec=spec,
        frame=frame,
        action=np.array(proposal, dtype=np.float64),
        fallback=_safe(spec, fallback, low, high),
        applied=applied,
        slow=reachable(spec, applied),
        low=low,
        high=high,
        uncertainty=np.asarray(uncertainty, dtype=np.float64),
        believed=np.ones(count, dtype=bool) if believed is None else np.asarray(believed),
        risk=risk,
        latched=np.zeros(count, dtype=bool) if latched is None else np.asarray(latched),
        model=model,
        late=late,
        limits=tuple(x for x in (spec.gate.max_uncertainty, max_uncertainty) if x is not None),
        mode=np.full(count, Mode.PLAN, np.uint8) if mode is None else np.array(mode, np.uint8),
        reasons=np.zeros(count, dtype=np.uint32),
        blamed=np.zeros(count, dtype=np.uint32),
        given=np.zeros((count, actions), dtype=bool),
    )
    assert low.shape == (count, actions)
    for check in CHECKS:
        check(state)
    return Gated(state.action, state.reasons, state.mode, state.blamed)


def _safe(spec: SystemSpec, fallback: F64, low: F64, high: F64) -> F64:
    """The fallback inside the envelope; where it is not finite, the spec's value per actuator."""
    value = np.asarray(fallback, dtype=np.float64)
    value = np.where(np.isfinite(value), value, spec.action_safe)
    value = np.where(spec.action_integer, np.rint(value), value)
    return np.clip(value, low, high)


def check_shape(state: _State) -> None:
    """A proposal of another shape belongs to nobody: all are replaced."""
    if state.action.shape != state.fallback.shape:
        state.action = state.fallback.copy()
        state.replace(np.ones(len(state.mode), dtype=bool), Reason.SHAPE)


def check_finite(state: _State) -> None:
    """NaN and infinities are replaced."""
    state.replace(~_every(np.isfinite(state.action)), Reason.NOT_FINITE)


def check_model(state: _State) -> None:
    """Without a matching bundle nothing that claims to come from one is believed."""
    everyone = np.ones(len(state.mode), dtype=bool)
    if state.late:
        state.mark(everyone, Reason.LATE)
    if not state.model:
        state.replace(everyone, Reason.NO_MODEL)


def check_belief(state: _State) -> None:
    """An entity whose belief is missing or just rebuilt gets the fallback."""
    state.replace(~state.believed, Reason.NO_BELIEF)


def check_stale(state: _State) -> None:
    """An observation older than `stale_after`, or never seen: the fallback."""
    limit = state.spec.gate.stale_after_us
    if limit is not None:
        fresh = state.frame.ages.astype(np.float64) * 1e6 <= limit  # False for NaN: never seen
        state.replace(~_every(fresh), Reason.STALE)


def check_uncertainty(state: _State) -> None:
    """The ensemble disagrees too much about what a learned proposal would do: the fallback."""
    if state.limits:
        sure = state.uncertainty <= min(state.limits)  # False for NaN
        state.replace(state.learned & ~sure, Reason.UNCERTAIN)


def check_safety(state: _State) -> None:
    """A learned proposal that the critic expects to break a constraint: the fallback."""
    limit = state.spec.gate.critic
    if limit is not None and state.risk is not None:
        safe = state.risk <= limit.max_risk  # False for NaN
        state.replace(state.learned & ~safe, Reason.SAFETY)


def check_latch(state: _State) -> None:
    """Who is latched gets nothing that comes from a model."""
    state.mark(state.latched, Reason.LATCHED)
    state.replace(state.latched & state.learned, Reason.LATCHED)


def check_override(state: _State) -> None:
    """An operator's values, actuator by actuator; range and rate below still apply to them."""
    control = state.frame.header.control
    if not control.overrides:
        return
    for row, entity in enumerate(state.frame.entities):
        if entity not in control.overrides and ALL not in control.overrides:
            continue  # most of them, in a large frame
        for column, value in control.override_of(entity).items():
            if column in state.spec.action_columns and np.isfinite(value):
                state.action[row, state.spec.action_columns.index(column)] = value
                state.given[row, state.spec.action_columns.index(column)] = True
                state.reasons[row] |= np.uint32(Reason.OVERRIDE)
                state.mode[row] = Mode.OVERRIDE


def check_hold(state: _State) -> None:
    """Held entities keep the applied value. Hold is last, so no override undoes it."""
    control = state.frame.header.control
    if not control.holds:
        return
    held = np.array([control.holds_entity(name) for name in state.frame.entities], dtype=bool)
    state.mark(held, Reason.HOLD)
    state.mode[held] = Mode.HOLD
    state.action[held] = state.applied[held]


def check_range(state: _State) -> None:
    """Outside [low, high]: to the nearest end."""
    inside = np.clip(state.action, state.spec.action_low, state.spec.action_high)
    state.mark(_differ(inside, state.action), Reason.RANGE)
    state.action = inside


def check_rounding(state: _State) -> None:
    """Whole numbers for integer actuators, ties to even."""
    whole = np.where(state.spec.action_integer, np.rint(state.action), state.action)
    state.mark(_differ(whole, state.action), Reason.ROUNDED)
    state.action = whole


def check_rate(state: _State) -> None:
    """Faster than the rate limit from the applied value: as fast as allowed."""
    inside = np.clip(state.action, *state.slow)
    state.mark(_differ(inside, state.action), Reason.RATE)
    state.action = inside


def check_acceleration(state: _State) -> None:
    """Too large a change of the change per tick: as large a one as allowed.

    A hold, too, comes to rest no faster than that.
    """
    inside = np.clip(state.action, state.low, state.high)
    state.mark(_differ(inside, state.action), Reason.ACCELERATION)
    state.action = inside


def check_constraints(state: _State) -> None:
    """Hard constraints on present channels and this action: projected, or else the fallback.

    Operators are not overruled here: their values are only marked, and beside them stand the
    fallback's, no learned ones. The fallback that violates a constraint is marked too and let out:
    there is nothing safer to send.
    """
    spec, values = state.spec, state.frame.values
    bad = projection.violated(spec, values, state.action)
    if not bad.any():
        return
    state.mark(bad, Reason.CONSTRAINT)
    beside = (bad & (state.mode == Mode.OVERRIDE))[:, None] & ~state.given
    state.action = np.where(beside, state.fallback, state.action)
    rows = np.flatnonzero(bad & state.learned)
    here, action, low, high = (a[rows] for a in (values, state.action, state.low, state.high))
    moved = projection.project(spec, here, action, low, high)
    moved = np.clip(_inward(spec, action, moved), low, high)
    cured = ~projection.violated(spec, here, moved)
    state.action[rows[cured]] = moved[cured]
    left = np.zeros(len(bad), dtype=bool)
    left[rows[~cured]] = True
    state.replace(left, Reason.CONSTRAINT)


def _inward(spec: SystemSpec, action: F64, moved: F64) -> F64:
    """Whole numbers on the far side of where the projection came from."""
    away = np.where(moved < action, np.floor(moved), np.ceil(moved))
    return np.where(spec.action_integer & (moved != action), away, moved)


def check_refused(state: _State) -> None:
    """What is still not inside the envelope is not published (a hold of an unknown value)."""
    inside = (state.action >= state.low) & (state.action <= state.high)  # False for NaN
    if inside.all():
        return
    refused = ~_every(inside)
    state.mode[refused] = Mode.REFUSED
    state.action[refused] = np.nan


def _every(mask: Mask) -> Mask:
    """[E] whether a row of `mask` [E, …] holds throughout."""
    return np.asarray(mask.all(axis=1))


def _differ(a: F64, b: F64) -> Mask:
    """[E] whether rows differ; two NaN (a hold of an unknown value) are equal."""
    same = a == b
    if same.all():
        return np.zeros(len(a), dtype=bool)
    return ~_every(same | (np.isnan(a) & np.isnan(b)))


CHECKS: tuple[Callable[[_State], None], ...] = (
    check_shape,
    check_finite,
    check_model,
    check_belief,
    check_stale,
    check_uncertainty,
    check_safety,
    check_latch,
    check_override,
    check_hold,
    check_range,
    check_rounding,
    check_rate,
    check_acceleration,
    check_constraints,
    check_refused,
)
"""Every proposal passes these, in this order."""
