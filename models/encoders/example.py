"""Trains the example encoders: where a goal is, who pushes a robot, how a shaft turns.

    python -m models.encoders.example OUT [NAME …]

writes `OUT/NAME.onnx`: `camera` (pictures), `lidar` (points) and `voxels` (the same points as a
grid) find a goal, `others` (a set of entities) what others push a robot with, and `vibration` (a
time series) how a shaft turns; in some minutes on one core. What they are trained on is drawn by
`infra/plants/views.py`, `crowd.py` and `waveforms.py`. Take it as a pattern for encoders of your
own.
"""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn

from infra.plants.base import Floats
from infra.plants.crowd import SEEN, neighbours, pushes
from infra.plants.views import PIXELS, RANGE_M, clouds, jpeg, pictures, unjpeg
from infra.plants.waveforms import FULL_SCALE, SPEEDS_HZ, vibrations
from models.encoders.entities import EntityEncoder
from models.encoders.export import export_encoder
from models.encoders.image import ImageEncoder
from models.encoders.points import PointEncoder
from models.encoders.series import ConvSeriesEncoder
from models.encoders.voxels import VoxelEncoder
from schemas.perceive import occupancy
from schemas.plain_json import json_line

POINTS = 128  # of each cloud
GRID, LOW_M, HIGH_M = (32, 32, 4), (-10.5, -10.5, -0.5), (10.5, 10.5, 2.5)
OTHERS, SIGHT_M = 8, 6.0  # how many are seen, how far
PUSH, PUSH_DECAY_M = 2.0, 1.0
TURNS = (SPEEDS_HZ[1], 1.0)  # units of speed and severity
Draw = Callable[[np.random.Generator, int], tuple[Tensor, Tensor]]


class Scaled(nn.Module):
    """An encoder whose outputs have units: it learns them in parts of `scale`, metres of range.

    `scale` may also have an entry for each output.
    """

    scale: Tensor

    def __init__(self, inner: nn.Module, scale: float | Sequence[float] = RANGE_M) -> None:
        super().__init__()
        self.inner = inner
        self.register_buffer("scale", torch.tensor(scale, dtype=torch.float32), persistent=False)

    def forward(self, raw: Tensor) -> Tensor:
        """[rows, outputs] in their units."""
        found: Tensor = self.inner(raw) * self.scale
        return found


def draw_camera(rng: np.random.Generator, count: int) -> tuple[Tensor, Tensor]:
    """Pictures [count, H, W, 3] as JPEG leaves them, and the goals in them, [count, 2] metres."""
    offset = rng.uniform(-0.95 * RANGE_M, 0.95 * RANGE_M, (count, 2))
    seen = np.stack([unjpeg(jpeg(picture)) for picture in pictures(offset, rng)])
    return torch.from_numpy(seen), torch.from_numpy(offset).float()


def draw_lidar(rng: np.random.Generator, count: int) -> tuple[Tensor, Tensor]:
    """Clouds [count, POINTS, 3] metres, and the poles in them, [count, 2] metres."""
    offset = rng.uniform(-0.95 * RANGE_M, 0.95 * RANGE_M, (count, 2))
    seen = np.stack(clouds(offset, rng, POINTS))
    return torch.from_numpy(seen), torch.from_numpy(offset).float()


def draw_voxels(rng: np.random.Generator, count: int) -> tuple[Tensor, Tensor]:
    """Clouds as grids [count, *GRID], and the poles in them, [count, 2] metres."""
    offset = rng.uniform(-0.95 * RANGE_M, 0.95 * RANGE_M, (count, 2))
    seen = np.stack([occupancy(cloud, LOW_M, HIGH_M, GRID) for cloud in clouds(offset, rng)])
    return torch.from_numpy(seen), torch.from_numpy(offset).float()


