"""A bundle against a simulator: everything that logs alone cannot tell, in one call."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from infra.plants.base import Plant, PlantError, make_plant
from models.evaluation.counterfactual import Counterfactuals, counterfactuals
from models.evaluation.exploitation import Exploitation, exploitation
from models.evaluation.regret import Regret, regret
from models.evaluation.sections import Section
from models.evaluation.sensitivity import Sensitivity, sensitivity
from models.evaluation.shift import OutOfDistribution, out_of_distribution
from models.evaluation.shifts import USUAL, Shift, shifts, usual_options
from models.evaluation.world import World
from planner.encoded import encoded_plant
from planner.session import Bundle
from schemas.system import SystemSpec

COUNTS: Final = {"nav2d": "robots", "cluster": "services", "gym": "entities"}
"""Per kind of plant the option that says how many entities there are."""
FEW: Final = {"nav2d": 8, "cluster": 8, "gym": 4}
"""Entities where every one is planned for at every tick, in full or with copies of the plant."""
SOME: Final = 32
SHIFT_TICKS: Final = 120
REGRET_TICKS: Final = 60
OnStage = Callable[[str], None]
Part = TypeVar("Part")


@dataclass(frozen=True)
class Simulated:
    """What was found; a part that the plant does not allow is None, and `left_out` says why."""

    plant: str
    seed: int
    shift: OutOfDistribution
    counterfactuals: Counterfactuals | None
    sensitivity: Sensitivity
    regret: Regret | None
    exploitation: Exploitation | None
    left_out: dict[str, str]

    @property
    def _parts(self) -> dict[str, Any]:
        parts = {
            "out_of_distribution": self.shift,
            "counterfactuals": self.counterfactuals,
            "policy_sensitivity": self.sensitivity,
            "planner_regret": self.regret,
            "model_exploitation": self.exploitation,
        }
        return {name: part for name, part in parts.items() if part is not None}

    @property
    def worse(self) -> bool:
        """Whether a search with the bundle gained nothing over the fallback, if it was tried."""
        return self.regret is not None and self.regret.share("bundle") >= 1.0

    def as_dict(self) -> dict[str, Any]:
        """JSON, by part."""
        found = {name: part.as_dict() for name, part in self._parts.items()}
        return {"plant": self.plant, "seed": self.seed, **found, "left_out": self.left_out}

    def sections(self) -> tuple[Section, ...]:
        """Of an evaluation's report."""
        made = [part.section() for part in self._parts.values()]
        return tuple(made)

    def text(self) -> str:
        """The figures that matter most, for people."""
        lines = [f"simulated ({self.plant}, seed {self.seed})"]
        for one in self.shift.shifts:
            told = f"innovation {one.innovation:.2f}, disagreement {one.disagreement:.2f}"
            lines.append(f"  {one.shift.name}: error × {one.error_ratio:.2f}; AUROC of {told}")
        if self.counterfactuals is not None:
            for name, effect in self.counterfactuals.agreement.items():
                told = f"same sign {effect.sign:.0%}, order {effect.kendall:.2f}"
                lines.append(f"  effect on {name}: {told}, size × {effect.slope:.2f}")
        for name in self.sensitivity.change:
            gain = self.sensitivity.gain(name)
            lines.append(f"  {name}: share of range moved per usual spread of noise {gain:.2f}")
        if self.regret is not None:
            share, (lost, error) = self.regret.share("bundle"), self.regret.regret("bundle")
            lines.append(
                f"  regret of the search: {lost:.4g} ± {error:.2g}, {share:.1%} of the gap"
            )
        if self.exploitation is not None:
            figures = self.exploitation.as_dict()
            bias, own = figures["bias"], figures["exploitation"]
            lines.append(f"  plans are overrated by {bias}, {own} more than others are")
        lines += [f"  left out: {name}: {why}" for name, why in self.left_out.items()]
        return "\n".join(lines)


