"""One goal, seen by a camera and a lidar, either of which may be away: fused, or put side by side.

What is fused is what `perceive` publishes: the embeddings of the example's encoders, ONNX files, of
JPEG images and packed points. `clear` pictures are as they are; of `hidden` ones a random share of
the pixels, up to `MOST`, is covered, so that some tell much and others nothing, which no embedding
says of itself.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

import streams
from infra.plants.views import RANGE_M, clouds, jpeg, pictures
from models.encoders.fusion import Fusion
from models.heads import mlp
from planner.encoder import Encoder
from schemas.system import load_spec
from streams.raw_inputs import RawReader

SPEC = Path(streams.__file__).parent / "examples" / "sight.yaml"
SIZES, BATCH = (2, 2), 64
MOST = 0.95
CASES = {"both": (1, 1), "camera": (1, 0), "lidar": (0, 1), "none": (0, 0)}


class SideBySide(nn.Module):
    """Embeddings beside each other, zeros where absent, and which are there; one network of all."""

    def __init__(self, units: int = 64) -> None:
        super().__init__()
        self.net = mlp(sum(SIZES) + len(SIZES), units, 4, layers=2)

    def forward(self, embeddings: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation [B, 2], as `Fusion` has them."""
        there = present.repeat_interleave(torch.tensor(SIZES), 1)
        mean, raw = self.net(torch.cat([embeddings * there, present], 1)).chunk(2, -1)
        return mean, torch.exp(-4.0 * torch.tanh(raw))


def embeddings(seed: int, count: int, most: float) -> tuple[Tensor, Tensor]:
    """[count, 4] what both encoders make of raw messages, and [count, 2] goals; range 1."""
    rng, parts = np.random.default_rng([seed, 9]), []
    offset = rng.uniform(-0.95 * RANGE_M, 0.95 * RANGE_M, (count, 2))
    seen = pictures(offset, rng)
    hidden = rng.random((count, 64, 64)) < rng.uniform(0, most, (count, 1, 1))
    seen = np.where(hidden[..., None], np.uint8(70), seen)
    messages = [jpeg(picture) for picture in seen], [c.tobytes() for c in clouds(offset, rng, 128)]
    for (sensor, raw), own in zip(load_spec(SPEC).perceived, messages, strict=True):
        reader = RawReader(sensor, raw)
        rows = [reader.read(b"robot", message, {"ts": b"0"}).row for message in own]
        parts.append(Encoder(raw, 2, "cpu").encode(np.stack(rows)))
    told = np.concatenate(parts, 1) / RANGE_M
    return torch.from_numpy(told).float(), torch.from_numpy(offset / RANGE_M).float()


def run(seed: int, scale: float) -> dict[str, dict[str, dict[str, float]]]:
    """Per kind of picture, way and case the root mean square error, m along an axis.

    `fused` and `side_by_side` learned with each sense away in a third of the examples; those with
    `_whole` only ever saw both.
    """
    return {"clear": _ways(seed, scale, 0.0), "hidden": _ways(seed, scale, MOST)}


def _ways(seed: int, scale: float, most: float) -> dict[str, dict[str, float]]:
    count = max(100, round(3_000 * scale))
    train = embeddings(2 * seed, count, most)
    test = embeddings(2 * seed + 1, max(50, count // 3), most)
    found: dict[str, dict[str, float]] = {}
    for name, away in (("", 1 / 3), ("_whole", 0.0)):
        torch.manual_seed(seed)
        for way, model in (("fused", Fusion(SIZES, 2)), ("side_by_side", SideBySide())):
            _fit(model, *train, away, seed, max(1, round(1_500 * scale)))
            found[way + name] = {case: _error(model, *test, here) for case, here in CASES.items()}
    return found


def _fit(model: nn.Module, told: Tensor, truth: Tensor, away: float, seed: int, steps: int) -> None:
    """By the likelihood of the truth under the Gaussian that the model gives."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        chosen = torch.randint(len(told), (BATCH,), generator=generator)
        present = (torch.rand(BATCH, 2, generator=generator) >= away).float()
        mean, std = model(told[chosen], present)
        off = (truth[chosen] - mean) / std
        loss = (0.5 * off.square() + std.log()).mean()
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        schedule.step()


@torch.no_grad()
def _error(model: nn.Module, told: Tensor, truth: Tensor, here: tuple[int, int]) -> float:
    present = torch.tensor(here, dtype=torch.float32).expand(len(told), 2)
    mean, _ = model(told, present)
    return RANGE_M * float((mean - truth).square().mean().sqrt())