def draw_others(rng: np.random.Generator, count: int) -> tuple[Tensor, Tensor]:
    """Entities [count, OTHERS, 5] as robots see them in crowds of any density, alone too, and what
    these push them with, [count, 2] m/s².
    """
    seen, pushed = list[Floats](), list[Floats]()
    while len(seen) < count:
        robots, arena = int(rng.integers(1, 21)), rng.uniform(2.5, 8.0)
        position, velocity = rng.uniform(-arena, arena, (robots, 2)), rng.normal(0, 1, (robots, 2))
        seen += list(neighbours(position, velocity, SIGHT_M, OTHERS))
        pushed += list(pushes(position, PUSH, PUSH_DECAY_M))
    return entity_rows(np.stack(seen[:count])), torch.from_numpy(np.stack(pushed[:count])).float()


def entity_rows(seen: Floats) -> Tensor:
    """[n, most, fields + 1] as `perceive` hands them on, of [n, most, fields]; NaN: none."""
    present = ~np.isnan(seen).any(-1, keepdims=True)
    rows = np.concatenate([np.where(present, seen, 0.0), present], -1)
    return torch.from_numpy(rows.astype(np.float32))


def draw_vibration(rng: np.random.Generator, count: int) -> tuple[Tensor, Tensor]:
    """Waveforms [count, SAMPLES, 1] as numbers, and [count, 2] turns in Hz and severity."""
    speed, severity = rng.uniform(*SPEEDS_HZ, count), rng.random(count)
    seen = vibrations(speed, severity, rng).astype(np.float32)
    truth = np.stack([speed, severity], 1)
    return torch.from_numpy(seen), torch.from_numpy(truth).float()


def train_encoder(encoder: Scaled, draw: Draw, steps: int, seed: int = 0, rows: int = 64) -> float:
    """Fits `encoder` to what `draw` gives, every batch drawn anew.

    Returns:
        The error that 95 % of fresh examples stay below, in metres; where outputs have a scale
        each, in parts of these.
    """
    rng = np.random.default_rng(seed)
    optimizer = torch.optim.Adam(encoder.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        raw, truth = draw(rng, rows)
        error = (encoder(raw) - truth) / encoder.scale
        loss = nn.functional.smooth_l1_loss(error, torch.zeros_like(error), beta=0.02)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        schedule.step()
    raw, truth = draw(rng, 500)
    with torch.no_grad():
        error = encoder(raw) - truth
        error = error / encoder.scale if encoder.scale.ndim else error
        error = torch.linalg.vector_norm(error, dim=1)
    return float(torch.quantile(error, 0.95))


def learner(name: str) -> tuple[Scaled, Draw, int]:
    """An untrained example, what draws for it, and how many updates it takes."""
    if name == "camera":
        return Scaled(ImageEncoder((PIXELS, PIXELS), 2)), draw_camera, 600
    if name == "lidar":
        return Scaled(PointEncoder(2, scale=RANGE_M)), draw_lidar, 1_500
    if name == "voxels":
        return Scaled(VoxelEncoder(GRID, 2)), draw_voxels, 600
    if name == "others":
        scale = (SIGHT_M, SIGHT_M, 1.0, 1.0)
        return Scaled(EntityEncoder(len(SEEN), 2, scale=scale), PUSH), draw_others, 1_200
    return Scaled(ConvSeriesEncoder(1, 2, scale=FULL_SCALE), TURNS), draw_vibration, 600


NAMES: Final = {"camera": "m", "lidar": "m", "voxels": "m", "others": "m_s2", "vibration": ""}
"""The examples, and the unit of their errors."""


def main(out: Path, names: Sequence[str] = tuple(NAMES)) -> None:
    """Trains `names`; their errors as a line of JSON."""
    torch.set_num_threads(1)
    out.mkdir(parents=True, exist_ok=True)
    errors = {}
    for name in names:
        torch.manual_seed(0)
        encoder, draw, steps = learner(name)
        unit = "_".join(["error", *filter(None, [NAMES[name]])])
        free = {1: "entities"} if name == "others" else None
        example = draw(np.random.default_rng(1), 17)[0]
        errors[name] = {unit: round(train_encoder(encoder, draw, steps), 3)}
        errors[name]["parity"] = export_encoder(encoder, example, out / f"{name}.onnx", free)
    sys.stdout.write(json_line(errors) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:] or tuple(NAMES))
