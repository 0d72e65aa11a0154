"""One head of a bundle learned again, for a new reward, say: every other weight stays as it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from infra.storage import Place
from models.actor import ActorConfig
from models.belief import ModelConfig
from models.compute import Compute
from models.costs import cost_loss
from models.data import Dataset
from models.descent import adam
from models.losses import as_shown, head_losses
from models.share import ALONE, Share
from models.train import TrainConfig, Trainer
from models.transforms import ColumnScale
from planner.manifest import MANIFEST, BundleError, Manifest
from planner.naming import find_bundle
from schemas.system import SystemSpec

HeadName = Literal["reward", "continuation", "cost", "value"]
LOSSES = {"reward": "reward", "continuation": "alive"}
"""The losses of `head_losses` by head."""


class HeadError(ValueError):
    """A head that cannot be learned by itself; the message says why, and the remedy."""


@dataclass(frozen=True)
class Only:
    """A head to learn again, of a bundle by folder, URL, name or digest."""

    head: HeadName
    of: Place


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
            HeadError: bundle or weights are not there, or are not each other's.
        """
        try:
            folder, manifest = find_bundle(which)
        except BundleError as error:
            raise HeadError(str(error)) from error
        lineage = manifest.lineage
        if "datasets" not in lineage:
            raise HeadError(
                f"{folder}: learned by acting; a head is learned again from logs, of a bundle that "
                "was trained from logs"
            )
        checkpoint = work(folder.resolve())
        try:
            config = _config(lineage["config"])
            scales = tuple(ColumnScale(**scale) for scale in lineage["scales"])
            made, done = lineage["fingerprint"], config.total
        except (KeyError, TypeError, AttributeError) as error:
            raise HeadError(
                f"{folder / MANIFEST}: lineage: made by another version ({error}); train it again"
            ) from error
        if config.physics:
            raise HeadError(
                f"{folder}: a model with known dynamics has units of its own, which are found anew "
                "from each log; it takes a whole training"
            )
        try:
            state = torch.load(checkpoint, map_location="cpu", weights_only=True)
            found, step = state["fingerprint"], state["progress"]["step"]
            weights = {name: dict(state[name]) for name in ("model", "behaviour")}
        except FileNotFoundError as error:
            raise HeadError(
                f"{checkpoint}: not there, and a bundle holds graphs, not weights: train it again, "
                "or bring that folder along"
            ) from error
        except Exception as error:  # torch says what is no checkpoint in many ways
            raise HeadError(
                f"{checkpoint}: no checkpoint ({type(error).__name__}); train it again"
            ) from error
        if (found, step) != (made, done):
            raise HeadError(
                f"{checkpoint}: of another training than {folder}, or of one that was not ended; "
                "train it again"
            )
        return cls(folder, manifest, config, scales, weights)

    @property
    def with_actor(self) -> bool:
        """Whether it holds an actor and the value of what that does."""
        return "actor.onnx" in self.manifest.files

    def trusted(self, head: HeadName, spec: SystemSpec) -> bool:
        """Whether its actor and value, with `head` learned again, may serve `spec`.

        They were learned for a reward: where that has changed, a value has to be learned first,
        also where it had changed for this bundle already.
        """
        same = self.manifest.objective_hash == spec.objective_hash
        kept = same and self.manifest.actor_trusted
        return head == "value" or (head != "reward" and kept)

    def settings(self, config: TrainConfig, head: HeadName) -> TrainConfig:
        """`config` with the sizes and the actor of this bundle, and updates of the head alone."""
        model = replace(self.config.model, cost=self.config.model.cost or head == "cost")
        actor = replace(self.config.actor, learning_rate=config.actor.learning_rate)
        return replace(config, actor_steps=0, model=model, actor=actor, physics="")

    def scaled(self, dataset: Dataset) -> Dataset:
        """`dataset` in the units that the weights were learned in."""
        count = len(dataset.columns)
        return replace(dataset, columns=self.scales[:count], actions=self.scales[count:])


def _config(made: Mapping[str, Any]) -> TrainConfig:
    parts = {"model": ModelConfig(**made["model"]), "actor": ActorConfig(**made["actor"])}
    return TrainConfig(**{**made, **parts})


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
        share: Share = ALONE,
    ) -> None:
        """Raises `HeadError` where this head of this bundle cannot be learned by itself."""
        if spec.interface_hash != parent.manifest.interface_hash:
            raise HeadError(
                f"{parent.folder}: made for other channels or actions than {spec.system} has now; "
                "such a change takes a whole training"
            )
        if head == "reward" and spec.reward is not None:
            raise HeadError(
                f"reward: {spec.system} has an expression, which needs no learning; where it has "
                "changed, learn the value again (--only value)"
            )
        if head == "reward" and not np.isfinite(dataset.train.reward).any():
            raise HeadError(
                f"reward: these logs say nothing of it: log it, or give {spec.system} a 'reward'"
            )
        if head == "value" and not parent.with_actor:
            raise HeadError(f"value: {parent.folder} holds no actor, so there is nothing to value")
        super().__init__(
            spec, parent.scaled(dataset), parent.settings(config, head), compute, share
        )
        if head == "continuation" and self.model.shares:
            raise HeadError(
                "continuation: its network is that of the shares too; both take a whole training"
            )
        self.head, self.parent = head, parent
        try:
            missing = self.model.load_state_dict(parent.weights["model"], strict=False)
            self.behaviour.load_state_dict(parent.weights["behaviour"])
        except RuntimeError as error:
            raise HeadError(f"{parent.folder}: weights of other sizes ({error})") from error
        # A cost head may be new: then it is the one thing that the parent does not know.
        other = [name for name in missing.missing_keys if not name.startswith("heads.cost.")]
        if other or missing.unexpected_keys:
            names = ", ".join([*other, *missing.unexpected_keys])
            raise HeadError(
                f"{parent.folder}: weights of another version ({names}); train it again"
            )
        if head == "reward":
            self.calibrate_reward()
        if head == "value":
            self.behaviour.calibrate(torch.from_numpy(self.dataset.train.reward))
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
        return self.told({self.head: loss})

    def _loss(self, step: int) -> Tensor:
        generator = self.generator(step)
        with torch.no_grad():
            _, batch, trace = self.filtered(step, generator)
            noise = self.noise(generator)
            sample = as_shown(self.model, batch, trace, noise)
        if self.head == "cost":
            return cost_loss(self.spec, self.model, batch, trace, noise, self.share)
        losses = head_losses(self.model, batch, trace.memory(), sample, self.weights, self.share)
        return losses[LOSSES[self.head]]

    def fingerprint(self) -> str:
        """As of a whole training, and of which head of which bundle it is."""
        return f"{super().fingerprint()}-{self.head}-{self.parent.manifest.digest[:16]}"
