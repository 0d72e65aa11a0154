"""A model with wider scales says what it said before: beliefs, imagination, heads, behaviour."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from models.belief import Hidden, ModelConfig
from models.data import Dataset, load_dataset
from models.recipe import parse_recipe
from models.rescale import convertible, outgrown, rescale, stretched, widened
from models.train import Trainer
from models.transforms import ColumnScale
from models.undertaking import online_of
from schemas.system import SystemSpec
from tests.models.conftest import TINY
from tests.models.synthetic import mass_spec, write_run
from tests.models.test_physics import NAME

RATIO, SHIFT = (2.0, 3.5), (-0.7, 1.2)  # of place and speed
FORMS: dict[str, dict[str, Any]] = {
    "joint": {},
    "fused": {"encoder": "fused"},
    "told how far off": {"corrects": True},
    "shown sines": {"periodic": True},
    "classes": {"form": "categorical", "free": 2, "classes": 3},
}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[SystemSpec, Dataset]:
    spec = mass_spec()
    folder = write_run(tmp_path_factory.mktemp("few") / "run", entities=4, ticks=80, seed=3)
    return spec, load_dataset(spec, [folder])


def _wider(columns: tuple[ColumnScale, ...]) -> tuple[ColumnScale, ...]:
    place, speed, alarm = columns
    pairs = zip((place, speed), RATIO, SHIFT, strict=True)
    linear = [replace(c, mean=c.mean + b * c.std, std=a * c.std) for c, a, b in pairs]
    return (*linear, alarm)


def _converted(trainer: Trainer, latent: Tensor) -> Tensor:
    """Direct latents of old scales in new ones."""
    direct = (latent[:, :2] - torch.tensor(SHIFT)) / torch.tensor(RATIO)
    return torch.cat([direct, latent[:, 2:]], -1)


def _pair(small: tuple[SystemSpec, Dataset], config: ModelConfig, name: str = "") -> list[Trainer]:
    """A trainer that has learned a little, and one of wider scales that goes on from it."""
    spec, dataset = small
    settings = replace(TINY, model=config, physics=name)
    old = Trainer(spec, dataset, settings)
    for step in range(3):
        old.learn_model(step)
        old.learn_actor(settings.steps + step)
    wide = replace(dataset, columns=widened(dataset.columns, _wider(dataset.columns)))
    new = Trainer(spec, wide, settings)
    new.take_over(old)
    rescale(new.model, new.behaviour, dataset.columns, wide.columns)
    return [old, new]


@pytest.mark.parametrize("form", FORMS)
def test_beliefs_futures_and_actions_stay(form: str, small: tuple[SystemSpec, Dataset]) -> None:
    trainers = _pair(small, replace(TINY.model, cost=False, **FORMS[form]))
    assert_same(trainers)


def test_they_stay_with_known_dynamics(small: tuple[SystemSpec, Dataset]) -> None:
    old, new = _pair(small, TINY.model, NAME)
    assert_same([old, new])
    assert new.model.physics is not None
    wanted = old.model.ensemble.step[:2] / torch.tensor(RATIO)
    torch.testing.assert_close(new.model.ensemble.step[:2], wanted)


@torch.no_grad()
def assert_same(trainers: list[Trainer]) -> None:
    old, new = trainers
    model, rows = old.model, 10
    generator = torch.Generator().manual_seed(4)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    latent, action, memory = (drawn(rows, n) for n in (model.latent, 1, model.config.memory))
    spread = 0.1 + drawn(rows, model.form.normal).abs()
    raw = 0.5 * drawn(rows, 3)
    mask = (drawn(rows, 3) > -0.3).float()
    noise = 0.1 * drawn(rows, model.latent)
    believed: list[tuple[Tensor, ...]] = []
    imagined: list[tuple[Tensor, ...]] = []
    acted: list[tuple[Tensor, ...]] = []
    for trainer, z in ((old, latent), (new, _converted(old, latent))):
        own, scale = trainer.model, torch.tensor(RATIO) if trainer is new else torch.ones(2)
        narrow = torch.cat([spread[:, :2] / scale, spread[:, 2:]], -1)
        hidden = Hidden(torch.ones(rows, 1), action, narrow, memory)
        after = own.update(hidden, z, action, own.scaler(raw), mask)
        believed.append((own.direct_scaler.inverse(after.mean[:, :2]), after.std[:, :2] * scale))
        believed[-1] += (after.mean[:, 2:], after.hidden.memory)
        recalled, _, shown = own.imagine(memory, z, action, noise)
        imagined.append((recalled, *own.decode(recalled, shown)))
        does = trainer.behaviour
        acted.append(
            tuple(f(action, memory, z) for f in (does.actor.target, does.critic, does.slow))
        )
    for kind in (believed, imagined, acted):
        for before, after in zip(*kind, strict=True):
            torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-4)


def test_what_is_rescaled_differs_where_it_is_not_taken_up(
    small: tuple[SystemSpec, Dataset],
) -> None:
    """The comparison above can fail."""
    old, new = _pair(small, TINY.model)
    new.take_over(old)  # the weights of before under the new scales
    with pytest.raises(AssertionError):
        assert_same([old, new])


def test_what_was_learned_for_other_scales_is_kept_apart(small: tuple[SystemSpec, Dataset]) -> None:
    old, new = _pair(small, TINY.model)
    before = [weight.clone() for weight in old.model.parameters()]
    new.learn_model(5)
    assert all(torch.equal(a, b) for a, b in zip(before, old.model.parameters(), strict=True))


def test_scales_are_stretched_or_outgrown() -> None:
    old = ColumnScale("x", "linear", -10, 10, 1.0, 2.0, step=0.5, least=-1.0, most=1.0)
    wider = replace(old, mean=2.0, std=2.5, step=0.9, least=-2.0, most=2.0)  # raw -3 and 7
    assert not outgrown([old], [wider])
    assert outgrown([old], [replace(old, std=6.0)])
    (reached,) = stretched([old], [wider])
    assert (reached.mean, reached.std) == (1.0, 2.0)
    assert reached.least == pytest.approx(-2.0)
    assert reached.most == pytest.approx(3.0)
    (grown,) = widened([old], [wider])
    assert (grown.mean, grown.std, grown.least) == (2.0, 2.5, -2.0)
    assert grown.step * grown.std == pytest.approx(old.step * old.std), "in raw units as before"
    log = replace(old, kind="log")
    assert convertible([old], [replace(old, std=60.0)])
    assert convertible([log], [replace(log, std=2.5)])
    assert widened([log], [replace(log, std=2.5)]) == (log,)
    assert not convertible([log], [replace(log, std=6.0)])
    assert not convertible([old], [log])


def test_what_is_lived_through_widens_the_scales_and_learning_goes_on(tmp_path: Path) -> None:
    recipe = parse_recipe(
        """