def simulate(
    spec: SystemSpec,
    bundle: Bundle,
    options: Mapping[str, Any],
    *,
    seed: int = 0,
    on_stage: OnStage = lambda _: None,
) -> Simulated:
    """Judges `bundle` against the plant of `spec`.

    Args:
        options: of the plant, beside those in the spec.
        on_stage: called with the name of what is done next.

    Raises:
        PlantError: the spec names no plant, or an option does not fit.
    """
    study = _Study(spec, bundle, options, seed, on_stage)
    few = study.world(FEW[study.kind])
    left_out: dict[str, str] = {}

    def possible(name: str, run: Callable[[], Part]) -> Part | None:
        on_stage(name)
        try:
            return run()
        except PlantError as error:
            left_out[name] = str(error)
            return None

    return Simulated(
        plant=few.plant.version,
        seed=seed,
        shift=study.shift(),
        counterfactuals=possible("counterfactuals", study.counterfactuals),
        sensitivity=study.sensitivity(few),
        regret=possible("planner_regret", lambda: study.regret(few)),
        exploitation=possible("model_exploitation", study.exploitation),
        left_out=left_out,
    )


def changed(
    spec: SystemSpec,
    bundle: Bundle,
    kinds: Collection[str],
    options: Mapping[str, Any],
    *,
    seed: int = 0,
    on_change: OnStage = lambda _: None,
) -> OutOfDistribution:
    """The part of `simulate` about changed plants, of some `kinds` of change alone.

    Raises:
        PlantError: the spec names no plant, or an option does not fit.
    """
    return _Study(spec, bundle, options, seed, on_change).shift(kinds)


def attributes_of(spec: SystemSpec, options: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a Gymnasium environment that can be changed; nothing of other plants."""
    if spec.plant is None or spec.plant.kind != "gym":
        return {}
    from infra.plants.gym import GymPlant

    plant = make_plant(spec, **{**options, COUNTS["gym"]: 1})
    return plant.attributes if isinstance(plant, GymPlant) else {}


class _Study:
    """The parts of one evaluation: what they are of, and how large they are."""

    def __init__(
        self,
        spec: SystemSpec,
        bundle: Bundle,
        options: Mapping[str, Any],
        seed: int,
        on_stage: OnStage,
    ) -> None:
        if spec.plant is None:
            raise PlantError(f"{spec.system}: the spec names no plant; add 'plant: {{kind: ...}}'")
        self.spec, self.bundle, self.seed, self.on_stage = spec, bundle, seed, on_stage
        self.kind, self.params = spec.plant.kind, spec.plant.params
        self.options = usual_options(spec, options, seed)

    def shift(self, kinds: Collection[str] | None = None) -> OutOfDistribution:
        """With as many entities as the plant has; None: all kinds of change."""
        plant = encoded_plant(self.spec, **self.options)
        if plant.ticks is not None and plant.ticks < SHIFT_TICKS:
            reason = f"it ends after {plant.ticks} ticks, and {SHIFT_TICKS} are needed"
            raise PlantError(f"{self.spec.system}: {reason}: give the plant a longer run")
        everything = shifts(self.spec, self.bundle, attributes_of(self.spec, self.options))
        wanted = None if kinds is None else {USUAL.kind, *kinds}
        changes = tuple(one for one in everything if wanted is None or one.kind in wanted)
        ticks, seed, on_change = SHIFT_TICKS, self.seed, self.on_stage
        return out_of_distribution(
            self.spec,
            self.bundle,
            self._changed,
            changes,
            ticks=ticks,
            seed=seed,
            on_change=on_change,
        )

    def counterfactuals(self) -> Counterfactuals:
        """With as many entities as the plant has."""
        return counterfactuals(self.world(None), seed=self.seed)

    def sensitivity(self, few: World) -> Sensitivity:
        """With few entities."""
        self.on_stage("policy_sensitivity")
        return sensitivity(few, seed=self.seed)

    def regret(self, few: World) -> Regret:
        """With few entities."""
        return regret(few, ticks=REGRET_TICKS, seed=self.seed, on_policy=self.on_stage)

    def exploitation(self) -> Exploitation:
        """With some entities."""
        return exploitation(self.world(SOME), seed=self.seed)

    def world(self, most: int | None) -> World:
        """The usual plant and the bundle, of at most so many entities."""
        options = dict(self.options)
        name = COUNTS[self.kind]
        count = options.get(name, self.params.get(name))
        if most is not None and (count is None or most < count):
            options[name] = most
        return World(self.spec, encoded_plant(self.spec, **options), self.bundle)

    def _changed(self, shift: Shift) -> Plant:
        return encoded_plant(self.spec, **{**self.options, **shift.options})
