"""Known dynamics inside the model: better with less data, in the files, and refused where wrong."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from models.checkpoint import CheckpointError
from models.data import Dataset, load_dataset
from models.export import parity
from models.losses import observe
from models.physics import PhysicsError, load_physics, physics
from models.train import Trainer
from models.workflow import release
from planner.session import load_bundle
from schemas.system import SystemSpec
from tests.models.conftest import TINY
from tests.models.synthetic import DT, advance, mass_spec, write_run

FEW = replace(TINY, steps=60, actor_steps=0)


@physics("speed", "place")
def mass(state: Tensor, action: Tensor) -> Tensor:
    """The true dynamics but for the spring's hold and the drag, which are to be learned."""
    speed, place = state.unbind(-1)
    faster = speed + DT * (action[:, 0] - 0.4 * place)
    return torch.stack([faster, place + DT * speed], -1)


@physics("place")
def wide(state: Tensor, action: Tensor) -> Tensor:
    return torch.cat([state, action], -1)


@physics("alarm")
def alarming(state: Tensor, action: Tensor) -> Tensor:
    return state


def resting(state: Tensor, action: Tensor) -> Tensor:
    """Of all columns that are predicted: they stay."""
    return state


NAME = f"{__name__}:mass"


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[SystemSpec, Dataset]:
    """A thousand steps of data."""
    spec = mass_spec()
    folder = write_run(tmp_path_factory.mktemp("few") / "run", entities=5, ticks=200, seed=3)
    return spec, load_dataset(spec, [folder])


@pytest.fixture(scope="module")
def more(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """What is judged on: other runs of the same system."""
    folder = write_run(tmp_path_factory.mktemp("more") / "run", entities=8, ticks=300, seed=4)
    return load_dataset(mass_spec(), [folder])


@pytest.fixture(scope="module")
def known(small: tuple[SystemSpec, Dataset]) -> Trainer:
    trainer = Trainer(*small, replace(FEW, physics=NAME))
    trainer.run()
    return trainer


@torch.no_grad()
def _error(trainer: Trainer, other: Dataset, steps: int = 8) -> float:
    """Root mean square error of place and speed `steps` ticks on, over what varies."""
    data, model = other.validation, trainer.model
    warm = 12
    starts = np.arange(0, len(data) - warm - steps, 7)
    starts = starts[starts + warm + steps <= data.last[starts]]
    batch = data.window(starts, warm + steps, torch.ones(len(data) // 64 + 1, 5))
    mask = batch.mask.clone()
    mask[:, warm:] = 0.0
    last = observe(model, batch, mask).ticks[-1].mean[:, :2]
    truth = model.scaler(batch.obs)[:, -1, :2]
    seen = batch.mask[:, -1, :2]
    return float((((last - truth) * seen).square().sum() / seen.sum()).sqrt())


def test_with_physics_few_data_go_further(
    small: tuple[SystemSpec, Dataset], known: Trainer, more: Dataset
) -> None:
    alone = Trainer(*small, FEW)
    alone.run()
    with_it, without = (_error(trainer, more) for trainer in (known, alone))
    assert with_it < 0.6 * without


def test_what_is_not_in_the_physics_is_learned(known: Trainer, more: Dataset) -> None:
    fresh = Trainer(known.spec, known.dataset, replace(FEW, physics=NAME))
    assert _error(known, more) < 0.7 * _error(fresh, more)


def test_members_predict_the_change_around_it_in_units_of_what_it_leaves_over(
    small: tuple[SystemSpec, Dataset],
) -> None:
    found = load_physics(NAME, *small)
    assert found.names == ("speed", "place")
    state = np.array([[1.0, -0.5], [-2.0, 0.3]])  # place, speed
    force = np.array([0.5, -1.0])
    model = Trainer(*small, replace(FEW, physics=NAME)).model
    latent = model.direct_scaler(torch.tensor(state, dtype=torch.float32))
    latent = torch.cat([latent, torch.zeros(2, 2)], -1)
    action = model.action_scaler(torch.tensor(force[:, None], dtype=torch.float32))
    base = model.base(latent, action)
    raw = model.direct_scaler.inverse(base[:, :2]).numpy()
    truth = advance(state, force)
    truth[:, 1] += DT * 0.1 * state[:, 0] + 0.1 * state[:, 1]  # what is left out of `mass`
    np.testing.assert_allclose(raw, truth, atol=1e-4)
    assert torch.equal(base[:, 2:], latent[:, 2:])
    steps = model.direct_scaler.steps()
    assert model.ensemble.step[0] < 0.2 * steps[0]  # the place is explained but for noise
    assert torch.equal(model.ensemble.step[:2][[1, 0]], found.left)
    unknown = load_physics(f"{__name__}:resting", *small)
    torch.testing.assert_close(unknown.units(steps), steps, rtol=1e-4, atol=0)


def test_the_graphs_of_a_bundle_contain_it(known: Trainer, tmp_path: Path) -> None:
    folder = tmp_path / "b"  # what differs from torch would not be written
    release(known.spec, known.dataset, known, folder, False, "rehearse train mass")
    lineage = load_bundle(folder, provider="cpu").manifest.lineage
    assert lineage["physics"]["function"] == NAME
    assert len(lineage["physics"]["sha256"]) == 64
    model = known.model
    assert model.physics is not None
    step, model.physics.step = model.physics.step, lambda state, action: 1.2 * state
    found = parity("believe", model, known.behaviour, folder / "believe.onnx")
    model.physics.step = step
    assert max(apart.torch for apart in found.values()) > 1e-3


def test_a_checkpoint_without_it_is_refused(
    small: tuple[SystemSpec, Dataset], known: Trainer, tmp_path: Path
) -> None:
    known.save(tmp_path / "c.pt")
    with pytest.raises(CheckpointError, match="other settings"):
        Trainer(*small, FEW).load(tmp_path / "c.pt")


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("mass", "write module:function"),
        ("no.such.module:step", "No module named"),
        (f"{__name__}:nothing", "has no attribute 'nothing'"),
        (f"{__name__}:NAME", "is no function"),
        (f"{__name__}:wide", r"gives \(2, 2\) for a state of \(2, 1\)"),
        (f"{__name__}:alarming", "'alarm' is not a column to predict"),
    ],
)
def test_what_is_no_physics_is_told(
    small: tuple[SystemSpec, Dataset], name: str, told: str
) -> None:
    with pytest.raises(PhysicsError, match=told):
        load_physics(name, *small)
