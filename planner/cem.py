"""The cross-entropy method over action sequences, for several entities at once.

De Boer et al. 2005 (the method); Chua et al. 2018, PETS (in model-based control); Pinneri et al.
2020, iCEM (coloured noise, kept elites, shifted warm start). Only sequences that could be executed
are imagined: bounds, rate and acceleration limits from the applied values on, whole numbers.

The same white noise serves all entities of a group, so an entity's plan does not depend on who
shares its session call, up to the last bits of the matrix products.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np
import numpy.typing as npt

from planner.gate import envelope, origin_of
from planner.imagine import Imagination, Verdict, quantiles
from schemas.spec_parts import Tier
from schemas.system import SystemSpec

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
Index = npt.NDArray[np.intp]

COLOUR = 2.0
"""Exponent of the noise's power spectrum; 0 is white (iCEM uses 0.25 to 4, by task)."""
SCALES = (1.0, 0.5, 0.25, 0.125)
"""Widths of the first population, relative to what bounds and rates allow, dealt out in turn."""
KEPT = 0.3
"""Share of the elites that compete again."""
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


class Cem:
    """Plans for one group of entities; `improve` as often as time allows, then `act_now`."""

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

    def improve(self) -> None:
        """One iteration: sample, imagine, keep the elites, move mean and spread to them."""
        candidates = self._population()
        worth = self._imagination.returns(self._start.rows, candidates, self._noise.transitions())
        score = fair(worth.score, self._imagination.members, self._noise.transitions().shape[1])
        best = np.argsort(-score, axis=1, kind="stable")[:, : self._tier.elite_count]
        self._elites = np.take_along_axis(candidates, best[:, :, None, None], axis=1)
        keep = MOMENTUM if self._iteration else 0.0
        self._mean = (1 - keep) * self._elites.mean(axis=1) + keep * self._mean
        spread = (1 - keep) * self._elites.std(axis=1) + keep * self._spread
        self._spread = np.maximum(spread, LEAST_SPREAD * self._first)
        self._stakes = _spread_of(worth.returned, np.isfinite(score))
        self._iteration += 1

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
        samples = coloured(white)[None] * self._spread[:, None]
        if self._iteration == 0:
            scales = np.resize(np.repeat(SCALES, self._imagination.members), tier.candidates)
            samples *= scales[:, None, None]
            front = self._guesses
        else:
            front = self._elites[:, : max(1, int(KEPT * tier.elite_count))]
        samples += self._mean[:, None]
        samples = self._executable(samples)
        fits = min(front.shape[1], tier.candidates)
        samples[:, :fits] = front[:, :fits]
        return samples

    def _answer(self, finalists: F64, rivals: int, verdict: Verdict) -> Answer:
        score, returned = verdict.score, verdict.samples.mean(axis=2)
        caution = self._spec.budget.caution
        if caution and self._start.rivals > 1:
            led, members = finalists.shape[1] - 2, self._imagination.members
            doubted = doubtful(verdict.samples, returned - score, led, members, caution)
            score = np.where(doubted, -np.inf, score)
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


def doubtful(
    samples: F64, hard: F64, led: int, members: int, caution: float
) -> npt.NDArray[np.bool_]:
    """[E,F] whose gain over finalist `led` is at most `caution` of its spread among the members.

    All finalists share members and noise, so what is compared is paired; what most members doubt
    is often an error of one of them that the search has found. Who breaks fewer hard constraints
    is never doubted: no return is worth one.

    Args:
        samples: [E,F,M·D] returns;  hard: [E,F] what hard constraints cost;  led: the finalist that
            the actor leads.
    """
    by_member = samples.reshape(*samples.shape[:2], members, -1).mean(axis=3)
    gain = by_member - by_member[:, led : led + 1]
    out = gain.mean(axis=2) <= caution * gain.std(axis=2)
    out &= ~(hard < hard[:, led : led + 1])
    out[:, led] = False
    return np.asarray(out)


def executable(spec: SystemSpec, applied: F64, sequences: F64, before: F64 | None = None) -> F64:
    """`sequences` [E,C,T,A] as the gate would let them out one after the other.

    Args:
        spec: ranges, rates, accelerations, whole numbers.
        applied: [E,A] value in force; NaN sets no rate limit on the first step.
        sequences: any finite values.
        before: [E,A] value in force at the tick before; NaN sets no limit on the acceleration.
    """
    low, high, whole = spec.action_low, spec.action_high, spec.action_integer
    entities, count, steps, actions = sequences.shape
    flat = sequences.reshape(entities, count, steps * actions)  # long rows are clipped faster
    out: F64 = np.clip(flat, np.tile(low, steps), np.tile(high, steps)).reshape(sequences.shape)
    if whole.any():
        out = np.where(whole, np.rint(out), out)
    if spec.limits_acceleration:
        return _accelerated(spec, applied, out, before)
    if not (np.isfinite(spec.rate_up).any() or np.isfinite(spec.rate_down).any()):
        return out
    up = np.where(whole, np.floor(spec.rate_up), spec.rate_up)
    down = np.where(whole, np.floor(spec.rate_down), spec.rate_down)
    last = origin_of(spec, applied)[:, None]
    for t in range(steps):  # fmin and fmax pass over NaN: no limit
        last = np.fmin(np.fmax(out[:, :, t], last - down), last + up)
        out[:, :, t] = last
    return out


