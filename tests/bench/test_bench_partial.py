"""What the benchmark of partial observability says, on trainings of seconds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from models.actor import ActorConfig
from models.belief import ModelConfig
from models.train import TrainConfig
from tests.bench.bench_partial import BLIND, HELD, KALMAN, OURS, WARM, Run, Sizes, run
from tests.bench.partial_filters import Belief, Read, held, learn
from tests.bench.partial_report import write_report
from tests.bench.partial_scores import scores, table
from tests.bench.partial_world import AWAY, DROPOUT, Log, log, partial_spec

NOISE = 0.01
TINY = TrainConfig(
    steps=120,
    actor_steps=0,
    batch=32,
    length=16,
    horizon=2,
    starts=32,
    samples=2,
    learning_rate=5e-3,
    noise_rate=10.0,
    model=ModelConfig(memory=16, free=2, units=32, members=2),
    actor=ActorConfig(units=8),
)


@pytest.fixture(scope="module")
def tiny() -> Run:
    torch.set_num_threads(1)
    return run(0, NOISE, TINY, Sizes(robots=100, ticks=60, other_robots=40, other_ticks=60))


def test_two_of_five_positions_are_lost_and_velocities_are_nowhere() -> None:
    spec = partial_spec()
    assert spec.columns == ("position[0]", "position[1]")
    seen = log(spec, 300, 60, NOISE, 0)
    assert seen.lost.mean() == pytest.approx(DROPOUT, abs=0.02)
    assert np.array_equal(seen.lost, np.isnan(seen.seen[..., 1]))
    # Neither more often after a loss than otherwise: each is drawn on its own.
    assert seen.lost[1:][seen.lost[:-1]].mean() == pytest.approx(DROPOUT, abs=0.02)
    error = (seen.seen - seen.truth[..., :2])[~seen.lost]  # of this tick, not of an older one
    assert error.std() == pytest.approx(NOISE, rel=0.05)
    assert np.abs(error).max() < 6 * NOISE
    assert np.abs(seen.truth[..., :2]).max() < AWAY / 2
    again, other = log(spec, 300, 60, NOISE, 0), log(spec, 300, 60, NOISE, 1)
    assert np.array_equal(again.seen, seen.seen, equal_nan=True)
    assert not np.array_equal(other.lost, seen.lost)
    # Pushes say nothing of where a robot is.
    inside = np.corrcoef(np.concatenate([seen.applied, seen.truth], -1)[0].T)
    assert np.abs(inside[:2, 2:4]).max() < 0.25


def test_the_last_reading_is_held_with_its_speed() -> None:
    seen = np.full((5, 1, 2), np.nan)
    seen[1], seen[3] = [[1.0, -1.0]], [[1.4, -1.2]]
    found = held(Log(seen, np.zeros((5, 1, 2)), np.zeros((5, 1, 4))), 0.1)
    assert found.position[:, 0, 0].tolist() == [0.0, 1.0, 1.0, 1.4, 1.4]
    np.testing.assert_allclose(found.velocity[:, 0, 0], [0.0, 0.0, 0.0, 2.0, 2.0])
    np.testing.assert_allclose(found.velocity[4, 0], [2.0, -1.0])


def test_scores_are_of_what_they_say() -> None:
    seen = np.zeros((4, 1, 2))
    seen[2:] = np.nan
    truth = np.zeros((4, 1, 4))
    position = np.array([9.0, 1.0, 3.0, 3.0])[:, None, None] * np.ones((4, 1, 2))
    std = np.array([1.0, 1.0, 1.0, 9.0])[:, None, None] * np.ones((4, 1, 2))
    belief = Belief(position, 2.0 * np.ones((4, 1, 2)), std)
    found = scores(belief, Log(seen, seen, truth), warm=1)
    assert found["position"] == pytest.approx(np.sqrt(19 / 3))
    assert found["position_lost"] == 3.0
    assert found["velocity"] == found["velocity_lost"] == 2.0
    assert found["held_90"] == pytest.approx(2 / 3)
    assert found["held_90_lost"] == 0.5
    assert "read_out" not in found


def test_the_kalman_filter_is_consistent_and_nobody_beats_it(tiny: Run) -> None:
    found = tiny.scores()
    best = found[KALMAN]
    for name in (OURS, BLIND, HELD):
        for key in ("position", "position_lost", "velocity", "velocity_lost"):
            assert best[key] < found[name][key]
    assert best["position_lost"] < 0.1 * found[HELD]["position_lost"]
    assert best["velocity"] < 0.25 * found[HELD]["velocity"]
    assert best["nees"] == pytest.approx(4.0, abs=0.5)
    assert best["held_90"] == pytest.approx(0.9, abs=0.03)
    error = tiny.beliefs[KALMAN].position - tiny.other.truth[..., :2]
    per_robot = error[WARM:].mean(0)
    assert np.all(np.abs(per_robot.mean(0)) < 4 * per_robot.std(0) / np.sqrt(len(per_robot)))


def test_memory_carries_what_no_channel_shows(tiny: Run) -> None:
    found = tiny.scores()
    ours, blind = found[OURS], found[BLIND]
    assert ours["position_lost"] < 0.85 * blind["position_lost"]
    assert ours["velocity"] < 0.85 * blind["velocity"]
    spread = float(tiny.other.truth[WARM:, :, 2:].std())
    assert ours["read_out"] < 0.6 * spread
    # A position says something of it too: who is far out has been fast.
    assert ours["read_out"] < blind["read_out"]


def test_without_memory_nothing_is_carried_but_what_a_position_may_be() -> None:
    spec = partial_spec()
    few = log(spec, 10, 40, NOISE, 3)
    steps = {"steps": 1, "batch": 4}
    trainer = learn(spec, few, TrainConfig(**{**vars(TINY), **steps}), memory=False)
    read = Read(trainer, few, WARM)
    assert trainer.model.latent == 2
    assert not trainer.model.memory(torch.ones(3, 16), torch.ones(3, 4)).any()
    belief = read(few)
    assert belief.std is not None
    grown = belief.std[1:] > belief.std[:-1]
    assert grown[few.lost[1:]].all()  # a lost position is a prediction, less sure than the last


def test_the_table_and_the_page_show_every_filter(tiny: Run, tmp_path: Path) -> None:
    found = tiny.scores()
    lines = table([found, found]).splitlines()
    assert [line.split(" | ")[0].strip("| ") for line in lines[2:]] == [KALMAN, OURS, BLIND, HELD]
    assert len({line.count("|") for line in lines}) == 1
    half = {name: {key: 0.5 * value for key, value in row.items()} for name, row in found.items()}
    assert " to " in table([found, half, found])
    path = tmp_path / "page.html"
    write_report(path, tiny.other, tiny.beliefs, found, {"seed": 0}, WARM)
    page = path.read_text()
    for told in (KALMAN, OURS, BLIND, HELD, "readings", "truth"):
        assert told in page
