"""A bundle in memory: the graphs as ONNX Runtime sessions behind believe, imagine and act.

All arrays are float32 in raw units; normalisation lives inside the graphs. B rows, H deterministic
and Z stochastic latent size, A action and O observation columns, M members, N rows per member,
T steps. Nothing here depends on the clock or on global random state.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from planner.graphs import GraphError, ends_of
from planner.manifest import INT8, MANIFEST, BundleError, Manifest, read_bundle
from planner.one_tick import one_tick
from planner.quick import outputs_only, spread_constants
from planner.runtime import Provider, choose, open_session
from schemas.system import SystemSpec

F32 = npt.NDArray[np.float32]
Precision = Literal["fp32", "int8"]

_INPUTS = {
    "believe": ("h", "z", "action", "obs", "mask"),
    "imagine": ("h", "z", "actions", "noise"),
    "actor": ("h", "z"),
    "drive": ("h", "z", "first", "noise"),
    "cost": ("h", "z", "actions", "noise"),
}
_OUTPUTS = {
    "believe": 6,
    "imagine": 4,
    "actor": 2,
    "drive": 1,
    "cost": 1,
}
# Those of the outputs that the loop reads; all where nothing is said.
_READ = {"believe": (0, 1, 2, 5), "actor": (0,)}


@dataclass(frozen=True)
class Posterior:
    """What `believe` returns for B rows.

    h [B,H], mean [B,Z], std [B,Z]; innovation [B]: mean squared error, per present channel, of what
    the prior expected to see, in units of its spread.
    """

    h: F32
    mean: F32
    std: F32
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

    def next(self, h: F32, z: F32, action: F32, noise: F32) -> F32:
        """The channels of `imagine` after one tick, all members from the same rows."""
        ...


class Model(Dynamics, Protocol):
    """As much of a bundle as planning a frame needs; also what is still in training."""

    @property
    def provider(self) -> str:
        """Where it runs: `cpu`, `cuda`, or `torch`."""
        ...

    @property
    def hidden(self) -> int:
        """H, the size of the deterministic state."""
        ...

    @property
    def latent(self) -> int:
        """Z, the size of the stochastic state."""
        ...

    @property
    def innovation_band(self) -> float:
        """The innovation above which an observation contradicts the belief."""
        ...

    @property
    def drives(self) -> bool:
        """Whether `drive` can be asked."""
        ...

    def believe(self, h: F32, z: F32, action: F32, obs: F32, mask: F32) -> Posterior:
        """One step of the belief; see `Bundle.believe`."""
        ...

    def act(self, h: F32, z: F32) -> F32:
        """The actor's mean action; see `Bundle.act`."""
        ...

    def drive(self, h: F32, z: F32, first: F32, noise: F32) -> F32:
        """Where the actor leads; see `Bundle.drive`."""
        ...


