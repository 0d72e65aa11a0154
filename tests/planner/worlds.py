"""Real ONNX bundles with known linear dynamics, and frames to plan on.

State = the observation columns. Member m multiplies the action's effect by `gains[m]`, so that
members disagree as much as a test wants; the first columns take `noise` times the latent.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from planner.manifest import seal
from planner.session import Bundle, load_bundle
from schemas.frames import ControlView, Frame, FrameHeader
from schemas.spec_parts import Tier
from schemas.system import SystemSpec, parse_spec, spec_path

MEMBERS = 5
F64 = npt.NDArray[np.float64]


@dataclass
class World:
    """x' = x F + gain_m (a G) + noise z: all [O,O], [A,O]; the actor plays `x K` (clipped)."""

    transition: F64
    control: F64
    policy: F64
    noise: float = 0.0
    gains: tuple[float, ...] = (1.0,) * MEMBERS
    value: float = 0.0
    alive: float = 1.0
    risk: F64 | None = None  # [A]: a constraint is broken with probability `gain_m (a risk)`
    latent: int = 2


def double_integrator(dt: float = 0.1, **more: Any) -> World:
    """Position, velocity, goal (two of each); the actor is a stable PD controller."""
    eye = np.eye(2)
    transition = np.eye(6)
    transition[2:4, 0:2] = dt * eye
    control = np.zeros((2, 6))
    control[:, 2:4] = dt * eye
    control[:, 0:2] = dt * dt / 2 * eye
    policy = np.vstack([-1.0 * eye, -1.6 * eye, 1.0 * eye])
    return World(transition, control, policy, **more)


def edited(system: str, *changes: tuple[str, str]) -> SystemSpec:
    """A shipped spec with pieces of its YAML replaced; each piece must occur."""
    text = spec_path(system).read_text()
    for old, new in changes:
        assert old in text, f"{old!r} is not in {system}.yaml"
        text = text.replace(old, new)
    return parse_spec(text, f"{system}.yaml")


def with_tiers(spec: SystemSpec, **tiers: Tier) -> SystemSpec:
    """The spec with other budget tiers, shallow to deep."""
    return spec.model_copy(update={"budget": spec.budget.model_copy(update={"tiers": tiers})})


def _node(kind: str, inputs: list[str], outputs: list[str], **attributes: Any) -> Any:
    return helper.make_node(kind, inputs, outputs, **attributes)


def _info(name: str, *shape: int | str) -> Any:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape))


def _constant(name: str, value: npt.ArrayLike, dtype: str = "f4") -> Any:
    return numpy_helper.from_array(np.asarray(value, dtype=dtype), name)


def _save(path: Path, graph: Any) -> None:
    opset = [helper.make_opsetid("", 18)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=9)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, str(path))


def _latent_matrix(world: World, columns: int) -> F64:
    out = np.zeros((world.latent, columns))
    for i in range(min(world.latent, columns)):
        out[i, i] = world.noise
    return out


def _believe(world: World, columns: int, actions: int) -> Any:
    nodes = [
        _node("MatMul", ["h", "F"], ["hf"]),
        _node("MatMul", ["action", "G"], ["ag"]),
        _node("Add", ["hf", "ag"], ["predicted"]),
        _node("Sub", ["obs", "predicted"], ["gap"]),
        _node("Mul", ["gap", "mask"], ["seen"]),
        _node("Add", ["predicted", "seen"], ["h_next"]),
        _node("Mul", ["seen", "seen"], ["squares"]),
        _node("ReduceMean", ["squares", "last"], ["innovation"], keepdims=0),
        _node("Mul", ["z", "zero"], ["z_mean"]),
        _node("Add", ["z_mean", "one"], ["z_std"]),
        _node("Mul", ["obs", "zero"], ["flat"]),
        _node("Add", ["flat", "one"], ["predicted_std"]),
    ]
    inputs = [
        _info("h", "B", columns),
        _info("z", "B", world.latent),
        _info("action", "B", actions),
        _info("obs", "B", columns),
        _info("mask", "B", columns),
    ]
    outputs = [
        _info("h_next", "B", columns),
        _info("z_mean", "B", world.latent),
        _info("z_std", "B", world.latent),
        _info("predicted", "B", columns),
        _info("predicted_std", "B", columns),
        _info("innovation", "B"),
    ]
    constants = [
        _constant("F", world.transition),
        _constant("G", world.control),
        _constant("zero", 0.0),
        _constant("one", 1.0),
        _constant("last", [1], "i8"),
    ]
    return helper.make_graph(nodes, "believe", inputs, outputs, constants)


