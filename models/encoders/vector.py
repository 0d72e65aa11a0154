"""The vector encoder: present channels are evidence about the free latents, absent ones none."""

import torch
from torch import Tensor, nn

from models.heads import mlp


class VectorEncoder(nn.Module):
    """Gaussian evidence about the free part of the latent state.

    The mask is an input beside `observation * mask`, so a zero that was seen differs from a channel
    that was not. Without any present channel the precision is exactly zero: the prior takes over.
    """

    def __init__(self, observations: int, memory: int, free: int, units: int) -> None:
        super().__init__()
        self.net = mlp(2 * observations + memory, units, 2 * free)

    def forward(self, observation: Tensor, mask: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and precision, each `[B, free]`.

        Args:
            observation: `[B, O]` normalised.
            mask: `[B, O]` 1 where present.
            memory: `[B, G]` deterministic path at this tick.
        """
        seen = torch.cat([observation * mask, mask, memory], -1)
        mean, raw = self.net(seen).chunk(2, -1)
        anything = mask.amax(-1, keepdim=True)
        precision = torch.exp(4.0 * torch.tanh(raw)) * anything
        return mean, precision
