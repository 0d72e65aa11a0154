"""A trained model becomes ONNX graphs, each held against torch before it may leave."""

import contextlib
import copy
import io
import logging
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import onnxruntime as ort
import torch
from onnxscript import opset20 as op
from torch import Tensor, nn
from torch._higher_order_ops import scan

from models.actor import Behaviour
from models.belief import WorldModel

OPSET = 20
TOLERANCE = 1e-5
"""Largest difference between torch and ONNX allowed, relative to `1 + |torch|`.

Over several ticks rounding grows with the model's own dynamics, in torch as well: what `imagine`
and `drive` give may differ by up to `GROWN` where it is at most `AS_FAR` times as far from the same
module in float64 as torch's own float32 is (3.5 times was seen of an untrained model with a
logarithmic column, whose last step is an exponential).
"""
GROWN = 1e-4
AS_FAR = 8.0


class ParityError(RuntimeError):
    """A graph that does not compute what torch does; it must not ship."""


def _asinh(x: Any) -> Any:
    return op.Sign(x) * op.Log(op.Abs(x) + op.Sqrt(x * x + 1.0))


def _sinh(x: Any) -> Any:
    return (op.Exp(x) - op.Exp(-x)) * 0.5


def _cosh(x: Any) -> Any:
    return (op.Exp(x) + op.Exp(-x)) * 0.5


PARTS: dict[Any, Any] = {
    torch.ops.aten.asinh.default: _asinh,
    torch.ops.aten.sinh.default: _sinh,
    torch.ops.aten.cosh.default: _cosh,
}
"""Operators that ONNX Runtime has for CPUs only, from others: a GPU runs the whole graph.

Else every step of imagination is fetched from the GPU and sent back, and no graph can be captured.
"""


class Believe(nn.Module):
    """The graph `believe`: see `WorldModel.believe`."""

    def __init__(self, model: WorldModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, h: Tensor, z: Tensor, action: Tensor, obs: Tensor, mask: Tensor) -> Any:
        """One tick of filtering in raw units."""
        return self.model.believe(h, z, action, obs, mask)


class Imagine(nn.Module):
    """The graph `imagine`: one `Scan` over T ticks; candidate n of member m stays under member m.

    Everything in the body is two-dimensional: shared layers take all M * N rows in one product, and
    only the members' heads are split, one product per member.
    """

    def __init__(self, model: WorldModel, behaviour: Behaviour) -> None:
        super().__init__()
        self.model, self.behaviour = model, behaviour

    def forward(self, h: Tensor, z: Tensor, actions: Tensor, noise: Tensor) -> Any:
        """h `[M,N,H]`, z `[M,N,Z]`, actions `[T,M,N,A]` raw, noise `[T,M,N,Z]` → channels
        `[T,M,N,O]` raw, alive `[T,M,N]`, value `[M,N]` of the last state, reward `[T,M,N]`.
        """
        model = self.model
        members, rows = h.shape[0], h.shape[1]
        memory = model.unpack(h.flatten(0, 1)).memory.clone()
        action = model.action_scaler(actions).flatten(1, 2)
        expressed = self.behaviour.spec.reward is not None

        def step(carry: tuple[Tensor, Tensor], now: tuple[Tensor, Tensor]) -> Any:
            deterministic, latent, shown = model.imagine(*carry, *now, clone=True)
            channels, alive, reward = model.decode(deterministic, shown)
            learned = torch.zeros_like(reward) if expressed else reward
            seen = torch.cat([channels, alive[:, None], learned[:, None]], -1)
            return (deterministic, latent), seen

        (memory, latent), out = scan(step, (memory, z.flatten(0, 1)), (action, noise.flatten(1, 2)))
        value = self.behaviour.critic(action[-1], memory, latent)
        out = out.unflatten(1, (members, rows))
        channels, alive, reward = out.split([model.observations, 1, 1], -1)
        return channels, alive.squeeze(-1), value.unflatten(0, (members, rows)), reward.squeeze(-1)


class Cost(nn.Module):
    """The graph `cost`: how likely each row breaks a constraint, one `Scan` as in `Imagine`."""

    def __init__(self, model: WorldModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, h: Tensor, z: Tensor, actions: Tensor, noise: Tensor) -> Any:
        """As `Imagine` takes them → probability `[T,M,N]` after each of the T ticks."""
        model = self.model
        members, rows = h.shape[0], h.shape[1]
        memory = model.unpack(h.flatten(0, 1)).memory.clone()
        action = model.action_scaler(actions).flatten(1, 2)

        def step(carry: tuple[Tensor, Tensor], now: tuple[Tensor, Tensor]) -> Any:
            deterministic, latent, shown = model.imagine(*carry, *now, clone=True)
            return (deterministic, latent), torch.sigmoid(model.heads.costs(deterministic, shown))

        _, out = scan(step, (memory, z.flatten(0, 1)), (action, noise.flatten(1, 2)))
        return (out.unflatten(1, (members, rows)),)


