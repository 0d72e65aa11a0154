"""A bundle in memory: the graphs as ONNX Runtime sessions behind believe, imagine and act.

All arrays are float32 in raw units; normalisation lives inside the graphs. B rows, H deterministic
and Z stochastic latent size, A action and O observation columns, M members, N rows per member,
T steps. Nothing here depends on the clock or on global random state.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from infra.log import Log
from planner.graphs import GraphError
from planner.manifest import BundleError, Manifest, read_bundle
from planner.quick import first_output_only, spread_constants
from schemas.system import SystemSpec

F32 = npt.NDArray[np.float32]
Provider = Literal["auto", "cpu", "cuda"]
_log = Log("session")

_INPUTS = {
    "believe": ("h", "z", "action", "obs", "mask"),
    "imagine": ("h", "z", "actions", "noise"),
    "actor": ("h", "z"),
    "drive": ("h", "z", "first", "noise"),
}
_OUTPUTS = {
    "believe": 6,
    "imagine": 4,
    "actor": 2,
    "drive": 1,
}


@dataclass(frozen=True)
class Posterior:
    """What `believe` returns for B rows.

    h [B,H], mean [B,Z], std [B,Z]; predicted [B,O] and predicted_std [B,O]: what the prior
    expected to see, raw units; innovation [B]: mean squared error of that per present channel, in
    units of its spread.
    """

    h: F32
    mean: F32
    std: F32
    predicted: F32
    predicted_std: F32
    innovation: F32


@dataclass(frozen=True)
class Futures:
    """What `imagine` returns.

    channels [T,M,N,O] raw units, alive [T,M,N] probability that the future goes on after the step,
    value [M,N] of the last state, reward [T,M,N] of the learned head (0 without one).
    """

    channels: F32
    alive: F32
    value: F32
    reward: F32


class Dynamics(Protocol):
    """As much of a bundle as imagination needs."""

    @property
    def members(self) -> int:
        """M, the number of ensemble members."""
        ...

    @property
    def channel_scale(self) -> F32:
        """[O] typical spread of each column in raw units."""
        ...

    @property
    def discount(self) -> float:
        """Factor per tick that the value was trained with."""
        ...

    def trusted_actor(self, spec: SystemSpec) -> bool:
        """Whether actor and value may be used for `spec`."""
        ...

    def imagine(self, h: F32, z: F32, actions: F32, noise: F32) -> Futures:
        """Rollouts; see `Bundle.imagine`."""
        ...

    def channels(self, h: F32, z: F32, actions: F32, noise: F32) -> F32:
        """The channels of `imagine` alone, to the bit."""
        ...


class Bundle:
    """A verified bundle; make it with `load_bundle`.

    Attributes:
        path: its folder.
        manifest: what is in it and what it was made for.
        provider: `cpu` or `cuda`, where the graphs really run.
        threads: threads per session call.
    """

    def __init__(
        self,
        path: Path,
        manifest: Manifest,
        graphs: Mapping[str, bytes],
        provider: str,
        threads: int,
    ) -> None:
        self.path, self.manifest, self.provider, self.threads = path, manifest, provider, threads
        self._believe = self._session("believe", graphs)
        self._imagine = self._session("imagine", graphs)
        self._channels = self._imagine
        if provider == "cpu":  # a GPU's memory is dearer than its time
            self._channels = self._open("imagine.onnx", graphs, first_output_only)
        self._actor = self._session("actor", graphs) if "actor.onnx" in graphs else None
        self._drive = self._session("drive", graphs) if "drive.onnx" in graphs else None

    @property
    def digest(self) -> str:
        """SHA-256 of the manifest, and through it of every file."""
        return self.manifest.digest

    @property
    def hidden(self) -> int:
        """H, the size of the deterministic state."""
        return self.manifest.hidden

    @property
    def latent(self) -> int:
        """Z, the size of the stochastic state."""
        return self.manifest.latent

    @property
    def members(self) -> int:
        """M, the number of ensemble members."""
        return self.manifest.members

    @cached_property
    def channel_scale(self) -> F32:
        """[O] typical spread of each column in raw units; 1 where the manifest has none above 0."""
        scale = np.asarray(self.manifest.calibration.channel_scale, dtype=np.float32)
        return np.where(np.isfinite(scale) & (scale > 0), scale, np.float32(1))

    @property
    def discount(self) -> float:
        """Factor per tick that the value was trained with."""
        return self.manifest.calibration.discount

    @property
    def innovation_band(self) -> float:
        """The innovation above which an observation contradicts the belief."""
        return self.manifest.calibration.innovation_band

    def check(self, spec: SystemSpec) -> None:
        """Raises `BundleError` when the bundle was made for another interface than `spec`'s."""
        place = f"{self.path / 'manifest.json'}: field"
        remedy = f"train a bundle for this spec: rehearse train {spec.system}"
        pairs = (
            ("columns", self.manifest.columns, spec.columns),
            ("action_columns", self.manifest.action_columns, spec.action_columns),
            ("interface_hash", self.manifest.interface_hash, spec.interface_hash),
        )
        for field, found, wanted in pairs:
            if found != wanted:
                raise BundleError(f"{place} {field}: {found} is not the spec's {wanted}; {remedy}")
        scales = len(self.manifest.calibration.channel_scale)
        if scales != len(spec.columns):
            reason = f"{scales} entries for {len(spec.columns)} columns; {remedy}"
            raise BundleError(f"{place} calibration.channel_scale: {reason}")

    def objective_matches(self, spec: SystemSpec) -> bool:
        """Whether actor and value were trained on the objective of `spec`."""
        return self.manifest.objective_hash == spec.objective_hash

    def trusted_actor(self, spec: SystemSpec) -> bool:
        """Whether there is an actor, it passed its evaluation, and it pursues this objective."""
        return (
            self._actor is not None and self.manifest.actor_trusted and self.objective_matches(spec)
        )

    def believe(self, h: F32, z: F32, action: F32, obs: F32, mask: F32) -> Posterior:
        """One step of the belief of B rows: see `Posterior`. Masked observations are ignored."""
        inputs = {"h": h, "z": z, "action": action, "obs": obs, "mask": mask}
        return Posterior(*self._believe.run(None, inputs))

    def imagine(self, h: F32, z: F32, actions: F32, noise: F32) -> Futures:
        """Rolls row n of member m forward under member m: see `Futures`.

        Args:
            h: [M,N,H];  z: [M,N,Z], drawn from the posterior.
            actions: [T,M,N,A] raw units, as they would be executed.
            noise: [T,M,N,Z] standard normal.
        """
        inputs = {"h": h, "z": z, "actions": actions, "noise": noise}
        return Futures(*self._imagine.run(None, inputs))

    def channels(self, h: F32, z: F32, actions: F32, noise: F32) -> F32:
        """[T,M,N,O] the channels of `imagine` alone, to the bit: on a CPU in half of its time."""
        inputs = {"h": h, "z": z, "actions": actions, "noise": noise}
        channels: F32 = self._channels.run(None, inputs)[0]
        return channels

    def act(self, h: F32, z: F32) -> tuple[F32, F32]:
        """The actor's mean action [B,A] in raw units, and the value [B].

        Raises:
            BundleError: the bundle has no actor.
        """
        if self._actor is None:
            raise BundleError(f"{self.path}: the bundle has no actor.onnx; ask trusted_actor first")
        action, value = self._actor.run(None, {"h": h, "z": z})
        return action, value

    @property
    def drives(self) -> bool:
        """Whether `drive` can be asked."""
        return self._drive is not None

    def drive(self, h: F32, z: F32, first: F32, noise: F32) -> F32:
        """[T,M,N,A] the actions, raw units, that the actor takes after `first`.

        Args:
            h: [M,N,H];  z: [M,N,Z];  first: [M,N,A] raw units, the actions before.
            noise: [T,M,N,Z] standard normal.

        Raises:
            BundleError: the bundle has no such graph.
        """
        if self._drive is None:
            raise BundleError(f"{self.path}: the bundle has no drive.onnx; ask drives first")
        inputs = {"h": h, "z": z, "first": first, "noise": noise}
        driven: F32 = self._drive.run(None, inputs)[0]
        return driven

    def warm_up(self) -> None:
        """Runs every graph once on zeros, so that no frame pays for first allocations."""
        h, z, m = self.hidden, self.latent, self.members
        a, o = len(self.manifest.action_columns), len(self.manifest.columns)

        def zeros(*shape: int) -> F32:
            return np.zeros(shape, dtype=np.float32)

        try:
            self.believe(zeros(2, h), zeros(2, z), zeros(2, a), zeros(2, o), zeros(2, o))
            self.imagine(zeros(m, 2, h), zeros(m, 2, z), zeros(2, m, 2, a), zeros(2, m, 2, z))
            if self._actor is not None:
                self.act(zeros(2, h), zeros(2, z))
            if self._drive is not None:
                self.drive(zeros(m, 2, h), zeros(m, 2, z), zeros(m, 2, a), zeros(2, m, 2, z))
        except Exception as error:  # ONNX Runtime raises its own kinds, without a common base
            sizes = f"hidden {h}, latent {z}, members {m}"
            reason = f"{self.path}: the graphs do not take the manifest's sizes ({sizes}): {error}"
            raise BundleError(f"{reason}; export the bundle again") from error

    def _open(
        self, file: str, graphs: Mapping[str, bytes], change: Callable[[bytes], bytes] = bytes
    ) -> ort.InferenceSession:
        """A session of a graph, in the form in which its provider runs it best."""
        path, data = self.path / file, graphs[file]
        try:
            data = spread_constants(change(data)) if self.provider == "cpu" else data
        except GraphError as error:
            reason = f"{path}: not a usable ONNX graph: {error}"
            raise BundleError(f"{reason}; export it again") from error
        return open_session(data, self.provider, self.threads, str(path))

    def _session(self, graph: str, graphs: Mapping[str, bytes]) -> ort.InferenceSession:
        path = self.path / f"{graph}.onnx"
        session = self._open(path.name, graphs)
        names = {item.name for item in session.get_inputs()}
        missing = [name for name in _INPUTS[graph] if name not in names]
        if missing or len(session.get_outputs()) != _OUTPUTS[graph]:
            wanted = f"inputs {', '.join(_INPUTS[graph])} and {_OUTPUTS[graph]} outputs"
            raise BundleError(f"{path}: a {graph} graph has {wanted}; export the bundle again")
        return session


