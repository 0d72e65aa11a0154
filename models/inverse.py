"""A reward learned from demonstrations: what who knows seeks, and the learner does not reach.

Maximum-entropy inverse reinforcement learning (Ziebart et al. 2008) in imagination alone. The
likelihood rises with the reward of demonstrations and falls with that of the learner's own futures,
which the world model imagines from the same beliefs and others, and which sample the partition
function (Finn et al. 2016: guided cost learning); the learner is improved on that reward in turn.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from collections.abc import Sequence as SequenceOf
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from infra.storage import Place
from models.compute import Compute
from models.data import BLOCK, Dataset, Facts, Sequences, read_whole
from models.descent import adam
from models.heads import Scaled, exact
from models.losses import as_shown, observe
from models.one_head import (
    HeadError,
    HeadName,
    HeadTrainer,
    InverseConfig,
    Only,
    PartTrainer,
)
from models.parent import Parent
from models.share import ALONE, Share
from models.train import TrainConfig
from schemas.system import SystemSpec

FOLLOW = 0.05
"""Share of an update's own statistics in those that the reward is standardised by."""
SETTLED = 4
"""Ticks after which a belief of a window is one to learn from."""


@dataclass(frozen=True)
class Demonstrations:
    """Trajectories of who knows what is wanted; what reward they were given is not looked at.

    Attributes:
        sources: per folder its name, rows, entities, ticks, and the digest of its files.
    """

    data: Sequences
    sources: Facts

    @classmethod
    def read(cls, spec: SystemSpec, folders: SequenceOf[Place]) -> Demonstrations:
        """Those below `folders`. Raises `DataError`."""
        return cls(*read_whole(spec, folders, shortest=8))