class Act(nn.Module):
    """The graph `actor`: see `Behaviour.act`."""

    def __init__(self, model: WorldModel, behaviour: Behaviour) -> None:
        super().__init__()
        self.model, self.behaviour = model, behaviour

    def forward(self, h: Tensor, z: Tensor) -> Any:
        """Action in raw units and value."""
        return self.behaviour.act(self.model, h, z)


class Drive(nn.Module):
    """The graph `drive`: where the actor takes each row, one `Scan` over T ticks as in `Imagine`.

    A planner that is to be better than the actor has to know what the actor would do.
    """

    def __init__(self, model: WorldModel, behaviour: Behaviour) -> None:
        super().__init__()
        self.model, self.behaviour = model, behaviour

    def forward(self, h: Tensor, z: Tensor, first: Tensor, noise: Tensor) -> Any:
        """h `[M,N,H]`, z `[M,N,Z]`, first `[M,N,A]` raw, noise `[T,M,N,Z]` → the T actions
        `[T,M,N,A]` raw that the actor takes after the first one.
        """
        model, actor = self.model, self.behaviour.actor
        members, rows = h.shape[0], h.shape[1]
        memory = model.unpack(h.flatten(0, 1)).memory.clone()

        def step(carry: tuple[Tensor, Tensor, Tensor], now: Tensor) -> Any:
            deterministic, latent, last = carry
            deterministic, latent, _ = model.imagine(deterministic, latent, last, now, clone=True)
            target = actor.target(last, deterministic, latent)
            action = actor.limit(target, model.action_scaler.inverse(last))
            return (deterministic, latent, model.action_scaler(action)), action.clone()

        last = model.action_scaler(first).flatten(0, 1)
        begin = (memory, z.flatten(0, 1), last)
        _, actions = scan(step, begin, noise.flatten(1, 2))
        return (actions.unflatten(1, (members, rows)),)


@torch.no_grad()
def _example(model: WorldModel, graph: str, rows: int, ticks: int, seed: int) -> dict[str, Tensor]:
    """Inputs of a graph, plausible in their units and different in every row."""
    g = torch.Generator().manual_seed(seed)
    m = model.config.members

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g)

    def raw_action(*shape: int) -> Tensor:
        return model.action_scaler.inverse(normal(*shape, model.actions))

    obs = model.scaler.inverse(normal(rows, model.observations))
    mask = (torch.rand(rows, model.observations, generator=g) < 0.7).float()
    action = raw_action(rows)
    h, z = torch.zeros(rows, model.hidden), torch.zeros(rows, model.latent)
    for _ in range(3):  # a belief that has seen something
        h, z, *_ = model.believe(h, z, action, obs, mask)
    if graph == "believe":
        return {"h": h, "z": z, "action": action, "obs": obs * mask, "mask": mask}
    if graph == "actor":
        return {"h": h, "z": z}
    start = {
        "h": h.expand(m, -1, -1).clone(),
        "z": z + 0.1 * normal(m, rows, model.latent),
    }
    noise = {"noise": normal(ticks, m, rows, model.latent)}
    if graph == "drive":
        return {**start, "first": raw_action(m, rows), **noise}
    return {**start, "actions": raw_action(ticks, m, rows), **noise}


_OUTPUTS = {
    "believe": ["h_next", "z_mean", "z_std", "predicted", "predicted_std", "innovation"],
    "imagine": ["channels", "alive", "value", "reward"],
    "actor": ["action", "value"],
    "drive": ["driven"],
    "cost": ["cost"],
}


