"""Which columns are alike, and that the gap between them is seen finely where it is small."""

from dataclasses import replace

import pytest
import torch

from models.belief import ModelConfig, WorldModel
from models.features import Features, alike
from models.transforms import ColumnScale

PLACE = ColumnScale("place[0]", "linear", -20.0, 20.0, 0.0, 5.0, step=0.02)
COLUMNS = (
    PLACE,
    replace(PLACE, name="place[1]"),
    ColumnScale("speed", "linear", -20.0, 20.0, 0.0, 1.0, step=0.1),
    replace(PLACE, name="goal[0]", step=0.001),
    replace(PLACE, name="goal[1]", step=0.001),
)
FORCE = ColumnScale("force", "linear", -1.0, 1.0, 0.0, 0.6)
SIZES = ModelConfig(memory=4, free=2, units=8)


def test_the_same_component_of_channels_with_one_scale_is_alike() -> None:
    assert alike(COLUMNS) == [(0, 3), (1, 4)]


@pytest.mark.parametrize("change", [{"std": 4.0}, {"high": 30.0}, {"kind": "log"}])
def test_columns_of_other_scales_are_not_alike(change: dict[str, object]) -> None:
    other = replace(COLUMNS[3], **change)  # type: ignore[arg-type]
    assert alike((*COLUMNS[:3], other, COLUMNS[4])) == [(1, 4)]


def test_shares_and_logarithms_have_no_gaps() -> None:
    share = ColumnScale("late", "share", 0.0, 1.0, 0.0, 1.0)
    log = ColumnScale("queue", "log", 0.0, 1e6, 1.0, 2.0)
    columns = (share, replace(share, name="idle"), log, replace(log, name="backlog"))
    assert alike(columns) == []


def test_a_gap_is_in_units_of_the_typical_change() -> None:
    model = WorldModel(COLUMNS, (FORCE,), SIZES)
    features = Features(model)
    latent = torch.zeros(3, model.latent)
    latent[:, 0] = torch.tensor([0.0, 0.02, -2.0])
    seen = features(torch.zeros(3, 1), torch.zeros(3, 4), latent)
    assert seen.shape == (3, features.size)
    assert torch.equal(seen[:, 5 : 5 + model.latent], latent)
    expected = torch.asinh(torch.tensor([0.0, 1.0, -100.0]))
    assert torch.allclose(seen[:, -2], expected)
    assert not seen[:, -1].any()


def test_without_alike_columns_nothing_is_added() -> None:
    model = WorldModel(COLUMNS[:3], (FORCE,), SIZES)
    features = Features(model)
    parts = torch.randn(2, 1), torch.randn(2, 4), torch.randn(2, model.latent)
    assert torch.equal(features(*parts), torch.cat(parts, -1))