def session_options(threads: int) -> ort.SessionOptions:
    """Options under which the same inputs give the same bits on the same kind of machine.

    Threads do not spin between calls: on few cores, a spinning pool takes time from the rest of
    the loop, and with one thread there is no pool at all.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.use_deterministic_compute = True
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # What was looked at is ONNX; the runtime would take a format of its own as well.
    options.add_session_config_entry("session.load_model_format", "ONNX")
    return options


def providers(device: str) -> list[Any]:
    """ONNX Runtime's providers for `cpu` or `cuda`, best first.

    TF32, which ONNX Runtime uses where it may, keeps 10 bits of a product's mantissa; believed
    innovations and the parity of bundles need all 23.
    """
    exact = {"cudnn_conv_algo_search": "DEFAULT", "use_tf32": "0"}
    cuda = ("CUDAExecutionProvider", exact)
    return [cuda, "CPUExecutionProvider"] if device == "cuda" else ["CPUExecutionProvider"]


def open_session(graph: bytes, provider: str, threads: int, name: str) -> ort.InferenceSession:
    """A session on `cpu` or `cuda`. Raises `BundleError` when the graph cannot be loaded."""
    try:
        return ort.InferenceSession(graph, session_options(threads), providers=providers(provider))
    except Exception as error:  # ONNX Runtime raises its own kinds, without a common base
        raise BundleError(f"{name}: not a usable ONNX graph: {error}; export it again") from error


@lru_cache(maxsize=1)
def cuda_devices() -> int:
    """CUDA devices that the driver shows; 0 where there is no driver."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0
    count = ctypes.c_int(0)
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return 0
    return count.value


