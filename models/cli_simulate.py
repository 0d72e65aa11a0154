"""`rehearse evaluate --simulate`: a bundle judged against the plant of its spec."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from schemas.plain_json import json_line

if TYPE_CHECKING:  # imported by what lists all commands, so it loads little itself
    from models.evaluation.simulated import Simulated
    from planner.session import Bundle
    from schemas.system import SystemSpec

Simulate = Annotated[
    bool,
    typer.Option(
        "--simulate",
        help="Also against the spec's plant: changed plants, counterfactuals, planner regret, "
        "model exploitation.",
    ),
]
PlantOptions = Annotated[
    list[str] | None,
    typer.Option("--option", "-o", metavar="NAME=VALUE", help="Of the plant; may be repeated."),
]


def simulated(spec: SystemSpec, bundle: Bundle, options: Mapping[str, Any], seed: int) -> Simulated:
    """All that `models.evaluation.simulated` finds, with its stages on standard error."""
    from models.evaluation.simulated import simulate

    def say(stage: str) -> None:
        typer.echo(f"simulating: {stage}", err=True)

    return simulate(spec, bundle, options, seed=seed, on_stage=say)


def plant_options(pairs: list[str] | None, option: str = "--option") -> dict[str, Any]:
    """Options given as NAME=VALUE, values as in a spec: `robots=50`, `set={m: 1.5}`."""
    from infra.plants.base import option_value

    options: dict[str, Any] = {}
    for pair in pairs or []:
        name, sign, value = pair.partition("=")
        if not sign or not name:
            raise typer.BadParameter(f"{pair!r}: write it as NAME=VALUE", param_hint=option)
        try:
            options[name] = option_value(value)
        except ValueError as error:
            raise typer.BadParameter(f"{pair!r}: {error}", param_hint=option) from error
    return options


def alone(found: Simulated, report: Path | None, facts: Mapping[str, Any], as_json: bool) -> None:
    """Tells what was found where there is no log to judge on as well."""
    if report is not None:
        from infra.report import Page
        from models.evaluation.report import add

        lead = "The bundle against a simulator: what would have happened is known there."
        page = Page(f"Rehearse: {facts['system']}, judged against a simulator", lead)
        for section in found.sections():
            add(page, section)
        page.section("Where the figures are from")
        page.facts(facts)
        page.write(report)
    typer.echo(json_line({"simulated": found.as_dict()}) if as_json else found.text())
