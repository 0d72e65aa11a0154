"""`rehearse adapt`: a bundle fitted to one entity from its last minutes."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from infra.storage import local_side, placed
from models.cli_parts import NO_TORCH, Data, Entity, Json, Minutes, command_line, fail, read_spec
from schemas.plain_json import json_line

if TYPE_CHECKING:  # imported by what lists all commands, so it loads little itself
    from models.adapt import Verdict


def adapt_command(
    bundle: Annotated[str, typer.Argument(help="A folder, URL, NAME, NAME@champion, a digest.")],
    data: Data,
    out: Annotated[str, typer.Option(help="Folder or URL of the bundle to write.")],
    entity: Entity = None,
    minutes: Minutes = None,
    everything: Annotated[
        bool, typer.Option("--all", help="All weights, then the actor; else a small adapter alone.")
    ] = False,
    steps: Annotated[int, typer.Option(min=10, help="Updates of the model, at most.")] = 400,
    actor_steps: Annotated[
        int, typer.Option(min=0, help="Of the actor after it, with --all.")
    ] = 200,
    rate: Annotated[float, typer.Option(min=1e-6, help="Learning rate of the adapter.")] = 1e-2,
    spec: Annotated[
        str | None, typer.Option(help="System or YAML file; the bundle's own by default.")
    ] = None,
    seed: Annotated[int, typer.Option(help="The same seed and data give the same weights.")] = 0,
    as_json: Json = False,
) -> None:
    """Fit a bundle to an entity that has changed, such as a heavier one, from its last minutes.

    The adapter is a linear correction of what the dynamics predict, some hundred numbers; every
    other weight stays as it is. It is learned from the first 60 % of the log, and stopped and
    judged by the rest. Exit status 1, and no bundle, where it is no better there than the bundle
    was.

    Example: rehearse adapt ./mine --data ./log --entity robot-003 --minutes 2 --out ./heavy
    """
    try:
        from models.adapt import Wish
        from models.adaptation import AdaptationStopped, adapt_bundle
        from models.export import ParityError
        from models.logs import DataError
        from planner.fetched import put_bundle
    except ImportError as error:
        raise fail(f"{NO_TORCH}\n{error}") from error
    wish = Wish(everything, steps, actor_steps, rate, seed, entity, minutes)
    described, target = read_spec(spec) if spec else None, placed(out)
    try:
        verdict, manifest = adapt_bundle(
            bundle,
            data,
            local_side(target),
            wish,
            spec=described,
            command=command_line(),
            report=lambda step, score: typer.echo(f"{step}/{steps}  score {score:.4g}", err=True),
            say=lambda stage: typer.echo(stage, err=True),
        )
        if manifest is not None and isinstance(target, str):
            put_bundle(local_side(target), target)
    except AdaptationStopped as stopped:
        typer.echo(f"stopped: {stopped}", err=True)
        raise typer.Exit(130) from stopped
    except (DataError, ParityError, OSError, ValueError) as error:
        raise fail(str(error)) from error
    _tell(verdict, manifest, bundle, out, as_json)
    if manifest is None:
        raise typer.Exit(1)


def _tell(
    verdict: "Verdict", manifest: dict[str, Any] | None, bundle: str, out: str, as_json: bool
) -> None:
    written = None if manifest is None else {"bundle": out, "digest": manifest["digest"]}
    if as_json:
        typer.echo(json_line({**verdict.as_dict(), "written": written}))
        return
    told = f"{verdict.before:.4g} before, {verdict.after:.4g} after {verdict.updates} updates"
    gain, error = verdict.gain
    typer.echo(f"score of futures {verdict.ticks} ticks far ({verdict.windows} windows): {told}")
    typer.echo(f"gain {gain:.3g} ± {error:.2g} of {verdict.parameters} numbers learned")
    if manifest is None:
        typer.echo(f"no better by more than chance: {bundle} is kept, nothing was written")
    else:
        typer.echo(f"{out}: digest {manifest['digest'][:12]}")
