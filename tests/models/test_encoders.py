"""Encoders of images and points: what they learn, and that their files compute the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from infra.plants.views import RANGE_M
from models.encoders.example import POINTS, Scaled, draw_camera, draw_lidar, train_encoder
from models.encoders.export import export_encoder
from models.encoders.image import ImageEncoder
from models.encoders.points import PointEncoder
from models.export import TOLERANCE, ParityError


def test_exported_encoders_compute_what_torch_does(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    torch.manual_seed(0)
    image = torch.from_numpy(rng.integers(0, 256, (5, 32, 48, 3), dtype=np.uint8))
    assert export_encoder(ImageEncoder((32, 48), 3), image, tmp_path / "a.onnx") < TOLERANCE
    cloud = torch.from_numpy(rng.normal(size=(5, 20, 3)).astype(np.float32))
    assert export_encoder(PointEncoder(4), cloud, tmp_path / "b.onnx") < TOLERANCE
    for name in "ab":
        assert b"/site-packages/" not in (tmp_path / f"{name}.onnx").read_bytes()


def test_an_encoder_whose_file_differs_does_not_ship(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("models.encoders.export._difference", lambda *_: 0.1)
    with pytest.raises(ParityError, match="do not ship"):
        export_encoder(PointEncoder(2), torch.zeros(2, 4, 3), tmp_path / "a.onnx")


def test_points_may_come_in_any_order_and_often() -> None:
    torch.manual_seed(1)
    encoder = PointEncoder(3)
    cloud = torch.randn(2, 9, 3)
    again = torch.cat([cloud, cloud[:, :4]], 1)[:, torch.randperm(13)]
    assert torch.equal(encoder(cloud), encoder(again))


@pytest.mark.parametrize("kind", ["camera", "lidar"])
def test_encoders_learn_where_a_goal_is(kind: str) -> None:
    torch.manual_seed(0)
    if kind == "camera":
        error = train_encoder(Scaled(ImageEncoder((64, 64), 2)), draw_camera, 60, rows=32)
    else:
        encoder = Scaled(PointEncoder(2, scale=RANGE_M))
        assert draw_lidar(np.random.default_rng(0), 2)[0].shape == (2, POINTS, 3)
        error = train_encoder(encoder, draw_lidar, 150, rows=32)
    assert error < 0.6 * RANGE_M  # of what is guessed without looking, 95 % are below 1.2 ranges
