"""What actor and critic see of a state: the state itself, and how far alike columns are apart."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from models.belief import WorldModel
from models.transforms import ColumnScale


class Features(nn.Module):
    """`[action, memory, latent, gaps, turns]` of a state, normalised.

    A gap is the difference of two channels of one unit and range, such as where a robot is and
    where it is to be. A network of the latent alone sees a gap of 1 % of the range as 1 % of its
    inputs, and rests where that is too little to tell; so gaps are given in units of the typical
    change per tick, compressed by `asinh`: fine near zero, still bounded far away. Turns are what a
    periodic model is shown of angles (`WorldModel.turned`).
    """

    left: Tensor
    right: Tensor
    step: Tensor

    def __init__(self, model: WorldModel) -> None:
        super().__init__()
        columns = model.direct_scaler.columns
        pairs = alike(columns)
        step = [max(columns[i].step, columns[j].step) for i, j in pairs]
        for name, side in (("left", 0), ("right", 1)):
            index = torch.tensor([pair[side] for pair in pairs], dtype=torch.long)
            self.register_buffer(name, index, persistent=False)
        self.register_buffer("step", torch.tensor(step), persistent=False)
        sizes = model.actions, model.config.memory, model.latent, len(pairs), model.turns
        self.size = sum(sizes)
        self.any = bool(pairs)
        self.form = model.form
        self.turned = model.turned

    def forward(self, action: Tensor, memory: Tensor, latent: Tensor) -> Tensor:
        """`[N, size]` of the last action `[N, A]`, memory `[N, G]` and latent `[N, Z]`."""
        parts = [action, memory, self.form.seen(latent)]
        if self.any:
            gap = latent.index_select(-1, self.left) - latent.index_select(-1, self.right)
            parts.append(torch.asinh(gap / self.step))
        parts += self.turned(latent)
        return torch.cat(parts, -1)


def alike(columns: Sequence[ColumnScale]) -> list[tuple[int, int]]:
    """Pairs of columns, the same component of two channels that share one linear scale."""

    def key(column: ColumnScale) -> tuple[object, ...]:
        component = column.name.partition("[")[2]
        return component, column.kind, column.low, column.high, column.mean, column.std

    keys = [key(column) if column.kind == "linear" else None for column in columns]
    pairs = [(i, j) for j in range(len(keys)) for i in range(j)]
    return [(i, j) for i, j in pairs if keys[i] is not None and keys[i] == keys[j]]
