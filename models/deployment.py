"""How a bundle is meant to run: the part of a workflow that ends up in the bundle and its spec."""

from __future__ import annotations

from typing import Annotated, Any

import yaml
from pydantic import BeforeValidator, Field

from models.evaluation.result import BAND
from schemas.part import Part
from schemas.spec_parts import FallbackSpec, Tier

IN_SPEC = ("deadline", "caution", "tiers", "fallback")
"""The fields that a spec has a place for."""


def _by_name(value: Any) -> Any:
    return {"kind": value} if isinstance(value, str) else value


class Monitors(Part):
    """What the running loop watches, each with the share of held-out data that lies within.

    innovation: beyond it an observation contradicts a belief, which is begun anew where that goes
        on, and young plans are made again.
    disagreement: of the members about what is proposed; beyond it the gate lets the fallback act.
        None: only where the spec's own `gate.max_uncertainty` says so.
    """

    innovation: float = Field(default=BAND, ge=0.5, lt=1)
    disagreement: float | None = Field(default=None, ge=0.5, le=1)


class Deployment(Part):
    """How the bundle is meant to run: deadline, tiers from shallow to deep, caution, practice.

    `practice` is the tier that is planned with while learning; the others go into the spec that
    belongs to the bundle, as does `fallback`: the controller that stands by, by its kind, or with
    parameters, as in a spec. `monitors` are limits that the bundle brings with it.
    """

    deadline: str = "20 ms"
    caution: float = Field(default=0.0, ge=0)
    practice: Tier = Tier(candidates=255, horizon=15, iterations=2)
    tiers: dict[str, Tier] = Field(
        default_factory=lambda: {
            "shallow": Tier(candidates=65, horizon=10, iterations=1),
            "deep": Tier(candidates=255, horizon=15, iterations=2),
        }
    )
    fallback: Annotated[FallbackSpec | None, BeforeValidator(_by_name)] = None
    monitors: Monitors = Monitors()

    @property
    def in_spec(self) -> dict[str, Any]:
        """What was said of the fields that a spec has a place for, as it stands there."""
        given = self.model_dump(include=set(IN_SPEC), exclude_unset=True, exclude_none=True)
        if "tiers" in given:
            given["tiers"] = {
                name: tier.model_dump(exclude_defaults=True) for name, tier in self.tiers.items()
            }
        return given

    def spec_text(self, text: str) -> str:
        """The YAML of a spec, with what this says in place of what it says."""
        given = self.in_spec
        if not given:
            return text
        document = yaml.safe_load(text)
        if "fallback" in given:
            document["fallback"] = given.pop("fallback")
        document["budget"] = {**document.get("budget", {}), **given}
        return str(yaml.safe_dump(document, sort_keys=False, allow_unicode=True))