@lru_cache(maxsize=1)
def cuda_usable() -> bool:
    """Whether a session really gets CUDA; the package offers it on machines without a GPU too."""
    offered = "CUDAExecutionProvider" in ort.get_available_providers()
    if not offered or cuda_devices() == 0:
        return False
    if hasattr(ort, "preload_dlls"):
        with redirect_stdout(sys.stderr):  # it prints what it does not find
            ort.preload_dlls()  # CUDA and cuDNN from their wheels, where these are installed
    probe = Path(__file__).with_name("product.onnx")
    session = ort.InferenceSession(probe.read_bytes(), providers=["CUDAExecutionProvider"])
    return "CUDAExecutionProvider" in session.get_providers()


@lru_cache(maxsize=8)
def choose(provider: Provider) -> str:
    """`cpu` or `cuda`, as asked for where that can be had; cached, so that it is said once."""
    chosen = "cpu" if provider == "cpu" or not cuda_usable() else "cuda"
    if provider == "cuda" and chosen == "cpu":
        _log.warning(
            "no usable CUDA device here: models run on the CPU",
            remedy="rehearse doctor says what is missing",
        )
    _log.info("provider", asked=provider, chosen=chosen, onnxruntime=ort.__version__)
    return chosen


def load_bundle(
    path: Path | str,
    provider: Provider = "auto",
    threads: int = 1,
    trusted: Path | None = None,
) -> Bundle:
    """Reads, verifies and warms up the bundle in the folder `path`.

    Args:
        path: holds `manifest.json` and the graphs.
        provider: `auto` and `cuda` take CUDA when it really works, else the CPU.
        threads: threads per session call.
        trusted: as for `read_bundle`.

    Raises:
        BundleError: what is wrong with which file and field, and the remedy.
    """
    folder = Path(path)
    manifest, graphs = read_bundle(folder, trusted)
    bundle = Bundle(folder, manifest, graphs, choose(provider), threads)
    bundle.warm_up()
    return bundle
