"""Out of distribution: whether a bundle's own doubt tells a changed plant from the usual one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from infra.plants.base import Plant
from models.evaluation.ranks import auroc, spearman
from models.evaluation.recalibrate import rounded
from models.evaluation.sections import Section
from models.evaluation.shifts import Shift
from models.evaluation.windows import WARM
from models.evaluation.world import SHARE, Explorer, Record, World, watch
from planner.draws import CLOSING, pairs
from planner.imagine import Imagination
from planner.session import Bundle
from schemas.system import SystemSpec

F64 = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
MakePlant = Callable[[Shift], Plant]


@dataclass(frozen=True)
class Doubts:
    """Moments of one run, N in all: entities and times one after the other.

    Attributes:
        disagreement: `[N]` of the members about the ticks to come, in usual spreads of channels.
        spread: `[N]` of all futures about their mean, noise included, likewise.
        error: `[N]` root mean square of the mean future's error against what was read, likewise.
        innovation: `[N]` mean over the last ticks before.
        entity: `[N]` whose moment it is.
    """

    disagreement: F64
    spread: F64
    error: F64
    innovation: F64
    entity: npt.NDArray[np.int64]


@dataclass(frozen=True)
class Shifted:
    """What one change does.

    Attributes:
        error: median over moments, in usual spreads; error_ratio: to that without change.
        disagreement, innovation: AUROC per moment; 0.5 tells nothing, 1 tells all.
        run_disagreement, run_innovation: the same where each entity's whole run is one score.
        tracks: Spearman's correlation of predicted spread and error, over the run's moments.
        disagreement_tracks: the same of the disagreement.
    """

    shift: Shift
    error: float
    error_ratio: float
    disagreement: float
    innovation: float
    run_disagreement: float
    run_innovation: float
    tracks: float
    disagreement_tracks: float


@dataclass(frozen=True)
class OutOfDistribution:
    """All changes; `tracks` is Spearman's of spread and error over all runs together."""

    horizon: int
    moments: int
    tracks: float
    disagreement_tracks: float
    shifts: tuple[Shifted, ...]

    def as_dict(self) -> dict[str, Any]:
        """JSON: per change the figures of `Shifted`."""
        names = [name for name in Shifted.__annotations__ if name != "shift"]
        found = {
            one.shift.name: {"kind": one.shift.kind, **{n: rounded(getattr(one, n)) for n in names}}
            for one in self.shifts
        }
        return {
            "horizon": self.horizon,
            "moments": self.moments,
            "tracks": rounded(self.tracks),
            "disagreement_tracks": rounded(self.disagreement_tracks),
            "shifts": found,
        }

    def section(self) -> Section:
        """How well each change is told, as bars."""
        import plotly.graph_objects as go

        names = [one.shift.name for one in self.shifts]
        figure = go.Figure()
        for key, label in (("disagreement", "disagreement"), ("innovation", "innovation")):
            values = [rounded(getattr(one, key)) for one in self.shifts]
            figure.add_trace(go.Bar(y=names, x=values, name=label, orientation="h"))
        figure.add_vline(x=0.5, line_dash="dot")
        figure.update_layout(xaxis={"title": "AUROC", "range": [0, 1]}, yaxis_autorange="reversed")
        ratios = [
            {
                "change": one.shift.name,
                "error / usual": rounded(one.error_ratio),
                "AUROC of runs (disagreement)": rounded(one.run_disagreement),
                "AUROC of runs (innovation)": rounded(one.run_innovation),
                "spread tells error (Spearman)": rounded(one.tracks),
            }
            for one in self.shifts
        ]
        text = (
            "A plant that changed should raise doubt: bars to the right of 0.5 tell it from the "
            "usual one, the first bar (nothing changed) should be at 0.5, and where the error "
            "hardly grew there is little to tell."
        )
        height = 120 + 60 * len(names)
        return Section("Out of distribution", text, figure, tuple(ratios), height)


