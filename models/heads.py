"""What is read off a latent state: bounded shares, continuation, and a learned reward."""

import torch
from torch import Tensor, nn


def mlp(inputs: int, units: int, outputs: int, layers: int = 1) -> nn.Sequential:
    """`layers` hidden layers of `units` with ReLU, then a linear one."""
    parts: list[nn.Module] = []
    for _ in range(layers):
        parts += [nn.Linear(inputs, units), nn.ReLU()]
        inputs = units
    return nn.Sequential(*parts, nn.Linear(inputs, outputs))


def exact(out: Tensor) -> Tensor:
    """`out`, no longer in bfloat16: what is added up or put into a logarithm is never rounded."""
    return out.float() if out.dtype == torch.bfloat16 else out


class Scaled(nn.Module):
    """A number read off a state, learned in units of its own so that any reward is as easy."""

    offset: Tensor
    scale: Tensor

    def __init__(self, inputs: int, units: int, layers: int = 2) -> None:
        super().__init__()
        self.net = mlp(inputs, units, 1, layers)
        self.register_buffer("offset", torch.zeros(()))
        self.register_buffer("scale", torch.ones(()))

    @torch.no_grad()
    def rescale(self, offset: float, scale: float) -> None:
        """Changes the units, not what is learned (van Hasselt et al. 2016: PopArt)."""
        last, ratio = self.net[-1], self.scale / scale
        last.weight.mul_(ratio)  # type: ignore[operator]
        last.bias.mul_(ratio).add_((self.offset - offset) / scale)  # type: ignore[operator]
        self.offset.fill_(offset)
        self.scale.fill_(scale)

    def forward(self, state: Tensor) -> Tensor:
        """`[N]` of states `[N, ·]`."""
        out = exact(self.net(state).squeeze(-1))
        return self.offset + self.scale * out


class Heads(nn.Module):
    """What is read off a state `[memory, latent]`.

    shares: channels bounded to [0, 1], such as a share of late requests. Their conditional *mean*
        is what a reward needs, and a Gaussian clipped at 0 would bias it; so they are read off the
        sampled state instead of being sampled themselves.
    alive: logit of the probability that the episode goes on.
    reward: the learned reward, used only where the spec has no expression; a network of its own,
        which can be learned again without the rest, and which no export holds where it is not used.
    cost: logit of the probability that a constraint of the spec is broken, a network of its own
        likewise; only where it is asked for.
    """

    def __init__(
        self, memory: int, latent: int, shares: int, units: int, cost: bool = False
    ) -> None:
        super().__init__()
        self.shares = shares
        self.net = mlp(memory + latent, units, shares + 1)
        self.reward = Scaled(memory + latent, units)
        self.cost: nn.Sequential | None = None
        if cost:
            with torch.random.fork_rng(devices=[]):  # what is drawn after it stays the same
                self.cost = mlp(memory + latent, units, 1, 2)

    def forward(self, memory: Tensor, latent: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits of the shares `[N, S]`, logit of alive `[N]`, reward `[N]` in raw units."""
        state = torch.cat([memory, latent], -1)
        out = exact(self.net(state))
        return out[:, : self.shares], out[:, self.shares], self.reward(state)

    def costs(self, memory: Tensor, latent: Tensor) -> Tensor:
        """Logit of a broken constraint `[N]`, where it is learned."""
        assert self.cost is not None
        return exact(self.cost(torch.cat([memory, latent], -1)).squeeze(-1))
