"""A head learned again: it fits what is new, and nothing else has changed, to the bit."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pytest
import torch

from models.data import load_dataset
from models.one_head import HeadError, HeadName, HeadTrainer, Only, trusted
from models.parent import Parent, ParentError
from models.train import Trainer
from models.workflow import CHECKPOINT, train_bundle, work_folder
from planner.manifest import MANIFEST, seal
from schemas.system import SystemSpec, parse_spec
from tests.models.conftest import TINY
from tests.models.synthetic import SPEC, write_run

LEARNED = SPEC.replace('reward: "-abs(place) - alarm"\n', "").replace(
    '      alarm: {unit: "1", range: [0, 1], align: mean}\n', ""
)
"""The damped mass without its alarm, whose reward is what the logs say it was."""
CONSTRAINED = 'constraints:\n  near: {holds: "abs(place) < 1", kind: soft}\n'
FEW = replace(
    TINY,
    steps=40,
    actor_steps=10,
    batch=16,
    length=10,
    horizon=3,
    starts=20,
    model=replace(TINY.model, memory=6, free=1, units=16),
    actor=replace(TINY.actor, horizon=3, starts=20, units=8),
)
AGAIN = replace(FEW, steps=60, learning_rate=1e-2)


def logged(folder: Path, worth: str, seed: int = 0) -> Path:
    """A log of the damped mass whose reward column is the expression `worth` of its columns."""
    for file in write_run(folder, entities=6, ticks=300, seed=seed).rglob("*.parquet"):
        table = pl.read_parquet(file).drop("alarm", strict=False)
        table.with_columns(pl.sql_expr(worth).cast(pl.Float32).alias("reward")).write_parquet(file)
    return folder


@pytest.fixture(scope="module")
def spec() -> SystemSpec:
    return parse_spec(LEARNED)


@pytest.fixture(scope="module")
def constrained() -> SystemSpec:
    return parse_spec(LEARNED.replace("fallback:", f"{CONSTRAINED}fallback:"))


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return logged(tmp_path_factory.mktemp("old") / "run", "-abs(place)")


@pytest.fixture(scope="module")
def new(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return logged(tmp_path_factory.mktemp("new") / "run", "50 * speed", seed=5)


@pytest.fixture(scope="module")
def made(spec: SystemSpec, old: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "mass"
    train_bundle(spec, [old], folder, FEW)
    return folder


def left(bundle: Path) -> Path:
    """Where the weights of a bundle are."""
    return work_folder(bundle) / CHECKPOINT


def again(spec: SystemSpec, data: Path, of: Path, out: Path, head: HeadName) -> dict[str, Any]:
    return train_bundle(spec, [data], out, AGAIN, only=Only(head, of))


OWN: dict[HeadName, tuple[str, ...]] = {
    "reward": ("heads.reward.",),
    "continuation": ("heads.alive.",),
    "value": ("critic.head.", "slow.head."),
    "cost": ("heads.cost.",),
}


@pytest.mark.parametrize("head", ["reward", "continuation", "value", "cost"])
def test_nothing_else_changes(
    constrained: SystemSpec, made: Path, old: Path, new: Path, head: HeadName
) -> None:
    parent = Parent.read(made, left)
    trainer = HeadTrainer(constrained, load_dataset(constrained, [new]), AGAIN, head, parent)
    trainer.run()
    before = {**parent.weights["model"], **parent.weights["behaviour"]}
    after = {**trainer.model.state_dict(), **trainer.behaviour.state_dict()}
    changed = {n for n, now in after.items() if not torch.equal(before.get(n, now * 0 + 9), now)}
    assert changed
    assert trainer.dataset.columns == parent.scales[: len(constrained.columns)]
    units = Trainer(constrained, load_dataset(constrained, [old]), parent.config).model
    for name, value in units.named_buffers():
        if not name.startswith("heads."):
            assert torch.equal(value, trainer.model.get_buffer(name)), name
    assert all(name.startswith(OWN[head]) for name in changed), changed
    assert before.keys() <= after.keys()
    assert trainer.progress.curves.keys() == {head}
    losses = [loss for _, loss in trainer.progress.curves[head]]
    if head == "value":
        assert any(name.startswith("slow.") for name in changed), "its slow copy follows"
        assert "critic.head.scale" in changed, "the new rewards are fifty times as large"
    if head in ("reward", "cost"):  # episodes never end here, and values were right already
        assert np.mean(losses[-10:]) < 0.95 * np.mean(losses[:10])


def test_a_new_reward_becomes_a_bundle(
    spec: SystemSpec, made: Path, new: Path, tmp_path: Path
) -> None:
    out = tmp_path / "new"
    manifest = train_bundle(spec, [new], out, AGAIN, only=Only("reward", made))
    curves = json.loads((work_folder(out) / "curves.json").read_text())
    losses = [loss for _, loss in curves["reward"]]
    assert np.mean(losses[-8:]) < 0.25 * np.mean(losses[:4])
    old = json.loads((made / "manifest.json").read_text())
    assert old["files"].keys() == manifest["files"].keys(), "the actor is the parent's"
    same = {n for n, one in old["files"].items() if one == manifest["files"][n]}
    assert {"believe.onnx", "actor.onnx", "drive.onnx"} <= same
    assert "imagine.onnx" not in same
    assert manifest["lineage"]["parent"] == {"digest": old["digest"], "learned": "reward"}
    assert manifest["lineage"]["config"]["actor_steps"] == 0
    assert not manifest["actor_trusted"], "its value is of another reward"


def test_a_cost_head_is_added_to_a_bundle_without_one(
    constrained: SystemSpec, spec: SystemSpec, made: Path, old: Path, tmp_path: Path
) -> None:
    only = Only("cost", made)
    manifest = train_bundle(constrained, [old], tmp_path / "new", AGAIN, only=only)
    assert "cost.onnx" in manifest["files"]
    with pytest.raises(ValueError, match=r"heads\.cost: mass has no constraints"):
        train_bundle(spec, [old], tmp_path / "none", AGAIN, only=only)


def test_continuation_is_learned_beside_shares(made: Path, tmp_path: Path) -> None:
    whole_spec = parse_spec(SPEC)
    data = load_dataset(whole_spec, [write_run(tmp_path / "run", entities=4, ticks=120)])
    config = replace(FEW, steps=2, actor_steps=0)
    whole = Trainer(whole_spec, data, config)
    whole.run()
    read = Parent.read(made, left)
    weights: dict[str, Any] = {name: whole.state()[name] for name in ("model", "behaviour")}
    parent = replace(
        read,
        manifest=msgspec.structs.replace(read.manifest, interface_hash=whole_spec.interface_hash),
        config=config,
        scales=(*data.columns, *data.actions),
        weights=weights,
    )
    one = HeadTrainer(whole_spec, data, replace(AGAIN, steps=3), "continuation", parent)
    one.run()
    after = one.model.state_dict()
    changed = {name for name, now in after.items() if not torch.equal(weights["model"][name], now)}
    assert "heads.share.0.weight" in after
    assert changed
    assert all(name.startswith("heads.alive.") for name in changed), changed


def test_a_killed_one_goes_on_to_the_same_weights(
    spec: SystemSpec, made: Path, new: Path, tmp_path: Path
) -> None:
    parent = Parent.read(made, left)
    dataset = load_dataset(spec, [new])

    def fresh() -> HeadTrainer:
        return HeadTrainer(spec, dataset, AGAIN, "value", parent)

    whole = fresh()
    whole.run()
    part = fresh()
    for _ in range(25):
        part.update()
    part.save(tmp_path / "c.pt")
    resumed = fresh()
    resumed.load(tmp_path / "c.pt")
    resumed.run()
    for name, value in whole.behaviour.state_dict().items():
        assert torch.equal(value, resumed.behaviour.state_dict()[name]), name
    assert whole.fingerprint() != HeadTrainer(spec, dataset, AGAIN, "reward", parent).fingerprint()


@pytest.fixture
def broken(made: Path, tmp_path: Path) -> Path:
    """A copy of the bundle with what its training left."""
    copy = tmp_path / "copy" / "mass"
    shutil.copytree(made, copy)
    shutil.copytree(work_folder(made), work_folder(copy))
    return copy


def sealed(folder: Path, **changes: Any) -> None:
    """The bundle in `folder` with other contents, whole all the same."""
    content = json.loads((folder / MANIFEST).read_text())
    for name in ("format", "files", "digest"):
        del content[name]
    seal(folder, {**content, **changes})


def lineage(folder: Path) -> dict[str, Any]:
    made: dict[str, Any] = json.loads((folder / MANIFEST).read_text())["lineage"]
    return made


def test_what_cannot_be_done_is_said(spec: SystemSpec, broken: Path, old: Path) -> None:
    out = broken.parent / "out"
    alarm = '      alarm: {unit: "1", range: [0, 1], align: mean}\n'
    expression = parse_spec(SPEC.replace(" - alarm", "").replace(alarm, ""))
    with pytest.raises(HeadError, match=r"has an expression.*--only value"):
        again(expression, old, broken, out, "reward")
    other = parse_spec(LEARNED.replace("low: -2", "low: -3"))
    with pytest.raises(HeadError, match="other channels or actions"):
        again(other, old, broken, out, "reward")
    with pytest.raises(ParentError, match=r"manifest\.json"):
        again(spec, old, broken.parent, out, "reward")
    with pytest.raises(HeadError, match="write to another folder"):
        again(spec, old, broken, broken, "reward")
    silent = logged(broken.parent / "silent", "null")
    with pytest.raises(HeadError, match="these logs say nothing of it"):
        again(spec, silent, broken, out, "reward")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fingerprint": "another"}, "of another training"),
        ({"scales": [{"name": "place"}]}, "made by another version"),
        ({"config": {}}, "made by another version"),
        ({"datasets": None}, "learned by acting"),
    ],
)
def test_a_bundle_that_will_not_do_is_told(
    spec: SystemSpec, broken: Path, old: Path, change: dict[str, Any], message: str
) -> None:
    kept = {name: value for name, value in {**lineage(broken), **change}.items() if value}
    if change == {"config": {}}:
        kept["config"] = {}
    sealed(broken, lineage=kept)
    with pytest.raises((HeadError, ParentError), match=message):
        again(spec, old, broken, broken.parent / "out", "reward")


def test_one_without_an_actor_has_no_value(spec: SystemSpec, broken: Path, old: Path) -> None:
    (broken / "actor.onnx").unlink()
    sealed(broken)
    with pytest.raises(HeadError, match="no actor"):
        again(spec, old, broken, broken.parent / "out", "value")


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", None])
def test_weights_have_to_be_there(
    spec: SystemSpec, broken: Path, old: Path, content: bytes | None
) -> None:
    file = left(broken)
    if content is None:
        file.unlink()
    else:
        file.write_bytes(content)
    with pytest.raises(ParentError, match=rf"{file.name}: no.*train it again"):
        again(spec, old, broken, broken.parent / "out", "reward")


def test_weights_of_another_version_are_refused(spec: SystemSpec, broken: Path, old: Path) -> None:
    state = torch.load(left(broken), weights_only=True)
    del state["model"]["memory.gates.weight"]
    torch.save(state, left(broken))
    with pytest.raises(HeadError, match=r"memory\.gates\.weight.*train it again"):
        again(spec, old, broken, broken.parent / "out", "reward")


def test_an_actor_is_trusted_no_further_than_its_reward(
    spec: SystemSpec, constrained: SystemSpec, made: Path
) -> None:
    parent = Parent.read(made, left)
    assert constrained.objective_hash != spec.objective_hash
    assert [trusted(parent, "value", s) for s in (spec, constrained)] == [True, True]
    for kept in (True, False):  # as after --only reward: its value is of an older reward still
        manifest = msgspec.structs.replace(parent.manifest, actor_trusted=kept)
        one = replace(parent, manifest=manifest)
        assert [trusted(one, "cost", s) for s in (spec, constrained)] == [kept, False]
        assert not trusted(one, "reward", spec)
