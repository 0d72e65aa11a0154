"""A bundle that is learned on from: what it says of itself, and the weights behind its graphs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from infra.storage import Place
from models.actor import ActorConfig
from models.belief import ModelConfig
from models.checkpoint import write_state
from models.data import Dataset
from models.train import TrainConfig, Trainer
from models.transforms import ColumnScale
from planner.manifest import MANIFEST, BundleError, Manifest
from planner.naming import find_bundle

WEIGHTS = "weights.pt"
"""Those of a bundle, beside its checkpoint, where that is not what was exported."""


class ParentError(ValueError):
    """A bundle that cannot be learned on from; the message says why, and the remedy."""


def keep_weights(work: Path, trainer: Trainer, fingerprint: str) -> None:
    """Leaves the weights of a bundle in its work folder, for `Parent.read`."""
    state = trainer.state()
    kept = {name: state[name] for name in ("model", "behaviour")}
    progress = {"step": trainer.config.total}
    write_state(work / WEIGHTS, {**kept, "fingerprint": fingerprint, "progress": progress})


@dataclass(frozen=True)
class Parent:
    """A bundle with the weights that its training left beside it.

    Attributes:
        folder: the bundle's;  manifest: what it says.
        config: how it was trained;  scales: of observation columns, then of actions.
        weights: of `model` and `behaviour`.
    """

    folder: Path
    manifest: Manifest
    config: TrainConfig
    scales: tuple[ColumnScale, ...]
    weights: Mapping[str, Mapping[str, Tensor]]

    @classmethod
    def read(cls, which: Place, work: Callable[[Path], Path]) -> Parent:
        """The bundle that is meant; `work` says where what its training left is.

        Raises:
            ParentError: bundle or weights are not there, or are not each other's.
        """
        try:
            folder, manifest = find_bundle(which)
        except BundleError as error:
            raise ParentError(str(error)) from error
        lineage, checkpoint = manifest.lineage, work(folder.resolve())
        if (kept := checkpoint.with_name(WEIGHTS)).exists():
            checkpoint = kept
        try:
            config = _config(lineage["config"])
            scales = tuple(ColumnScale(**scale) for scale in lineage["scales"])
            made, done = lineage["fingerprint"], config.total
        except (KeyError, TypeError, AttributeError) as error:
            raise ParentError(
                f"{folder / MANIFEST}: lineage: made by another version ({error}); train it again"
            ) from error
        if config.physics:
            raise ParentError(
                f"{folder}: a model with known dynamics has units of its own, which are found anew "
                "from each log; it takes a whole training"
            )
        try:
            state = torch.load(checkpoint, map_location="cpu", weights_only=True)
            found, step = state["fingerprint"], state["progress"]["step"]
            weights = {name: dict(state[name]) for name in ("model", "behaviour")}
        except FileNotFoundError as error:
            raise ParentError(
                f"{checkpoint}: not there, and a bundle holds graphs, not weights: train it again, "
                "or bring that folder along"
            ) from error
        except Exception as error:  # torch says what is no checkpoint in many ways
            raise ParentError(
                f"{checkpoint}: no checkpoint ({type(error).__name__}); train it again"
            ) from error
        if (found, step) != (made, done):
            raise ParentError(
                f"{checkpoint}: of another training than {folder}, or of one that was not ended; "
                "train it again"
            )
        return cls(folder, manifest, config, scales, weights)

    @property
    def with_actor(self) -> bool:
        """Whether it holds an actor and the value of what that does."""
        return "actor.onnx" in self.manifest.files

    def scaled(self, dataset: Dataset) -> Dataset:
        """`dataset` in the units that the weights were learned in."""
        count = len(dataset.columns)
        return replace(dataset, columns=self.scales[:count], actions=self.scales[count:])


def _config(made: Mapping[str, Any]) -> TrainConfig:
    parts = {"model": ModelConfig(**made["model"]), "actor": ActorConfig(**made["actor"])}
    return TrainConfig(**{**made, **parts})
