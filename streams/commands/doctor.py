"""`rehearse doctor`: what is installed, reachable, misconfigured, and what helps."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from infra.home import default_catalog, home_folder
from planner.naming import find_bundle
from streams.checks.finding import Finding, Place, examine, worst
from streams.commands.options import (
    Bootstrap,
    Bundles,
    CatalogUrl,
    Extra,
    Json,
    bundle_roots,
    errors,
    extra_settings,
    show,
    spec_of,
)

_SIGNS = {"ok": ("✓", "green"), "warning": ("!", "yellow"), "problem": ("✗", "bold red")}


def doctor(
    spec: Annotated[
        str | None,
        typer.Argument(metavar="[SPEC]", help="Also its topics, and a bundle that fits it."),
    ] = None,
    bundles: Bundles = None,
    catalog: CatalogUrl = None,
    bootstrap: Bootstrap = None,
    extra: Extra = None,
    as_json: Json = False,
) -> None:
    """Say what is installed, reachable and misconfigured here, each with its remedy.

    Starts nothing and changes nothing. Exit status 0: no problem, 1: at least one.

    Example: rehearse doctor nav2d
    """
    from streams.checks import cluster, codecs, install, kept, machine

    home = home_folder()
    with errors():
        place = Place(
            home=home,
            bundle_roots=[_folder(which) for which in bundles or ()] or bundle_roots(),
            catalog_url=catalog or default_catalog(),
            spec=None if spec is None else spec_of(spec),
            bootstrap=bootstrap,
            extra=extra_settings(extra),
        )
    out, findings = Console(highlight=False, soft_wrap=True), []
    for finding in examine(
        (*install.CHECKS, *machine.CHECKS, *kept.CHECKS, *cluster.CHECKS, *codecs.CHECKS), place
    ):
        findings.append(finding)
        if not as_json:
            out.print(_line(finding))
    level = worst(findings)
    if as_json:
        show({"status": level, "findings": [asdict(finding) for finding in findings]}, True)
    raise typer.Exit(1 if level == "problem" else 0)


def _folder(which: str) -> Path:
    """A folder as it is: what is wrong in it is a finding; else that of the bundle meant."""
    return Path(which) if Path(which).is_dir() else find_bundle(which)[0]


def _line(finding: Finding) -> Text:
    sign, style = _SIGNS[finding.level]
    line = Text.assemble((f"{sign} ", style), (f"{finding.check:>12}  ", "bold"), finding.what)
    if finding.remedy:
        line.append(f"\n{'':>16}→ {finding.remedy}", style="dim" if finding.level == "ok" else "")
    return line
