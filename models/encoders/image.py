"""An encoder of images: strided convolutions, then where in the image each feature is."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from models.heads import mlp


def places(sides: Sequence[int]) -> Tensor:
    """[cells, axes] of a grid's cells in their order, each axis from -1 to 1."""
    axes = [torch.linspace(-1, 1, side) for side in sides]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).reshape(-1, len(sides))


class ImageEncoder(nn.Module):
    """uint8 [B, H, W, 3] → [B, outputs]; normalises by itself, so that bytes are all it is sent.

    What is read off are the mean places of the features (spatial softmax, Levine et al., 2016): few
    weights, and positions finer than a pixel.
    """

    def __init__(
        self,
        size: tuple[int, int],
        outputs: int,
        channels: Sequence[int] = (16, 16),
        units: int = 64,
    ) -> None:
        super().__init__()
        if any(side % 2 ** len(channels) for side in size):
            raise ValueError(f"size {size}: sides are multiples of {2 ** len(channels)}")
        parts: list[nn.Module] = []
        inputs = 3
        for width in channels:
            parts += [nn.Conv2d(inputs, width, 3, stride=2, padding=1), nn.ReLU()]
            inputs = width
        self.features = nn.Sequential(*parts, nn.Conv2d(inputs, inputs, 3, padding=1))
        self.register_buffer("grid", places([side >> len(channels) for side in size]))
        self.read = mlp(2 * inputs, units, outputs)

    def forward(self, image: Tensor) -> Tensor:
        """[B, outputs]."""
        x = image.permute(0, 3, 1, 2).to(torch.float32) / 127.5 - 1.0
        seen = torch.softmax(self.features(x).flatten(2), -1) @ self.get_buffer("grid")
        found: Tensor = self.read(seen.flatten(1))
        return found
