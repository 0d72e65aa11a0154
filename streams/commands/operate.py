"""What an operator says to a running system: hold, resume, override, budget, release."""

from typing import Annotated

import typer

from schemas.messages import ALL, Control
from schemas.system import SystemSpec
from streams.commands.options import (
    Bootstrap,
    Extra,
    Json,
    Spec,
    broker_of,
    errors,
    extra_settings,
    show,
    spec_of,
)
from streams.control import say

Entity = Annotated[str, typer.Option(help="One entity; without it, all of them.")]
At = Annotated[int, typer.Option(metavar="US", help="Event time from which it counts; 0: at once.")]


def _say(
    spec: SystemSpec, control: Control, bootstrap: str | None, extra: list[str] | None, json: bool
) -> None:
    say(spec, control, broker_of(bootstrap), extra_settings(extra))
    show({"said": control.kind, "system": spec.system, "entity": control.entity}, json)


def hold(
    spec: Spec,
    entity: Entity = ALL,
    at: At = 0,
    bootstrap: Bootstrap = None,
    extra: Extra = None,
    as_json: Json = False,
) -> None:
    """Stop changing things: every actuator keeps its fallback value until `resume`.

    Actuators read this themselves, so that it works without any worker.

    Example: rehearse hold autoscale --entity service-03
    """
    with errors():
        control = Control("hold", at, entity, by="operator")
        _say(spec_of(spec), control, bootstrap, extra, as_json)


def resume(
    spec: Spec,
    entity: Entity = ALL,
    at: At = 0,
    bootstrap: Bootstrap = None,
    extra: Extra = None,
    as_json: Json = False,
) -> None:
    """Lift a hold.

    Example: rehearse resume autoscale --entity service-03
    """
    with errors():
        control = Control("resume", at, entity, by="operator")
        _say(spec_of(spec), control, bootstrap, extra, as_json)


def override(
    spec: Spec,
    values: Annotated[list[str], typer.Argument(metavar="COLUMN=VALUE…")],
    entity: Entity = ALL,
    at: At = 0,
    bootstrap: Bootstrap = None,
    extra: Extra = None,
    as_json: Json = False,
) -> None:
    """Set an action by hand; the gate emits it, within range and rate, until `override … none`.

    Example: rehearse override autoscale replicas=30 --entity service-03
    """
    with errors():
        system = spec_of(spec)
        control = Control(
            "override",
            at,
            entity,
            values=None if values == ["none"] else _values(system, values),
            by="operator",
        )
        _say(system, control, bootstrap, extra, as_json)


def _values(spec: SystemSpec, pairs: list[str]) -> dict[str, float]:
    values = {}
    for pair in pairs:
        name, _, number = pair.partition("=")
        if name not in spec.action_columns:
            columns = ", ".join(spec.action_columns)
            raise ValueError(f"{pair!r}: no such action; {spec.system} has {columns}")
        try:
            values[name] = float(number)
        except ValueError as error:
            raise ValueError(f"{pair!r}: write it as {name}=NUMBER") from error
    return values


def add(app: typer.Typer) -> None:
    """Add these commands to the main one."""
    for command in (hold, resume, override):
        app.command()(command)
