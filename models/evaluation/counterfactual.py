"""Counterfactuals: from one state, does another action change what the bundle says it changes?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from models.evaluation.ranks import kendall, spearman
from models.evaluation.recalibrate import rounded
from models.evaluation.sections import Section
from models.evaluation.tried import Tried, try_out
from models.evaluation.windows import WARM
from models.evaluation.world import SHARE, Explorer, World
from planner.explore import reach
from planner.sequences import executable

F64 = npt.NDArray[np.float64]
FELT = 0.02
"""A true difference counts from this many usual spreads on (of the channel; of the returns)."""
RETURN = "return"


@dataclass(frozen=True)
class Agreement:
    """How imagined differences agree with true ones, of the channel k ticks later or the return.

    Attributes:
        felt: share of pairs whose true difference is more than `FELT` usual spreads.
        sign: share of these whose imagined difference has the same sign; 0.5 is chance.
        spearman: of imagined and true differences, all pairs together.
        kendall: mean over states of tau-b among the actions that were tried there.
        slope: imagined over true difference, by least squares; below 1 effects are played down.
    """

    felt: float
    sign: float
    spearman: float
    kendall: float
    slope: float


@dataclass(frozen=True)
class Counterfactuals:
    """Agreement by what is compared: `return`, and each observed column that actions change.

    Attributes:
        horizon: k, the ticks for which an action is held.
        states, actions: how many states, and how many other actions in each.
        points: imagined and true differences of the return, `[n, 2]`, for the picture.
    """

    horizon: int
    states: int
    actions: int
    agreement: dict[str, Agreement]
    points: F64

    def as_dict(self) -> dict[str, Any]:
        """JSON: per compared thing the figures of `Agreement`."""
        found = {
            name: {key: rounded(value) for key, value in vars(one).items()}
            for name, one in self.agreement.items()
        }
        sizes = {"horizon": self.horizon, "states": self.states, "actions": self.actions}
        return {**sizes, "agreement": found}

    def section(self) -> Section:
        """Imagined against true differences of the return, and a table of the rest."""
        import plotly.graph_objects as go

        shown = self.points[:: max(1, len(self.points) // 2000)]
        figure = go.Figure(
            go.Scatter(x=shown[:, 1], y=shown[:, 0], mode="markers", marker={"size": 4})
        )
        ends = [float(np.nanmin(shown)), float(np.nanmax(shown))] if len(shown) else [0.0, 1.0]
        figure.add_trace(go.Scatter(x=ends, y=ends, mode="lines", line={"dash": "dot"}))
        figure.update_layout(
            showlegend=False,
            xaxis_title="true difference of the return",
            yaxis_title="imagined difference",
        )
        rows = [
            {"of": name, **{key: rounded(value) for key, value in vars(one).items()}}
            for name, one in self.agreement.items()
        ]
        text = (
            f"The same state twice, with another action held for {self.horizon} ticks: points on "
            "the dotted line are effects that the bundle knows, points in the upper left and lower "
            "right are actions that it would choose wrongly between."
        )
        return Section("Counterfactuals", text, figure, tuple(rows), 420)


def counterfactuals(
    world: World,
    *,
    horizon: int = 10,
    actions: int = 8,
    moments: int = 5,
    seed: int = 0,
    on_moment: Callable[[int], None] = lambda _: None,
) -> Counterfactuals:
    """Tries other actions in states of an explored run, in imagination and in the plant.

    In each state the action in force is compared with others, all held for the whole horizon, and
    all with the same noise. Differences in a pair are of `horizon` ticks later, and of the return
    discounted until then.

    Args:
        world: of a plant that can be taken back; it is begun anew.
        actions: how many others.
        moments: states of each entity, `horizon` ticks apart.

    Raises:
        PlantError: this plant cannot be taken back.
    """
    world.reset(seed)
    explorer = Explorer(world.spec, world.entities, SHARE, seed)
    for _ in range(WARM):
        world.step(explorer(world))
    found = []
    for moment in range(moments):
        found.append(try_out(world, _held(world, actions, horizon, seed), seed=seed))
        on_moment(moment + 1)
        for _ in range(horizon):
            world.step(explorer(world))
    return compared(world, found)


def _held(world: World, actions: int, horizon: int, seed: int) -> F64:
    """`[E, 1 + actions, T, A]`: what is applied now, and others, held; within range and rates."""
    spec = world.spec
    rng = np.random.default_rng([seed, world.sample.tick, 23])
    now = np.where(np.isfinite(world.applied), world.applied, spec.action_safe)
    count, columns = now.shape
    shift = reach(spec) * rng.standard_normal((count, actions, columns))
    shifted = np.clip(now[:, None] + shift, spec.action_low, spec.action_high)
    wanted = np.concatenate([now[:, None], shifted], axis=1)
    sequences = np.repeat(wanted[:, :, None], horizon, axis=2)
    return executable(spec, world.applied, sequences)


def compared(world: World, found: list[Tried]) -> Counterfactuals:
    """The differences of sequences 1, 2, … from sequence 0 of each state, put together."""
    whole = np.concatenate([one.whole.all(axis=1) for one in found])
    imagined, true = (
        np.concatenate([getattr(one, name)[-1] for one in found])[whole]
        for name in ("imagined", "true")
    )
    returns = [
        np.concatenate([getattr(one, name) for one in found])[whole]
        for name in ("imagined_return", "true_return")
    ]
    scale = float(np.nanstd(returns[1])) if whole.any() else 0.0
    agreement = {RETURN: _agreement(returns[0], returns[1], scale)}
    for i, column in enumerate(world.spec.observed_columns):
        spread = float(world.bundle.channel_scale[i])
        one = _agreement(imagined[..., i], true[..., i], spread)
        if one.felt > 0:  # what no action changes has no sign
            agreement[column] = one
    points = np.stack([(x[:, 1:] - x[:, :1]).ravel() for x in returns], axis=1)
    tick_count, _, tries = found[0].imagined.shape[:3]
    return Counterfactuals(tick_count, int(whole.sum()), tries - 1, agreement, points)


def _agreement(imagined: F64, true: F64, spread: float) -> Agreement:
    """Of `[states, F]`, F counting the sequence that the others are compared with."""
    x, y = ((values[:, 1:] - values[:, :1]).ravel() for values in (imagined, true))
    known = np.isfinite(x) & np.isfinite(y)
    x, y = x[known], y[known]
    felt = np.abs(y) > FELT * spread
    if not felt.any():
        return Agreement(0.0, *(float("nan"),) * 4)
    order = kendall(imagined, true)
    return Agreement(
        felt=float(felt.mean()),
        sign=float((np.sign(x[felt]) == np.sign(y[felt])).mean()),
        spearman=spearman(x, y),
        kendall=float(np.nanmean(order)) if np.isfinite(order).any() else float("nan"),
        slope=float((x * y).sum() / (y * y).sum()),
    )
