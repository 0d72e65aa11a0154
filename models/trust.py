"""Whether an actor deserves trust: imagined beside what was really done, from the same beliefs."""

from dataclasses import dataclass

import torch
from torch import Tensor

from models.actor import Behaviour
from models.belief import WorldModel
from models.data import Batch
from models.losses import observe


@dataclass(frozen=True)
class Trial:
    """Mean imagined return over the horizon of the actor and of the logged actions, per member."""

    actor: tuple[float, ...]
    logged: tuple[float, ...]

    @property
    def trusted(self) -> bool:
        """Better than what was logged, and in the eyes of every member."""
        return all(a > b for a, b in zip(self.actor, self.logged, strict=True))

    def as_dict(self) -> dict[str, object]:
        """JSON for the manifest."""
        return {"actor": list(self.actor), "logged": list(self.logged), "trusted": self.trusted}


@torch.no_grad()
def trial(
    model: WorldModel, behaviour: Behaviour, batch: Batch, warm: int, generator: torch.Generator
) -> Trial:
    """Filters `warm` ticks of each window, then imagines its remaining ticks twice."""
    whole = batch.valid.bool().all(1)
    short = Batch(*(field[whole, :warm] for field in vars(batch).values()))
    belief = observe(model, short, short.mask).ticks[-1]
    logged = model.action_scaler(batch.action[whole, warm:])
    horizon, rows, members = logged.shape[1], logged.shape[0], model.config.members
    noise = torch.randn(horizon, members * rows, model.latent, generator=generator)

    def returns(follow: bool) -> Tensor:
        action, memory, latent = (
            x.repeat(members, 1) for x in (belief.hidden.action, belief.hidden.memory, belief.mean)
        )
        total = torch.zeros(members * rows)
        for k in range(horizon):
            if follow:
                target = behaviour.actor.target(action, memory, latent)
                last = model.action_scaler.inverse(action)
                action = model.action_scaler(behaviour.actor.limit(target, last))
            else:
                action = logged[:, k].repeat(members, 1)
            memory, latent = model.imagine(memory, latent, action, noise[k])
            channels, _, learned = model.decode(memory, latent)
            raw = model.action_scaler.inverse(action)
            total += behaviour.reward(channels, raw, learned)
        return total.view(members, rows).mean(1)

    actor, done = returns(True), returns(False)
    return Trial(tuple(map(float, actor)), tuple(map(float, done)))
