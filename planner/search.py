"""Searches over action sequences, for several entities at once: what all of them have in common.

An iteration samples around a mean, imagines, and moves mean and spread to where it was good; how,
is what planners differ in. Only sequences that could be executed are imagined: bounds, rate and
acceleration limits from the applied values on, whole numbers. In the end a few finalists are judged
by all members.

The same white noise serves all entities of a group, so an entity's plan does not depend on who
shares its session call, up to the last bits of the matrix products.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
import numpy.typing as npt

from planner.imagine import Imagination, Verdict, quantiles
from planner.judge import best_of, fair, judged
from planner.sequences import coloured, executable, first_spread
from schemas.spec_parts import Tier
from schemas.system import SystemSpec

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
Index = npt.NDArray[np.intp]

SCALES = (1.0, 0.5, 0.25, 0.125)
"""Widths of the first population, relative to what bounds and rates allow, dealt out in turn."""
MOMENTUM = 0.1
"""Share of the old mean and spread that stays."""
LEAST_SPREAD = 0.01
"""Spread that always remains, relative to the first one."""
WIDE = 128
"""Candidates from which on a tier is wide: its finals have one more guess, and noise.

Narrow tiers serve many entities with little time: at the same cost, judging three finalists on the
expected noise alone (zero) left more time for planning and gave better returns.
"""


class Noise(Protocol):
    """Where a planner draws from: pure functions of the iteration."""

    def actions(self, iteration: int) -> F32:
        """[T,C,A] standard normal."""
        ...

    def transitions(self) -> F32:
        """[T+1,D,Z] standard normal, the same for all iterations."""
        ...


@dataclass(frozen=True)
class Start:
    """What a group of E entities starts planning from.

    rows     [E] indices into the frame
    applied  [E,A] value in force, NaN where unknown
    before   [E,A] value in force at the tick before, NaN (None: for all) where unknown
    guesses  [E,G,T,A] sequences to begin with; the last guess is where the search is centred,
             the ones before are its rivals: the actor's, the fallback's, …
    issued   [E,A] where the first action is decided already: every sequence begins with it
    rivals   how many of the last guesses come to the finals in any case; wide tiers have two
    """

    rows: Index
    applied: F64
    guesses: F64
    issued: F64 | None = None
    rivals: int = 1
    before: F64 | None = None


@dataclass(frozen=True)
class Answer:
    """The best sequence found for each of E entities.

    sequence [E,T,A];  returned [E] mean and quantiles [E,3] of its return, over members and, in
    wide tiers, noise;  disagreement [E] of the members about it;  gain [E] predicted return above
    the best of the last guesses;  stakes [E] spread of the returns of the last population, in
    reward units: what a good plan is worth here.
    """

    sequence: F64
    returned: F64
    quantiles: F64
    disagreement: F64
    gain: F64
    stakes: F64


class Search(ABC):
    """Plans for one group of entities; `improve` as often as time allows, then `act_now`.

    kept    share of the elites that compete again; the best one always does
    """

    kept: ClassVar[float]

    def __init__(
        self, spec: SystemSpec, imagination: Imagination, tier: Tier, start: Start, noise: Noise
    ) -> None:
        self._spec, self._imagination, self._tier = spec, imagination, tier
        self._start, self._noise = start, noise
        self._iteration = 0
        self._guesses = self._executable(start.guesses)
        self._mean = self._guesses[:, -1]
        self._first = first_spread(spec, start.applied, tier.horizon)
        self._spread = self._first
        self._elites = self._guesses[:, :0]
        self._stakes = np.zeros(len(start.rows))

    @staticmethod
    @abstractmethod
    def _centre(elites: F64, score: F64) -> tuple[F64, F64]:
        """Mean and spread [E,T,A] to move to: of `elites` [E,K,T,A], best first, `score` [E,K]."""

    def improve(self) -> None:
        """One iteration: sample, imagine, weigh the elites, move mean and spread to them."""
        candidates = self._population()
        worth = self._imagination.returns(self._start.rows, candidates, self._noise.transitions())
        score = fair(worth.score, self._imagination.members, self._noise.transitions().shape[1])
        best = best_of(score, self._tier.elite_count)
        self._elites = np.take_along_axis(candidates, best[:, :, None, None], axis=1)
        self._move(*self._centre(self._elites, np.take_along_axis(score, best, axis=1)))
        self._stakes = _spread_of(worth.returned, np.isfinite(score))
        self._iteration += 1

    def _move(self, mean: F64, spread: F64) -> None:
        keep = MOMENTUM if self._iteration else 0.0
        self._mean = (1 - keep) * mean + keep * self._mean
        spread = (1 - keep) * spread + keep * self._spread
        self._spread = np.maximum(spread, LEAST_SPREAD * self._first)

    def act_now(self) -> Answer:
        """The best of mean, top elite and last guesses, judged by all members; ties: the first."""
        mean = self._executable(self._mean[:, None])
        rivals = self._guesses[:, -max(self._start.rivals, 2 if self._wide else 1) :]
        finalists = np.concatenate([mean, self._elites[:, :1], rivals], axis=1)
        noise = self._noise.transitions()
        noise = noise[:, :2] if self._wide else np.zeros_like(noise[:, :1])
        verdict = self._imagination.under_all(self._start.rows, finalists, noise)
        return self._answer(finalists, rivals.shape[1], verdict)

    def _executable(self, sequences: F64) -> F64:
        if self._start.issued is not None:
            sequences = sequences.copy()
            sequences[:, :, 0] = self._start.issued[:, None]
        return executable(self._spec, self._start.applied, sequences, self._start.before)

    @property
    def _wide(self) -> bool:
        return self._tier.candidates >= WIDE

    def _population(self) -> F64:
        """[E,C,T,A] candidates: guesses or kept elites first, then samples around the mean."""
        tier = self._tier
        white = self._noise.actions(self._iteration)
        samples = self._smooth(white)[None] * self._spread[:, None]
        if self._iteration == 0:
            scales = np.resize(np.repeat(SCALES, self._imagination.members), tier.candidates)
            samples *= scales[:, None, None]
            front = self._guesses
        else:
            front = self._elites[:, : max(1, int(self.kept * tier.elite_count))]
        samples += self._mean[:, None]
        samples = self._executable(samples)
        fits = min(front.shape[1], tier.candidates)
        samples[:, :fits] = front[:, :fits]
        return samples

    def _smooth(self, white: F32) -> F32:
        """[C,T,A] of white noise [T,C,A]."""
        return coloured(white, self._tier.colour)

    def _answer(self, finalists: F64, rivals: int, verdict: Verdict) -> Answer:
        returned = verdict.samples.mean(axis=2)
        budget, rivals_given = self._spec.budget, self._start.rivals
        score, _ = judged(verdict, budget, self._imagination, returned, rivals_given)
        best = np.argmax(score, axis=1)
        every = np.arange(len(best))
        guesses = returned[:, -rivals:]
        return Answer(
            sequence=finalists[every, best],
            returned=returned[every, best],
            quantiles=quantiles(verdict.samples[every, best]),
            disagreement=self._imagination.disagreement(
                verdict.channels.transpose(2, 3, 0, 1, 4, 5)[every, best].transpose(1, 2, 0, 3, 4)
            ),
            gain=returned[every, best] - guesses.max(axis=1),
            stakes=self._stakes,
        )


def _spread_of(returned: F64, counts: npt.NDArray[np.bool_]) -> F64:
    """[E] standard deviation of `returned` [E,C] over the candidates that count; 0 without any."""
    number = np.maximum(counts.sum(axis=1), 1)
    mean = np.where(counts, returned, 0).sum(axis=1) / number
    squares = np.where(counts, returned - mean[:, None], 0) ** 2
    return np.asarray(np.sqrt(squares.sum(axis=1) / number))
