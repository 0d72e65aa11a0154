"""Planner regret: what the same search reaches with the bundle and with the true dynamics."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from models.evaluation.recalibrate import rounded
from models.evaluation.sections import Section
from models.evaluation.tried import Plain, returned
from models.evaluation.truth import Search, Truth
from models.evaluation.world import Explorer, Policy, World, first_executable, watch
from planner.budget import FreeBudget
from planner.memory import PlannerMemory
from planner.plan import plan
from planner.session import Dynamics, Posterior

F64 = npt.NDArray[np.float64]
FALLBACK, BUNDLE, PLANNER, TRUTH = "fallback", "bundle", "planner", "truth"


@dataclass(frozen=True)
class Regret:
    """Returns of whole runs that begin alike, and what is lost by not knowing the dynamics.

    Attributes:
        ticks: of each run.
        returned: policy → `[E]` undiscounted return by the planner's objective, reward units. The
            policies are `fallback`; `bundle` and `truth`, the same search (no actor, no value) with
            the bundle's dynamics and with the true ones; `planner`, all that the bundle has.
    """

    ticks: int
    returned: dict[str, F64]

    def regret(self, policy: str) -> tuple[float, float]:
        """Mean over entities of the true dynamics' return minus the policy's; standard error."""
        lost = self.returned[TRUTH] - self.returned[policy]
        if len(lost) < 2:
            return float(lost.mean()), float("nan")
        return float(lost.mean()), float(lost.std(ddof=1) / np.sqrt(len(lost)))

    def share(self, policy: str) -> float:
        """Regret over the gap from the fallback to the true dynamics; NaN where there is no gap."""
        gap = self.regret(FALLBACK)[0]
        return self.regret(policy)[0] / gap if gap > 0 else float("nan")

    def as_dict(self) -> dict[str, Any]:
        """JSON: per policy the mean return, the regret with its standard error, and its share."""
        found = {}
        for policy, values in self.returned.items():
            lost, error = self.regret(policy)
            found[policy] = {
                "return": rounded(float(values.mean())),
                "regret": rounded(lost),
                "standard_error": rounded(error),
                "share_of_gap": rounded(self.share(policy)),
            }
        entities = len(self.returned[TRUTH])
        return {"ticks": self.ticks, "entities": entities, "policies": found}

    def section(self) -> Section:
        """Returns of all policies."""
        import plotly.graph_objects as go

        figure = go.Figure([go.Box(y=v, name=n, boxpoints="all") for n, v in self.returned.items()])
        figure.update_layout(yaxis_title="return of a run", showlegend=False)
        policies = self.as_dict()["policies"]
        rows = tuple({"policy": name, **figures} for name, figures in policies.items())
        text = (
            "The same search with the bundle and with the true dynamics, from the same starts: "
            "what the bundle lacks to the truth is the price of its errors (a share of 0 costs "
            "nothing, at 1 the fallback would have done as well); the planner adds actor and value."
        )
        return Section("Planner regret", text, figure, rows)


class Planner:
    """All that the bundle has, as a policy: every tier for everyone, actor and value included."""

    def __init__(self, world: World, seed: int) -> None:
        self._memory = PlannerMemory.fresh(world.spec, world.entities)
        self._seed = seed

    def __call__(self, world: World) -> F64:
        """`[E, A]` what it does now; call it once per tick."""
        frame, budget = world.frame, FreeBudget()
        memory = self._memory.forget_plans(world.begun)
        made = plan(world.spec, world.bundle, world.posterior, frame, memory, budget, self._seed)
        self._memory = made.memory
        return first_executable(world.spec, world, made.proposal)


def regret(
    world: World,
    *,
    ticks: int = 60,
    seed: int = 0,
    on_policy: Callable[[str], None] = lambda _: None,
) -> Regret:
    """Runs all policies from the same state of the plant; the world is begun anew by each.

    Raises:
        PlantError: entities of this plant cannot be copied.
    """
    spec, bundle, truth = world.spec, world.bundle, Truth(world)

    def by_bundle(now: World) -> tuple[Dynamics, Posterior]:
        return Plain(bundle, bundle.discount), now.posterior

    def by_truth(_: World) -> tuple[Dynamics, Posterior]:
        return truth, truth.posterior()

    policies: dict[str, Callable[[], Policy]] = {
        FALLBACK: lambda: Explorer(spec, world.entities, 0.0, seed),
        BUNDLE: lambda: Search(spec, by_bundle, world.entities, seed),
        PLANNER: lambda: Planner(world, seed),
        TRUTH: lambda: Search(spec, by_truth, world.entities, seed),
    }
    found = {}
    for name, policy in policies.items():
        on_policy(name)
        world.reset(seed)
        found[name] = whole_return(world, policy(), ticks)
    return Regret(ticks, found)


def whole_return(world: World, policy: Policy, ticks: int) -> F64:
    """`[E]` the undiscounted return of `ticks` ticks; of an episode that ends, until its end."""
    record = watch(world, policy, ticks)
    run = (record.obs[1:], record.action, record.reward, ~record.ended)
    return returned(world.spec, Plain(world.bundle, 1.0), record.first, run)
