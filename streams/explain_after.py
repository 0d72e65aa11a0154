"""What really happened after a decision, as the log has it, beside what was expected of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from planner.session import Bundle
from planner.what_if import Future, Rehearsal, earned
from schemas.codes import Flag, Mode, Status
from schemas.system import SystemSpec
from streams.decide import realised_reward
from streams.replay_deck import Deck

F64 = npt.NDArray[np.float64]
F32 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class After:
    """The T ticks after a decision about one entity; T ends with the episode or the recording.

    values [T,O] observed columns, NaN where not seen;  applied [T,A] the action in force up to each
    tick, NaN where unknown;  status, modes [T] of that action, and who decided at the tick ("": no
    logged decision);  reward [T] of the transition that ends there;  ended: why it is no longer.
    """

    ticks: list[int]
    values: F64
    applied: F64
    status: list[str]
    modes: list[str]
    reward: F32
    ended: str

    def differs_at(self, sequence: F64) -> int | None:
        """How many ticks the actions in force were those of `sequence` [≥T,A]; None: all along.

        An action that nobody reported is no difference.
        """
        planned, applied = sequence[: len(self.ticks)], self.applied
        same = np.isclose(planned, applied, rtol=1e-9, atol=1e-12) | np.isnan(applied)
        other = np.flatnonzero(~same.all(axis=1))
        return int(other[0]) if len(other) else None


def after(deck: Deck, cohort: int, entity: str, tick: int, horizon: int) -> After:
    """What the log says of the `horizon` ticks after `tick`."""
    spec, seen = deck.spec, len(deck.spec.observed_columns)
    rows: list[tuple[int, F64, F64, str, str, float]] = []
    ended = ""
    for one in range(tick + 1, tick + 1 + horizon):
        frames = [f for f in deck.frames(one) if f.cohort == cohort]
        if one > deck.ticks[-1]:
            ended = "the recording ends here"
            break
        if not frames:
            nothing = np.full(len(spec.action_columns), np.nan)
            rows.append((one, np.full(seen, np.nan), nothing, "no frame", "", np.nan))
            continue
        frame = frames[0]
        if entity not in frame.entities:
            ended = f"{entity} left"
            break
        row = frame.entities.index(entity)
        if frame.flags[row] & (Flag.JOINED | Flag.RESET):
            ended = "the episode ended here"
            break
        logged = deck.logged(one, cohort)
        mode = Mode(int(logged.decisions.mode[row])).name.lower() if logged is not None else ""
        status = Status(int(frame.status[row])).name.lower()
        reward = float(realised_reward(spec, frame)[row])
        rows.append((one, frame.values[row, :seen], frame.applied[row], status, mode, reward))
    return After(
        ticks=[row[0] for row in rows],
        values=np.array([row[1] for row in rows]).reshape(-1, seen),
        applied=np.array([row[2] for row in rows]).reshape(-1, len(spec.action_columns)),
        status=[row[3] for row in rows],
        modes=[row[4] for row in rows],
        reward=np.array([row[5] for row in rows], np.float32),
        ended=ended,
    )


def happened(
    spec: SystemSpec,
    bundle: Bundle | None,
    tick: int,
    found: After,
    expected: Future | None,
    rehearsal: Rehearsal | None,
) -> dict[str, Any]:
    """What happened, and how it compares with the future `expected` of what was decided."""
    out: dict[str, Any] = {
        "ticks": found.ticks,
        "observed": dict(zip(spec.observed_columns, found.values.T, strict=True)),
        "applied": dict(zip(spec.action_columns, found.applied.T, strict=True)),
        "status": found.status,
        "modes": found.modes,
        "reward": found.reward,
        "ended": found.ended,
    }
    if not found.ticks or expected is None or bundle is None or rehearsal is None:
        return out
    steps, other = len(found.ticks), found.differs_at(expected.sequence)
    kept = steps if other is None else other
    band, real = expected.channels[:kept], found.values[:kept]
    inside = (real >= band[..., 0]) & (real <= band[..., 2])
    return out | {
        "as_decided_for": kept,
        "other_actions_from": None if other is None else found.ticks[other] - 1,
        "inside": int(inside.sum()),
        "seen": int(np.isfinite(real).sum()),
        "earned": earned(spec, bundle, tick, found.values, found.applied),
        "expected": rehearsal.within(expected.sequence[:steps]),
    }
