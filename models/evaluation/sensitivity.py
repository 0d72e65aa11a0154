"""Policy sensitivity: how far actor and planner move their action when sensors are a bit off."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from models.evaluation.recalibrate import rounded
from models.evaluation.sections import Section
from models.evaluation.windows import WARM
from models.evaluation.world import SHARE, Explorer, World
from planner.budget import FreeBudget
from planner.memory import PlannerMemory
from planner.plan import plan
from planner.policy import actor
from planner.session import Posterior

F64 = npt.NDArray[np.float64]
SIZES: Final = (0.01, 0.03, 0.1)
Answers = dict[str, F64]


@dataclass(frozen=True)
class Sensitivity:
    """Root mean square change of the action, as a share of its range, by policy and noise.

    Attributes:
        sizes: standard deviations of the noise on this tick's observation, in usual spreads.
        change: policy (`planner`, and `actor` where one is trusted) → `[sizes]`.
        again: the change where only the planner's own random numbers are others, no sensor.
    """

    sizes: tuple[float, ...]
    change: dict[str, tuple[float, ...]]
    again: float

    def gain(self, policy: str) -> float:
        """Change per unit of noise, at the smallest noise."""
        return self.change[policy][0] / self.sizes[0]

    def as_dict(self) -> dict[str, Any]:
        """JSON: per policy the gain, and the change by noise."""
        found = {
            name: {
                "gain": rounded(self.gain(name)),
                "change": dict(zip(map(str, self.sizes), map(rounded, values), strict=True)),
            }
            for name, values in self.change.items()
        }
        return {"policies": found, "planner_again": rounded(self.again)}

    def section(self) -> Section:
        """Change against noise."""
        import plotly.graph_objects as go

        figure = go.Figure(
            [
                go.Scatter(x=self.sizes, y=values, mode="lines+markers", name=name)
                for name, values in self.change.items()
            ]
        )
        figure.add_hline(y=self.again, line_dash="dot")
        figure.update_layout(
            xaxis_title="sensor noise, usual spreads", yaxis_title="change, share of range"
        )
        text = (
            "How far the first action moves with the noise of one observation; the dotted line is "
            "how far the planner's moves with other random numbers of its own, and a line that "
            "starts high is a policy that shakes."
        )
        return Section("Policy sensitivity", text, figure)


def sensitivity(
    world: World,
    *,
    moments: int = 4,
    apart: int = 8,
    seed: int = 0,
    on_moment: Callable[[int], None] = lambda _: None,
) -> Sensitivity:
    """Disturbs single observations of an explored run; the world is begun anew."""
    world.reset(seed)
    explorer = Explorer(world.spec, world.entities, SHARE, seed)
    for _ in range(WARM):
        world.step(explorer(world))
    moved: list[dict[str, list[F64]]] = []
    for moment in range(moments):
        moved.append(_moved(world, np.random.default_rng([seed, moment, 29]), seed))
        on_moment(moment + 1)
        for _ in range(apart):
            world.step(explorer(world))
    again = np.concatenate([one.pop("again")[0] for one in moved])
    change = {
        name: tuple(
            _rms(np.concatenate([one[name][i] for one in moved])) for i in range(len(SIZES))
        )
        for name in moved[0]
    }
    return Sensitivity(SIZES, change, _rms(again))


def _moved(world: World, rng: np.random.Generator, seed: int) -> dict[str, list[F64]]:
    """Per policy and noise `[E, A]` changes as shares of the range, at this state; and `again`."""
    spec = world.spec
    observed = len(spec.observed_columns)
    width = spec.action_high - spec.action_low
    before = _answers(world, world.posterior, world.obs, seed)
    other = _answers(world, world.posterior, world.obs, seed + 1)
    found: dict[str, list[F64]] = {name: [] for name in before}
    white = rng.standard_normal((world.entities, observed))  # the same direction at all sizes
    for size in SIZES:
        obs = world.obs.copy()
        obs[:, :observed] += size * world.bundle.channel_scale[:observed] * white
        after = _answers(world, world.believe(obs), obs, seed)
        for name, answer in after.items():
            found[name].append((answer - before[name]) / width)
    found["again"] = [(other["planner"] - before["planner"]) / width]
    return found


def _answers(world: World, posterior: Posterior, obs: F64, seed: int) -> Answers:
    """`[E, A]` of each policy, from nothing but this belief and this observation."""
    spec, frame = world.spec, replace(world.frame, values=obs)
    memory = PlannerMemory.fresh(spec, world.entities)
    made = plan(spec, world.bundle, posterior, frame, memory, FreeBudget(), seed)
    led = actor(spec, world.bundle, posterior)
    return {"planner": made.proposal} if led is None else {"planner": made.proposal, "actor": led}


def _rms(values: F64) -> float:
    return float(np.sqrt(np.mean(np.square(values))))
