"""What a workflow asks of a bundle when it is made: limits, metrics with bounds, changed plants."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from infra.plants.base import PlantError
from models import metrics
from models.deployed import Acted, acted, stage
from models.evaluation.apart import disagreements
from models.evaluation.recalibrate import rounded
from models.evaluation.result import BAND, Evaluation
from models.evaluation.shifts import kinds_of
from models.evaluation.simulated import COUNTS, attributes_of, changed
from planner.session import Bundle
from schemas.system import SystemSpec

Say = Callable[[str], None]


@dataclass(frozen=True)
class Acceptance:
    """See the fields `metrics`, `shifts` and `deployment.monitors` of `models.recipe`.

    Attributes:
        metrics: by name, with bounds where there are any.
        shifts: kinds of change of the plant.
        innovation: share of the held-out innovations within the band.
        disagreement: share of the held-out disagreements within the gate's limit; None: no limit.
        entities, ticks: how many act in a plant, and for how long; None: for an episode.
    """

    metrics: Mapping[str, float | None] = field(
        default_factory=lambda: dict.fromkeys(metrics.USUAL)
    )
    shifts: tuple[str, ...] = ()
    innovation: float = BAND
    disagreement: float | None = None
    entities: int = 10
    ticks: int | None = None
    seed: int = 0

    def check(self, spec: SystemSpec) -> None:
        """Raises `ValueError` where `spec` does not allow what is asked: before training."""
        for name in metrics.ACTED:
            if self.metrics.get(name) is None:
                continue  # without a bound it is said that there is none
            if spec.plant is None:
                raise ValueError(
                    f"metrics.{name}: {spec.system} names no plant to act in, so its bound cannot "
                    "be kept: add 'plant: {kind: ...}' to the spec, or leave the bound out"
                )
            if name == metrics.VIOLATIONS and not spec.constraints:
                raise ValueError(
                    f"metrics.{name}: {spec.system} has no constraints, so its bound means nothing"
                    ": add some to the spec, or leave the bound out"
                )
        if not self.shifts:
            return
        if spec.plant is None:
            raise ValueError(
                f"shifts: {spec.system} names no plant that could be changed: add "
                "'plant: {kind: ...}' to the spec, or leave shifts out"
            )
        there = kinds_of(spec, attributes_of(spec, {}))
        for kind in self.shifts:
            if kind not in there:
                raise ValueError(
                    f"shifts: a plant of kind {spec.plant.kind} has no change of kind {kind}; "
                    f"it has {', '.join(there)}"
                )

    def calibration(
        self, bundle: Bundle, spec: SystemSpec, found: Evaluation, discount: float
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """The `calibration` of a manifest, and what its limits are quantiles of."""
        plain = found.calibration(discount)
        band = rounded(found.innovation_band)
        told: dict[str, Any] = {"innovation": {"quantile": self.innovation, "limit": band}}
        if self.disagreement is not None:
            deepest = list(spec.budget.tiers.values())[-1].horizon
            apart = disagreements(bundle, found, deepest, self.seed)
            limit = float(np.quantile(apart, self.disagreement))
            plain["max_uncertainty"] = limit
            told["disagreement"] = {"quantile": self.disagreement, "limit": rounded(limit)}
        return plain, {"monitors": told}

    def judge(
        self,
        bundle: Bundle,
        spec: SystemSpec,
        found: Evaluation,
        act: Callable[[], Acted] | None = None,
        say: Say = lambda _: None,
    ) -> dict[str, Any]:
        """The metrics of a manifest that were asked for, of the bundle with its calibration.

        Args:
            act: runs the deployed policy; None: in the plant of `spec`.
        """
        told: dict[str, Any] = {}
        done: Acted | str = "not asked for"
        if any(name in self.metrics for name in metrics.ACTED):
            say("acting as deployed")
            done = self._acted(bundle, spec, act)
            if isinstance(done, Acted):
                told["deployed"] = done.as_dict()
        told["asked"] = metrics.measured(self.metrics, found, done)
        verdict = metrics.passed(told["asked"])
        if verdict is not None:
            told["passed"] = verdict
        if self.shifts:
            told["out_of_distribution"] = self._shifted(bundle, spec, say)
        return told

    def _acted(
        self, bundle: Bundle, spec: SystemSpec, act: Callable[[], Acted] | None
    ) -> Acted | str:
        # What was learned is not lost over a plant that fails.
        try:
            if act is not None:
                return act()
            plant, ticks = stage(spec, self.entities, self.ticks, self.seed)
            return acted(spec, bundle, plant, ticks, self.seed)
        except (PlantError, ValueError) as error:
            return str(error)

    def _shifted(self, bundle: Bundle, spec: SystemSpec, say: Say) -> dict[str, Any]:
        assert spec.plant is not None
        name = COUNTS[spec.plant.kind]
        count = max(self.entities, spec.plant.params.get(name, 0))
        try:
            found = changed(spec, bundle, self.shifts, {name: count}, seed=self.seed, on_change=say)
        except (PlantError, ValueError) as error:
            return {"reason": str(error)}
        return found.as_dict()
