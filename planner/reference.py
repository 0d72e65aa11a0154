"""The reference ensemble of planning benchmarks: state 8, action 2, five members of 3 × 200, ReLU.

A PETS ensemble (Chua et al. 2018) of the usual size with seeded random weights: only its speed is
of interest. `reference.onnx` (and `product.onnx`, a bare matrix product) ship with the package;
`python -m models.reference` writes them again.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from planner.runtime import providers, session_options
from planner.session import Futures, next_by_imagine
from schemas.system import SystemSpec, parse_spec

F32 = npt.NDArray[np.float32]

GRAPH = Path(__file__).with_name("reference.onnx")
PRODUCT = Path(__file__).with_name("product.onnx")
STATE, ACTION, UNITS, MEMBERS, HORIZON, CANDIDATES = 8, 2, 200, 5, 15, 255
SIZES = (STATE + ACTION, UNITS, UNITS, UNITS, 2 * STATE)
LAYERS = len(SIZES) - 1

SPEC = f"""
system: reference
tick: 100 ms
sensors:
  state:
    every: 100 ms
    max_age: 1 s
    channels: {{x: {{unit: "1", shape: [{STATE}], range: [-9, 9]}}}}
actions:
  u: {{unit: "1", shape: [{ACTION}], low: -1, high: 1}}
reward: "-(x[0] * x[0] + x[1] * x[1]) - 0.01 * (u[0] * u[0] + u[1] * u[1])"
fallback: {{kind: value}}
budget:
  tiers:
    reference: {{candidates: {CANDIDATES}, horizon: {HORIZON}, iterations: 1}}
"""


def reference_spec() -> SystemSpec:
    """A system whose planning tier is the reference."""
    return parse_spec(SPEC, "reference")


def weight_shapes() -> dict[str, tuple[int, ...]]:
    """Names and shapes of the graph's weights, `w` [in,out] and `b` [out] per member and layer."""
    shapes: dict[str, tuple[int, ...]] = {}
    for m in range(MEMBERS):
        for layer in range(LAYERS):
            shapes[f"w{m}_{layer}"] = (SIZES[layer], SIZES[layer + 1])
            shapes[f"b{m}_{layer}"] = (SIZES[layer + 1],)
    return shapes


def weights(seed: int = 0) -> dict[str, F32]:
    """Seeded weights, the last layer small, so that futures stay finite."""
    generator = np.random.default_rng(seed)
    made = {}
    for name, shape in weight_shapes().items():
        last = name.endswith(f"_{LAYERS - 1}")
        scale = (0.05 if last else 1.4) / np.sqrt(shape[0]) if len(shape) == 2 else 0.01
        made[name] = (scale * generator.standard_normal(shape)).astype(np.float32)
    return made


def flops(rows: int = CANDIDATES, steps: int = HORIZON) -> int:
    """Multiplications and additions of the matrix products of one rollout of `rows` candidates."""
    return 2 * sum(a * b for a, b in pairwise(SIZES)) * rows * steps


class Reference:
    """The ensemble, with as much of a bundle as imagination needs. The state is all in `h`."""

    members, hidden, latent, discount = MEMBERS, STATE, STATE, 1.0

    def __init__(self, threads: int = 1, seed: int = 0, provider: str = "cpu") -> None:
        options = session_options(threads)
        made = weights(seed)
        values = [ort.OrtValue.ortvalue_from_numpy(array) for array in made.values()]
        options.add_external_initializers(list(made), values)
        self._weights = values  # the session reads them in place
        self.session = ort.InferenceSession(
            GRAPH.read_bytes(), options, providers=providers(provider)
        )
        self.channel_scale: F32 = np.ones(STATE, dtype=np.float32)

    def trusted_actor(self, spec: SystemSpec) -> bool:
        """There is none."""
        return False

    def imagine(self, h: F32, z: F32, actions: F32, noise: F32) -> Futures:
        """As `planner.session.Bundle.imagine`; nothing ends, and there is no value."""
        inputs = {"h": h, "actions": actions, "noise": noise}
        (channels,) = self.session.run(None, inputs)
        steps = channels.shape[:-1]
        nothing = np.zeros(steps, dtype=np.float32)
        return Futures(channels, np.ones(steps, dtype=np.float32), nothing[-1], nothing)

    def next(self, h: F32, z: F32, action: F32, noise: F32) -> F32:
        """As `planner.session.Bundle.next`."""
        return next_by_imagine(self, h, z, action, noise)