class InverseTrainer(PartTrainer):
    """Learns the reward of a parent's model from demonstrations, and an actor and value for it.

    The reward is read off the latent alone: a reward of states is one that holds under other
    dynamics (Fu et al. 2018), and the memory would tell who acted by what it remembers of actions.
    Half its mean squared slope is taken off the likelihood, so that it rises all the way from where
    the learner is to where demonstrations are, and no digit tells these (Gulrajani et al. 2017 hold
    the slope to 1; the unit of a reward being free, none is named here).
    """

    head: HeadName = "reward"

    def __init__(
        self,
        spec: SystemSpec,
        dataset: Dataset,
        demonstrations: Demonstrations,
        config: TrainConfig,
        inverse: InverseConfig,
        parent: Parent,
        compute: Compute | None = None,
    ) -> None:
        """Raises `HeadError` where no reward can be learned for this bundle."""
        if spec.reward is not None:
            raise HeadError(
                f"reward: {spec.system} has an expression, which is what counts: leave 'reward' "
                "out of it where demonstrations are to say what is wanted"
            )
        config = replace(config, model=replace(parent.config.model, reward="mean"), physics="")
        super().__init__(spec, _unpaid(dataset), config, parent, compute)
        self.adopt(("heads.reward.",), behaviour=False)
        self.demonstrations, self.inverse = demonstrations, inverse
        shown = demonstrations.data
        share = inverse.demonstrated
        count = len(self.dataset.train)
        chances = np.repeat([(1 - share) / count, share / len(shown)], [count, len(shown)])
        self.go_on_with(_joined(self.dataset.train, shown), chances)
        net = self._reward.net
        self._blind(net[0], config.model.memory)
        self.optimizers = {
            "reward": adam(net.parameters(), config.learning_rate),
            "actor": self.optimizers["actor"],
            "critic": self.optimizers["critic"],
        }
        self.past = torch.zeros(0, config.model.memory + self.model.latent, device=self.device)

    def _blind(self, layer: Any, memory: int) -> None:
        """Lets the first layer see nothing of the memory."""
        seen = torch.ones_like(layer.weight)
        seen[:, :memory] = 0.0
        with torch.no_grad():
            layer.weight.mul_(seen)
        layer.weight.register_hook(lambda gradient: gradient * seen)

    @property
    def _reward(self) -> Scaled:
        head = self.model.heads.reward
        assert isinstance(head, Scaled)
        return head

    @property
    def with_actor(self) -> bool:
        """It always learns one."""
        return True

    def trusts(self, verdict: bool) -> bool:
        """Its actor is of its reward."""
        return verdict

    @property
    def origin(self) -> dict[str, Any]:
        """Parent, demonstrations and settings."""
        shown = list(self.demonstrations.sources)
        return {**super().origin, "demonstrations": shown, "inverse": asdict(self.inverse)}

    def learn_model(self, step: int) -> dict[str, float]:
        """Update `step` of the reward, and of the behaviour that it is learned against."""
        with self.computed():
            loss, ahead = self._margin(step)
        self.descend("reward", loss, step, self.config.steps)
        for answer in range(self.inverse.answers):
            losses = self.behave(step + 2 * answer * self.config.total)  # noise of its own
            for name in ("actor", "critic"):
                self.descend(name, losses[name], step, self.config.steps)
            self.behaviour.follow()
        told = {name: float(value.detach()) for name, value in losses.items()}
        return {"reward": float(loss.detach()), "ahead": ahead, **told}

    def _margin(self, step: int) -> tuple[Tensor, float]:
        """Loss of the reward, and by how many of its spreads demonstrations are better."""
        generator = self.generator(self.config.total + step)
        with torch.no_grad():
            shown = self._shown(step, generator)
            own = self._own(step, generator)
            own = torch.cat([own, self._remembered(own, generator)])
            other = own[torch.randint(len(own), (len(shown),), generator=generator)]
            part = torch.rand(len(shown), 1, generator=generator).to(own)
            between = torch.lerp(shown, other, part).requires_grad_()
        net = self._reward.net
        theirs, ours, on_the_way = (exact(net(x).squeeze(-1)) for x in (shown, own, between))
        (slope,) = torch.autograd.grad(on_the_way.sum(), between, create_graph=True)
        ahead = theirs.mean() - ours.mean()
        self._standardise(torch.cat([theirs, ours]).detach(), step)
        told = float(ahead.detach() * self._reward.scale)
        return 0.5 * slope.square().sum(-1).mean() - ahead, told

    def _shown(self, step: int, generator: torch.Generator) -> Tensor:
        """`[N, G + Z]` states of demonstrations, as sensors showed them."""
        data, config = self.demonstrations.data, self.config
        rng = np.random.default_rng([config.seed, step, 29])
        starts = data.draw(rng, config.batch, config.length)
        weights = torch.ones(len(data) // BLOCK + 1, config.model.members)
        batch = data.window(starts, config.length, weights).to(self.device)
        trace = observe(self.model, batch, batch.mask)
        latent = as_shown(self.model, batch, trace, self.noise(generator))
        states = torch.cat([trace.memory(), latent], -1)
        settled = min(SETTLED, config.length - 1)
        return states[settled:][batch.valid.T[settled:] > 0]

    def _own(self, step: int, generator: torch.Generator) -> Tensor:
        """`[N, G + Z]` states that the learner comes to, as sensors would show them.

        They begin in beliefs alone and never where earlier futures ended: where imagination runs
        away, it would be the model that is told from demonstrations, and not the learner. They end
        with the first tick that is likelier than not an episode's last: chances of going on that
        are multiplied cut every future short where the model is a little unsure of each tick.
        """
        batch, _, trace = self.filtered(step, generator)
        start = self._starts(batch, trace.memory(), trace.stack("mean"), generator)
        found, alive = [], torch.ones_like(start[0][:, 0])
        for (_, memory, _), shown in self.behaviour.futures(self.model, start, generator):
            found.append(torch.cat([memory, shown], -1)[alive > 0.5])
            alive = alive * (self.model.decode(memory, shown)[1] > 0.5)
        return torch.cat(found)

    def _remembered(self, own: Tensor, generator: torch.Generator) -> Tensor:
        """As many states of earlier behaviours; some of `own` are kept in place of others."""
        most, count = self.inverse.remembered, len(own)
        if len(self.past):
            old = self.past[torch.randint(len(self.past), (count,), generator=generator)]
        else:
            old = own
        few = own[torch.randperm(count, generator=generator)[: count // 8]]
        if len(self.past) < most:
            self.past = torch.cat([self.past, few])[:most]
        else:
            place = torch.randint(most, (len(few),), generator=generator)
            self.past[place] = few
        return old

    @torch.no_grad()
    def _standardise(self, odds: Tensor, step: int) -> None:
        """Rewards have mean 0 and spread 1 over the states met lately: nobody knows their unit."""
        head = self._reward
        mean, spread = odds.mean(), odds.std().clamp(min=1e-3)
        if step:
            mean = torch.lerp(-head.offset / head.scale, mean, FOLLOW)
            spread = torch.lerp(1.0 / head.scale, spread, FOLLOW)
        head.scale.fill_(1.0 / spread)
        head.offset.fill_(-mean / spread)

    # checkpoints

    def fingerprint(self) -> str:
        """As of a whole training, and of which demonstrations for which bundle."""
        content = json.dumps([asdict(self.inverse), list(self.demonstrations.sources)], default=str)
        digest = hashlib.sha256(content.encode()).hexdigest()[:16]
        return f"{super().fingerprint()}-inverse-{digest}-{self.parent.manifest.digest[:16]}"

    def state(self) -> dict[str, Any]:
        """With the states that are remembered."""
        return {**super().state(), "past": self.past}

    def take_up(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state`."""
        super().take_up(state)
        self.past = state["past"]


def part_trainer(
    spec: SystemSpec,
    dataset: Dataset,
    config: TrainConfig,
    only: Only,
    parent: Parent,
    compute: Compute | None = None,
    share: Share = ALONE,
) -> PartTrainer:
    """What learns the one head that `only` names, from logs or from demonstrations.

    Raises:
        HeadError: this head of this bundle cannot be learned by itself.
        DataError: there is nothing to read below the demonstrations' folders.
    """
    if not only.demonstrations:
        return HeadTrainer(spec, dataset, config, only.head, parent, compute, share)
    if share.count > 1:
        raise HeadError("demonstrations: take one process; start it without torchrun")
    shown = Demonstrations.read(spec, only.demonstrations)
    return InverseTrainer(spec, dataset, shown, config, only.inverse, parent, compute)


def _unpaid(dataset: Dataset) -> Dataset:
    """`dataset` without what it says of rewards."""

    def unpaid(part: Sequences) -> Sequences:
        return replace(part, reward=np.full_like(part.reward, np.nan))

    return replace(dataset, train=unpaid(dataset.train), validation=unpaid(dataset.validation))


def _joined(first: Sequences, second: Sequences) -> Sequences:
    """The rows of both, none of them paid."""
    count, runs = len(first), int(first.run.max()) + 1
    return Sequences(
        obs=np.concatenate([first.obs, second.obs]),
        action=np.concatenate([first.action, second.action]),
        reward=np.full(count + len(second), np.nan, np.float32),
        alive=np.concatenate([first.alive, second.alive]),
        first=np.concatenate([first.first, second.first + count]),
        last=np.concatenate([first.last, second.last + count]),
        entity=np.concatenate([first.entity, second.entity]),
        tick=np.concatenate([first.tick, second.tick]),
        run=np.concatenate([first.run, second.run + runs]),
    )
