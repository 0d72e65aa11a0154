"""Systems that the gate is tried on, frames of them, and one entity through it."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from planner.gate import gate
from schemas.codes import Mode, Reason
from schemas.system import SystemSpec, load_spec, parse_spec
from tests.planner.worlds import edited, make_frame
from tests.support import shipped_text

RATES = ("rate: {up: 10, down: 3}", "rate: {up: 20, down: 5}")
AUTOSCALE = edited("autoscale", RATES)
NAV = load_spec("nav2d")
HARD = edited(
    "nav2d",
    ("kind: soft", "kind: hard"),
    ("max(abs(position[0]), abs(position[1])) <= 15", "position[0] + acceleration[0] <= 15"),
)
WHOLE = edited(
    "autoscale",
    RATES,
    ("requests <= 0.95 * 3 * ready", "requests <= 3 * replicas"),
    ("kind: soft", "kind: hard"),
)
SMOOTH = edited("nav2d", ("high: 1, fallback: 0", "high: 1, accel: {up: 0.25, down: 0.5}"))
STEPPED = edited("autoscale", (RATES[0], "rate: {up: 20, down: 10}, accel: {up: 4, down: 2.5}"))
F64 = npt.NDArray[np.float64]


def services(count: int = 1, requests: float = 30.0, **more: Any) -> Any:
    values = np.tile([requests, 20.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 1.0], (count, 1))
    return make_frame(AUTOSCALE, values, **more)


def robots(count: int = 1, x: float = 0.0, **more: Any) -> Any:
    return make_frame(NAV, np.tile([x, 0.0, 0.0, 0.0, 1.0, 1.0], (count, 1)), **more)


def one(
    spec: SystemSpec, frame: Any, proposal: Any, *, fallback: Any = None, **more: Any
) -> tuple[Any, Reason, Mode]:
    """Action, reasons and mode of a single entity."""
    width = len(spec.action_columns)
    given_ = np.broadcast_to(np.asarray(proposal, float), (1, width))
    spare = np.zeros((1, width)) if fallback is None else np.asarray(fallback, float)
    uncertainty = more.pop("uncertainty", np.zeros(1))
    out = gate(spec, given_, spare, frame, frame.applied, uncertainty, **more)
    return out.action[0], Reason(int(out.reasons[0])), Mode(int(out.mode[0]))


def walled(gamma: float = 0.1) -> SystemSpec:
    """Robots that keep four seconds of their speed away from a wall at 15 m."""
    step = {
        "position[0]": "position[0] + 0.1 * velocity[0] + 0.005 * acceleration[0]",
        "velocity[0]": "velocity[0] + 0.1 * acceleration[0]",
    }
    wall = {
        "holds": "position[0] + 4 * velocity[0] <= 15",
        "kind": "hard",
        "barrier": {"gamma": gamma, "next": step},
    }
    return parse_spec(shipped_text("nav2d", constraints={"wall": wall}))


WALLED = walled()


WATCHED = edited("autoscale", ("gate: {", "gate: {critic: {max_risk: 0.25}, "))
