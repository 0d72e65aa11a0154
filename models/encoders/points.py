"""An encoder of clouds of points, after PointNet (Qi et al., 2017): each point, then the most."""

from torch import Tensor, nn

from models.heads import mlp


class PointEncoder(nn.Module):
    """float32 [B, P, 3] → [B, outputs], whatever the order of the points, and how often each comes.

    So a cloud of fewer points may be filled up with any of them.
    """

    def __init__(
        self, outputs: int, units: int = 64, features: int = 128, scale: float = 1.0
    ) -> None:
        super().__init__()
        self.scale = scale
        self.point = mlp(3, units, features, layers=2)
        self.read = mlp(features, units, outputs)

    def forward(self, points: Tensor) -> Tensor:
        """[B, outputs]; coordinates are divided by `scale` first."""
        found: Tensor = self.read(self.point(points / self.scale).amax(1))
        return found
