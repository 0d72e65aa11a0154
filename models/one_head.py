"""One head of a bundle learned again, for a new reward, say: every other weight stays as it is."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from models.actor import ActorConfig
from models.belief import ModelConfig
from models.compute import Compute
from models.costs import cost_loss
from models.data import Batch, Dataset
from models.descent import adam
from models.losses import Trace, as_shown, head_losses, hide, observe
from models.train import TrainConfig, Trainer
from models.transforms import ColumnScale
from planner.manifest import MANIFEST
from schemas.system import SystemSpec

HeadName = Literal["reward", "continuation", "cost", "value"]
LOSSES = {"reward": "reward", "continuation": "alive"}
"""The losses of `head_losses` by head."""


class HeadError(ValueError):
    """A head that cannot be learned by itself; the message says why, and the remedy."""


@dataclass(frozen=True)
class Only:
    """A head to learn again, of the bundle in a folder."""

    head: HeadName
    of: Path


@dataclass(frozen=True)
class Parent:
    """A bundle with the weights that its training left beside it.

    Attributes:
        folder: the bundle's;  manifest: what it says.
        weights: of `model` and `behaviour`.
    """

    folder: Path
    manifest: Mapping[str, Any]
    weights: Mapping[str, Mapping[str, Tensor]]

    @classmethod
    def read(cls, folder: Path, checkpoint: Path) -> Parent:
        """Raises `HeadError` where the bundle or its weights are not there."""
        try:
            manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
            lineage = manifest["lineage"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise HeadError(f"{folder}: not a bundle that was trained here ({error})") from error
        if "datasets" not in lineage:
            raise HeadError(
                f"{folder}: learned by acting; a head is learned again from logs, of a bundle that "
                "was trained from logs"
            )
        try:
            state = torch.load(checkpoint, map_location="cpu", weights_only=True)
        except OSError as error:
            raise HeadError(
                f"{checkpoint}: not there, and a bundle holds graphs, not weights: train it again, "
                "or bring that folder along"
            ) from error
        return cls(folder, manifest, {name: state[name] for name in ("model", "behaviour")})

    @property
    def with_actor(self) -> bool:
        """Whether it holds an actor and the value of what that does."""
        return "actor.onnx" in self.manifest["files"]

    def config(self, config: TrainConfig, head: HeadName) -> TrainConfig:
        """`config` with the sizes of this bundle, and updates of the head alone."""
        made = self.manifest["lineage"]["config"]
        model, actor = ModelConfig(**made["model"]), ActorConfig(**made["actor"])
        model = replace(model, cost=model.cost or head == "cost")
        actor = replace(actor, learning_rate=config.actor.learning_rate)
        return replace(config, actor_steps=0, model=model, actor=actor, physics=made["physics"])

    def scaled(self, dataset: Dataset) -> Dataset:
        """`dataset` in the units that the weights were learned in."""
        scales = [ColumnScale(**scale) for scale in self.manifest["lineage"]["scales"]]
        count = len(dataset.columns)
        return replace(dataset, columns=tuple(scales[:count]), actions=tuple(scales[count:]))


class HeadTrainer(Trainer):
    """Trains one head of a parent's model; as resumable and reproducible as a whole training."""

    def __init__(
        self,
        spec: SystemSpec,
        dataset: Dataset,
        config: TrainConfig,
        head: HeadName,
        parent: Parent,
        compute: Compute | None = None,
    ) -> None:
        """Raises `HeadError` where this head of this bundle cannot be learned by itself."""
        if spec.interface_hash != parent.manifest["interface_hash"]:
            raise HeadError(
                f"{parent.folder}: made for other channels or actions than {spec.system} has now; "
                "such a change takes a whole training"
            )
        if head == "reward" and spec.reward is not None:
            raise HeadError(f"reward: {spec.system} has an expression, which needs no learning")
        if head == "value" and not parent.with_actor:
            raise HeadError(f"value: {parent.folder} holds no actor, so there is nothing to value")
        super().__init__(spec, parent.scaled(dataset), parent.config(config, head), compute)
        if head == "continuation" and self.model.shares:
            raise HeadError(
                "continuation: its network is that of the shares too; both take a whole training"
            )
        self.head, self.parent = head, parent
        # A cost head may be new: then it is the one thing that the parent does not know.
        self.model.load_state_dict({**self.model.state_dict(), **parent.weights["model"]})
        self.behaviour.load_state_dict(parent.weights["behaviour"])
        if head == "reward":
            self.calibrate_reward()
        rate = config.actor.learning_rate if head == "value" else config.learning_rate
        self.optimizers = {self._optimizer: adam(self._learned.parameters(), rate)}

    @property
    def _learned(self) -> nn.Module:
        heads = self.model.heads
        found = {
            "reward": heads.reward,
            "continuation": heads.net,
            "cost": heads.cost,
            "value": self.behaviour.critic,
        }[self.head]
        assert found is not None
        return found

    @property
    def _optimizer(self) -> str:
        return "critic" if self.head == "value" else self.head

    def learn_model(self, step: int) -> dict[str, float]:
        """Update `step` of the head."""
        if self.head == "value":
            loss = self.behave(step)["critic"]
        else:
            with self.computed():
                loss = self._loss(step)
        self.descend(self._optimizer, loss, step, self.config.steps)
        if self.head == "value":
            self.behaviour.follow()
        return {self.head: float(loss.detach())}

    def _loss(self, step: int) -> Tensor:
        generator = self.generator(step)
        with torch.no_grad():
            batch = self.batch(step)
            trace = observe(self.model, batch, hide(batch.mask, generator))
            shape = self.config.length, self.config.batch, self.model.latent
            noise = torch.randn(shape, generator=generator).to(self.device)
        if self.head == "cost":
            return cost_loss(self.spec, self.model, batch, trace, noise)
        return self._read(batch, trace, noise)[LOSSES[self.head]]

    def _read(self, batch: Batch, trace: Trace, noise: Tensor) -> dict[str, Tensor]:
        with torch.no_grad():
            memory, sample = trace.memory(), as_shown(self.model, batch, trace, noise)
        return head_losses(self.model, batch, memory, sample, self.weights)

    def fingerprint(self) -> str:
        """As of a whole training, and of which head of which bundle it is."""
        return f"{super().fingerprint()}-{self.head}-{self.parent.manifest['digest'][:16]}"
