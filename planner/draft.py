"""A frame's plan while it is being made: everyone has an answer from the start, some get better."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from planner.budget import Spent
from planner.fallback import fallback
from planner.imagine import QUANTILES, Imagination
from planner.memory import PlannerMemory
from planner.search import Answer, Start
from schemas.codes import Mode
from schemas.frames import Frame
from schemas.system import SystemSpec

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
Index = npt.NDArray[np.intp]
Mask = npt.NDArray[np.bool_]

_GUESSES = ("the value in force", "the fallback", "the last plan")
YOUNG = 0.75
"""A plan is followed for this share of its horizon."""


@dataclass(frozen=True)
class Plan:
    """What the planner proposes for the E entities of a frame, and what it expects.

    proposal       [E,A] float64, before the gate;  fallback [E,A] the verified controller's answer
    mode           [E] uint8 `codes.Mode`: PLAN, FOLLOW, ACTOR or FALLBACK
    returned       [E,4] float32 predicted return of the plan: mean, 10, 50, 90 %; NaN where not
                   planned at this tick
    gain           [E] float32 the same minus the return of the best starting guess (the last
                   plan's, the actor's, the fallback's); NaN where not planned
    uncertainty    [E] float32 disagreement of the members, see `planner.gate`; NaN without a model
    tier, group    [E] int8, int16: -1 where not planned;  iterations [E] uint16
    spent          what a `RecordedBudget` needs
    memory         for the next tick; give it the gate's verdict with `memory.after_gate`
    """

    proposal: F64
    fallback: F64
    mode: npt.NDArray[np.uint8]
    returned: F32
    gain: F32
    uncertainty: F32
    tier: npt.NDArray[np.int8]
    group: npt.NDArray[np.int16]
    iterations: npt.NDArray[np.uint16]
    spent: Spent
    memory: PlannerMemory


class Draft:
    """The arrays of `Plan`, filled in as answers come; it starts with the fallback's.

    issued   [E,A] the actions of this tick, where they are out already: what is planned begins
             with them, for the ticks after.
    """

    def __init__(self, spec: SystemSpec, frame: Frame, memory: PlannerMemory, action: F64) -> None:
        entities = len(frame.entities)
        self.spec, self.frame, self.memory = spec, frame, memory
        self.fallback = action
        self.issued: F64 | None = None
        self.proposal = action.copy()
        self.mode = np.full(entities, Mode.FALLBACK, dtype=np.uint8)
        self.actor: F64 | None = None
        self.driven: F64 | None = None  # [E,T,A] where the actor leads, T the longest horizon
        self.returned = np.full((entities, 1 + len(QUANTILES)), np.nan, dtype=np.float32)
        self.gain = np.full(entities, np.nan, dtype=np.float32)
        self.uncertainty = np.full(entities, np.nan, dtype=np.float32)
        self.tier = np.full(entities, -1, dtype=np.int8)
        self.group = np.full(entities, -1, dtype=np.int16)
        self.iterations = np.zeros(entities, dtype=np.uint16)
        self.spent = Spent()

    @classmethod
    def begin(cls, spec: SystemSpec, frame: Frame, memory: PlannerMemory) -> Draft:
        """The draft of a frame that nothing is decided about."""
        action, state = fallback(spec, frame, memory.fallback)
        return cls(spec, frame, replace(memory, fallback=state), action)

    def start(self, rows: Index, horizon: int) -> Start:
        """What the search for `rows` starts from."""
        issued = None if self.issued is None else self.issued[rows]
        guesses, rivals = self._guesses(rows, horizon), 1 if self.driven is None else 2
        before = self.memory.before[rows]
        return Start(rows, self.frame.applied[rows], guesses, issued, rivals, before)

    def _guesses(self, rows: Index, horizon: int) -> F64:
        """[E,G,T,A] sequences to start from; the one the search is centred on is the last.

        Before it stands what the actor is expected to do, where that is known.
        """
        applied = np.where(np.isnan(self.frame.applied), self.fallback, self.frame.applied)
        rivals = [
            np.repeat(value[rows][:, None], horizon, axis=1) for value in (applied, self.fallback)
        ]
        if self.actor is not None:
            held = np.repeat(self.actor[rows][:, None], horizon, axis=1)
            rivals.append(held if self.driven is None else self.driven[rows, :horizon])
        last = self.memory.ahead(self.frame.tick, horizon)[rows]
        planned = (self.memory.length[rows] > 0)[:, None, None]
        centre = np.where(planned, last, rivals[-1])
        if self.actor is not None:  # the actor now, the last plan after it
            led = centre.copy()
            led[:, 0] = self.actor[rows]
            rivals.insert(2 if self.driven is not None else 3, led)
        return np.stack([*rivals, centre], axis=1)

    @staticmethod
    def guess_names(guesses: int, rivals: int) -> tuple[str, ...]:
        """What the `guesses` sequences of a `Start` with so many `rivals` are, in their order."""
        if guesses == len(_GUESSES):
            return _GUESSES
        led, acted = "the actor now, then the last plan", "the actor"
        first, second = (led, acted) if rivals > 1 else (acted, led)
        return (*_GUESSES[:2], first, second, _GUESSES[-1])

    def take(self, rows: Index, answer: Answer, tier: int, iterations: int) -> None:
        """An answer of the planner becomes the plan of `rows`."""
        memory, horizon = self.memory, answer.sequence.shape[1]
        sequence, length = memory.sequence.copy(), memory.length.copy()
        planned_at, stakes = memory.planned_at.copy(), memory.stakes.copy()
        uncertainty = memory.uncertainty.copy()
        sequence[rows, :horizon], length[rows] = answer.sequence, horizon
        planned_at[rows], stakes[rows] = self.frame.tick, answer.stakes
        uncertainty[rows] = answer.disagreement
        self.memory = replace(
            memory,
            sequence=sequence,
            length=length,
            planned_at=planned_at,
            stakes=stakes,
            uncertainty=uncertainty,
        )
        self.returned[rows, 0], self.returned[rows, 1:] = answer.returned, answer.quantiles
        self.gain[rows] = answer.gain
        self.tier[rows], self.iterations[rows] = tier, iterations
        spent = self.spent
        self.group[rows] = len(spent.tiers)
        self.spent = Spent(
            (*spent.tiers, tier),
            (*spent.iterations, iterations),
            (*spent.sizes, len(rows)),
        )

    def choose(self, believed: Mask, calm: Mask) -> None:
        """Proposal and mode of everyone: planned now, a young plan, the actor, the fallback."""
        age = self.memory.age(self.frame.tick)
        young = (self.tier < 0) & calm & (age <= YOUNG * self.memory.length) & believed
        planned = self.tier >= 0
        follow = young | planned
        if self.actor is not None:
            self.proposal[believed], self.mode[believed] = self.actor[believed], Mode.ACTOR
        if follow.any():
            self.proposal[follow] = self.memory.ahead(self.frame.tick, 1)[follow, 0]
            self.mode[young], self.mode[planned] = Mode.FOLLOW, Mode.PLAN

    def doubt(self, imagination: Imagination, latent: int) -> None:
        """How far the members are apart about the next observation, and about what is planned."""
        finite = np.where(np.isfinite(self.proposal), self.proposal, self.fallback)
        # Without noise: what is random is no doubt.
        channels = imagination.next(finite, np.zeros((2, 1, latent), np.float32))
        apart = imagination.disagreement(channels[None])
        planned = (self.mode == Mode.PLAN) | (self.mode == Mode.FOLLOW)
        ahead = np.where(planned, self.memory.uncertainty, 0.0)
        self.uncertainty = np.maximum(apart, ahead).astype(np.float32)

    def plan(self) -> Plan:
        """Everything so far."""
        return Plan(
            proposal=self.proposal,
            fallback=self.fallback,
            mode=self.mode,
            returned=self.returned,
            gain=self.gain,
            uncertainty=self.uncertainty,
            tier=self.tier,
            group=self.group,
            iterations=self.iterations,
            spent=self.spent,
            memory=self.memory,
        )
