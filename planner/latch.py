"""The latch: who needed the gate too often stays with the verified fallback until re-armed.

A state [E,4] int64 per entity, a function of frames and of what the gate did (see the columns);
`planner.memory` carries it from tick to tick. In the order of a tick: `rearmed` lets go whom an
operator re-armed or who was quiet for long enough, `closed` says who is latched, and when the gate
is done, `after` counts.

While an entity is latched, the checks before the latch still look at what would have been proposed,
so that a quiet time is one without cause. Projections (`constraint`, `range`, `rate`,
`acceleration`) come behind it: for them, quiet is simply the time since.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from schemas.codes import Reason
from schemas.frames import Frame
from schemas.system import SystemSpec

State = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

NEVER = np.iinfo(np.int64).min
RECENT, STRUCK, SINCE, REARMED = range(4)
"""Columns: bits, in which of the last decisions the gate intervened, the newest lowest; tick of the
last intervention; tick of latching, or `NEVER`; the operator's word that was obeyed last."""


def fresh(count: int) -> State:
    """[count,4] of entities that nothing is known of."""
    return np.tile(np.array([0, NEVER, NEVER, 0], dtype=np.int64), (count, 1))


def rearmed(spec: SystemSpec, frame: Frame, state: State) -> State:
    """Without the latches of entities that were quiet, or that an operator re-armed since."""
    latch, control = spec.gate.latch, frame.header.control
    if latch is None or not len(state):
        return state
    word = np.array([control.rearm_of(name) for name in frame.entities], dtype=np.int64)
    free = word > state[:, REARMED]
    if latch.quiet_us is not None:
        since = frame.tick - np.maximum(state[:, STRUCK], state[:, SINCE])
        quiet = -(-latch.quiet_us // spec.period_us)
        free |= closed(spec, state) & (since >= quiet)
    out = state.copy()
    out[free, RECENT], out[free, SINCE] = 0, NEVER
    out[:, REARMED] = np.maximum(word, state[:, REARMED])
    return out


def closed(spec: SystemSpec, state: State) -> Mask:
    """[E] who is latched; nobody where the spec has no latch."""
    return np.asarray((state[:, SINCE] != NEVER) & (spec.gate.latch is not None))


def after(
    spec: SystemSpec,
    frame: Frame,
    state: State,
    blamed: npt.NDArray[np.uint32],
) -> State:
    """The state after a tick; learned proposals alone count, whatever was replaced by whom.

    Args:
        spec: says what counts, and how often is too often.
        frame: the tick.
        state: of `rearmed`.
        blamed: [E] `codes.Reason` bits that a learned proposal gave (`planner.gate.Gated`).
    """
    latch = spec.gate.latch
    if latch is None:
        return state
    counts = sum(Reason[name.upper()] for name in latch.on)
    struck = (blamed & np.uint32(counts)) != 0
    out = state.copy()
    out[:, RECENT] = ((state[:, RECENT] << 1) | struck) & ((1 << latch.of) - 1)
    out[struck, STRUCK] = frame.tick
    often = np.bitwise_count(out[:, RECENT]) >= latch.count
    out[often & ~closed(spec, state), SINCE] = frame.tick
    return out


def logged(entities: Sequence[str], state: State) -> dict[str, list[int]]:
    """The rows that a later tick needs, by entity, for a log: counted, or latched."""
    told = (state[:, RECENT] != 0) | (state[:, SINCE] != NEVER)
    return {entities[row]: state[row].tolist() for row in np.flatnonzero(told).tolist()}


def from_log(entities: Sequence[str], rows: Mapping[str, Sequence[int]]) -> State:
    """The inverse of `logged`."""
    state = fresh(len(entities))
    for row, entity in enumerate(entities):
        if entity in rows:
            state[row] = rows[entity]
    return state
