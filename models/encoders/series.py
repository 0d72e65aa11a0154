"""Encoders of time series: causal convolutions, or attention among the pieces of a window."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.heads import mlp


class _Level(nn.Module):
    """One level of a temporal convolutional network: a residual, causal, dilated convolution."""

    def __init__(self, inputs: int, width: int, kernel: int, dilation: int) -> None:
        super().__init__()
        self.past = (kernel - 1) * dilation
        self.filter = nn.Conv1d(inputs, width, kernel, dilation=dilation)
        self.skip = nn.Conv1d(inputs, width, 1) if inputs != width else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """`[B, width, T]`; tick t sees `[t - past, t]` alone, and zeros before the window."""
        found: Tensor = torch.relu(self.filter(F.pad(x, (self.past, 0))) + self.skip(x))
        return found


class ConvSeriesEncoder(nn.Module):
    """float32 [B, T, C] → [B, outputs], by a temporal convolutional network (Bai et al. 2018).

    Each level looks twice as far back as the one before it. What is read off are the features at
    the last tick and their mean over the window: where the series stands, and how it was.
    """

    def __init__(
        self,
        channels: int,
        outputs: int,
        widths: Sequence[int] = (16, 16, 16, 16, 16),
        kernel: int = 7,
        units: int = 64,
        scale: float = 1.0,
    ) -> None:
        super().__init__()
        self.scale = scale
        sizes = [channels, *widths]
        self.levels = nn.Sequential(
            *(_Level(sizes[i], sizes[i + 1], kernel, 2**i) for i in range(len(widths)))
        )
        self.sight = 1 + sum((kernel - 1) * 2**i for i in range(len(widths)))
        self.read = mlp(2 * sizes[-1], units, outputs)

    def features(self, series: Tensor) -> Tensor:
        """`[B, T, width]`, of each tick from the last `sight` ticks; values over `scale`."""
        found: Tensor = self.levels((series / self.scale).transpose(1, 2))
        return found.transpose(1, 2)

    def forward(self, series: Tensor) -> Tensor:
        """[B, outputs]."""
        features = self.features(series)
        found: Tensor = self.read(torch.cat([features[:, -1], features.mean(1)], -1))
        return found


class _Block(nn.Module):
    """One layer of a transformer, normalised first (Xiong et al. 2020); attends to all pieces."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.size = heads, width // heads
        self.before, self.between = nn.LayerNorm(width), nn.LayerNorm(width)
        self.ask = nn.Linear(width, 3 * width)
        self.answer = nn.Linear(width, width)
        self.think = mlp(width, 2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, P, width]`."""
        query, key, value = (
            part.unflatten(-1, (self.heads, self.size)).transpose(1, 2)
            for part in self.ask(self.before(x)).chunk(3, -1)
        )
        # Written out, as a fused attention is an operator of its own on some providers only.
        weight = torch.softmax(query @ key.transpose(-1, -2) / math.sqrt(self.size), -1)
        x = x + self.answer((weight @ value).transpose(1, 2).flatten(2))
        thought: Tensor = x + self.think(self.between(x))
        return thought


class AttentionSeriesEncoder(nn.Module):
    """float32 [B, T, C] → [B, outputs], by a small transformer (Vaswani et al. 2017).

    The window is cut into pieces of `piece` ticks, each one token (as Nie et al. 2023 do), which
    know their places; the mean over what comes out is read off.

    Raises:
        ValueError: `length` is no multiple of `piece`, or `width` none of `heads`.
    """

    def __init__(
        self,
        length: int,
        channels: int,
        outputs: int,
        piece: int = 16,
        width: int = 32,
        heads: int = 4,
        layers: int = 2,
        units: int = 64,
        scale: float = 1.0,
    ) -> None:
        super().__init__()
        if length % piece or width % heads:
            raise ValueError(
                f"length {length} and width {width}: take multiples of piece {piece} and of heads "
                f"{heads}"
            )
        self.scale, self.piece = scale, piece
        self.embed = nn.Linear(piece * channels, width)
        self.place = nn.Parameter(0.1 * torch.randn(length // piece, width))
        self.blocks = nn.Sequential(*(_Block(width, heads) for _ in range(layers)))
        self.read = nn.Sequential(nn.LayerNorm(width), mlp(width, units, outputs))

    def pieces(self, series: Tensor) -> Tensor:
        """`[B, P, piece * C]` of `[B, T, C]`; values are divided by `scale`."""
        size = self.piece * series.shape[2]
        return (series / self.scale).reshape(series.shape[0], -1, size)

    def tokens(self, embedded: Tensor) -> Tensor:
        """`[B, P, width]` what each piece has become among the others, of pieces embedded."""
        found: Tensor = self.blocks(embedded + self.place)
        return found

    def forward(self, series: Tensor) -> Tensor:
        """[B, outputs]."""
        found: Tensor = self.read(self.tokens(self.embed(self.pieces(series))).mean(1))
        return found