def _dynamic(graph: str) -> dict[str, dict[int, Any]]:
    rows, ticks = torch.export.Dim("rows", min=2), torch.export.Dim("ticks", min=2)
    if graph in ("imagine", "cost"):
        long = {0: ticks, 2: rows}
        return {"h": {1: rows}, "z": {1: rows}, "actions": long, "noise": long}
    if graph == "drive":
        return {**{name: {1: rows} for name in ("h", "z", "first")}, "noise": {0: ticks, 2: rows}}
    names = {"believe": ("h", "z", "action", "obs", "mask"), "actor": ("h", "z")}[graph]
    return {name: {0: rows} for name in names}


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """The exporter talks about packages that are not needed; errors still raise."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _module(graph: str, model: WorldModel, behaviour: Behaviour) -> nn.Module:
    if graph == "believe":
        return Believe(model)
    if graph == "cost":
        return Cost(model)
    kinds = {"imagine": Imagine, "actor": Act, "drive": Drive}
    return kinds[graph](model, behaviour)


class Apart(NamedTuple):
    """Largest differences of one output, each relative to 1 + |the second|."""

    torch: float  # of ONNX from torch
    exact: float  # of ONNX from torch in float64
    torch_exact: float  # of torch from torch in float64


def export_graph(
    graph: str, model: WorldModel, behaviour: Behaviour, path: Path
) -> dict[str, float]:
    """Writes one graph (`believe`, `imagine`, `actor`, `drive`, `cost`) and proves its parity.

    Returns:
        Of each output, the largest difference to torch over several shapes, relative to
        `1 + |torch|`.

    Raises:
        ParityError: one is above `TOLERANCE`, and not for want of digits in torch itself.
    """
    module = _module(graph, model, behaviour).eval().cpu()
    with torch.no_grad(), quiet():
        program = torch.onnx.export(
            module,
            kwargs=_example(model, graph, 3, 4, seed=1),
            dynamo=True,
            dynamic_shapes=_dynamic(graph),
            input_names=list(_dynamic(graph)),
            output_names=_OUTPUTS[graph],
            opset_version=OPSET,
            custom_translation_table=PARTS,
            verbose=False,
        )
        assert program is not None
        program.save(str(path))
    strip(path)
    found = parity(graph, model, behaviour, path)
    check(graph, found, path)
    return {output: apart.torch for output, apart in found.items()}


def check(graph: str, found: Mapping[str, Apart], path: Path) -> None:
    """Raises `ParityError` where an output of the graph at `path` is too far from torch."""
    for output, apart in found.items():
        grown = graph in ("imagine", "drive", "cost") and apart.exact <= AS_FAR * apart.torch_exact
        if not (apart.torch <= TOLERANCE or (grown and apart.torch <= GROWN)):
            raise ParityError(
                f"{path}: output {output} differs from torch by {apart.torch:.2g}, more than "
                f"{TOLERANCE:.2g} (from float64 by {apart.exact:.2g}, torch by "
                f"{apart.torch_exact:.2g}): try another version of torch or onnxscript, and do "
                "not ship this file"
            )


def strip(path: Path) -> None:
    """Takes out of an ONNX file what the exporter noted for debugging; what it computes stays.

    Every node came with the stack that made it, and so with folders of the machine that trained it.
    """
    model = onnx.load(str(path))
    _strip(model.graph)
    for function in model.functions:
        _strip(function)
    del model.metadata_props[:]
    onnx.save(model, str(path))


def _strip(part: Any) -> None:
    """Of a graph or a function, and of the graphs inside its nodes."""
    noted = [part, *part.node]
    if isinstance(part, onnx.GraphProto):
        noted += [*part.input, *part.output, *part.value_info, *part.initializer]
    for item in noted:
        item.ClearField("doc_string")
        del item.metadata_props[:]
    for attribute in (a for node in part.node for a in node.attribute):
        for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
            _strip(inner)


def parity(graph: str, model: WorldModel, behaviour: Behaviour, path: Path) -> dict[str, Apart]:
    """How far the file, torch, and torch in float64 are apart, by output; over three shapes."""
    module = _module(graph, model, behaviour).eval()
    exact = _module(graph, copy.deepcopy(model).double(), copy.deepcopy(behaviour).double()).eval()
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    worst = np.zeros((len(_OUTPUTS[graph]), 3))
    for seed, (rows, ticks) in enumerate([(3, 4), (1, 1), (17, 9)]):
        given = _example(model, graph, rows, ticks, 100 + seed)
        found = _differences(session, module, exact, given)
        if found[:, 0].max() > TOLERANCE and model.config.form == "categorical":
            # Where two classes are all but equal, the last bit decides which is drawn, and the rest
            # of that future is another: other noise has its ties elsewhere, a fault is in both.
            given = _example(model, graph, rows, ticks, 200 + seed)
            found = _differences(session, module, exact, given)
        worst = np.maximum(worst, found)
    return {name: Apart(*row) for name, row in zip(_OUTPUTS[graph], worst.tolist(), strict=True)}


def _differences(
    session: ort.InferenceSession, module: nn.Module, exact: nn.Module, inputs: dict[str, Tensor]
) -> Any:
    """`[outputs, 3]` the fields of `Apart`."""
    with torch.no_grad():
        wanted = module(**inputs)
        truth = exact(**{name: value.double() for name, value in inputs.items()})
    got = session.run(None, {name: value.numpy() for name, value in inputs.items()})
    return np.array(
        [
            [_apart(a, b.numpy()), _apart(a, c.numpy()), _apart(b.numpy(), c.numpy())]
            for a, b, c in zip(got, wanted, truth, strict=True)
        ]
    )


def _apart(found: Any, wanted: Any) -> float:
    if found.shape != wanted.shape or not np.isfinite(found).all():
        return float("inf")
    return float((np.abs(wanted - found) / (1.0 + np.abs(wanted))).max())


def export_graphs(
    model: WorldModel, behaviour: Behaviour, folder: Path, with_actor: bool = True
) -> dict[str, dict[str, float]]:
    """Writes all graphs of a bundle into `folder`; how far each is from torch, by output."""
    folder.mkdir(parents=True, exist_ok=True)
    names = ["believe", "imagine", *(["actor", "drive"] if with_actor else [])]
    names += ["cost"] if model.heads.cost is not None else []
    return {name: export_graph(name, model, behaviour, folder / f"{name}.onnx") for name in names}
