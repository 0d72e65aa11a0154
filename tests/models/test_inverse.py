"""A reward learned from demonstrations: it knows what they seek, and nothing else is changed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from models.data import load_dataset, load_whole
from models.inverse import Demonstrations, InverseTrainer, _joined
from models.logs import DataError, files_digest
from models.one_head import HeadError, InverseConfig, Only
from models.parent import Parent
from models.recipe import RecipeError, parse_recipe
from models.share import Share
from models.workflow import CHECKPOINT, train_bundle, work_folder
from planner.session import load_bundle
from schemas.system import SystemSpec, parse_spec
from tests.bench.inverse_mass import ACTOR, TAUGHT, WORLD, demonstrated, figures, world
from tests.models.synthetic import SPEC
from tests.models.test_one_head import LEARNED, logged


@pytest.fixture(scope="module")
def spec() -> SystemSpec:
    return parse_spec(LEARNED)


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return logged(tmp_path_factory.mktemp("log") / "run", "-abs(place)")


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return demonstrated(tmp_path_factory.mktemp("shown") / "run", paid=-7.0)


@pytest.fixture(scope="module")
def made(spec: SystemSpec, log: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return world(spec, [log], tmp_path_factory.mktemp("made") / "mass", WORLD)


@pytest.fixture(scope="module")
def parent(made: Path) -> Parent:
    return Parent.read(made, lambda bundle: work_folder(bundle) / CHECKPOINT)


def fresh(spec: SystemSpec, log: Path, shown: Path, parent: Parent, **how: Any) -> InverseTrainer:
    data, what = load_dataset(spec, [log]), Demonstrations.read(spec, [shown])
    return InverseTrainer(spec, data, what, TAUGHT, InverseConfig(**how), parent)


@pytest.fixture(scope="module")
def taught(spec: SystemSpec, log: Path, shown: Path, parent: Parent) -> InverseTrainer:
    trainer = fresh(spec, log, shown, parent)
    trainer.run()
    return trainer


def test_it_ranks_behaviours_and_the_learner_does_as_was_shown(taught: InverseTrainer) -> None:
    found = figures(taught)
    assert found["ranks of behaviours"] > 0.83
    assert found["ahead"] > 1.0, "in spreads"
    assert found["learner"] > 0.9 * found["nothing"] > found["wandering"], "of 0 at the most"
    assert not np.isfinite(taught.dataset.train.reward).any()


def test_a_future_goes_on_while_it_is_likely_to(
    spec: SystemSpec, log: Path, shown: Path, parent: Parent
) -> None:
    trainer = fresh(spec, log, shown, parent)
    last = trainer.model.heads.alive[-1]
    counts = []
    for logit in (0.5, -0.5):
        with torch.no_grad():
            last.weight.zero_()  # type: ignore[operator]
            last.bias.fill_(logit)  # type: ignore[operator]
            counts.append(len(trainer._own(0, torch.Generator().manual_seed(0))))
    assert counts[0] == ACTOR.horizon * counts[1]


def test_nothing_else_of_the_model_changes(taught: InverseTrainer, parent: Parent) -> None:
    before, after = parent.weights["model"], taught.model.state_dict()
    changed = {name for name, now in after.items() if not torch.equal(before[name], now)}
    assert changed
    assert all(name.startswith("heads.reward.") for name in changed), changed


def test_a_reward_is_of_the_state_and_not_of_what_was_done(taught: InverseTrainer) -> None:
    model = taught.model
    latent = torch.randn(9, model.latent)
    other = torch.randn(9, model.config.memory)
    assert torch.equal(model.heads(other, latent)[2], model.heads(0 * other, latent)[2])
    assert not torch.equal(model.heads(other, latent)[2], model.heads(other, latent + 1)[2])


def test_a_reward_has_no_unit_of_its_own(taught: InverseTrainer) -> None:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        own, shown = taught._own(3, generator), taught._shown(3, generator)
        past = taught.past[torch.randperm(len(taught.past), generator=generator)[: len(own)]]
        found = taught.model.heads.reward(torch.cat([shown, own, past]))
    assert abs(float(found.mean())) < 0.4
    assert 0.6 < float(found.std()) < 1.5


def test_what_was_paid_is_not_looked_at(
    spec: SystemSpec, log: Path, shown: Path, parent: Parent, tmp_path: Path
) -> None:
    unpaid = demonstrated(tmp_path / "run", paid=None)
    other = logged(tmp_path / "other", "1000 * speed")
    trainers = [fresh(spec, log, shown, parent), fresh(spec, other, unpaid, parent)]
    for trainer in trainers:
        for _ in range(3):
            trainer.update()
    one, two = (trainer.model.heads.reward.state_dict() for trainer in trainers)
    assert all(torch.equal(value, two[name]) for name, value in one.items())


def test_a_killed_one_goes_on_to_the_same_weights(
    spec: SystemSpec, log: Path, shown: Path, parent: Parent, tmp_path: Path
) -> None:
    few = replace(TAUGHT, steps=8, actor_steps=3)
    data, what = load_dataset(spec, [log]), Demonstrations.read(spec, [shown])

    def begun(share: float = 0.5) -> InverseTrainer:
        how = InverseConfig(share, remembered=50)
        return InverseTrainer(spec, data, what, few, how, parent)

    whole, part, resumed = begun(), begun(), begun()
    whole.run()
    for _ in range(5):
        part.update()
    part.save(tmp_path / "c.pt")
    resumed.load(tmp_path / "c.pt")
    resumed.run()
    for name, value in {**whole.model.state_dict(), **whole.behaviour.state_dict()}.items():
        again = {**resumed.model.state_dict(), **resumed.behaviour.state_dict()}[name]
        assert torch.equal(value, again), name
    assert torch.equal(whole.past, resumed.past)
    assert len(whole.past) == 50
    assert whole.fingerprint() != begun(0.6).fingerprint()


def test_rows_of_both_logs_stay_in_their_own_sequences(
    spec: SystemSpec, log: Path, shown: Path
) -> None:
    first, second = load_whole(spec, [log]), load_whole(spec, [shown])
    both = _joined(first, second)
    weights = torch.ones(len(both), 1)
    for row in (0, 79, len(second) - 5):
        start = np.array([row])
        one = second.window(start, 12, weights)
        two = both.window(start + len(first), 12, weights)
        assert torch.equal(one.obs, two.obs)
        assert torch.equal(one.valid, two.valid)
    assert (both.run[len(first) :] > first.run.max()).all()


def test_it_becomes_a_bundle(
    spec: SystemSpec, log: Path, shown: Path, made: Path, tmp_path: Path
) -> None:
    short = replace(TAUGHT, steps=6, actor_steps=2)
    only = Only("reward", made, (shown,))
    manifest = train_bundle(spec, [log], tmp_path / "new", short, only=only, with_actor=True)
    (source,) = manifest["lineage"]["demonstrations"]
    assert source["sha256"] == files_digest(shown, [shown / "part-0.parquet"])["sha256"]
    assert source["entities"] == 4
    assert manifest["lineage"]["parent"]["learned"] == "reward"
    assert manifest["lineage"]["inverse"]["demonstrated"] == InverseConfig().demonstrated
    assert manifest["metrics"]["held_out"]["reward"] is None, "no reward to hold it against"
    bundle = load_bundle(tmp_path / "new")
    assert "actor.onnx" in bundle.manifest.files
    # And it is a bundle that others can be made of.
    again = Parent.read(tmp_path / "new", lambda folder: work_folder(folder) / CHECKPOINT)
    assert again.with_actor
    assert again.config.total == 8


def test_what_cannot_be_done_is_said(
    spec: SystemSpec, log: Path, shown: Path, made: Path, tmp_path: Path
) -> None:
    alarm = '      alarm: {unit: "1", range: [0, 1], align: mean}\n'
    expression = parse_spec(SPEC.replace(" - alarm", "").replace(alarm, ""))
    out, only = tmp_path / "out", Only("reward", made, (shown,))
    with pytest.raises(HeadError, match="leave 'reward' out"):
        train_bundle(expression, [log], out, TAUGHT, only=only)
    with pytest.raises(DataError, match="no Parquet files there"):
        train_bundle(spec, [log], out, TAUGHT, only=replace(only, demonstrations=(tmp_path,)))
    with pytest.raises(HeadError, match="without torchrun"):
        train_bundle(spec, [log], out, TAUGHT, only=only, share=Share(0, 2))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("inverse: {demonstrations: [d]}\n", r"f\.yaml:1: .*inverse: .*heads: \{only: reward"),
        ("heads: {only: value, of: b}\ninverse: {demonstrations: [d]}\n", "only: reward"),
        ("inverse: {remembered: 9}\n", "from what"),
        ("inverse: {answers: 0}\n", r"f\.yaml:2: inverse\.answers"),
        ("inverse: {remembered: 0}\n", r"f\.yaml:2: inverse\.remembered"),
        ("inverse: {expert: [d]}\n", r"f\.yaml:2: inverse\.expert: there is no such field"),
    ],
)
def test_a_workflow_that_cannot_be_is_told(text: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        parse_recipe(f"workflow: x\n{text}", "f.yaml")


def test_a_workflow_says_how() -> None:
    recipe = parse_recipe(
        "workflow: x\nheads: {only: reward, of: b}\n"
        "inverse: {demonstrations: [d, e], demonstrated: 1}\nloop: {steps: 7, actor_steps: 3}\n"
    )
    only = recipe.only()
    assert only is not None
    assert only.demonstrations == (Path("d"), Path("e"))
    assert only.inverse == InverseConfig(demonstrated=1.0)
    assert (recipe.train_config().steps, recipe.train_config().actor_steps) == (7, 3)
