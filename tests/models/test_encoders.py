"""Encoders of images and points: that they learn, and that their files compute the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from infra.plants.views import PIXELS, RANGE_M
from models.encoders.example import POINTS, Scaled, draw_camera, draw_lidar, train_encoder
from models.encoders.export import difference, export_encoder
from models.encoders.image import ImageEncoder
from models.encoders.points import PointEncoder
from models.export import TOLERANCE


def test_exported_encoders_compute_what_torch_does(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    torch.manual_seed(0)
    image = torch.from_numpy(rng.integers(0, 256, (5, 16, 24, 3), dtype=np.uint8))
    assert export_encoder(ImageEncoder((16, 24), 3), image, tmp_path / "a.onnx") < TOLERANCE
    cloud = torch.from_numpy(rng.normal(size=(5, 20, 3)).astype(np.float32))
    assert export_encoder(PointEncoder(4), cloud, tmp_path / "b.onnx") < TOLERANCE
    for name in "ab":
        assert b"/site-packages/" not in (tmp_path / f"{name}.onnx").read_bytes()
    assert difference(PointEncoder(4), cloud, tmp_path / "b.onnx") > TOLERANCE
    assert difference(PointEncoder(3), cloud, tmp_path / "b.onnx") == float("inf")


def test_points_may_come_in_any_order_and_often() -> None:
    torch.manual_seed(1)
    encoder = PointEncoder(3)
    cloud = torch.randn(2, 9, 3)
    again = torch.cat([cloud, cloud[:, :4]], 1)[:, torch.randperm(13)]
    assert torch.allclose(encoder(cloud), encoder(again), atol=1e-6)


def test_examples_are_drawn_in_metres() -> None:
    rng = np.random.default_rng(0)
    for draw, shape in ((draw_camera, (PIXELS, PIXELS, 3)), (draw_lidar, (POINTS, 3))):
        raw, truth = draw(rng, 3)
        assert (tuple(raw.shape), tuple(truth.shape)) == ((3, *shape), (3, 2))
        assert truth.abs().max() < RANGE_M


def draw_spot(rng: np.random.Generator, count: int) -> tuple[Tensor, Tensor]:
    """A white spot on black, and its place from the middle."""
    place = rng.integers(2, 14, (count, 2))
    image = np.zeros((count, 16, 16, 3), np.uint8)
    for one, (row, column) in zip(image, place, strict=True):
        one[row - 1 : row + 2, column - 1 : column + 2] = 255
    return torch.from_numpy(image), torch.from_numpy(place - 7.5).float()


def draw_point(rng: np.random.Generator, count: int) -> tuple[Tensor, Tensor]:
    """One point among others near the origin, and its place."""
    place = rng.uniform(-8, 8, (count, 1, 3))
    cloud = np.concatenate([place, rng.normal(0, 0.1, (count, 7, 3))], axis=1)
    return torch.from_numpy(cloud).float(), torch.from_numpy(place[:, 0, :2]).float()


@pytest.mark.parametrize("kind", ["image", "points"])
def test_encoders_learn_where_something_is(kind: str) -> None:
    torch.manual_seed(0)
    if kind == "image":
        error = train_encoder(Scaled(ImageEncoder((16, 16), 2)), draw_spot, 150, rows=32)
    else:
        encoder = Scaled(PointEncoder(2, scale=RANGE_M))
        error = train_encoder(encoder, draw_point, 150, rows=32)
    assert error < 2.0  # of what is guessed without looking, 95 % are below 9 m
