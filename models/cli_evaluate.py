"""`rehearse evaluate`: a bundle judged on trajectories that it was not trained on."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from infra.storage import local_side, placed
from models.cli_parts import NO_TORCH, Json, fail, read_spec, table
from models.cli_simulate import PlantOptions, Simulate, alone, plant_options, simulated
from schemas.plain_json import json_line

if TYPE_CHECKING:  # imported by what lists all commands, so it loads little itself
    from models.data import Sequences
    from models.logs import Days
    from planner.manifest import Recalibration
    from schemas.system import SystemSpec

HeldOut = Literal["time", "entity", "none"]
Judged = Annotated[
    str, typer.Argument(help="A folder, URL, NAME, NAME@champion, NAME@3, a digest.")
]
Trajectories = Annotated[
    list[str] | None,
    typer.Option(help="Folder or URL of trajectories (Parquet); repeat for several."),
]
FirstLast = Annotated[
    tuple[str, str] | None, typer.Option(help="The first and the last day (UTC) to read.")
]
Spec = Annotated[
    str | None, typer.Option(help="System or YAML file; the bundle's system by default.")
]
Split = Annotated[
    HeldOut, typer.Option(help="Which part is held out, as in training; none: all of it is new.")
]
Recalibrate = Annotated[
    str | None,
    typer.Option(help="Folder or URL for a copy of the bundle with factors fitted on these data."),
]


def evaluate_command(
    bundle: Judged,
    data: Trajectories = None,
    days: FirstLast = None,
    spec: Spec = None,
    split: Split = "time",
    windows: Annotated[int, typer.Option(min=1, help="Windows to judge on, at most.")] = 2048,
    seed: Annotated[int, typer.Option(help="Draws windows and futures.")] = 0,
    report: Annotated[Path | None, typer.Option(help="HTML page to write.")] = None,
    recalibrate: Recalibrate = None,
    simulate: Simulate = False,
    option: PlantOptions = None,
    mlflow: Annotated[str | None, typer.Option(help="Log it to MLflow at this URI.")] = None,
    as_json: Json = False,
) -> None:
    """Judge a bundle on trajectories: errors beside persistence up to 50 ticks, and spreads.

    Exit status 1 where some channel that moves is predicted worse than by persistence at 5 ticks,
    or where planning with the bundle in the simulator gains nothing over the fallback.

    Example: rehearse evaluate ./mine --data ./log --report ./mine.html

    Example: rehearse evaluate ./mine --simulate -o robots=100

    (of what `rehearse train` has made)
    """
    try:
        from models.evaluation.drift import drift
        from models.evaluation.held_out import evaluate
        from models.evaluation.tell import full
        from models.logs import DataError, days_of
        from models.tracking import tracked
        from planner.naming import find_bundle
        from planner.session import load_bundle
    except ImportError as error:
        raise fail(f"{NO_TORCH}\n{error}") from error
    try:
        folder, _ = find_bundle(bundle)
        loaded = load_bundle(folder, provider="cpu")
        described = read_spec(spec or loaded.manifest.system)
        loaded.check(described)
        facts = {"system": described.system, "bundle": folder, "digest": loaded.digest}
        options = _options(data, simulate, option)
        if not data:
            against = simulated(described, loaded, options, seed)
            alone(against, report, facts | {"seed": seed}, as_json)
            raise typer.Exit(1 if against.worse else 0)
        held_out = _held_out(described, data, split, days_of(days))
        typer.echo("filtering and imagining", err=True)
        with _naming(data, split):
            found = evaluate(loaded, described, held_out, windows=windows, seed=seed)
        drifted = drift(loaded, found, held_out, seed)
        content = full(found) | {"drift": drifted.as_dict() if drifted else None}
        if recalibrate is not None:
            content["recalibrated"] = _recalibrated(folder, recalibrate, found.recalibration)
        if simulate:
            against = simulated(described, loaded, options, seed)
            content["simulated"] = against.as_dict()
        with tracked(mlflow, described.system, f"evaluate {folder.name}") as run:
            if run is not None:
                run.tags(facts | {"data": _names(data), "seed": seed, "split": split})
                run.metrics(content)
        if report is not None:
            from models.evaluation.report import write_report

            facts |= {"data": _names(data), "held out by": split, "seed": seed}
            more = against.sections() if simulate else ()
            write_report(report, found, held_out, drifted, facts, more)
    except (DataError, ValueError, OSError) as error:
        raise fail(str(error)) from error
    typer.echo(json_line(content) if as_json else _text(content))
    if simulate and not as_json:
        typer.echo(against.text())
    if found.worse or (simulate and against.worse):
        raise typer.Exit(1)


def _options(data: list[str] | None, simulate: bool, option: list[str] | None) -> dict[str, Any]:
    """Those of the plant. Raises `ValueError` where what was asked for makes no sense together."""
    if not (data or simulate):
        raise ValueError("nothing to judge on: give --data FOLDER, or --simulate, or both")
    if option and not simulate:
        raise ValueError("options are of the plant: give --simulate as well")
    return plant_options(option)


def _held_out(
    spec: "SystemSpec", folders: list[str], split: HeldOut, days: "Days | None"
) -> "Sequences":
    from models.data import load_dataset, load_whole

    if split == "none":
        return load_whole(spec, folders, days=days)
    return load_dataset(spec, folders, split=split, days=days).validation


@contextmanager
def _naming(folders: list[str], split: HeldOut) -> Iterator[None]:
    """Says of a `ValueError` which data it is about, and which part of them."""
    part = "all of it"
    if split != "none":
        part = f"the part held out by {split} (--split none takes all)"
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{_names(folders)}, {part}: {error}") from error


def _recalibrated(
    bundle: Path, where: str, recalibration: "Recalibration | None"
) -> dict[str, str]:
    """Writes the copy to a folder or a URL."""
    from models.registry import write_recalibrated
    from planner.fetched import put_bundle

    target = placed(where)
    made = write_recalibrated(bundle, local_side(target), recalibration)
    if isinstance(target, str):
        put_bundle(local_side(target), target)
    return made | {"bundle": str(target)}


def _names(folders: list[str]) -> str:
    return ", ".join(folders)


def _text(content: dict[str, Any]) -> str:
    """The figures that matter most, for people."""
    lines = [table(content["steps"])]
    if content["left_out"]:
        ticks = ", ".join(map(str, content["left_out"]))
        lines.append(f"left out, as too few windows are that long: k={ticks}")
    for k, one in content.get("violations", {}).items():
        if "brier" in one:
            told = f"Brier {one['brier']} (of the share alone {one['brier_base']:.4g})"
            lines.append(f"broken constraints at k={k}: {told}, AUROC {one.get('auroc', '-')}")
    if (found := content["recalibration"]) is None:
        return "\n".join([*lines, "too few windows to recalibrate the spreads on"])
    before, after = found["within_bar_before"], found["within_bar_after"]
    lines.append(
        f"coverage within 3 points of its level (50, 80, 95 %): {before:.0%} of channels and "
        f"horizons as predicted, {after:.0%} recalibrated ({found['by']})"
    )
    return "\n".join(lines)