def _imagine(world: World, columns: int, actions: int) -> Any:
    body_nodes = [
        _node("MatMul", ["hs", "F"], ["hf"]),
        _node("MatMul", ["a", "G"], ["ag"]),
        _node("Mul", ["ag", "gains"], ["agm"]),
        _node("MatMul", ["e", "L"], ["el"]),
        _node("Add", ["hf", "agm"], ["moved"]),
        _node("Add", ["moved", "el"], ["h_next"]),
        _node("Identity", ["h_next"], ["seen"]),
    ]
    body = helper.make_graph(
        body_nodes,
        "step",
        [
            _info("hs", MEMBERS, "N", columns),
            _info("a", MEMBERS, "N", actions),
            _info("e", MEMBERS, "N", world.latent),
        ],
        [_info("h_next", MEMBERS, "N", columns), _info("seen", MEMBERS, "N", columns)],
        [
            _constant("F", world.transition),
            _constant("G", world.control),
            _constant("L", _latent_matrix(world, columns)),
            _constant("gains", np.array(world.gains)[:, None, None]),
        ],
    )
    nodes = [
        _node("MatMul", ["z", "L0"], ["zl"]),
        _node("Add", ["h", "zl"], ["start"]),
        _node(
            "Scan",
            ["start", "actions", "noise"],
            ["last_h", "channels"],
            body=body,
            num_scan_inputs=2,
        ),
        _node("ReduceSum", ["channels", "axis3"], ["summed"], keepdims=0),
        _node("Mul", ["summed", "zero"], ["reward"]),
        _node("Add", ["reward", "going"], ["alive"]),
        _node("ReduceSum", ["last_h", "axis2"], ["last_sum"], keepdims=0),
        _node("Mul", ["last_sum", "zero"], ["nothing"]),
        _node("Add", ["nothing", "worth"], ["value"]),
    ]
    inputs = [
        _info("h", MEMBERS, "N", columns),
        _info("z", MEMBERS, "N", world.latent),
        _info("actions", "T", MEMBERS, "N", actions),
        _info("noise", "T", MEMBERS, "N", world.latent),
    ]
    outputs = [
        _info("channels", "T", MEMBERS, "N", columns),
        _info("alive", "T", MEMBERS, "N"),
        _info("value", MEMBERS, "N"),
        _info("reward", "T", MEMBERS, "N"),
    ]
    constants = [
        _constant("zero", 0.0),
        _constant("going", world.alive),
        _constant("worth", world.value),
        _constant("axis3", [3], "i8"),
        _constant("axis2", [2], "i8"),
        _constant("L0", _latent_matrix(world, columns)),
    ]
    return helper.make_graph(nodes, "imagine", inputs, outputs, constants)


def _actor(world: World, columns: int, actions: int) -> Any:
    nodes = [
        _node("MatMul", ["h", "K"], ["action"]),
        _node("ReduceSum", ["z", "axis"], ["zs"], keepdims=0),
        _node("Mul", ["zs", "zero"], ["zz"]),
        _node("Add", ["zz", "worth"], ["value"]),
    ]
    inputs = [_info("h", "B", columns), _info("z", "B", world.latent)]
    outputs = [_info("action", "B", actions), _info("value", "B")]
    constants = [
        _constant("K", world.policy),
        _constant("zero", 0.0),
        _constant("worth", world.value),
        _constant("axis", [1], "i8"),
    ]
    return helper.make_graph(nodes, "actor", inputs, outputs, constants)


def _cost(world: World, columns: int, actions: int, risk: F64) -> Any:
    nodes = [
        _node("MatMul", ["actions", "R"], ["weighed"]),
        _node("Mul", ["weighed", "gains"], ["felt"]),
        _node("Clip", ["felt", "zero", "one"], ["cost"]),
    ]
    inputs = [
        _info("h", MEMBERS, "N", columns),
        _info("z", MEMBERS, "N", world.latent),
        _info("actions", "T", MEMBERS, "N", actions),
        _info("noise", "T", MEMBERS, "N", world.latent),
    ]
    constants = [
        _constant("R", risk),
        _constant("gains", np.array(world.gains)[:, None]),
        _constant("zero", 0.0),
        _constant("one", 1.0),
    ]
    return helper.make_graph(nodes, "cost", inputs, [_info("cost", "T", MEMBERS, "N")], constants)


def write_bundle(folder: Path, spec: SystemSpec, world: World, **manifest: Any) -> Path:
    """A sealed bundle for `spec` in `folder`; `manifest` overrides its fields."""
    folder.mkdir(parents=True, exist_ok=True)
    columns, actions = len(spec.columns), len(spec.action_columns)
    _save(folder / "believe.onnx", _believe(world, columns, actions))
    _save(folder / "imagine.onnx", _imagine(world, columns, actions))
    _save(folder / "actor.onnx", _actor(world, columns, actions))
    if world.risk is not None:
        _save(folder / "cost.onnx", _cost(world, columns, actions, world.risk))
    content: dict[str, Any] = {
        "name": "test",
        "system": spec.system,
        "created": "1970-01-01T00:00:00Z",
        "interface_hash": spec.interface_hash,
        "objective_hash": spec.objective_hash,
        "columns": list(spec.columns),
        "action_columns": list(spec.action_columns),
        "hidden": columns,
        "latent": world.latent,
        "members": MEMBERS,
        "lineage": {},
        "metrics": {},
        "calibration": {"innovation_band": 4.0, "channel_scale": [1.0] * columns},
        "actor_trusted": True,
    }
    seal(folder, content | manifest)
    return folder


def make_bundle(folder: Path, spec: SystemSpec, world: World, **manifest: Any) -> Bundle:
    """`write_bundle`, loaded on the CPU."""
    return load_bundle(write_bundle(folder, spec, world, **manifest), provider="cpu")


def make_frame(
    spec: SystemSpec,
    values: npt.ArrayLike,
    *,
    tick: int = 0,
    applied: npt.ArrayLike | None = None,
    age: float = 0.0,
    control: ControlView | None = None,
) -> Frame:
    """A frame of `values` [E,O]; `applied` [E,A] defaults to unknown (NaN)."""
    given = np.asarray(values, dtype=np.float64)
    count, actions = len(given), len(spec.action_columns)
    known = np.full((count, actions), np.nan) if applied is None else np.asarray(applied, float)
    header = FrameHeader(
        system=spec.system,
        cohort=3,
        tick=tick,
        time_us=spec.epoch_us + tick * spec.period_us,
        control=control or ControlView(),
    )
    return Frame(
        header=header,
        entities=tuple(f"e{i:03d}" for i in range(count)),
        values=given,
        ages=np.full((count, len(spec.channels)), age, dtype=np.float32),
        applied=known,
        status=np.zeros(count, dtype=np.uint8),
        flags=np.zeros(count, dtype=np.uint8),
    )
