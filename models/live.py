"""What a planner asks of a bundle, answered by the model in training: no export on the way."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from models.actor import Behaviour
from models.belief import WorldModel
from planner.session import Futures, Posterior, next_by_imagine
from schemas.system import SystemSpec

F32 = npt.NDArray[np.float32]
CURIOUS = 2.0
"""Most that curiosity may pay for a tick, before its weight: strange is strange enough."""


class LiveModel:
    """A `planner.session.Model` on torch.

    Args:
        curiosity: reward units per tick for going where the members are apart by one typical step
            (Sekar et al. 2020: Plan2Explore); only what is imagined is paid for it.
        with_actor: whether the planner may lean on actor and value.
    """

    provider = "torch"
    drives = True
    innovation_band = float("inf")  # no belief is doubted while the model is still learning

    def __init__(
        self,
        model: WorldModel,
        behaviour: Behaviour,
        *,
        curiosity: float = 0.0,
        with_actor: bool = True,
    ) -> None:
        self._model, self._behaviour = model, behaviour
        self._curiosity, self._with_actor = curiosity, with_actor
        self.members, self.hidden, self.latent = model.config.members, model.hidden, model.latent
        self.discount = behaviour.config.discount
        self.channel_scale: F32 = np.array([c.std for c in model.scaler.columns], np.float32)

    def trusted_actor(self, spec: SystemSpec) -> bool:
        """As it was asked for."""
        return self._with_actor

    @torch.no_grad()
    def believe(self, h: F32, z: F32, action: F32, obs: F32, mask: F32) -> Posterior:
        """As of a bundle."""
        given = (self._tensor(x) for x in (h, z, action, obs, mask))
        h_next, mean, std, _, _, innovation = self._model.believe(*given)
        return Posterior(*(_array(x) for x in (h_next, mean, std, innovation)))

    @torch.no_grad()
    def imagine(self, h: F32, z: F32, actions: F32, noise: F32) -> Futures:
        """As of a bundle; with the reward of curiosity."""
        model, (members, rows) = self._model, h.shape[:2]
        memory, latent, draws = self._begin(h, z, noise)
        action = model.action_scaler(self._tensor(actions)).flatten(1, 2)
        memories, shown, bonus = [], [], []
        for now, draw in zip(action, draws, strict=True):
            before = model.form.draw(latent, draw)
            memory, latent, seen = model.imagine(memory, latent, now, draw)
            if self._curiosity:
                bonus.append(self._apart(torch.cat([memory, model.seen(before, now)], -1)))
            memories.append(memory)
            shown.append(seen)
        channels, alive, reward = model.decode(torch.cat(memories), torch.cat(shown))
        if bonus:
            reward = reward + self._curiosity * torch.cat(bonus)
        value = self._behaviour.critic(action[-1], memory, latent)
        wide = (len(action), members, rows)
        return Futures(
            _array(channels.view(*wide, -1)),
            _array(alive.view(wide)),
            _array(value.view(members, rows)),
            _array(reward.view(wide)),
        )

    def next(self, h: F32, z: F32, action: F32, noise: F32) -> F32:
        """As of a bundle."""
        return next_by_imagine(self, h, z, action, noise)

    @torch.no_grad()
    def act(self, h: F32, z: F32) -> F32:
        """As of a bundle."""
        return _array(self._behaviour.act(self._model, self._tensor(h), self._tensor(z))[0])

    @torch.no_grad()
    def drive(self, h: F32, z: F32, first: F32, noise: F32) -> F32:
        """As of a bundle."""
        model, actor = self._model, self._behaviour.actor
        memory, latent, draws = self._begin(h, z, noise)
        last, driven = model.action_scaler(self._tensor(first)).flatten(0, 1), []
        for draw in draws:
            memory, latent, _ = model.imagine(memory, latent, last, draw)
            target = actor.target(last, memory, latent)
            action = actor.limit(target, model.action_scaler.inverse(last))
            last = model.action_scaler(action)
            driven.append(action)
        return _array(torch.stack(driven).view(len(driven), *h.shape[:2], -1))

    def _begin(self, h: F32, z: F32, noise: F32) -> tuple[Tensor, Tensor, Tensor]:
        """Memory `[M * N, G]`, latent `[M * N, Z]` and noise `[T, M * N, Z]`."""
        memory = self._model.unpack(self._tensor(h).flatten(0, 1)).memory
        return memory, self._tensor(z).flatten(0, 1), self._tensor(noise).flatten(1, 2)

    def _apart(self, inputs: Tensor) -> Tensor:
        """`[N]` how far the members are apart about the next channels, in typical steps."""
        count = len(self._model.direct)
        apart = self._model.ensemble.apart(inputs, count)
        return torch.clamp(apart.mean(-1), max=CURIOUS)

    def _tensor(self, array: F32) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self._model.least.device)


class Blind:
    """A `planner.session.Model` in part: it believes nothing, for a world that is only watched."""

    hidden = latent = 0

    def believe(self, h: F32, z: F32, action: F32, obs: F32, mask: F32) -> Posterior:
        """Nothing of anything."""
        return Posterior(h, z, z, np.zeros(len(obs), np.float32))


def _array(tensor: Tensor) -> F32:
    return np.asarray(tensor.cpu().numpy())
