"""Wider scales for a model that has outgrown its own: it goes on, and says what it said before.

Normalised values are affine in each other where both scales are linear, so a network's first layer
takes the change up in its weights (van Hasselt et al. 2016 do so for outputs: PopArt). The unit of
changes per tick stays as it was in raw units, and so does all that is said in it: changes, spreads,
sensor noise, gaps.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from models.actor import Behaviour
from models.belief import WorldModel
from models.encoders.vector import VectorEncoder
from models.transforms import ColumnScale

OUTGROWN = 1.5
"""Data whose spread is this many times what the model was scaled for need wider scales."""


def outgrown(old: Sequence[ColumnScale], new: Sequence[ColumnScale]) -> bool:
    """Whether a column is spread much wider than the model was scaled for."""
    return any(n.std > OUTGROWN * o.std for o, n in zip(old, new, strict=True))


def convertible(old: Sequence[ColumnScale], new: Sequence[ColumnScale]) -> bool:
    """Whether what is outgrown can be taken up in weights: linear scales alone."""
    pairs = zip(old, new, strict=True)
    return all(
        n.kind == o.kind and (n.kind == "linear" or n.std <= OUTGROWN * o.std) for o, n in pairs
    )


def widened(old: Sequence[ColumnScale], new: Sequence[ColumnScale]) -> tuple[ColumnScale, ...]:
    """Linear columns scaled as in `new`, the unit of their changes as in `old`; others as `old`."""
    return tuple(
        replace(n, step=o.step * o.std / n.std) if n.kind == "linear" else o
        for o, n in zip(old, new, strict=True)
    )


def stretched(old: Sequence[ColumnScale], new: Sequence[ColumnScale]) -> tuple[ColumnScale, ...]:
    """`old` with the extremes of `new`, where these reach farther."""
    made = []
    for o, n in zip(old, new, strict=True):
        shift, ratio = (n.mean - o.mean) / o.std, n.std / o.std
        least, most = n.least * ratio + shift, n.most * ratio + shift
        made.append(replace(o, least=min(o.least, least), most=max(o.most, most)))
    return tuple(made)


@torch.no_grad()
def rescale(
    model: WorldModel, behaviour: Behaviour, old: Sequence[ColumnScale], new: Sequence[ColumnScale]
) -> None:
    """Has networks that were learned for columns `old` say the same of columns `new`.

    `model` and `behaviour` are made for `new` and hold the weights learned for `old`; both describe
    the same columns, linearly. What differs is a fresh belief: it expects the mean of the new data.
    """
    pairs = list(zip(old, new, strict=True))
    ratio = torch.tensor([n.std / o.std for o, n in pairs], dtype=torch.float64)
    shift = torch.tensor([(n.mean - o.mean) / o.std for o, n in pairs], dtype=torch.float64)
    direct = torch.tensor(model.direct, dtype=torch.long)
    for weight, bias, first in _readers(model, behaviour):
        _take_up(weight, bias, first, ratio[direct], shift[direct])
    if (physics := model.physics) is not None:
        physics.left.div_(ratio[direct][physics.order].to(physics.left))
        model.set_units()
    for encoder, columns in _encoders(model):
        _see(encoder, ratio[columns], shift[columns])


def _readers(model: WorldModel, behaviour: Behaviour) -> Iterator[tuple[Tensor, Tensor, int]]:
    """Weights `[..., out, in]` and biases `[..., out]` of all first layers that read latents.

    Beside them, where among their inputs the latents begin.
    """
    memory, actions = model.config.memory, model.actions
    gates = model.memory.gates
    yield gates.weight, gates.bias, memory
    ensemble = model.ensemble
    yield ensemble.weights[0].transpose(1, 2), ensemble.biases[0][:, 0], memory
    read = model.heads
    heads = [read.share, read.alive, read.reward.net, read.cost]
    behaviours = [behaviour.actor.net, behaviour.critic.head.net, behaviour.slow.head.net]
    for nets, first in ((heads, memory), (behaviours, actions + memory)):
        for net in nets:
            if net is not None:
                yield *_first_layer(net), first


def _encoders(model: WorldModel) -> Iterator[tuple[VectorEncoder, list[int]]]:
    """Encoders of observations, and which columns each one is shown."""
    encoder = model.encoder
    if isinstance(encoder, VectorEncoder):
        yield encoder, list(range(model.observations))
    else:
        for expert, columns in zip(encoder.experts, encoder.sensors, strict=True):
            assert isinstance(expert, VectorEncoder)
            yield expert, columns


def _first_layer(net: nn.Sequential) -> tuple[Tensor, Tensor]:
    layer = net[0]
    assert isinstance(layer, nn.Linear)
    return layer.weight, layer.bias


def _take_up(weight: Tensor, bias: Tensor, first: int, ratio: Tensor, shift: Tensor) -> None:
    """Inputs from `first` on come as `(x - shift) / ratio` from now on."""
    part = weight[..., first : first + len(ratio)]
    bias.add_((part.double() @ shift.to(part.device)).to(bias))
    part.copy_(part.double() * ratio.to(part.device))


def _see(encoder: VectorEncoder, ratio: Tensor, shift: Tensor) -> None:
    """The same of an encoder: a shift counts where a column is present, which its mask says."""
    weight, _ = _first_layer(encoder.net)
    values, masks = weight[:, : len(ratio)], weight[:, len(ratio) : 2 * len(ratio)]
    masks.add_((values.double() * shift.to(values.device)).to(masks))
    values.copy_(values.double() * ratio.to(values.device))
