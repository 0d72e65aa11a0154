"""The changes of each kind of plant that a bundle is confronted with: one table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, get_args

import numpy as np

from infra.plants.base import Floats
from infra.plants.degrade import Faults
from infra.plants.parameters import Parameter, gym_parameters, has_camera, nav2d_parameters
from infra.traces import Trace, generate_trace
from planner.session import Bundle
from schemas.system import SystemSpec

NOISE: Final = 0.2  # standard deviation of what is added to sensors, in usual spreads of a channel
DROPOUT: Final = 0.7  # share of readings that is lost
LATE_TICKS: Final = 3  # of delay
MORNING: Final = 8 * 60  # the minute at which generated traffic begins: it grows from there on
Kind = Literal[
    "mass",
    "friction",
    "physics",
    "delay",
    "noise",
    "dropout",
    "traffic",
    "service",
    "lighting",
]
KINDS: Final[tuple[str, ...]] = get_args(Kind)


@dataclass(frozen=True)
class Shift:
    """One change: what it is called, which kind it is of, and the plant's options that make it.

    Kinds: `none`, and those of `KINDS`.
    """

    name: str
    kind: str
    options: Mapping[str, Any] = field(default_factory=dict)


USUAL: Final = Shift("as usual, another seed", "none")


def usual_options(spec: SystemSpec, given: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """The plant's options where nothing is changed: those `given`, and the load of a day."""
    options = dict(given)
    if spec.plant is not None and spec.plant.kind == "cluster" and "trace" not in options:
        options["trace"] = generate_trace(days=1, seed=seed).slice(MORNING, 1440)
    return options


def shifts(spec: SystemSpec, bundle: Bundle, attributes: Mapping[str, float]) -> tuple[Shift, ...]:
    """The changes for the plant of `spec`, the first of them none at all.

    Args:
        bundle: its usual spread of each channel is the unit of sensor noise.
        attributes: of a Gymnasium environment (`GymPlant.attributes`); else empty.
    """
    return (USUAL, *_own(spec, attributes), *_sensors(spec, bundle))


def kinds_of(spec: SystemSpec, attributes: Mapping[str, float]) -> tuple[str, ...]:
    """The kinds of change that there are for the plant of `spec`; none without a plant."""
    if spec.plant is None:
        return ()
    there = {"noise", "dropout", *(change.kind for change in _own(spec, attributes))}
    return tuple(kind for kind in KINDS if kind in there)


def _own(spec: SystemSpec, attributes: Mapping[str, float]) -> tuple[Shift, ...]:
    """The changes that this kind of plant alone knows."""
    kind = spec.plant.kind if spec.plant is not None else ""
    if kind == "gym":
        known = gym_parameters(attributes, slowed=False, step_s=spec.period_us / 1e6)
        return (*_changed(known, lambda name, value: {"set": {name: value}}), _sensor_delay(spec))
    if kind == "nav2d":
        known = nav2d_parameters(0.0, has_camera(spec))
        return _changed(known, lambda name, value: {name: value})
    return _cluster() if kind == "cluster" else ()


def _changed(
    known: Mapping[str, Parameter], option: Callable[[str, float], Mapping[str, Any]]
) -> tuple[Shift, ...]:
    """The changes of the plant's parameters, from their table."""
    return tuple(
        Shift(label, one.kind, option(name, value))
        for name, one in known.items()
        for label, value in one.changes
    )


def _cluster() -> tuple[Shift, ...]:
    return (
        Shift("requests take 1.5 times as long", "service", {"service_time": 0.5}),
        Shift("cold start 30 → 120 s", "service", {"cold_start": 120.0}),
        Shift("metrics 45 s late", "delay", {"metric_delay": 45.0}),
        Shift("traffic in bursts", "traffic", {"trace": bursts()}),
    )


def bursts() -> Trace:
    """A day of traffic as no service has it: five minutes of little, five of ten times as much."""
    minute = np.arange(1440)
    rates: Floats = np.where(minute // 5 % 2 == 0, 10.0, 100.0)
    return Trace(60.0, rates)


def _sensor_delay(spec: SystemSpec) -> Shift:
    late = LATE_TICKS * spec.period_us / 1e6
    faults = {name: Faults(delay=late) for name in spec.sensors}
    return Shift(f"sensors {late * 1e3:g} ms late", "delay", {"faults": faults})


def _sensors(spec: SystemSpec, bundle: Bundle) -> tuple[Shift, ...]:
    scale = dict(zip(spec.columns, bundle.channel_scale.astype(np.float64), strict=True))
    noisy = {}
    for name, sensor in spec.sensors.items():
        spread = {
            key: NOISE * float(np.mean([scale[column] for column in channel.columns]))
            for key, channel in sensor.channels.items()
        }
        noisy[name] = Faults(noise=spread)
    lost = {name: Faults(dropout=DROPOUT) for name in spec.sensors}
    return (
        Shift(f"sensor noise of {NOISE:g} usual spreads", "noise", {"faults": noisy}),
        Shift(f"{DROPOUT:.0%} of readings lost", "dropout", {"faults": lost}),
    )
