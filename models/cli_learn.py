"""The two ways of `rehearse train`: from logs, and by acting; what is told on the way and after."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from infra.storage import local_side, name_of
from models.cli_parts import command_line, fail, read_spec, table
from schemas.plain_json import json_line

if TYPE_CHECKING:
    from models.recipe import Recipe
    from models.share import Share
    from schemas.system import SystemSpec


def from_logs(recipe: "Recipe", resume: bool, as_json: bool, share: "Share") -> None:
    """Trains as a workflow with data says, and tells of it; the first process does, of several."""
    from models.checkpoint import CheckpointError, TrainingStopped
    from models.export import ParityError
    from models.logs import DataError
    from models.tracking import tracked
    from models.workflow import REPORT, SPEC, train_bundle, work_folder
    from planner.fetched import put_bundle

    if recipe.system is None or not recipe.data.folders or recipe.run.out is None:
        raise fail("from logs: a system, --data and --out are needed (or give --env)")
    spec, text = _deployed(recipe, recipe.system)
    config, target, command = recipe.train_config(), recipe.run.out, command_line()
    out, workflow = local_side(target), recipe.model_dump(mode="json", exclude={"run"})
    work, uri = work_folder(out), recipe.run.mlflow if share.leads else None
    try:
        with (
            tracked(uri, spec.system, name_of(target), work, resume) as run,
            _bar(share.leads) as bar,
        ):
            if run is not None:
                run.params(workflow)
            task = bar.add_task(recipe.heads.only or "training", total=config.total, loss="")

            def report(progress: Any) -> None:
                last = {k: v[-1][1] for k, v in progress.curves.items() if v}
                told = ("predict", "imagine", "actor", recipe.heads.only)
                shown = [f"{k} {last[k]:.3g}" for k in told if k in last]
                bar.update(task, completed=progress.step, loss="  ".join(shown))
                if run is not None:
                    run.progress(progress, config.total)

            manifest = train_bundle(
                spec,
                recipe.data.folders,
                out,
                config,
                resume=resume,
                with_actor=config.actor_steps > 0,
                split=recipe.data.split,
                days=recipe.data.days,
                compute=recipe.compute(),
                share=share,
                only=recipe.only(),
                command=command,
                accept=recipe.acceptance(),
                workflow=workflow,
                report=report,
                say=lambda stage: bar.update(task, loss=stage),
            )
            if not share.leads:
                return
            if text is not None:
                (out / SPEC).write_text(text, encoding="utf-8")
            if isinstance(target, str):
                bar.update(task, loss=f"writing {target}")
                put_bundle(out, target)
            if run is not None:
                run.bundle(manifest, out)
    except TrainingStopped as stopped:
        if not share.leads:
            raise typer.Exit(130) from stopped
        raise _stopped(stopped, command, resume) from stopped
    except (DataError, CheckpointError, ParityError, OSError, ValueError) as error:
        raise fail(str(error)) from error
    _tell(_summary(manifest, str(target)), work / REPORT, as_json)
    _judged(manifest["metrics"]["asked"])


def _deployed(recipe: "Recipe", system: str) -> "tuple[SystemSpec, str | None]":
    """The system as the workflow deploys it; its text where that differs from what was read."""
    from planner.fallback import check
    from schemas.system import parse_spec, spec_path
    from schemas.yaml_lines import read_text

    spec, path = read_spec(system), spec_path(system)
    if not recipe.deployment.in_spec:
        return spec, None
    try:
        text = recipe.deployment.spec_text(read_text(path))
        spec = parse_spec(text, f"{path}, with the workflow's deployment")
        check(spec)
    except ValueError as error:
        raise fail(str(error)) from error
    return spec, text


def _judged(metrics: dict[str, Any]) -> None:
    """Ends the command with status 1 where a metric misses its bound."""
    from models.metrics import missed

    if found := missed(metrics):
        typer.echo(f"the bundle is written, but misses: {found}", err=True)
        raise typer.Exit(1)


def by_acting(recipe: "Recipe", resume: bool, as_json: bool) -> None:
    """Trains as a workflow with an environment says, and tells of it."""
    from infra.plants.base import PlantError
    from models.checkpoint import CheckpointError, TrainingStopped
    from models.export import ParityError
    from models.tracking import tracked
    from models.undertaking import LEARNING, online_of, train_online
    from models.workflow import work_folder
    from planner.fetched import put_bundle
    from planner.manifest import MANIFEST

    command = command_line()
    try:
        online = online_of(recipe)
        target = recipe.run.out or Path(f"{online.spec.system}-{recipe.seed}")
        out, workflow = local_side(target), recipe.model_dump(mode="json", exclude={"run"})
        with (
            tracked(
                recipe.run.mlflow, online.spec.system, name_of(target), work_folder(out), resume
            ) as run,
            _bar() as bar,
        ):
            if run is not None:
                run.params(workflow)
            task = bar.add_task("acting", total=recipe.loop.steps, loss="")

            def report(course: Any, text: str) -> None:
                returned = [f"return {x:.4g}" for _, x in course.rounds_returned[-1:]]
                bar.update(task, completed=course.steps, loss="  ".join([*returned, text]))
                if run is not None:
                    run.returns(course.rounds_returned)

            result = train_online(
                online, recipe, out, resume=resume, command=command, report=report
            )
            if isinstance(target, str):
                put_bundle(out, target)
            if run is not None:
                run.bundle(json.loads((out / MANIFEST).read_text(encoding="utf-8")), out)
    except TrainingStopped as stopped:
        raise _stopped(stopped, command, resume) from stopped
    except (PlantError, CheckpointError, ParityError, OSError, ValueError) as error:
        raise fail(str(error)) from error
    if as_json:
        typer.echo(json_line(result | {"bundle": str(target)}))
    else:
        _tell_acting(result | {"bundle": str(target)}, work_folder(out) / LEARNING)
    _judged(result["metrics"])


def _tell_acting(result: dict[str, Any], page: Path) -> None:
    for name, one in result["returns"].items():
        line = f"{name:>8}  mean {one['mean']:.4g}  from {one['min']:.4g} to {one['max']:.4g}"
        typer.echo(f"{line}  ({one['episodes']} episodes)")
    _tell_asked(result)
    typer.echo(f"{result['bundle']}: digest {result['digest'][:12]}")
    typer.echo(f"learning curve: {page}")


def _tell_asked(result: dict[str, Any]) -> None:
    """Metrics and changed plants, where the workflow asks for them."""
    from models.metrics import lines

    if result["metrics"]:
        typer.echo(lines(result["metrics"]))
    changed = result.get("out_of_distribution", {})
    if "reason" in changed:
        typer.echo(f"changed plants: - ({changed['reason']})")
    for name, one in changed.get("shifts", {}).items():
        told = f"disagreement {one['disagreement']}, innovation {one['innovation']}"
        typer.echo(f"{name}: error × {one['error_ratio']}; AUROC of {told}")


def _summary(manifest: dict[str, Any], out: str) -> dict[str, Any]:
    metrics = manifest["metrics"]
    return {
        "bundle": out,
        "digest": manifest["digest"],
        "bytes": sum(entry["bytes"] for entry in manifest["files"].values()),
        "actor_trusted": manifest["actor_trusted"],
        "train_seconds": metrics["train_seconds"],
        "parity": metrics["parity"],
        "innovation_band": manifest["calibration"]["innovation_band"],
        "held_out": metrics["held_out"]["steps"],
        "metrics": metrics["asked"],
        **{k: metrics[k] for k in ("passed", "out_of_distribution") if k in metrics},
    }


def _tell(summary: dict[str, Any], curves: Path, as_json: bool) -> None:
    if as_json:
        typer.echo(json_line(summary))
        return
    typer.echo(table(summary["held_out"]))
    _tell_asked(summary)
    size, digest = summary["bytes"], summary["digest"][:12]
    typer.echo(f"{summary['bundle']}: {size} bytes, digest {digest}")
    typer.echo(f"curves: {curves}")


def _stopped(stopped: Exception, command: str, resume: bool) -> typer.Exit:
    again = command if resume else f"{command} --resume"
    typer.echo(f"stopped: {stopped}. Go on with: {again}", err=True)
    return typer.Exit(130)


def _bar(shown: bool = True) -> Bar:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[loss]}"),
    )
    return Bar(*columns, console=Console(stderr=True), refresh_per_second=2, disable=not shown)