class Bundle:
    """A verified bundle; make it with `load_bundle`.

    Attributes:
        path: its folder.
        manifest: what is in it and what it was made for.
        provider: `cpu` or `cuda`, where the graphs really run.
        threads: threads per session call.
        precision: of the products of `imagine`; all else is fp32.
    """

    def __init__(
        self,
        path: Path,
        manifest: Manifest,
        graphs: Mapping[str, bytes],
        provider: str,
        threads: int,
        precision: Precision = "fp32",
    ) -> None:
        self.path, self.manifest, self.provider, self.threads = path, manifest, provider, threads
        self.precision = precision
        self._believe = self._session("believe", graphs)
        self._imagine = self._session("imagine", graphs)
        self._next = self._one_tick(graphs["imagine.onnx"]) if provider == "cpu" else None
        if precision == "int8":  # one tick, which is asked in every frame, stays exact
            self._imagine = self._session("imagine", graphs, INT8)
        self._actor = self._session("actor", graphs) if "actor.onnx" in graphs else None
        self._drive = self._session("drive", graphs) if "drive.onnx" in graphs else None
        self._cost = self._session("cost", graphs) if "cost.onnx" in graphs else None

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
        stretch = self.manifest.calibration.recalibration
        if stretch and len(stretch.factors[0][0]) != len(spec.columns):
            reason = f"{len(stretch.factors[0][0])} for {len(spec.columns)} columns; {remedy}"
            raise BundleError(f"{place} calibration.recalibration.factors: {reason}")

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

    def next(self, h: F32, z: F32, action: F32, noise: F32) -> F32:
        """[M,N,O] the channels of `imagine` after one tick, all members from the same rows.

        To the bit, on a CPU in a third of the time.

        Args:
            h: [N,H];  z: [N,Z], drawn from the posterior;  action: [N,A] raw units;  noise: [N,Z].
        """
        if self._next is None:
            return next_by_imagine(self, h, z, action, noise)
        return _run_next(self._next, h, z, action, noise)

    def act(self, h: F32, z: F32) -> F32:
        """The actor's mean action [B,A] in raw units.

        Raises:
            BundleError: the bundle has no actor.
        """
        if self._actor is None:
            raise BundleError(f"{self.path}: the bundle has no actor.onnx; ask trusted_actor first")
        action: F32 = self._actor.run(None, {"h": h, "z": z})[0]
        return action

    @property
    def acts(self) -> bool:
        """Whether `act` can be asked."""
        return self._actor is not None

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

    @property
    def foresees(self) -> bool:
        """Whether `cost` can be asked."""
        return self._cost is not None

    def cost(self, h: F32, z: F32, actions: F32, noise: F32) -> F32:
        """[T,M,N] how likely a constraint is broken after each tick; arguments as of `imagine`.

        Raises:
            BundleError: the bundle has no such graph.
        """
        if self._cost is None:
            raise BundleError(f"{self.path}: the bundle has no cost.onnx; ask foresees first")
        inputs = {"h": h, "z": z, "actions": actions, "noise": noise}
        found: F32 = self._cost.run(None, inputs)[0]
        return found

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
            if self._cost is not None:
                self.cost(zeros(m, 2, h), zeros(m, 2, z), zeros(2, m, 2, a), zeros(2, m, 2, z))
        except Exception as error:  # ONNX Runtime raises its own kinds, without a common base
            sizes = f"hidden {h}, latent {z}, members {m}"
            reason = f"{self.path}: the graphs do not take the manifest's sizes ({sizes}): {error}"
            raise BundleError(f"{reason}; export the bundle again") from error

    def _open(self, file: str, data: bytes) -> ort.InferenceSession:
        """A session of a graph, in the form in which its provider runs it best."""
        path = self.path / file
        try:
            data = spread_constants(data) if self.provider == "cpu" else data
        except GraphError as error:
            raise _unusable(path, error) from error
        return open_session(data, self.provider, self.threads, str(path))

    def _one_tick(self, graph: bytes) -> ort.InferenceSession | None:
        """A session of `imagine` for `next`; None where that is none of its form, or its bits."""
        made = one_tick(graph, self.members)
        if made is None:
            return None
        try:
            session = self._open("imagine.onnx", made)
        except BundleError:
            return None
        return session if self._is_next(session) else None

    def _is_next(self, session: ort.InferenceSession) -> bool:
        """Whether the session gives what `imagine` gives, tried on a few rows."""
        rng = np.random.default_rng(0)
        sizes = (self.hidden, self.latent, len(self.manifest.action_columns), self.latent)
        for rows in (1, 7, 64):
            given = [rng.standard_normal((rows, size)).astype(np.float32) for size in sizes]
            try:
                found, wanted = _run_next(session, *given), next_by_imagine(self, *given)
            except Exception:  # ONNX Runtime raises its own kinds, without a common base
                return False
            if found.tobytes() != wanted.tobytes():
                return False
        return True

    def _session(
        self, graph: str, graphs: Mapping[str, bytes], file: str = ""
    ) -> ort.InferenceSession:
        path = self.path / (file or f"{graph}.onnx")
        data = graphs[path.name]
        try:
            inputs, outputs = ends_of(data)
        except GraphError as error:
            raise _unusable(path, error) from error
        if not inputs.issuperset(_INPUTS[graph]) or outputs != _OUTPUTS[graph]:
            wanted = f"inputs {', '.join(_INPUTS[graph])} and {_OUTPUTS[graph]} outputs"
            raise BundleError(f"{path}: a {graph} graph has {wanted}; export the bundle again")
        return self._open(path.name, outputs_only(data, _READ[graph]) if graph in _READ else data)


def _unusable(path: Path, error: GraphError) -> BundleError:
    return BundleError(f"{path}: not a usable ONNX graph: {error}; export it again")


def _run_next(session: ort.InferenceSession, h: F32, z: F32, action: F32, noise: F32) -> F32:
    inputs = {"h": h[None], "z": z[None]}
    inputs |= {"actions": action[None, None], "noise": noise[None, None]}
    (channels,) = session.run(None, inputs)
    return np.asarray(channels[0])


def next_by_imagine(dynamics: Dynamics, h: F32, z: F32, action: F32, noise: F32) -> F32:
    """`Dynamics.next` by its `imagine`."""

    def all_members(rows: F32) -> F32:
        return np.repeat(rows[None], dynamics.members, axis=0)

    begun = all_members(h), all_members(z)
    tick = all_members(action)[None], all_members(noise)[None]
    channels = dynamics.imagine(*begun, *tick).channels
    return np.asarray(channels[0])


def _check_int8(folder: Path, graphs: Mapping[str, bytes], device: str) -> None:
    if INT8 not in graphs:
        raise BundleError(
            f"{folder / MANIFEST}: field files: there is no {INT8}: none was made, or its regret "
            "was not negligible; load the bundle with precision fp32"
        )
    if device != "cpu":
        raise BundleError(f"{folder / INT8}: int8 runs on the CPU: choose provider cpu, or fp32")


def load_bundle(
    path: Path | str,
    provider: Provider = "auto",
    threads: int = 1,
    trusted: Path | None = None,
    precision: Precision = "fp32",
) -> Bundle:
    """Reads, verifies and warms up the bundle in the folder `path`.

    Args:
        path: holds `manifest.json` and the graphs.
        provider: `auto` and `cuda` take CUDA when it really works, else the CPU.
        threads: threads per session call.
        trusted: as for `read_bundle`.
        precision: `int8` takes the variant of `imagine`, which runs on the CPU alone.

    Raises:
        BundleError: what is wrong with which file and field, and the remedy.
    """
    folder = Path(path)
    manifest, graphs = read_bundle(folder, trusted)
    device = choose(provider)
    if precision == "int8":
        _check_int8(folder, graphs, device)
    bundle = Bundle(folder, manifest, graphs, device, threads, precision)
    bundle.warm_up()
    return bundle
