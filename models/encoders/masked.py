"""Masked pretraining of a series encoder: some pieces are hidden, and told from the others."""

import torch
from torch import Tensor, nn

from models.encoders.series import AttentionSeriesEncoder


class MaskedSeries(nn.Module):
    """What `encoder` is learned in where nobody says what series mean.

    Hidden pieces are one learned token in their places; a linear layer tells their values from what
    comes out of the blocks (He et al. 2022; Nie et al. 2023: PatchTST). Everything but that token,
    that layer and the encoder's own `read` is kept for what comes after.
    """

    def __init__(self, encoder: AttentionSeriesEncoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.hidden = nn.Parameter(torch.zeros(encoder.embed.out_features))
        self.tell = nn.Linear(encoder.embed.out_features, encoder.embed.in_features)

    def forward(self, series: Tensor, hide: Tensor) -> Tensor:
        """`[B, P, piece * C]` all pieces as told of those that are not hidden.

        Args:
            series: `[B, T, C]` float32.
            hide: `[B, P]` where pieces are hidden; their values have no effect.
        """
        embedded = self.encoder.embed(self.encoder.pieces(series))
        seen = torch.where(hide.unsqueeze(-1), self.hidden, embedded)
        found: Tensor = self.tell(self.encoder.tokens(seen))
        return found

    def loss(self, series: Tensor, hide: Tensor) -> Tensor:
        """Mean squared error of the hidden pieces' values, in units of the encoder's `scale`."""
        error = self(series, hide) - self.encoder.pieces(series)
        found: Tensor = error[hide].square().mean()
        return found


def draw_hidden(rows: int, pieces: int, share: float, generator: torch.Generator) -> Tensor:
    """`[rows, pieces]` as many hidden in each row: `share` of them, one at least and not all."""
    count = min(max(1, round(share * pieces)), pieces - 1)
    order = torch.rand(rows, pieces, generator=generator).argsort(1)
    return order.argsort(1) < count
