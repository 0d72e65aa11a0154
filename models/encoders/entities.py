"""An encoder of sets of entities: attention along the edges of the graph of who sees whom."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.heads import mlp


class GraphAttention(nn.Module):
    """One layer of graph attention: nodes [B, N, inputs] → [B, N, width]; all who are there are
    each other's neighbours, and their own.

    As Veličković et al. (2018), with the order of steps of Brody, Alon and Yahav (2022: GATv2), by
    which who is attended to may depend on who attends. What passes along an edge depends on both
    its ends, so that a layer can tell how far two are apart.
    """

    def __init__(self, inputs: int, width: int, heads: int) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"width {width}: take a multiple of heads {heads}")
        self.heads = heads
        self.receive, self.send = nn.Linear(inputs, width), nn.Linear(inputs, width)
        self.score = nn.Linear(width, heads)
        self.message = nn.Linear(width, width)

    def forward(self, nodes: Tensor, present: Tensor) -> Tensor:
        """[B, N, width]; `present` [B, N] is 1 of nodes that are there: others tell nothing."""
        edges = F.leaky_relu(self.receive(nodes).unsqueeze(2) + self.send(nodes).unsqueeze(1), 0.2)
        there = present[:, None, :, None] > 0
        score = self.score(edges).masked_fill(~there, -1e9)
        weight = torch.softmax(score, 2)  # [B, N, N, heads]
        told = self.message(edges).unflatten(-1, (self.heads, -1))
        heard: Tensor = (weight.unsqueeze(-1) * told).sum(2).flatten(2)
        return heard


class EntityEncoder(nn.Module):
    """float32 [B, K, fields + 1] → [B, outputs], whatever the order of the entities, and K.

    The last column is 1 where there is an entity, else 0. The one that sees them is a node of the
    graph as well, always there: alone, it attends to itself. What is read off is what it knows
    after `layers` of graph attention; with two it has heard how its neighbours stand to each other.
    Beside it stands how many there are, which attention, a mean, cannot tell (Xu et al. 2019).
    `scale` is what the fields are divided by, one for all or one each.
    """

    scale: Tensor

    def __init__(
        self,
        fields: int,
        outputs: int,
        width: int = 32,
        heads: int = 4,
        layers: int = 2,
        units: int = 64,
        scale: float | tuple[float, ...] = 1.0,
    ) -> None:
        super().__init__()
        sizes = [fields + 1, *[width] * layers]
        self.layers = nn.ModuleList(GraphAttention(inputs, width, heads) for inputs in sizes[:-1])
        self.skips = nn.ModuleList(nn.Linear(inputs, width) for inputs in sizes[:-1])
        self.register_buffer("scale", torch.tensor(scale, dtype=torch.float32), persistent=False)
        self.read = mlp(width + 1, units, outputs)

    def nodes(self, entities: Tensor) -> Tensor:
        """[B, 1 + K, width] what each knows in the end, first the one that sees the others."""
        present = F.pad(entities[..., -1], (1, 0), value=1.0)
        seen = F.pad(entities[..., :-1] / self.scale * entities[..., -1:], (0, 0, 1, 0))
        # The last column tells the one that sees from those who are seen.
        nodes = torch.cat([seen, F.pad(entities[..., -1:], (0, 0, 1, 0))], -1)
        for layer, skip in zip(self.layers, self.skips, strict=True):
            nodes = torch.relu(layer(nodes, present) + skip(nodes))
        return nodes

    def forward(self, entities: Tensor) -> Tensor:
        """[B, outputs]."""
        count = entities[..., -1:].sum(1).log1p()
        found: Tensor = self.read(torch.cat([self.nodes(entities)[:, 0], count], -1))
        return found
