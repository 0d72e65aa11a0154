"""A bundle is fitted to an entity that has changed, is never made worse, and nothing else moves."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from models.adapt import AdaptTrainer, Verdict, Wish
from models.adaptation import adapt_bundle
from models.checkpoint import settings_of
from models.cli import app
from models.data import Sequences
from models.logs import DataError
from models.parent import Parent, ParentError, keep_weights
from models.target import in_time, joined, read_target, select
from models.workflow import CHECKPOINT, work_folder
from planner.manifest import MANIFEST
from schemas.system import parse_spec
from tests.models import synthetic
from tests.models.conftest import TINY, Trained

WISH = Wish(steps=120, entity="mass-1", minutes=1.0)


def left(bundle: Path) -> Path:
    return work_folder(bundle) / CHECKPOINT


@pytest.fixture(scope="module")
def made(bundle_folder: Path, trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny bundle, with its weights beside it."""
    folder = tmp_path_factory.mktemp("made") / "mass"
    shutil.copytree(bundle_folder, folder)
    keep_weights(work_folder(folder), trained.trainer, trained.trainer.fingerprint())
    return folder


@pytest.fixture(scope="module")
def heavy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log of masses three times as heavy as those that were learned from."""
    usual, folder = synthetic.advance, tmp_path_factory.mktemp("heavy") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(synthetic, "advance", lambda state, force: usual(state, force / 3))
        return synthetic.write_run(folder, entities=3, ticks=700, seed=7)


def trainer_of(made: Path, log: Path, trained: Trained, wish: Wish = WISH) -> AdaptTrainer:
    data, facts = read_target(trained.spec, [log], wish.entity, wish.minutes)
    return AdaptTrainer(trained.spec, data, facts, wish, Parent.read(made, left))


@pytest.fixture(scope="module")
def adapted(made: Path, heavy: Path, trained: Trained) -> tuple[AdaptTrainer, Verdict]:
    trainer = trainer_of(made, heavy, trained)
    verdict = trainer.adapt()
    assert verdict is not None
    return trainer, verdict


def test_a_minute_of_a_heavier_one_is_enough(adapted: tuple[AdaptTrainer, Verdict]) -> None:
    trainer, verdict = adapted
    assert verdict.better
    assert verdict.after < 0.75 * verdict.before
    assert 0 < verdict.parameters < 200
    assert len(trainer.dataset.train) + len(trainer.dataset.validation) <= 600
    assert set(trainer.dataset.train.entity) == {"mass-1"}
    assert trainer.dataset.train.tick.max() < trainer.stop.tick.min()
    assert trainer.stop.tick.max() < trainer.decide.tick.min()


def test_nothing_but_the_adapter_changes(adapted: tuple[AdaptTrainer, Verdict], made: Path) -> None:
    trainer, parent = adapted[0], Parent.read(made, left)
    after = {**trainer.model.state_dict(), **trainer.behaviour.state_dict()}
    before = {**parent.weights["model"], **parent.weights["behaviour"]}
    new = after.keys() - before.keys()
    assert {n.removeprefix("ensemble.adapter.") for n in new} == {"map", "change", "spread"}
    for name, value in before.items():
        assert torch.equal(value, after[name]), name
    assert any(after[name].abs().max() > 0 for name in new)


def test_a_new_adapter_changes_nothing(made: Path, heavy: Path, trained: Trained) -> None:
    fresh, old = trainer_of(made, heavy, trained).model, trained.trainer.model
    generator = torch.Generator().manual_seed(0)
    rows, members = 10, old.config.members
    memory = torch.randn(rows, old.config.memory, generator=generator)
    latent = torch.randn(rows, old.latent, generator=generator)
    action = torch.randn(rows, old.actions, generator=generator)
    noise = torch.randn(rows, old.latent, generator=generator)
    fresh.least, fresh.most = old.least, old.most
    assert rows % members == 0
    for clone in (False, True):
        pairs = zip(
            old.imagine(memory, latent, action, noise, clone),
            fresh.imagine(memory, latent, action, noise, clone),
            strict=True,
        )
        for one, two in pairs:
            assert torch.equal(one, two)


def test_equal_seeds_give_equal_weights(
    adapted: tuple[AdaptTrainer, Verdict], made: Path, heavy: Path, trained: Trained
) -> None:
    again = trainer_of(made, heavy, trained)
    assert again.adapt() == adapted[1]
    for name, value in adapted[0].model.state_dict().items():
        assert torch.equal(value, again.model.state_dict()[name]), name
    assert again.fingerprint() == adapted[0].fingerprint()
    whole = trainer_of(made, heavy, trained, replace(WISH, whole=True))
    assert whole.fingerprint() != again.fingerprint()


def test_what_is_as_ever_keeps_its_parent(
    made: Path, run_folder: Path, trained: Trained, tmp_path: Path
) -> None:
    """A fast and short adaptation to what is known already cannot help, and is not adopted."""
    wish = replace(WISH, steps=10, rate=0.5, minutes=0.5)
    out = tmp_path / "new"
    verdict, manifest = adapt_bundle(made, [run_folder], out, wish, spec=trained.spec)
    assert not verdict.better
    assert manifest is None
    assert not out.exists()


def test_a_bundle_of_its_own_by_the_command(
    made: Path, heavy: Path, run_folder: Path, tmp_path: Path
) -> None:
    spec, out = tmp_path / "mass.yaml", tmp_path / "heavy"
    spec.write_text(synthetic.SPEC)
    base = ["adapt", str(made), "--spec", str(spec), "--entity", "mass-1", "--minutes", "1"]
    asked = [*base, "--steps", "120", "--json"]
    done = CliRunner().invoke(app, [*asked, "--data", str(heavy), "--out", str(out)])
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout)
    assert said["adopted"]
    manifest = json.loads((out / MANIFEST).read_text())
    old = json.loads((made / MANIFEST).read_text())
    assert said["written"]["digest"] == manifest["digest"]
    assert manifest["actor_trusted"] == old["actor_trusted"]
    lineage = manifest["lineage"]
    assert (
        lineage["parent"].items()
        >= {
            "digest": old["digest"],
            "learned": "adapter",
            "entity": "mass-1",
            "minutes": 1.0,
        }.items()
    )
    assert lineage["datasets"][0]["name"] == heavy.name
    assert lineage["config"]["model"]["adapter"]
    parent = Parent.read(out, left)  # it can be adapted again
    assert "ensemble.adapter.map" in parent.weights["model"]
    refused = ["--data", str(run_folder), "--out", str(tmp_path / "no")]
    kept = CliRunner().invoke(app, [*base, "--steps", "10", "--rate", "0.5", *refused])
    assert kept.exit_code == 1, kept.output
    assert "is kept, nothing was written" in kept.stdout
    absent = CliRunner().invoke(
        app, ["adapt", str(made), "--entity", "x", "--spec", str(spec), *refused]
    )
    assert absent.exit_code == 2
    assert "no unbroken run of entity 'x'; there are mass-0, mass-1" in absent.output


def test_all_weights_and_the_actor_may_follow(made: Path, heavy: Path, trained: Trained) -> None:
    wish = replace(WISH, whole=True, steps=100, actor_steps=10)
    trainer = trainer_of(made, heavy, trained, wish)
    verdict = trainer.adapt()
    assert verdict is not None
    assert verdict.better
    assert verdict.parameters > 1000
    assert trainer.model.ensemble.adapter is None
    old = {n: v.clone() for n, v in trainer.behaviour.state_dict().items()}
    adopted = trainer.adapt_actor()
    same = all(torch.equal(v, old[n]) for n, v in trainer.behaviour.state_dict().items())
    assert same == (not adopted)


def test_what_cannot_be_is_told(made: Path, heavy: Path, trained: Trained, tmp_path: Path) -> None:
    with pytest.raises(ParentError, match="is the parent itself"):
        adapt_bundle(made, [heavy], made, WISH, spec=trained.spec)
    other = parse_spec(synthetic.SPEC.replace("low: -2", "low: -3"))
    with pytest.raises((ParentError, DataError), match=r"other channels or actions|logged under"):
        adapt_bundle(made, [heavy], tmp_path / "out", WISH, spec=other)
    short = replace(WISH, minutes=0.05)
    with pytest.raises(DataError, match=r"adapt from more minutes|none of them in a run of 8"):
        adapt_bundle(made, [heavy], tmp_path / "out", short, spec=trained.spec)
    copy = tmp_path / "copy" / "mass"
    shutil.copytree(made, copy)
    with pytest.raises(ParentError, match="a bundle holds graphs, not weights"):
        adapt_bundle(copy, [heavy], tmp_path / "out", WISH, spec=trained.spec)


def test_an_adapter_is_left_out_of_older_fingerprints() -> None:
    assert "adapter" not in settings_of(TINY)["model"]
    other = settings_of(replace(TINY, model=replace(TINY.model, adapter=True)))
    assert other["model"]["adapter"]


def rows(ticks: list[int], run: int = 0) -> Sequences:
    """One entity at these ticks, a segment wherever they are unbroken."""
    tick = np.array(ticks)
    begins = np.flatnonzero(np.diff(tick, prepend=-9) != 1)
    ends = np.append(begins[1:], len(tick))
    count = ends - begins
    nothing = np.zeros((len(tick), 1), np.float32)
    return Sequences(
        *(nothing, nothing, nothing[:, 0], nothing[:, 0]),
        np.repeat(begins, count),
        np.repeat(ends, count),
        *(np.array(["a"] * len(tick)), tick, np.full(len(tick), run)),
    )


def test_parts_follow_each_other_and_segments_are_unbroken() -> None:
    data = rows([*range(40), *range(50, 100)])
    parts = in_time(data, (0.5, 0.25, 0.25))
    assert [int(p.tick.min()) for p in parts] == [0, 50, 75]
    for part in parts:
        for first, last in part.segments:
            assert (np.diff(part.tick[first:last]) == 1).all()
            assert last - first >= 8
    both = joined(parts[1], parts[2])
    assert both.segments.tolist() == [[0, 25], [25, 50]]
    assert both.tick.tolist() == [*range(50, 100)]
    wanted = np.ones(90, bool)
    wanted[10] = False
    kept = select(data, wanted)
    assert kept.segments.tolist() == [[0, 10], [10, 39], [39, 89]]
    with pytest.raises(DataError, match="none of them in a run of 8"):
        select(data, np.arange(90) % 2 == 0)
