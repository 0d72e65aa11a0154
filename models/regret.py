"""What int8 costs: the same candidates from held-out beliefs, valued by both graphs.

A planner asks its model which of many candidates is best. So what counts of an imprecise model is
not how far its channels are off, but how much the candidate that it prefers is worth less, by the
exact model, than the one which that prefers.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from models.data import Sequences
from planner.imagine import Imagination
from planner.judge import fair
from planner.noise import normal
from planner.sequences import coloured, executable, first_spread
from planner.session import Bundle, Posterior
from schemas.spec_parts import COLOUR
from schemas.system import SystemSpec

F64 = npt.NDArray[np.float64]

LIMIT: Final = 0.02
"""Mean regret up to which an int8 graph ships, as a share of the spread of the candidates."""

BELIEFS, CANDIDATES, HORIZON, WARM, SEQUENCES = 64, 60, 16, 8, 4


@dataclass(frozen=True)
class Regret:
    """Of the int8 graph, over `beliefs` held-out beliefs with `candidates` candidates each.

    mean, worst: the exact return of the exact graph's choice less that of the other's, in units of
    the standard deviation of the candidates' exact returns; same: share of the beliefs where both
    choose alike; rank, rank_worst: Spearman's rank correlation of the returns.
    """

    mean: float
    worst: float
    same: float
    rank: float
    rank_worst: float
    beliefs: int
    candidates: int
    horizon: int
    limit: float = LIMIT

    @property
    def negligible(self) -> bool:
        """Whether the graph may ship."""
        return self.mean <= self.limit

    def as_dict(self) -> dict[str, Any]:
        """JSON for the manifest."""
        return asdict(self) | {"negligible": self.negligible}


def regret(
    exact: Bundle, coarse: Bundle, spec: SystemSpec, data: Sequences, seed: int = 0
) -> Regret:
    """Measures what choosing by `coarse` instead of `exact` costs.

    Beliefs are filtered from up to `BELIEFS` windows of `WARM` ticks. Candidates are the planner's
    first ones: coloured noise about the action in force, as wide as rates and bounds allow.

    Raises:
        ValueError: no window is long enough.
    """
    rng = np.random.default_rng([seed, 23])
    posterior, applied = _beliefs(exact, data, rng)
    count = len(applied)
    wide = (HORIZON, CANDIDATES * count, len(spec.action_columns))
    noise = coloured(rng.standard_normal(wide).astype(np.float32), COLOUR).astype(np.float64)
    around = noise.reshape(count, CANDIDATES, *noise.shape[1:])
    spread = first_spread(spec, applied, HORIZON)[:, None]
    asked = executable(spec, applied, applied[:, None, None] + spread * around)
    draws = normal(seed, 0, 0, 29, (HORIZON + 1, SEQUENCES, exact.latent))
    found = [_returns(spec, bundle, posterior, asked, draws) for bundle in (exact, coarse)]
    return compare(*found)


def compare(exact: F64, coarse: F64) -> Regret:
    """The regret of coarse returns [beliefs, candidates], judged by the exact ones."""
    rows = np.arange(len(exact))
    ours, theirs = exact.argmax(axis=1), coarse.argmax(axis=1)
    spread = np.maximum(exact.std(axis=1), 1e-9 * (1 + np.abs(exact).max(axis=1)))
    lost = (exact[rows, ours] - exact[rows, theirs]) / spread
    ranks = np.array([_rank_correlation(a, b) for a, b in zip(exact, coarse, strict=True)])
    return Regret(
        mean=float(lost.mean()),
        worst=float(lost.max()),
        same=float((ours == theirs).mean()),
        rank=float(ranks.mean()),
        rank_worst=float(ranks.min()),
        beliefs=len(exact),
        candidates=exact.shape[1],
        horizon=HORIZON,
    )


def _returns(spec: SystemSpec, bundle: Bundle, posterior: Posterior, asked: F64, draws: Any) -> F64:
    """[E,C] returns as the planner ranks them: less what a member and its noise add to all."""
    imagination = Imagination(spec, bundle, posterior, 0)
    worth = imagination.returns(np.arange(len(asked)), asked, draws)
    return fair(worth.returned, bundle.members, SEQUENCES)


def _beliefs(bundle: Bundle, data: Sequences, rng: np.random.Generator) -> tuple[Posterior, F64]:
    """Posteriors after `WARM` ticks of held-out windows, and the actions [E,A] in force then."""
    every = np.arange(len(data))
    usable = every[every + WARM <= data.last]
    if not len(usable):
        raise ValueError(f"no unbroken sequence of {WARM} ticks is held out: log longer runs")
    starts = np.sort(rng.permutation(usable)[:BELIEFS])
    posterior = Posterior(
        np.zeros((len(starts), bundle.hidden), np.float32),
        np.zeros((len(starts), bundle.latent), np.float32),
        np.zeros((len(starts), bundle.latent), np.float32),
        np.zeros(len(starts), np.float32),
    )
    for row in range(WARM):
        obs, action = data.obs[starts + row], data.action[starts + row]
        mask = np.isfinite(obs)
        seen = np.where(mask, obs, 0).astype(np.float32)
        posterior = bundle.believe(
            posterior.h, posterior.mean, action, seen, mask.astype(np.float32)
        )
    return posterior, data.action[starts + WARM - 1].astype(np.float64)


def _rank_correlation(first: F64, second: F64) -> float:
    """Spearman's, ties by their order; 1 where one of them is constant, as no order is lost."""
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return 1.0
    a, b = (np.argsort(np.argsort(x, kind="stable"), kind="stable") for x in (first, second))
    return float(np.corrcoef(a, b)[0, 1])
