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
    """Imagined returns over the horizon from held-out beliefs, per member.

    actor, logged, held: mean return of the actor, of the logged actions, of the last action held.
    wins: share of the beliefs from which the actor does better than holding. A mean alone is not
    enough: a log full of emergencies flatters whoever ends these, however dear he is on calm days.
    """

    actor: tuple[float, ...]
    logged: tuple[float, ...]
    held: tuple[float, ...]
    wins: tuple[float, ...]

    @property
    def trusted(self) -> bool:
        """In the eyes of every member, better than what was logged, and mostly than holding."""
        rows = zip(self.actor, self.logged, self.wins, strict=True)
        return all(actor > logged and wins > 0.5 for actor, logged, wins in rows)

    def as_dict(self) -> dict[str, object]:
        """JSON for the manifest."""
        return {**{name: list(v) for name, v in vars(self).items()}, "trusted": self.trusted}


@torch.no_grad()
def trial(
    model: WorldModel, behaviour: Behaviour, batch: Batch, warm: int, generator: torch.Generator
) -> Trial:
    """Filters `warm` ticks of each window, then imagines its remaining ticks three times."""
    whole = batch.valid.bool().all(1)
    short = Batch(*(field[whole, :warm] for field in vars(batch).values()))
    belief = observe(model, short, short.mask).ticks[-1]
    logged = model.action_scaler(batch.action[whole, warm:])
    horizon, rows, members = logged.shape[1], logged.shape[0], model.config.members
    noise = torch.randn(horizon, members * rows, model.latent, generator=generator).to(logged)

    def returns(who: str) -> Tensor:
        action, memory, latent = (
            x.repeat(members, 1) for x in (belief.hidden.action, belief.hidden.memory, belief.mean)
        )
        total = torch.zeros(members * rows, device=logged.device)
        for k in range(horizon):
            if who == "actor":
                target = behaviour.actor.target(action, memory, latent)
                last = model.action_scaler.inverse(action)
                action = model.action_scaler(behaviour.actor.limit(target, last))
            elif who == "logged":
                action = logged[:, k].repeat(members, 1)
            memory, latent, shown = model.imagine(memory, latent, action, noise[k])
            channels, _, learned = model.decode(memory, shown)
            raw = model.action_scaler.inverse(action)
            total += behaviour.reward(channels, raw, learned)
        return total.view(members, rows)

    actor, done, held = returns("actor"), returns("logged"), returns("held")
    wins = (actor > held).float()
    parts = (part.mean(1).tolist() for part in (actor, done, held, wins))
    return Trial(*(tuple(part) for part in parts))
