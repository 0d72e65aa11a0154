"""An encoder of occupancy grids: convolutions in space, then where each feature is."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from models.encoders.image import places
from models.heads import mlp


class VoxelEncoder(nn.Module):
    """[B, X, Y, Z] of 0 and 1, of any type → [B, outputs].

    Convolutions in three dimensions (Maturana and Scherer 2015: VoxNet), of which the mean places
    of the features are read off, as `ImageEncoder` does. Each of `channels` halves the grid.
    """

    def __init__(
        self,
        size: tuple[int, int, int],
        outputs: int,
        channels: Sequence[int] = (8,),
        units: int = 64,
    ) -> None:
        super().__init__()
        halved = 2 ** len(channels)
        if any(side % halved for side in size):
            raise ValueError(f"size {size}: sides are multiples of {halved}")
        parts: list[nn.Module] = []
        inputs = 1
        for width in channels:
            parts += [nn.Conv3d(inputs, width, 3, stride=2, padding=1), nn.ReLU()]
            inputs = width
        self.features = nn.Sequential(*parts, nn.Conv3d(inputs, inputs, 3, padding=1))
        # Few cells are full, so features begin nearly flat: a softmax of them would be everywhere.
        self.sharpness = nn.Parameter(torch.tensor(10.0))
        self.register_buffer("grid", places([side // halved for side in size]))
        self.read = mlp(3 * inputs, units, outputs)

    def forward(self, voxels: Tensor) -> Tensor:
        """[B, outputs]."""
        seen = self.features(voxels.to(torch.float32).unsqueeze(1)).flatten(2)
        where = torch.softmax(self.sharpness * seen, -1) @ self.get_buffer("grid")
        found: Tensor = self.read(where.flatten(1))
        return found
