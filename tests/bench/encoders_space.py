"""A goal from the same returns of a lidar: as points (PointNet), and as voxels."""

from __future__ import annotations

import time

import numpy as np
import torch

from infra.plants.views import RANGE_M
from models.encoders.example import GRID, Scaled, draw_lidar, draw_voxels, train_encoder
from models.encoders.points import PointEncoder
from models.encoders.voxels import VoxelEncoder


def run(seed: int, scale: float) -> dict[str, dict[str, float]]:
    """Per encoder the error that 95 % stay below, m, and ms of CPU a row to encode; 600 updates."""
    torch.manual_seed(seed)
    found = {}
    for name, encoder, draw in (
        ("points", Scaled(PointEncoder(2, scale=RANGE_M)), draw_lidar),
        ("voxels", Scaled(VoxelEncoder(GRID, 2)), draw_voxels),
    ):
        error = train_encoder(encoder, draw, max(1, round(600 * scale)), seed)
        raw, _ = draw(np.random.default_rng(seed), 64)
        with torch.no_grad():
            encoder(raw)
            began = time.process_time()
            for _ in range(5):
                encoder(raw)
        spent = (time.process_time() - began) / 5 / len(raw)
        found[name] = {"error_95": error, "ms_a_row": 1e3 * spent}
    return found
