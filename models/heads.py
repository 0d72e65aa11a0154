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


class Heads(nn.Module):
    """One small network with three outputs of a state `[memory, latent]`.

    shares: channels bounded to [0, 1], such as a share of late requests. Their conditional *mean*
        is what a reward needs, and a Gaussian clipped at 0 would bias it; so they are read off the
        sampled state instead of being sampled themselves.
    alive: logit of the probability that the episode goes on.
    reward: the learned reward in raw units, used only where the spec has no expression.
    """

    def __init__(self, memory: int, latent: int, shares: int, units: int) -> None:
        super().__init__()
        self.shares = shares
        self.net = mlp(memory + latent, units, shares + 2)

    def forward(self, memory: Tensor, latent: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits of the shares `[N, S]`, logit of alive `[N]`, reward `[N]`."""
        out = self.net(torch.cat([memory, latent], -1))
        return out[:, : self.shares], out[:, self.shares], out[:, self.shares + 1]