def out_of_distribution(
    spec: SystemSpec,
    bundle: Bundle,
    make: MakePlant,
    changes: tuple[Shift, ...],
    *,
    ticks: int = 100,
    horizon: int = 10,
    seed: int = 0,
    on_change: Callable[[str], None] = lambda _: None,
) -> OutOfDistribution:
    """Runs the plant as usual and changed, under the same explored fallback.

    Args:
        make: the plant under a change.
        changes: beside the usual plant; one that changes nothing, run with another seed, shows what
            chance does.
        ticks: of each run; horizon: ticks that are imagined at each moment, and moments are apart.
        on_change: called with the name of each run.
    """
    usual = doubts(spec, bundle, make(Shift("as usual", "none")), ticks, horizon, seed)
    found, runs = [], [usual]
    for number, change in enumerate(changes):
        on_change(change.name)
        runs.append(doubts(spec, bundle, make(change), ticks, horizon, seed + 1 + number))
        found.append(_judged(change, usual, runs[-1]))
    error = np.concatenate([run.error for run in runs])
    return OutOfDistribution(
        horizon=horizon,
        moments=len(usual.error),
        tracks=spearman(np.concatenate([run.spread for run in runs]), error),
        disagreement_tracks=spearman(np.concatenate([r.disagreement for r in runs]), error),
        shifts=tuple(found),
    )


def doubts(
    spec: SystemSpec, bundle: Bundle, plant: Plant, ticks: int, horizon: int, seed: int
) -> Doubts:
    """One run, and what the bundle thought of it at each moment."""
    world = World(spec, plant, bundle)
    world.reset(seed)
    record = watch(world, Explorer(spec, world.entities, SHARE, seed), ticks)
    starts = range(WARM, ticks - horizon + 1, horizon)
    if not starts:
        raise ValueError(f"runs of {ticks} ticks are too short: {WARM + horizon} are the least")
    moments = [_moment(spec, bundle, record, t, horizon, seed) for t in starts]
    columns = [np.concatenate(part) for part in zip(*moments, strict=True)]
    entity = np.tile(np.arange(world.entities), len(moments))
    return Doubts(columns[0], columns[1], columns[2], columns[3], entity)


def _moment(
    spec: SystemSpec, bundle: Bundle, record: Record, t: int, horizon: int, seed: int
) -> tuple[F64, F64, F64, F64]:
    """The first four columns of `Doubts` at row t of a record; NaN where an episode was broken."""
    tick, ahead = record.first + t, slice(t, t + horizon)
    imagination = Imagination(spec, bundle, record.posterior(t), tick)
    actions = record.action[ahead].transpose(1, 0, 2)[:, None]
    noise = pairs((seed, 0, tick), CLOSING, (horizon + 1, 4, bundle.latent))
    rows = np.arange(actions.shape[0])
    futures = imagination.under_all(rows, actions, noise).channels[:, :, :, 0]  # [T,M,E,D,O]
    still = imagination.under_all(rows, actions, np.zeros_like(noise[:, :1])).channels
    observed = len(spec.observed_columns)
    scale = bundle.channel_scale[:observed]
    units = futures[..., :observed] / scale
    truth = record.obs[t + 1 : t + horizon + 1, :, :observed] / scale
    error = _rms(units.mean(axis=(1, 3)) - truth)
    spread = _rms(units.std(axis=(1, 3)))
    disagreement = imagination.disagreement(still[:, :, :, 0])
    innovation = record.innovation[t - WARM // 2 : t + 1].mean(axis=0, dtype=np.float64)
    broken = record.begun[t - WARM // 2 : t + horizon + 1].any(axis=0)
    columns = (np.where(broken, np.nan, c) for c in (disagreement, spread, error, innovation))
    disagreement, spread, error, innovation = columns
    return disagreement, spread, error, innovation


def _rms(values: npt.NDArray[np.floating[Any]]) -> F64:
    """`[E]` over steps and columns of `[T, E, O]`, of what is known."""
    known = np.isfinite(values)
    squares = np.where(known, values, 0.0).astype(np.float64) ** 2
    count = known.sum(axis=(0, 2))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.sqrt(squares.sum(axis=(0, 2)) / count))


def _judged(change: Shift, usual: Doubts, run: Doubts) -> Shifted:
    error, before = (float(np.nanmedian(one.error)) for one in (run, usual))
    per_run = [
        auroc(_by_entity(getattr(usual, name), usual), _by_entity(getattr(run, name), run))
        for name in ("disagreement", "innovation")
    ]
    return Shifted(
        shift=change,
        error=error,
        error_ratio=error / before if before > 0 else float("nan"),
        disagreement=auroc(usual.disagreement, run.disagreement),
        innovation=auroc(usual.innovation, run.innovation),
        run_disagreement=per_run[0],
        run_innovation=per_run[1],
        tracks=spearman(run.spread, run.error),
        disagreement_tracks=spearman(run.disagreement, run.error),
    )


def _by_entity(values: F64, run: Doubts) -> F64:
    """`[E]` the mean of each entity's moments."""
    known = np.isfinite(values)
    total = np.bincount(run.entity, weights=np.where(known, values, 0.0))
    count = np.bincount(run.entity, weights=known.astype(np.float64))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(total / count)