workflow: tiny
env: {id: Pendulum-v1}
sequence: {batch: 8, length: 8}
ensemble: {members: 5, units: 16}
dynamics: {memory: 8, free: 1}
learning: {horizon: 3, samples: 2, starts: 20}
actor_critic: {horizon: 3, starts: 20, units: 16}
loop: {copies: 2, steps: 320, ticks: 40, random: 1, first_updates: 4, updates: 0.05}
deployment: {practice: {candidates: 20, horizon: 4, iterations: 1}}
"""
    )

    online = online_of(recipe)
    online.round()
    online.round()
    assert online.trainer is not None
    # As if so far it had moved by a quarter of what it has.
    narrow = tuple(replace(c, std=c.std / 4) for c in online.trainer.dataset.columns)
    online.trainer.dataset = replace(online.trainer.dataset, columns=narrow)
    updates = online.course.updates
    online._prepare()
    assert (online.course.widened, online.course.restarts) == ([online.course.steps], [])
    assert online.course.updates == updates
    online.save(tmp_path / "checkpoint")
    again = online_of(recipe)
    again.load(tmp_path / "checkpoint")
    for one in (online, again):
        one.run()
    assert again.course.widened == online.course.widened
    assert again.trainer is not None
    found = again.trainer.model.state_dict()
    for name, value in online.trainer.model.state_dict().items():
        assert torch.equal(value, found[name]), name
