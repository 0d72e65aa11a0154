"""Encoders of voxels and of sets of entities: no order, no absent ones, any number, and in ONNX."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from infra.plants.views import RANGE_M
from models.encoders.entities import EntityEncoder, GraphAttention
from models.encoders.example import (
    GRID,
    OTHERS,
    Scaled,
    draw_others,
    draw_voxels,
    train_encoder,
)
from models.encoders.export import difference, export_encoder
from models.encoders.voxels import VoxelEncoder
from models.export import TOLERANCE

SEEDS = st.integers(0, 2**31)


def crowd(seed: int, entities: int, share: float = 0.6) -> Tensor:
    """[3, entities, 5] of which about `share` are there, the others zeros."""
    g = torch.Generator().manual_seed(seed)
    there = (torch.rand(3, entities, 1, generator=g) < share).float()
    return torch.cat([torch.randn(3, entities, 4, generator=g) * there, there], -1)


def encoder() -> EntityEncoder:
    torch.manual_seed(0)
    return EntityEncoder(4, 2, width=8, heads=2, units=8)


@given(SEEDS, st.integers(1, 7))
@settings(max_examples=40)
def test_entities_have_no_order(seed: int, count: int) -> None:
    seen, model = crowd(seed, count), encoder()
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        torch.testing.assert_close(model(seen[:, order]), model(seen), atol=1e-5, rtol=1e-5)
        nodes, again = model.nodes(seen), model.nodes(seen[:, order])
    # who is listed elsewhere knows the same there; nodes of absent entities mean nothing
    there = seen[:, order, -1:] > 0
    moved = torch.where(there, nodes[:, 1:][:, order], 0.0)
    torch.testing.assert_close(torch.where(there, again[:, 1:], 0.0), moved, atol=1e-5, rtol=1e-5)


@given(SEEDS, st.integers(0, 5))
@settings(max_examples=40)
def test_absent_entities_change_nothing_whatever_they_hold(seed: int, more: int) -> None:
    seen, model = crowd(seed, 4), encoder()
    g = torch.Generator().manual_seed(seed)
    absent = torch.cat([torch.randn(3, more, 4, generator=g), torch.zeros(3, more, 1)], -1)
    with torch.no_grad():
        alone = model(torch.zeros(3, 0, 5))
        longer = model(torch.cat([seen, absent], 1))
        torch.testing.assert_close(longer, model(seen), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(model(absent), alone, atol=1e-5, rtol=1e-5)


def test_who_is_attended_to_depends_on_who_attends() -> None:
    """What GATv2 is for: the order of the scores is not the same for all nodes."""
    torch.manual_seed(2)
    layer = GraphAttention(2, 16, 1)
    with torch.no_grad():
        nodes = 3.0 * torch.randn(1, 12, 2)
        edges = torch.nn.functional.leaky_relu(
            layer.receive(nodes).unsqueeze(2) + layer.send(nodes).unsqueeze(1), 0.2
        )
        most = layer.score(edges)[0, :, :, 0].argmax(1)
    assert len(set(most.tolist())) > 1
    with pytest.raises(ValueError, match="multiple of heads"):
        GraphAttention(2, 7, 2)


def test_graphs_take_any_number_of_entities(tmp_path: Path) -> None:
    model, path = encoder(), tmp_path / "a.onnx"
    assert export_encoder(model, crowd(0, 4), path, {1: "entities"}) < TOLERANCE
    for count in (1, 9, 33):
        assert difference(model, crowd(count, count), path) < TOLERANCE
    with torch.no_grad():
        next(model.parameters()).mul_(1.5)
    assert difference(model, crowd(0, 4), path) > TOLERANCE


def test_voxels_are_exported_as_bytes_and_as_numbers(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = VoxelEncoder((8, 8, 4), 3)
    grid = (torch.rand(5, 8, 8, 4) < 0.1).to(torch.uint8)
    for kind in (torch.uint8, torch.float32):
        assert export_encoder(model, grid.to(kind), tmp_path / "a.onnx") < TOLERANCE
    with pytest.raises(ValueError, match="multiples of 2"):
        VoxelEncoder((8, 7, 4), 3)


def test_examples_are_drawn_in_their_units() -> None:
    grid, place = draw_voxels(np.random.default_rng(0), 3)
    assert (tuple(grid.shape), grid.dtype) == ((3, *GRID), torch.uint8)
    assert place.abs().max() < RANGE_M
    assert 50 < grid.sum((1, 2, 3)).min() < 280  # returns, of which some share a cell
    seen, push = draw_others(np.random.default_rng(0), 60)
    assert (tuple(seen.shape), tuple(push.shape)) == ((60, OTHERS, 5), (60, 2))
    assert set(seen[..., -1].flatten().tolist()) == {0.0, 1.0}
    near = seen[:, 0]
    alone = near[:, -1] == 0
    towards = (near[:, :2] * push).sum(1)[~alone]
    assert (towards < 0).float().mean() > 0.8  # away from the nearest
    assert seen[..., :-1][seen[..., -1] == 0].abs().max() == 0.0


def draw_single(rng: np.random.Generator, count: int) -> tuple[Tensor, Tensor]:
    """One cell that is full, and where."""
    place = rng.integers(1, 7, (count, 2))
    grid = np.zeros((count, 8, 8, 2), np.uint8)
    grid[np.arange(count), place[:, 0], place[:, 1], 0] = 1
    return torch.from_numpy(grid), torch.from_numpy(place - 3.5).float()


def draw_sum(rng: np.random.Generator, count: int) -> tuple[Tensor, Tensor]:
    """Up to three others, and their places added up: a mean alone cannot tell."""
    where = rng.uniform(-1, 1, (count, 3, 2))
    there = np.arange(3)[None] < rng.integers(0, 4, (count, 1))
    assert isinstance(there, np.ndarray)
    total = (where * there[..., None]).sum(1)
    seen = np.concatenate([where * there[..., None], np.zeros((count, 3, 2)), there[..., None]], -1)
    return torch.from_numpy(seen).float(), torch.from_numpy(total).float()


@pytest.mark.parametrize("kind", ["voxels", "entities"])
def test_they_learn_where_something_is(kind: str) -> None:
    torch.manual_seed(0)
    if kind == "voxels":
        error = train_encoder(Scaled(VoxelEncoder((8, 8, 2), 2), 3.0), draw_single, 150, rows=32)
        assert error < 1.5  # of what is guessed without looking, 95 % are below 3.5
    else:
        model = Scaled(EntityEncoder(4, 2, width=16, heads=2), 1.0)
        assert train_encoder(model, draw_sum, 250, rows=32) < 0.7  # without looking: 1.9
