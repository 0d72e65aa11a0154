"""Bundles on disk: written whole or not at all, sealed by digests, listed and verified."""

import shutil
import tempfile
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch

from models.actor import Behaviour
from models.belief import WorldModel
from models.export import export_graphs
from planner.manifest import MANIFEST, BundleError, Manifest, read_manifest, seal
from planner.session import Bundle, load_bundle
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


Measure = Callable[[Bundle], tuple[Mapping[str, Any], Mapping[str, Any]]]
"""Calibration and metrics of exported graphs."""


def write_bundle(
    folder: Path,
    spec: SystemSpec,
    model: WorldModel,
    behaviour: Behaviour,
    *,
    name: str,
    measure: Measure,
    lineage: Mapping[str, Any],
    with_actor: bool,
    actor_trusted: bool,
    created: datetime | None = None,
) -> dict[str, Any]:
    """Exports the graphs with their parity tests, measures them, and puts the bundle at `folder`.

    The files are made beside it and moved in at the end, the manifest last, so that a reader finds
    the old bundle or the new one. Returns the manifest.
    """
    folder.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix=".bundle-", dir=folder))
    try:
        differences = export_graphs(model, behaviour, made, with_actor)
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
            "calibration": {"innovation_band": 1.0, "channel_scale": scale},
            "actor_trusted": with_actor and actor_trusted,
            "lineage": {**lineage, "versions": versions()},
        }
        seal(made, content)  # sealed once to be loaded and measured as it will run
        calibration, metrics = measure(load_bundle(made, provider="cpu"))
        content["calibration"] = dict(calibration)
        content["metrics"] = {**metrics, "parity": differences, "parameters": parameters(model)}
        manifest = seal(made, content)
        _move(made, folder)
    finally:
        shutil.rmtree(made, ignore_errors=True)
    return manifest


def _move(made: Path, folder: Path) -> None:
    for path in folder.glob("*.onnx"):
        if not (made / path.name).exists():
            path.unlink()
    for path in sorted(made.iterdir(), key=lambda p: p.name == MANIFEST):
        path.replace(folder / path.name)


def parameters(model: WorldModel) -> int:
    """Number of trained weights of the world model."""
    return sum(p.numel() for p in model.parameters())


def list_bundles(folder: Path) -> dict[str, Manifest | str]:
    """Every bundle directly below `folder` by name: its manifest, or what is wrong with it."""
    found: dict[str, Manifest | str] = {}
    for path in sorted(folder.glob(f"*/{MANIFEST}")):
        try:
            found[path.parent.name] = read_manifest(path.parent)
        except BundleError as error:
            found[path.parent.name] = str(error)
    return found


def show_bundle(folder: Path) -> dict[str, Any]:
    """A summary of one bundle. Raises `BundleError` when it is damaged."""
    manifest = read_manifest(folder)
    return {
        "name": manifest.name,
        "system": manifest.system,
        "created": manifest.created,
        "digest": manifest.digest,
        "bytes": sum(entry.bytes for entry in manifest.files.values()),
        "hidden": manifest.hidden,
        "latent": manifest.latent,
        "members": manifest.members,
        "actor_trusted": manifest.actor_trusted,
        "metrics": manifest.metrics,
        "lineage": manifest.lineage,
    }


def verify_bundle(folder: Path, spec: SystemSpec | None = None) -> Manifest:
    """Checks digests, loads every graph, runs it once, and compares with `spec` where given.

    Raises:
        BundleError: what is wrong, and the remedy.
    """
    bundle = load_bundle(folder, provider="cpu")
    if spec is not None:
        bundle.check(spec)
    return bundle.manifest
