"""Trains the example encoders: where a goal is, from pictures or points; how a shaft turns.

    python -m models.encoders.example OUT

writes `OUT/camera.onnx`, `OUT/lidar.onnx` and `OUT/vibration.onnx`, in a few minutes on one core.
What they are trained on is drawn by `infra/plants/views.py` and `waveforms.py`. Take it as a
pattern for encoders of your own.
"""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from infra.plants.views import PIXELS, RANGE_M, clouds, jpeg, pictures, unjpeg
from infra.plants.waveforms import FULL_SCALE, SPEEDS_HZ, vibrations
from models.encoders.export import export_encoder
from models.encoders.image import ImageEncoder
from models.encoders.points import PointEncoder
from models.encoders.series import ConvSeriesEncoder
from schemas.plain_json import json_line

POINTS = 128  # of each cloud
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


def main(out: Path) -> None:
    """Both, with their errors as a line of JSON."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    out.mkdir(parents=True, exist_ok=True)
    camera = Scaled(ImageEncoder((PIXELS, PIXELS), 2))
    lidar = Scaled(PointEncoder(2, scale=RANGE_M))
    vibration = Scaled(ConvSeriesEncoder(1, 2, scale=FULL_SCALE), TURNS)
    rng = np.random.default_rng(1)
    errors = {}
    for name, encoder, draw, steps in (
        ("camera", camera, draw_camera, 600),
        ("lidar", lidar, draw_lidar, 1_500),
        ("vibration", vibration, draw_vibration, 600),
    ):
        unit = "error" if encoder is vibration else "error_m"
        errors[name] = {unit: round(train_encoder(encoder, draw, steps), 3)}
        errors[name]["parity"] = export_encoder(encoder, draw(rng, 17)[0], out / f"{name}.onnx")
    sys.stdout.write(json_line(errors) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
