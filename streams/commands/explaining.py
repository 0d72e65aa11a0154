"""One decision looked into: explain."""

from pathlib import Path
from typing import Annotated

import typer

from streams.commands.console import console
from streams.commands.options import Json, bundle_roots, catalog_url, errors, show

Action = Annotated[str | None, typer.Argument(metavar="[ACTION_ID]", help="Its id: 16 hex digits.")]
Folder = Annotated[
    Path | None,
    typer.Option(
        help="Folder of `rehearse record`; default: the newest of the catalog that holds it."
    ),
]
Entity = Annotated[str | None, typer.Option(help="Instead of an id: whose action.")]
At = Annotated[
    str | None,
    typer.Option(
        metavar="TIME",
        help="And when: event time in us, a date, or '90 s' from the recording's beginning.",
    ),
]
WhatIf = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=VALUE,…", help="Imagine this action instead, held; may be repeated."
    ),
]
Roots = Annotated[list[Path] | None, typer.Option(help="Folders to find the recorded bundles in.")]
ReportFile = Annotated[Path | None, typer.Option(help="HTML page with the futures.")]


def explain(
    action_id: Action = None,
    recording: Folder = None,
    entity: Entity = None,
    at: At = None,
    what_if: WhatIf = None,
    bundles: Roots = None,
    report: ReportFile = None,
    as_json: Json = False,
) -> None:
    """Say why one action was taken, what else there was, and what came of it.

    Its tick is decided again from the recording and compared with what was logged.
    Exit status 1: it came out differently, as on another kind of machine it may.

    Example: rehearse explain --recording ./monday --entity robot-003 --at '5 s' --report why.html

    Example: rehearse explain 1b4e28ba2fa1d5c3 --what-if 'acceleration[0]=1,acceleration[1]=0'
    """
    from streams.explain import explain as run
    from streams.explain_text import text_of
    from streams.replay_deck import ReplayError

    with errors():
        if (action_id is None) == (entity is None) or (entity is None) != (at is None):
            raise ReplayError("say which decision: either its ACTION_ID, or --entity and --at")
        result = run(
            [recording] if recording else _recordings(),
            action_id,
            entity=entity,
            at=at,
            what_if=[_values(text) for text in what_if or []],
            bundles=tuple(bundles or bundle_roots()),
        )
        if report is not None:
            from streams.explain_report import write_report

            result["report"] = str(write_report(report, result))
    if as_json:
        show(result, as_json)
    else:
        typer.echo(text_of(result))
        if report is not None:
            console.print(f"page: {report}", highlight=False, markup=False, soft_wrap=True)
    raise typer.Exit(0 if result["equal"] else 1)


def _values(text: str) -> dict[str, float]:
    """`x=1,y=-0.5` as values by action column."""
    found = {}
    for pair in text.split(","):
        name, _, value = pair.partition("=")
        try:
            found[name.strip()] = float(value)
        except ValueError as error:
            raise ValueError(f"--what-if {text!r}: write it as NAME=NUMBER,…") from error
    return found


def _recordings() -> list[Path]:
    """Those of the catalog, the newest first."""
    from schemas.catalog import Catalog

    catalog = Catalog(catalog_url())
    try:
        catalog.create()  # where nobody has made one yet
        return [Path(one.path) for one in catalog.recordings()]
    finally:
        catalog.close()
