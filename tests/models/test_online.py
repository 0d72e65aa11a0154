"""Learning by doing: the same for the same seed, after a kill too; judged from fixed resets."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pytest
import torch

from infra.plants.base import Sample, make_plant
from infra.plants.gym import spec_for
from models.checkpoint import CheckpointError
from models.evaluation.world import World
from models.live import Blind
from models.online import JUDGED, Online
from models.practice import Chance, Planned, judge, wandering
from models.recipe import parse_recipe
from models.transforms import MARGIN
from models.undertaking import online_of, train_online
from planner.session import Model, load_bundle
from schemas.system import SystemSpec, load_spec, parse_spec

TINY = """
workflow: tiny
env: {id: Pendulum-v1}
sequence: {batch: 8, length: 8}
ensemble: {members: 5, units: 16}
dynamics: {memory: 8, free: 1}
learning: {horizon: 3, samples: 2, starts: 20}
actor_critic: {horizon: 3, starts: 20, units: 16, imitation: 1.0}
loop:
  {copies: 2, judged: 3, steps: 240, ticks: 40, random: 1, first_updates: 6, updates: 0.05,
   last_updates: 5, judge_every: 100}
deployment: {caution: 1.0, practice: {candidates: 20, horizon: 4, iterations: 1}}
"""
KILLED = """
import sys
from pathlib import Path
import torch
from tests.models.test_online import TINY
from models.recipe import parse_recipe
from models.undertaking import online_of
torch.set_num_threads(1)
online_of(parse_recipe(TINY)).run(Path(sys.argv[1]), lambda c, t: print(c.steps, t, flush=True))
"""


def _weights(online: Online) -> dict[str, torch.Tensor]:
    assert online.trainer is not None
    return {**online.trainer.model.state_dict(), **online.trainer.behaviour.state_dict()}


@pytest.fixture(scope="module")
def whole() -> Online:
    online = online_of(parse_recipe(TINY))
    online.run()
    return online


def test_killed_and_resumed_equals_uninterrupted(whole: Online, tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint.pt"
    command = [sys.executable, "-c", KILLED, str(checkpoint)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("160 learning"):  # in the third round, two are kept
            os.kill(process.pid, signal.SIGKILL)
            break
    assert process.wait() == -signal.SIGKILL
    resumed = online_of(parse_recipe(TINY))
    resumed.load(checkpoint)
    assert resumed.course.steps == 160
    resumed.run()
    for name, value in _weights(whole).items():
        assert torch.equal(value, _weights(resumed)[name]), name
    assert resumed.course == whole.course
    assert whole.course.rounds_returned[0] != whole.course.rounds_returned[1]


def test_it_stops_in_the_middle_of_an_episode(whole: Online, tmp_path: Path) -> None:
    online, stop = online_of(parse_recipe(TINY)), threading.Event()
    acted: list[int] = []
    step = online.plant.step

    def stepped(action: npt.NDArray[np.float64]) -> Sample:
        acted.append(len(acted))
        if len(acted) == 100:  # of 40 a round: in the third
            stop.set()
        return step(action)

    online.plant.step = stepped  # type: ignore[method-assign]
    online.run(tmp_path / "checkpoint.pt", stop=stop)
    assert len(acted) == 100
    assert online.course.steps == 160
    resumed = online_of(parse_recipe(TINY))
    resumed.load(tmp_path / "checkpoint.pt")
    resumed.run()
    assert resumed.course == whole.course


def test_a_checkpoint_of_other_settings_is_refused(whole: Online, tmp_path: Path) -> None:
    whole.save(tmp_path / "checkpoint.pt")
    other = online_of(parse_recipe(TINY.replace("noise", "noise").replace("0.05", "0.06")))
    with pytest.raises(CheckpointError, match="other settings"):
        other.load(tmp_path / "checkpoint.pt")


def test_a_run_ends_in_a_bundle_that_is_judged_as_it_will_run(tmp_path: Path) -> None:
    recipe = parse_recipe(TINY)
    out = tmp_path / "pendulum"
    result = train_online(online_of(recipe), recipe, out)
    assert result["steps"] == 240
    assert {"random", "both", "planner"} <= result["returns"].keys()
    spec = load_spec(str(out / "system.yaml"))
    assert spec.budget.caution == 1.0
    bundle = load_bundle(out, provider="cpu")
    bundle.check(spec)
    lineage = bundle.manifest.lineage
    assert lineage["workflow"]["buffer"]["surprising"] == 0.25, "the mix is in the lineage"
    assert lineage["workflow"]["env"]["id"] == "Pendulum-v1"
    held_out = bundle.manifest.metrics["held_out"]["steps"]
    assert held_out["1"].keys() == set(spec.columns)
    # Judged again from the same resets, the exported bundle reaches the same.
    online = online_of(recipe)
    world = World(online.spec, online.judged, bundle)
    policy = Planned(online.spec, bundle, 3, JUDGED)
    again = judge(world, policy, 200, JUDGED)[0].as_dict()  # practised for 40, judged as a whole
    # Its calibration ranks who is planned first, and company decides last bits.
    assert again["mean"] == pytest.approx(result["returns"]["both"]["mean"], rel=0.01)
    assert bundle.discount == 0.98
    pages = out.parent / ".pendulum.training"
    assert "while practising" in (pages / "learning.html").read_text()


def test_after_the_last_round_more_is_learned_than_is_due() -> None:
    online = online_of(parse_recipe(TINY))
    online.run()
    before = online.course.updates
    assert online.finish()
    assert online.course.updates - before == 4 + 5, "0.05 for each of 80 decisions, and the last"
    assert online.config.steps == 6 + 8 + 5, "the rate of learning falls until the last one"


def test_learning_from_the_last_round_can_be_stopped(whole: Online) -> None:
    online = online_of(parse_recipe(TINY))
    online.replay.restore(whole.replay.state())
    online.course.steps = 240
    stop = threading.Event()
    assert not online.finish(lambda course, text: stop.set(), stop)
    assert online.course.updates == 1


def test_what_a_workflow_asks_is_in_the_bundle_that_acting_makes(tmp_path: Path) -> None:
    more = "metrics: {task_return: 0, rollout_error@5: 1000}\nshifts: [noise]\n"
    monitors = "deployment: {fallback: hold, monitors: {disagreement: 0.5}, caution: 1.0,"
    text = TINY.replace("deployment: {caution: 1.0,", more + monitors)
    recipe = parse_recipe(text.replace("judged: 3", "judged: 2").replace("every: 100", "every: 0"))
    out = tmp_path / "pendulum"
    result = train_online(online_of(recipe), recipe, out)
    manifest = load_bundle(out, provider="cpu").manifest
    assert result["metrics"] == manifest.metrics["asked"]
    assert (result["passed"], result["metrics"]["task_return"]["passed"]) == (False, False)
    assert result["metrics"]["rollout_error@5"]["passed"] is True
    # The gate now has a limit, so what acts is not the planner alone.
    deployed = manifest.metrics["deployed"]
    assert 0 < deployed["fallback"] < 1
    assert deployed["returned"] == result["metrics"]["task_return"]["value"]
    assert load_spec(str(out / "system.yaml")).fallback.kind == "hold"
    kinds = {one["kind"] for one in result["out_of_distribution"]["shifts"].values()}
    assert kinds == {"none", "noise"}


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("shifts: [traffic]", "shifts: a plant of kind gym has no change of kind traffic"),
        ("metrics: {constraint_violations: 3}", "metrics.constraint_violations: Pendulum-v1 has"),
    ],
)
def test_what_an_environment_does_not_allow_is_refused_at_once(more: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        online_of(parse_recipe(f"{TINY}{more}\n"))


def test_practice_is_bold(monkeypatch: pytest.MonkeyPatch) -> None:
    planned: list[float] = []

    class Noted(Planned):
        def __init__(self, spec: SystemSpec, *args: Any, **more: Any) -> None:
            planned.append(spec.budget.caution)
            super().__init__(spec, *args, **more)

    monkeypatch.setattr("models.online.Planned", Noted)
    online = online_of(parse_recipe(TINY.replace("judge_every: 100", "judge_every: 240")))
    online.run()
    assert planned == [0.0, 0.0, 1.0, 1.0], "two rounds of practice, then judged as it will run"


def test_curiosity_is_paid_in_units_of_rewards_for_a_while(whole: Online) -> None:
    online = online_of(parse_recipe(TINY))
    online.replay.restore(whole.replay.state())
    spread = float(np.nanstd(whole.replay.sequences().reward))
    paid: list[float] = []
    for steps in (0, 72, 144, 240):  # of 240, until 0.6 of them
        online.course.steps = steps
        paid.append(online._curiosity())
    assert paid == pytest.approx([spread, spread / 2, 0.0, 0.0])


def test_imagination_reaches_as_far_as_all_that_was_lived_through() -> None:
    online = online_of(parse_recipe(TINY))
    online.run()
    online.finish()
    assert online.trainer is not None
    model, columns = online.trainer.model, online.trainer.dataset.columns
    normal = model.scaler(torch.from_numpy(online.replay.sequences().obs))
    for i, column in enumerate(columns):
        assert column.least <= float(normal[:, i].min()) + 1e-5
        assert column.most >= float(normal[:, i].max()) - 1e-5
        assert float(model.least[i]) == pytest.approx(column.least - MARGIN, abs=1e-5)
        assert float(model.most[i]) == pytest.approx(column.most + MARGIN, abs=1e-5)


def test_an_episode_counts_until_it_ends() -> None:
    spec = parse_spec(spec_for("CartPole-v1", entities=5))
    plant = make_plant(spec)
    world = World(spec, plant, cast(Model, Blind()))
    returns, record = judge(world, Chance(spec, 5, 200, 1), 200, 1)
    assert record.begun[1:].any(axis=0).all(), "every pole has fallen"
    firsts = [int(np.argmax(record.begun[1:, e])) for e in range(5)]
    np.testing.assert_array_equal(returns.each, firsts)


def test_chance_wanders_over_the_range_and_forgets() -> None:
    spec = parse_spec(spec_for("Pendulum-v1"))
    noise = wandering(spec, 40, 500, seed=2)
    assert noise.shape == (500, 40, 1)
    assert noise.std() == pytest.approx(2.0, rel=0.05)
    after = [np.corrcoef(noise[:-k].ravel(), noise[k:].ravel())[0, 1] for k in (1, 5, 25)]
    np.testing.assert_allclose(after, np.exp([-0.2, -1.0, -5.0]), atol=0.05)
    np.testing.assert_array_equal(noise, wandering(spec, 40, 500, seed=2))
