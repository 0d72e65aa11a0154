"""`rehearse identify`: the parameters of a spec's plant that a log speaks for."""

from typing import TYPE_CHECKING, Annotated, Any

import typer
import yaml

from models.cli_parts import NO_TORCH, Data, Entity, Json, Minutes, fail, read_spec
from schemas.plain_json import json_line

if TYPE_CHECKING:  # imported by what lists all commands, so it loads little itself
    from models.identify import Identified
    from schemas.system import SystemSpec


def identify_command(
    spec: Annotated[str, typer.Argument(help="A system (YAML file or shipped) with a plant.")],
    data: Data,
    entity: Entity = None,
    minutes: Minutes = None,
    parameter: Annotated[
        list[str] | None,
        typer.Option(help="To look for, may be repeated; else what the spec randomises, or all."),
    ] = None,
    ticks: Annotated[int, typer.Option(min=1, help="Simulated on from each reading.")] = 10,
    windows: Annotated[int, typer.Option(min=8, help="Stretches of the log, at most.")] = 256,
    seed: Annotated[int, typer.Option(help="Draws windows and resamples.")] = 0,
    as_json: Json = False,
) -> None:
    """Find mass, friction, delay and the like of a plant from recorded trajectories.

    Prints each value with a 95 % interval (bootstrap over windows of the log) and the plant section
    that a spec would have, with ranges to randomise over. Exit status 1 where the log does not tell
    a parameter: its interval is half as wide as what was searched, or others make up for it.

    Example: rehearse identify nav2d --data ./log --entity robot-003 --minutes 5
    """
    try:
        from infra.plants.base import PlantError
        from models.identify import identify
        from models.logs import DataError
        from models.target import read_target
    except ImportError as error:
        raise fail(f"{NO_TORCH}\n{error}") from error
    described = read_spec(spec)
    try:
        rows, _ = read_target(described, data, entity, minutes)
        found = identify(
            described,
            rows,
            wanted=tuple(parameter or ()),
            ticks=ticks,
            windows=windows,
            seed=seed,
            say=lambda text: typer.echo(text, err=True),
        )
    except (PlantError, DataError, OSError) as error:
        raise fail(str(error)) from error
    plant = _plant(described, found)
    if as_json:
        typer.echo(json_line({**found.as_dict(), "plant": plant}))
    else:
        typer.echo(_text(found))
        typer.echo(yaml.safe_dump({"plant": plant}, sort_keys=False, allow_unicode=True).rstrip())
    if not found.told:
        raise typer.Exit(1)


def _text(found: "Identified") -> str:
    """A row per parameter."""
    lines = [f"{'':>14}{'value':>10}{'95 % from':>12}{'to':>10}{'spec':>10}"]
    for name, one in found.parameters.items():
        row = f"{name:>14}{one.value:>10.4g}{one.low:>12.4g}{one.high:>10.4g}{one.now:>10.4g}"
        lines.append(row if one.told else f"{row}  not told by this log")
    off = f"{found.error:.3g} (as the spec has it: {found.error_now:.3g})"
    lines.append(f"off after {found.ticks} ticks and less, in usual changes: {off}")
    return "\n".join(lines)


def _plant(spec: "SystemSpec", found: "Identified") -> dict[str, Any]:
    """The plant section with the values found, and ranges as narrow as the log allows."""
    assert spec.plant is not None
    kind, plant = spec.plant.kind, {"kind": spec.plant.kind, **spec.plant.params}
    told = {name: one for name, one in found.parameters.items() if one.told}
    own = {name: one.as_dict()["value"] for name, one in told.items()}
    inner = {
        n: v for n, v in own.items() if kind == "gym" and n not in ("friction", "action_delay")
    }
    if inner:
        plant["set"] = {**plant.get("set", {}), **inner}
    plant |= {name: value for name, value in own.items() if name not in inner}
    kept = {name: list(r) for name, r in spec.plant.randomise.items()}
    narrow = {name: [one.as_dict()["low"], one.as_dict()["high"]] for name, one in told.items()}
    plant["randomise"] = {**kept, **narrow}
    return plant
