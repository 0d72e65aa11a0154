"""The vector encoder: present channels are evidence about the free latents, absent ones none."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from models.forms import Form
from models.heads import mlp

EncoderName = Literal["joint", "fused"]


class VectorEncoder(nn.Module):
    """Evidence about the free part of the latent state, by one network of all channels.

    The mask is an input beside `observation * mask`, so a zero that was seen differs from a channel
    that was not. Without any present channel the precision is exactly zero: the prior takes over.
    One that `corrects` is told as well how far off the prediction was.
    """

    def __init__(
        self, observations: int, memory: int, units: int, form: Form, corrects: bool = False
    ) -> None:
        super().__init__()
        self.form = form
        self.net = mlp((2 + corrects) * observations + memory, units, form.evidence)

    def forward(
        self, observation: Tensor, mask: Tensor, memory: Tensor, *off: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Evidence and precision, each `[B, F]`, as the form of the latents has them.

        Args:
            observation: `[B, O]` normalised.
            mask: `[B, O]` 1 where present.
            memory: `[B, G]` deterministic path at this tick.
            off: `[B, O]` how far off the prediction was, 0 where masked, if it `corrects`.
        """
        seen = torch.cat([observation * mask, mask, memory, *off], -1)
        anything = mask.amax(-1, keepdim=True)
        return self.form.read(self.net(seen), anything)


class FusedEncoder(nn.Module):
    """The same by the product of experts, one small network for the channels of each sensor.

    A sensor that falls silent takes its own evidence away, and what the others say stays as it was;
    a joint network has to be taught each way in which sensors may be silent.
    """

    def __init__(
        self,
        sensors: Sequence[Sequence[int]],
        memory: int,
        units: int,
        form: Form,
        corrects: bool = False,
    ) -> None:
        super().__init__()
        self.form = form
        self.sensors = [list(columns) for columns in sensors]
        self.experts = nn.ModuleList(
            VectorEncoder(len(columns), memory, units, form, corrects) for columns in sensors
        )

    def forward(
        self, observation: Tensor, mask: Tensor, memory: Tensor, *off: Tensor
    ) -> tuple[Tensor, Tensor]:
        """As `VectorEncoder.forward`."""
        found = [
            expert(
                observation[..., columns],
                mask[..., columns],
                memory,
                *(part[..., columns] for part in off),
            )
            for columns, expert in zip(self.sensors, self.experts, strict=True)
        ]
        evidence, precision = (torch.stack(parts) for parts in zip(*found, strict=True))
        return self.form.fuse(evidence, precision)
