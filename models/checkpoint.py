"""What a training leaves to be gone on with: written whole, and refused where it does not fit."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from models.train import TrainConfig


class CheckpointError(RuntimeError):
    """A checkpoint that belongs to other settings; the message says which remedy there is."""


class TrainingStopped(Exception):
    """Training was interrupted, and can be gone on with.

    Attributes:
        checkpoint: what was kept; step, total: updates done, and wanted.
    """

    def __init__(self, checkpoint: Path, step: int, total: int) -> None:
        super().__init__(f"{step:,} of {total:,} updates are kept in {checkpoint}")
        self.checkpoint, self.step, self.total = checkpoint, step, total


def settings_of(config: TrainConfig) -> dict[str, Any]:
    """What decides the outcome; fields that were not always there, only where they do."""
    settings = asdict(config)
    model = {"head_units": 0, "cost": False, "corrects": False, "reward": "mean"}
    model |= {"periodic": False, "adapter": False}
    for part, later in (("model", model), ("actor", {"critic": "mean"})):
        for name, nothing in later.items():
            if settings[part][name] == nothing:
                del settings[part][name]
    return settings


def write_state(path: Path, state: Mapping[str, Any]) -> None:
    """A checkpoint as a whole: a kill at any moment leaves the old one or the new one."""
    part = path.with_suffix(".part")
    path.parent.mkdir(parents=True, exist_ok=True)
    with part.open("wb") as file:
        torch.save(dict(state), file)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
