"""One tiny model, trained once, for all tests of this package."""

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from models.actor import ActorConfig
from models.belief import ModelConfig
from models.data import Dataset, load_dataset
from models.train import TrainConfig, Trainer
from models.workflow import release
from schemas.system import SystemSpec
from tests.models.synthetic import mass_spec, write_run

TINY = TrainConfig(
    steps=220,
    actor_steps=80,
    batch=24,
    length=24,
    horizon=8,
    starts=60,
    samples=2,
    checkpoint_every=50,
    model=ModelConfig(memory=12, free=2, units=32, members=5),
    actor=ActorConfig(horizon=8, starts=60, units=24, learning_rate=3e-3),
)


@dataclass(frozen=True)
class Trained:
    """What a short training on the damped mass left."""

    spec: SystemSpec
    folder: Path
    dataset: Dataset
    trainer: Trainer


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("data") / "run", entities=8, ticks=700)


@pytest.fixture(scope="session")
def trained(run_folder: Path) -> Trained:
    spec = mass_spec()
    dataset = load_dataset(spec, [run_folder])
    trainer = Trainer(spec, dataset, TINY)
    trainer.run()
    return Trained(spec, run_folder, dataset, trainer)


@pytest.fixture(scope="session")
def bundle_folder(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundles") / "mass"
    release(trained.spec, trained.dataset, trained.trainer, folder, True, "rehearse train mass")
    return folder
