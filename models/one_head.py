"""One head of a bundle learned again, for a new reward, say: every other weight stays as it is."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from infra.storage import Place
from models.compute import Compute
from models.costs import cost_loss
from models.data import Dataset
from models.descent import adam
from models.losses import as_shown, head_losses
from models.parent import Parent
from models.share import ALONE, Share
from models.train import TrainConfig, Trainer
from schemas.system import SystemSpec

HeadName = Literal["reward", "continuation", "cost", "value"]
LOSSES = {"reward": "reward", "continuation": "alive"}
"""The losses of `head_losses` by head."""


class HeadError(ValueError):
    """A head that cannot be learned by itself; the message says why, and the remedy."""


@dataclass(frozen=True)
class InverseConfig:
    """How a reward is learned from demonstrations; see `models.inverse`.

    Attributes:
        demonstrated: share of the imagined futures that begin in beliefs of demonstrations; the
            others begin in those of the logs, where a reward has to be known as well.
        remembered: states of earlier behaviours that are kept, for demonstrations to be better than
            these as well. Where the learner does as was demonstrated, its own states tell nothing
            any more, and a reward that is learned from these alone is forgotten.
        answers: updates of the learner per update of the reward: who does not come to act as well
            as this reward allows is told from demonstrations by its clumsiness.
    """

    demonstrated: float = 0.5
    remembered: int = 20_000
    answers: int = 2


@dataclass(frozen=True)
class Only:
    """A head to learn again, of a bundle by folder, URL, name or digest.

    Attributes:
        demonstrations: folders of trajectories that a reward is learned from; none: from what the
            logs say of it.
    """

    head: HeadName
    of: Place
    demonstrations: tuple[Place, ...] = ()
    inverse: InverseConfig = InverseConfig()


class PartTrainer(Trainer):
    """Trains a part of a parent's model, in its units; every other weight is the parent's."""

    head: HeadName

    def __init__(
        self,
        spec: SystemSpec,
        dataset: Dataset,
        config: TrainConfig,
        parent: Parent,
        compute: Compute | None = None,
        share: Share = ALONE,
    ) -> None:
        """Raises `HeadError` where the parent is of acting, or of another interface."""
        if "datasets" not in parent.manifest.lineage:
            raise HeadError(
                f"{parent.folder}: learned by acting; a head is learned again from logs, of a "
                "bundle that was trained from logs"
            )
        if spec.interface_hash != parent.manifest.interface_hash:
            raise HeadError(
                f"{parent.folder}: made for other channels or actions than {spec.system} has now; "
                "such a change takes a whole training"
            )
        super().__init__(spec, parent.scaled(dataset), config, compute, share)
        self.parent = parent

    def adopt(self, anew: tuple[str, ...], behaviour: bool) -> None:
        """Takes over all weights of the model but those whose names begin with one of `anew`.

        Args:
            behaviour: whether actor and value are the parent's, too.

        Raises:
            HeadError: the parent's weights are not of this model.
        """
        old = self.parent.weights["model"]
        kept = {name: weight for name, weight in old.items() if not name.startswith(anew)}
        try:
            found = self.model.load_state_dict(kept, strict=False)
            if behaviour:
                self.behaviour.load_state_dict(self.parent.weights["behaviour"])
        except RuntimeError as error:
            raise HeadError(f"{self.parent.folder}: weights of other sizes ({error})") from error
        other = [name for name in found.missing_keys if not name.startswith(anew)]
        if other or found.unexpected_keys:
            names = ", ".join([*other, *found.unexpected_keys])
            raise HeadError(
                f"{self.parent.folder}: weights of another version ({names}); train it again"
            )

    @property
    def with_actor(self) -> bool:
        """Whether the bundle holds an actor."""
        return self.parent.with_actor

    def trusts(self, verdict: bool) -> bool:
        """Whether actor and value may serve: by `verdict` on them, and as before."""
        return verdict and trusted(self.parent, self.head, self.spec)

    @property
    def origin(self) -> dict[str, Any]:
        """What the lineage says of where this comes from, beside what it says of any training."""
        return {"parent": {"digest": self.parent.manifest.digest, "learned": self.head}}


class HeadTrainer(PartTrainer):
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
        if head == "reward" and spec.reward is not None:
            raise HeadError(
                f"reward: {spec.system} has an expression, which needs no learning; where it has "
                "changed, learn the value again (--only value)"
            )
        if head == "reward" and not np.isfinite(dataset.train.reward).any():
            raise HeadError(
                f"reward: these logs say nothing of it: log it, give {spec.system} a 'reward', or "
                "learn it from who knows what is wanted (--demonstrations)"
            )
        if head == "value" and not parent.with_actor:
            raise HeadError(f"value: {parent.folder} holds no actor, so there is nothing to value")
        super().__init__(spec, dataset, _settings(parent, config, head), parent, compute, share)
        self.head = head
        # A cost head may be new: then it is the one thing that the parent does not know.
        new = any(name.startswith("heads.cost.") for name in parent.weights["model"])
        self.adopt(() if new else ("heads.cost.",), behaviour=True)
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
            "continuation": heads.alive,
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


def trusted(parent: Parent, head: HeadName, spec: SystemSpec) -> bool:
    """Whether a parent's actor and value, with `head` learned again, may serve `spec`.

    They were learned for a reward: where that has changed, a value has to be learned first, also
    where it had changed for this bundle already.
    """
    same = parent.manifest.objective_hash == spec.objective_hash
    kept = same and parent.manifest.actor_trusted
    return head == "value" or (head != "reward" and kept)


def _settings(parent: Parent, config: TrainConfig, head: HeadName) -> TrainConfig:
    """`config` with the sizes and the actor of the parent, and updates of the head alone."""
    model = replace(parent.config.model, cost=parent.config.model.cost or head == "cost")
    actor = replace(parent.config.actor, learning_rate=config.actor.learning_rate)
    return replace(config, actor_steps=0, model=model, actor=actor, physics="")
