"""What if: futures of one entity under other actions, all with the same members and noise.

They are compared pair by pair: what two futures share of member and noise cancels out, so the
spread of their difference is much smaller than that of either. The noise is drawn anew, so that a
plan is not judged by the very luck that it was found with.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from planner.draws import Key, pairs
from planner.imagine import Imagination, quantiles
from planner.objective import HARD_COST, Objective
from planner.session import Bundle, Dynamics, Futures, Posterior
from schemas.system import SystemSpec

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
DRAWS = 32
"""D, noise sequences that futures are shown under."""
STREAM = 254
"""Number of these in noise streams, where planning has its tiers'."""


@dataclass(frozen=True)
class Alternative:
    """A sequence [T,A], as the gate would let it out, under a name; `words` say what it is."""

    name: str
    words: str
    sequence: F64


@dataclass(frozen=True)
class Future:
    """An alternative under all M members and D noise sequences; quantiles are 10, 50 and 90 %.

    returned    predicted return, mean and quantiles [3];  within: the same without what the value
                adds behind the horizon: as much of it as can be observed
    hard        expected discounted count of violated hard constraints
    channels    [T,O,3] quantiles of the observed columns after each tick
    difference  of the return to the first alternative's: mean and quantiles [3] over the pairs
    better      share of the pairs in which the return is higher than the first alternative's
    """

    name: str
    words: str
    sequence: F64
    mean: float
    returned: F64
    within: F64
    hard: float
    channels: F64
    difference: float
    differences: F64
    better: float


class Rehearsal:
    """Imagines alternatives for one entity of a frame.

    Args:
        spec, bundle, posterior: as of the decision;  row: the entity's.
        key: seed, cohort and tick.
    """

    def __init__(
        self, spec: SystemSpec, bundle: Bundle, posterior: Posterior, row: int, key: Key
    ) -> None:
        self._spec, self._latent, self._key = spec, bundle.latent, key
        self._rows = np.array([row])
        self._open = Imagination(spec, bundle, posterior, key[2])
        self._within = Imagination(spec, bundle, posterior, key[2], closes=False)

    @property
    def count(self) -> int:
        """Futures of each alternative, M·D."""
        return self._open.members * DRAWS

    def futures(self, alternatives: Sequence[Alternative]) -> list[Future]:
        """The futures of `alternatives`, of one horizon; the first is what others differ from."""
        sequences = np.stack([one.sequence for one in alternatives])[None]
        noise = self._noise(sequences.shape[2])
        verdict = self._open.under_all(self._rows, sequences, noise)
        within = quantiles(self._within.under_all(self._rows, sequences, noise).samples[0])
        samples, seen = verdict.samples[0], len(self._spec.observed_columns)
        hard = (samples.mean(axis=1) - verdict.score[0]) / HARD_COST
        spread = _channels(verdict.channels[:, :, 0, ..., :seen])
        apart = samples - samples[:1]
        return [
            Future(
                name=one.name,
                words=one.words,
                sequence=one.sequence,
                mean=float(samples[i].mean()),
                returned=quantiles(samples[i]),
                within=within[i],
                hard=float(hard[i]),
                channels=spread[i],
                difference=float(apart[i].mean()),
                differences=quantiles(apart[i]),
                better=float((apart[i] > 0).mean()),
            )
            for i, one in enumerate(alternatives)
        ]

    def within(self, sequence: F64) -> F64:
        """[3] quantiles of what `sequence` [T,A] earns in its T ticks, whatever comes after."""
        finalists = sequence[None, None]
        verdict = self._within.under_all(self._rows, finalists, self._noise(len(sequence)))
        return quantiles(verdict.samples[0, 0])

    def spread(self, sequence: F64) -> F64:
        """[T,O,3] quantiles of the observed columns after each tick of `sequence` [T,A]."""
        finalists, seen = sequence[None, None], len(self._spec.observed_columns)
        verdict = self._open.under_all(self._rows, finalists, self._noise(len(sequence)))
        return np.asarray(_channels(verdict.channels[:, :, 0, ..., :seen])[0])

    def _noise(self, steps: int) -> F32:
        """[T+1,D,Z]; that of a shorter horizon is what a longer one begins with."""
        return pairs(self._key, STREAM, (steps + 1, DRAWS, self._latent))


def _channels(futures: F32) -> F64:
    """[F,T,O,3] of futures [T,M,F,D,O]."""
    steps, members, count, draws, columns = futures.shape
    flat = futures.transpose(2, 0, 4, 1, 3).reshape(count, steps, columns, members * draws)
    return quantiles(flat.astype(np.float64))


def earned(spec: SystemSpec, bundle: Dynamics, tick: int, seen: F64, acted: F64) -> float | None:
    """What observed ticks earned, by the same sum as imagined ones; None without a rule for it.

    Args:
        spec, bundle: the reward, the constraints, the discount.
        tick: the decision's; what follows it was observed.
        seen: [T,O] observed columns after each tick;  acted: [T,A] the actions in force.

    Not a number where a channel that the reward reads was not observed.
    """
    if spec.reward is None:
        return None
    going = np.ones((len(seen), 1, 1), np.float32)
    channels = seen[:, None, None].astype(np.float32)
    futures = Futures(channels, going, going[0], going)
    objective = Objective(spec, bundle, tick, closes=False)
    return float(objective.worth(futures, acted[:, None, None].astype(np.float32)).returned[0, 0])
