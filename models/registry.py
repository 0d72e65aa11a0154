"""Bundles on disk: written whole or not at all, and sealed by digests."""

import shutil
import tempfile
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import onnxruntime
import torch

from models.actor import Behaviour
from models.belief import WorldModel
from models.export import export_graphs
from models.facts import facts
from models.quantise import quantise
from models.regret import Regret
from planner.manifest import INT8, MANIFEST, SIGNATURE, Recalibration, read_bundle, seal
from planner.session import Bundle, load_bundle
from planner.timing import time_graphs
from schemas.system import SystemSpec

MAX_BYTES = 2_000_000
"""Size above which a bundle may not ship with the package."""


def versions() -> dict[str, str]:
    """Versions of what made a bundle."""
    return {
        "torch": torch.__version__,
        "onnx": onnx.__version__,
        "onnxruntime": onnxruntime.__version__,
        "numpy": np.__version__,
    }


Weigh = Callable[[Bundle, Bundle], Regret]
"""What choosing by the second bundle's graphs costs, judged by the first one's."""
Measure = Callable[[Bundle], tuple[Mapping[str, Any], Mapping[str, Any]]]
"""Calibration and metrics of exported graphs."""
Judge = Callable[[Bundle], Mapping[str, Any]]
"""More metrics, of the bundle as it will run: with its calibration."""


def write_bundle(
    folder: Path,
    spec: SystemSpec,
    model: WorldModel,
    behaviour: Behaviour,
    *,
    name: str,
    measure: Measure,
    weigh: Weigh | None = None,
    judge: Judge | None = None,
    lineage: Mapping[str, Any],
    with_actor: bool,
    actor_trusted: bool,
    created: datetime | None = None,
) -> dict[str, Any]:
    """Exports the graphs with their parity tests, measures them, and puts the bundle at `folder`.

    With `judge`, it is judged as it will run. With `weigh`, an int8 variant of `imagine` is made,
    and ships where it chooses as well. The files are made beside it and moved in at the end, the
    manifest last, so that a reader finds the old bundle or the new one. Returns the manifest.
    """
    folder.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix=".bundle-", dir=folder))
    try:
        parities = export_graphs(model, behaviour, made, with_actor)
        differences = {graph: max(parity.values()) for graph, parity in parities.items()}
        scale = [1.0] * len(spec.columns)
        content: dict[str, Any] = {
            "name": name,
            "system": spec.system,
            "created": (created or datetime.now(UTC)).isoformat(timespec="seconds"),
            "interface_hash": spec.interface_hash,
            "objective_hash": spec.objective_hash,
            "columns": list(spec.columns),
            "action_columns": list(spec.action_columns),
            "hidden": model.hidden,
            "latent": model.latent,
            "members": model.config.members,
            "calibration": {
                "innovation_band": 1.0,
                "channel_scale": scale,
                "discount": behaviour.config.discount,  # what it is measured with must be its own
            },
            "actor_trusted": with_actor and actor_trusted,
            "lineage": {**lineage, "versions": versions()},
        }
        seal(made, content)  # sealed once to be loaded and measured as it will run
        exact = load_bundle(made, provider="cpu")
        calibration, metrics = measure(exact)
        content["calibration"] = dict(calibration)
        content["metrics"] = {**metrics, "parity": differences, "parameters": parameters(model)}
        content["graphs"] = _graphs(exact, parities)
        if judge is not None:
            seal(made, content)
            content["metrics"] |= judge(load_bundle(made, provider="cpu"))
        if weigh is not None:
            content["graphs"] |= _int8(made, content, weigh)
        manifest = seal(made, content)
        _move(made, folder)
    finally:
        shutil.rmtree(made, ignore_errors=True)
    return manifest


def write_recalibrated(
    bundle: Path, folder: Path, recalibration: Recalibration | None
) -> dict[str, str]:
    """Writes a copy of `bundle` with other conformal factors; where it is, and its digest.

    Raises:
        BundleError: the bundle cannot be read.
        ValueError: there are no factors, or `folder` is the bundle's own.
    """
    if recalibration is None:
        raise ValueError(f"{folder}: too few windows to fit factors on; give more --data")
    if folder.resolve() == bundle.resolve():
        raise ValueError(f"{folder}: is the bundle itself; name another folder")
    manifest, graphs = read_bundle(bundle)
    content = msgspec.to_builtins(manifest)
    was = {name: content.pop(name) for name in ("digest", "format", "files")}
    content["calibration"]["recalibration"] = msgspec.to_builtins(recalibration)
    content["lineage"]["recalibrated_from"] = was["digest"]
    folder.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix=".bundle-", dir=folder))
    try:
        for name, data in graphs.items():
            (made / name).write_bytes(data)
        sealed = seal(made, content)
        _move(made, folder)
    finally:
        shutil.rmtree(made, ignore_errors=True)
    return {"bundle": str(folder), "digest": str(sealed["digest"])}


def _graphs(
    bundle: Bundle, parities: Mapping[str, Mapping[str, float]]
) -> dict[str, dict[str, Any]]:
    """What the manifest says of each graph, by its file."""
    timed = time_graphs(bundle)
    return {
        f"{graph}.onnx": {
            **facts(bundle.path / f"{graph}.onnx"),
            "parity": dict(parity),
            **({"timed": timed[graph]} if graph in timed else {}),
        }
        for graph, parity in parities.items()
    }


def _int8(made: Path, content: Mapping[str, Any], weigh: Weigh) -> dict[str, dict[str, Any]]:
    """Makes the int8 variant, and takes it away again unless its regret is negligible.

    Its measurements are in the manifest either way, so that nobody has to wonder.
    """
    path = made / INT8
    quantise(made / "imagine.onnx", path)
    seal(made, content)  # now with the calibration, whose discount is a part of what returns are
    coarse = load_bundle(made, provider="cpu", precision="int8")
    found = weigh(load_bundle(made, provider="cpu"), coarse)
    said = {
        **facts(path, "int8"),
        "regret": found.as_dict(),
        "timed": time_graphs(coarse)["imagine"],
    }
    if not found.negligible:
        path.unlink()
    return {INT8: {**said, "shipped": found.negligible}}


def _move(made: Path, folder: Path) -> None:
    (folder / SIGNATURE).unlink(missing_ok=True)  # of what was there before
    for path in folder.glob("*.onnx"):
        if not (made / path.name).exists():
            path.unlink()
    for path in sorted(made.iterdir(), key=lambda p: p.name == MANIFEST):
        path.replace(folder / path.name)


def parameters(model: WorldModel) -> int:
    """Number of trained weights of the world model."""
    return sum(p.numel() for p in model.parameters())
