"""Fusion: what several sensors say about one thing, each of which may be absent."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from models.heads import mlp


def product(mean: Tensor, precision: Tensor) -> tuple[Tensor, Tensor]:
    """The product of K Gaussian experts (Hinton 2002; Wu and Goodman 2018).

    Args:
        mean: `[K, ..., Z]`.
        precision: `[K, ..., Z]`, 0 of an absent expert, whose mean then has no effect at all.

    Returns:
        Mean and precision `[..., Z]`; both 0 where all are absent.
    """
    total = precision.sum(0)
    weighted = torch.where(precision > 0, precision * mean, torch.zeros_like(mean)).sum(0)
    return weighted / torch.where(total > 0, total, torch.ones_like(total)), total


class Fusion(nn.Module):
    """Several embeddings, each possibly absent, become one Gaussian: the product of their experts.

    Every embedding has a small network of its own that says what it tells, and how surely; so what
    the others say does not change when one falls silent, and no order among them matters. The prior
    expert N(0, 1) keeps the result defined where all are absent (Wu and Goodman 2018).
    """

    def __init__(self, sizes: Sequence[int], outputs: int, units: int = 64) -> None:
        super().__init__()
        if not sizes or min(sizes) < 1:
            raise ValueError(f"sizes {list(sizes)}: name one embedding or more, each of some size")
        self.sizes = tuple(sizes)
        self.experts = nn.ModuleList(mlp(size, units, 2 * outputs) for size in sizes)

    def forward(self, embeddings: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation `[B, outputs]`.

        Args:
            embeddings: `[B, sum of sizes]` beside each other; any value, even NaN, where absent.
            present: `[B, K]` 1 where present, else 0.
        """
        means, precisions = [], []
        parts = torch.split(embeddings, list(self.sizes), -1)
        for part, expert, here in zip(
            parts, self.experts, torch.split(present, 1, -1), strict=True
        ):
            known = torch.where(here > 0, part, torch.zeros_like(part))
            mean, raw = expert(known).chunk(2, -1)
            means.append(mean)
            precisions.append(torch.exp(4.0 * torch.tanh(raw)) * here)
        means.append(torch.zeros_like(means[0]))
        precisions.append(torch.ones_like(means[0]))
        mean, precision = product(torch.stack(means), torch.stack(precisions))
        return mean, torch.rsqrt(precision)
