"""What an operator says to a running system: hold, resume, override, rearm."""

from collections.abc import Sequence
from typing import Annotated

import typer

from schemas.messages import ALL, Control
from schemas.system import SystemSpec
from streams.commands.console import console
from streams.commands.options import (
    Bootstrap,
    Extra,
    Json,
    Spec,
    cluster_of,
    errors,
    show,
    spec_of,
)
from streams.control import entities_seen, held, now_us, overridden, say, standing, unknown
from streams.reports import Reports, patience_s

Entities = Annotated[
    list[str] | None,
    typer.Argument(metavar="[ENTITY]…", help="Of the system; without one, or with '*', all."),
]
Entity = Annotated[str, typer.Option(help="One entity; without it, all of them.")]
At = Annotated[int, typer.Option(metavar="US", help="Event time from which it counts; 0: at once.")]


def hold(
    spec: Spec,
    entities: Entities = None,
    at: At = 0,
    bootstrap: Bootstrap = None,
    extra: Extra = None,
    as_json: Json = False,
) -> None:
    """Stop changing things: every actuator keeps its fallback value until `resume`.

    Actuators read this themselves, so that it works without any worker. Exit status 1: it was said,
    but an entity is in none of the newest frames (a slip of the pen?), or no actuator reported.

    Example: rehearse hold nav2d robot-003

    (beside a running `rehearse run nav2d --plant`)
    """
    with errors():
        system = spec_of(spec)
        wanted = [Control("hold", at, name, by="operator") for name in entities or [ALL]]
        _say(system, wanted, bootstrap, extra, as_json)


def resume(
    spec: Spec,
    entities: Entities = None,
    at: At = 0,
    bootstrap: Bootstrap = None,
    extra: Extra = None,
    as_json: Json = False,
) -> None:
    """Lift holds: of the entities named, or all that there are.

    Exit status 1: something that was named is still held, as all of them are.

    Example: rehearse resume nav2d robot-003

    (beside a running `rehearse run nav2d --plant`)
    """
    with errors():
        system = spec_of(spec)
        names = [name for name in entities or [ALL] if name != ALL]
        if not names:
            place = cluster_of(bootstrap, extra, "operator")
            names = [ALL, *(name for name in held(standing(system, *place)) if name != ALL)]
        wanted = [Control("resume", at, name, by="operator") for name in names]
        _say(system, wanted, bootstrap, extra, as_json)


def rearm(
    spec: Spec,
    entities: Entities = None,
    at: At = 0,
    bootstrap: Bootstrap = None,
    extra: Extra = None,
    as_json: Json = False,
) -> None:
    """Open the gate's latches, of the entities named or all: a model may act for them again.

    A latch (`gate: {latch: {count: 3, of: 10}}` in a spec) keeps an entity with its fallback when
    the gate had to intervene too often. Exit status 1: it was said, but to an unknown entity.

    Example: rehearse rearm my.yaml robot-003

    (beside a running `rehearse run my.yaml`)
    """
    with errors():
        system = spec_of(spec)
        if system.gate.latch is None:
            raise ValueError(f"{system.system}: the spec has no gate.latch, so nothing is latched")
        names, now = entities or [ALL], now_us()
        # Later than any word before it, also where that was said by a clock ahead of this one.
        before = standing(system, *cluster_of(bootstrap, extra, "operator")).values()
        now = max([now, *(1 + word.said for word in before if word.kind == "rearm")])
        said = [Control("rearm", at, name, by="operator", said=now) for name in names]
        _say(system, said, bootstrap, extra, as_json)


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

    Exit status 1: it was said, but to an unknown entity, or no actuator reported.

    Example: rehearse override nav2d 'acceleration[0]=0.5' --entity robot-003

    (beside a running `rehearse run nav2d --plant`)
    """
    with errors():
        system = spec_of(spec)
        names, wanted = [entity], None
        if values != ["none"]:
            wanted = _values(system, values)
        elif entity == ALL:
            stands = standing(system, *cluster_of(bootstrap, extra, "operator"))
            names += [name for name in overridden(stands) if name != ALL]
        said = [Control("override", at, name, values=wanted, by="operator") for name in names]
        _say(system, said, bootstrap, extra, as_json)


def _say(
    spec: SystemSpec,
    controls: Sequence[Control],
    bootstrap: str | None,
    extra: list[str] | None,
    as_json: bool,
) -> None:
    """Says it first, and then what stands, who heard it, and what does not look meant."""
    place = cluster_of(bootstrap, extra, "operator")
    reports = Reports(spec, *place)
    say(spec, controls, *place)
    kind, names = controls[0].kind, [control.entity for control in controls]
    stands = standing(spec, *place)
    result = {
        "said": kind,
        "system": spec.system,
        "entities": names,
        "held": held(stands),
        "overridden": overridden(stands),
    }
    still = kind == "resume" and ALL in held(stands)
    note = f"every {spec.entity} is held, these too: rehearse resume {spec.system}" if still else ""
    if kind != "resume" and not (kind == "override" and controls[0].values is None):
        strangers = unknown(set(names) - {ALL}, entities_seen(spec, *place))
        waits = controls[0].time == 0 and kind != "rearm"  # actuators have no part in that
        heard = set(names) - set(strangers) if waits else set()
        result["unknown"] = strangers
        result["silent"] = sorted(_silent(reports, spec, heard))
        note = _note(spec, strangers, result["silent"])
    show(result, as_json)
    if note:
        console.print(note, highlight=False, soft_wrap=True)
        raise typer.Exit(1)


def _silent(reports: Reports, spec: SystemSpec, names: set[str]) -> set[str]:
    with console.status("written; waiting for the actuators' reports"):
        return reports.silent(names, patience_s(spec))


def _note(spec: SystemSpec, strangers: Sequence[str], silent: Sequence[str]) -> str:
    notes = []
    if strangers:
        notes.append(f"{', '.join(strangers)}: in none of the newest frames; is that the name?")
    if silent:
        who = f"any {spec.entity}" if ALL in silent else ", ".join(silent)
        notes.append(
            f"written, but no actuator reported of {who} within {patience_s(spec):g} s: is the "
            "plant running? It counts from when it is"
        )
    return "\n".join(notes)


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
        _check_value(spec, name, values[name])
    return values


def _check_value(spec: SystemSpec, name: str, value: float) -> None:
    """Raises `ValueError` where the gate would have to emit something else than was said."""
    column = spec.action_columns.index(name)
    low, high = spec.action_low[column], spec.action_high[column]
    action = next(a for a in spec.actions.values() if name in a.columns)
    if not low <= value <= high:  # nor is NaN
        raise ValueError(
            f"{name}={value:g}: outside its range, {low:g} to {high:g} {action.unit}; choose a "
            "value inside it"
        )
    if action.kind != "continuous" and not value.is_integer():
        raise ValueError(f"{name}={value:g}: whole numbers alone fit ({action.unit})")