def _accelerated(spec: SystemSpec, applied: F64, sequences: F64, before: F64 | None) -> F64:
    """`sequences` [E,C,T,A] in range and whole, step by step inside `planner.gate.envelope`."""
    entities, count, steps, actions = sequences.shape
    out, wide = np.empty_like(sequences), (entities, count, actions)
    last = np.broadcast_to(applied[:, None], wide)
    known = np.full_like(applied, np.nan) if before is None else before
    older = np.broadcast_to(known[:, None], wide)
    for t in range(steps):
        out[:, :, t] = np.clip(sequences[:, :, t], *envelope(spec, last, older))
        older, last = last, out[:, :, t]
    return out


def first_spread(spec: SystemSpec, applied: F64, horizon: int) -> F64:
    """[E,T,A] a quarter of the box that bounds and rates allow at each step."""
    steps = np.arange(1, horizon + 1)[:, None]
    origin = origin_of(spec, applied)[:, None]
    least = np.fmax(spec.action_low, origin - steps * spec.rate_down)
    most = np.fmin(spec.action_high, origin + steps * spec.rate_up)
    return np.asarray((most - least) / 4)


def fair(score: F64, members: int, sequences: int) -> F64:
    """[E,C] scores less what member and noise sequence add to all that share them.

    A candidate is rolled out under one member and one noise sequence only. Its score is compared
    with the median of its companions there, else luck would be selected rather than actions: on a
    noisy test problem with asymmetric costs this cut the loss of a deep plan by a third.
    """
    out = score
    for stratum, place in _strata(score.shape[1], members, sequences):
        padded = np.concatenate([out, np.full((len(out), 1), np.inf)], axis=1)
        ordered = np.sort(padded[:, stratum], axis=2)
        count = (stratum < score.shape[1]).sum(axis=1)
        middle = ordered[:, np.arange(len(stratum)), count // 2]
        out = out - np.where(np.isfinite(middle), middle, 0.0)[:, place]
    return out


@lru_cache(maxsize=32)
def _strata(candidates: int, members: int, sequences: int) -> tuple[tuple[Index, Index], ...]:
    """Who shares a member, and who a noise sequence, as `Imagination.returns` deals them out.

    Each is an index [groups, largest], short groups filled up with `candidates`, and the group
    [candidates] of each candidate.
    """
    every = np.arange(candidates)
    dealt = []
    for place in (every % members, every // members % sequences):
        groups = [np.flatnonzero(place == group) for group in range(place.max() + 1)]
        stratum = np.full((len(groups), max(map(len, groups))), candidates)
        for row, group in zip(stratum, groups, strict=True):
            row[: len(group)] = group
        dealt.append((stratum, place))
    return tuple(dealt)


def _spread_of(returned: F64, counts: npt.NDArray[np.bool_]) -> F64:
    """[E] standard deviation of `returned` [E,C] over the candidates that count; 0 without any."""
    number = np.maximum(counts.sum(axis=1), 1)
    mean = np.where(counts, returned, 0).sum(axis=1) / number
    squares = np.where(counts, returned - mean[:, None], 0) ** 2
    return np.asarray(np.sqrt(squares.sum(axis=1) / number))


def coloured(white: F32) -> F32:
    """White noise [T,C,A] as [C,T,A] with power spectrum 1/f^COLOUR along T and variance 1."""
    steps, count, columns = white.shape
    smooth = _filter(steps) @ white.reshape(steps, count * columns)
    return np.ascontiguousarray(smooth.reshape(white.shape).transpose(1, 0, 2))


@lru_cache(maxsize=16)
def _filter(horizon: int) -> F32:
    """[T,T] lower triangular: the Cholesky factor of the noise's autocovariance.

    The spectrum of Timmer & König 1995 over twice the horizon, so that the ends are not tied
    together; the constant part gets the power of the lowest frequency, as iCEM has it.
    """
    frequency = np.fft.rfftfreq(2 * horizon)
    frequency[0] = frequency[1]
    covariance = np.fft.irfft(frequency**-COLOUR)[:horizon]
    lag = np.abs(np.arange(horizon)[:, None] - np.arange(horizon))
    correlation = covariance[lag] / covariance[0] + 1e-9 * np.eye(horizon)
    return np.linalg.cholesky(correlation).astype(np.float32)
