"""The cost head: learned by itself, of nobody's business but its own, foreseen in the bundle."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from models.belief import ModelConfig
from models.checkpoint import settings_of
from models.costs import broken
from models.data import load_dataset
from models.evaluation.held_out import evaluate
from models.evaluation.tell import brief
from models.recipe import parse_recipe
from models.train import Trainer
from models.workflow import release
from planner.session import load_bundle
from schemas.system import SystemSpec, parse_spec
from tests.models.conftest import TINY
from tests.models.synthetic import SPEC, mass_spec

NARROW = """constraints:
  near: {holds: "abs(place) <= 1.0", kind: hard}
  calm: {holds: "speed + 0 * force <= 5", kind: soft}
"""
SMALL = replace(TINY, steps=4, actor_steps=1, model=replace(TINY.model, memory=6, free=1, units=9))
COST = replace(SMALL, model=replace(SMALL.model, cost=True))


@pytest.fixture(scope="module")
def spec() -> SystemSpec:
    return parse_spec(SPEC.replace("reward:", f"{NARROW}reward:"))


def _weights(trainer: Trainer) -> dict[str, torch.Tensor]:
    both = {**trainer.model.state_dict(), **trainer.behaviour.state_dict()}
    return {name: value.clone() for name, value in both.items()}


def test_all_else_is_learned_as_without_it(spec: SystemSpec, run_folder: Path) -> None:
    dataset = load_dataset(spec, [run_folder])
    plain, more = (Trainer(spec, dataset, config) for config in (SMALL, COST))
    for trainer in (plain, more):
        trainer.run()
    without, with_it = _weights(plain), _weights(more)
    own = with_it.keys() - without.keys()
    assert own
    assert all(name.startswith("heads.cost.") for name in own)
    for name, value in without.items():
        assert torch.equal(value, with_it[name]), name
    assert plain.state()["optimizers"].keys() == {"model", "actor", "critic"}
    assert "cost" in more.progress.curves


def test_checkpoints_from_before_there_was_one_are_still_taken_up() -> None:
    settings = settings_of(TINY)["model"]
    assert settings.keys().isdisjoint({"cost", "head_units"})
    other = settings_of(replace(TINY, model=ModelConfig(cost=True, head_units=3)))["model"]
    assert (other["cost"], other["head_units"]) == (True, 3)


def test_any_broken_constraint_counts_where_it_is_known(spec: SystemSpec, run_folder: Path) -> None:
    trainer = Trainer(spec, load_dataset(spec, [run_folder]), COST)
    batch = trainer.batch(0)
    place, speed, _ = batch.obs.unbind(-1)
    there = batch.mask[..., 0] * batch.mask[..., 1] * batch.valid > 0
    found, known = broken(spec, batch)
    assert 0 < found[there].float().mean() < 1
    assert (batch.mask[..., :2] == 0).any(), "some readings are missing"
    assert torch.equal(found[there], (place.abs() > 1)[there] | (speed > 5)[there])
    unseen = (batch.mask[..., 0] == 0) & (batch.mask[..., 1] > 0) & ~found
    assert not known[unseen].any()
    assert torch.equal(known & there, there)


def test_a_bundle_foresees_what_breaks_a_constraint(
    spec: SystemSpec, run_folder: Path, tmp_path: Path
) -> None:
    dataset = load_dataset(spec, [run_folder])
    sizes = replace(TINY.model, memory=6, free=1, units=16, cost=True)
    config = replace(TINY, steps=160, actor_steps=0, batch=16, length=12, horizon=2, model=sizes)
    trainer = Trainer(spec, dataset, config)
    trainer.run()
    manifest = release(spec, dataset, trainer, tmp_path / "made", False, "rehearse train mass")
    assert "cost.onnx" in manifest["files"]
    bundle = load_bundle(tmp_path / "made", provider="cpu")
    found = evaluate(bundle, spec, dataset.validation, windows=300, futures=4)
    told = brief(found)["violations"]
    assert told.keys() == {str(k) for k in found.horizons}
    assert told["1"]["auroc"] > 0.85
    assert told["1"]["brier"] < told["1"]["brier_base"]
    assert 0 < told["1"]["broken"] < told["1"]["windows"]
    assert manifest["metrics"]["held_out"]["violations"].keys() == told.keys()


def test_where_nothing_can_be_broken_it_is_refused(run_folder: Path) -> None:
    recipe = parse_recipe("workflow: x\nheads: {cost: true, units: 7}\n")
    model = recipe.train_config().model
    assert (model.cost, model.head_units) == (True, 7)
    plain = mass_spec()
    dataset = load_dataset(plain, [run_folder])
    with pytest.raises(ValueError, match=r"heads\.cost: mass has no constraints"):
        Trainer(plain, dataset, replace(SMALL, model=replace(model, memory=6)))


def test_heads_have_a_width_of_their_own(run_folder: Path) -> None:
    plain = mass_spec()
    dataset = load_dataset(plain, [run_folder])
    wide = Trainer(plain, dataset, replace(SMALL, model=replace(SMALL.model, head_units=17)))
    assert wide.model.heads.reward.net[0].out_features == 17
    usual = Trainer(plain, dataset, SMALL).model
    assert usual.heads.reward.net[0].out_features == SMALL.model.units
    assert wide.model.ensemble.weights[0].shape == usual.ensemble.weights[0].shape
