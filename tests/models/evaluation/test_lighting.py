"""Other light: a kind of change of systems with a camera, in figures, JSON and report."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import streams
from models.acceptance import Acceptance
from models.cli import app
from models.data import load_whole
from models.evaluation import simulated
from models.evaluation.shifts import KINDS, kinds_of, shifts
from models.evaluation.simulated import changed
from models.identify import _known
from planner.encoded import Encoded
from planner.session import Bundle
from schemas.system import load_spec
from streams.backtest import backtest
from streams.backtest_setup import BacktestSetup, prepare
from tests.planner.worlds import World, make_bundle

FILE = Path(streams.__file__).parent / "examples" / "sight.yaml"
SIGHT = load_spec(FILE)
LIGHTS = {
    "an eighth of the light",
    "half the light",
    "light × 2",
    "a lamp from one side",
    "glare on the lens",
}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """One that knows how robots move, told by offset, pole and velocity."""
    eye, dt = np.eye(2), 0.1
    transition, control, policy = np.eye(6), np.zeros((2, 6)), np.zeros((6, 2))
    transition[4:, :2] = transition[4:, 2:4] = -dt * eye
    control[:, 4:] = dt * eye
    policy[:2], policy[4:] = eye, -1.6 * eye
    known = World(transition, control, policy, noise=0.05)
    return make_bundle(tmp_path_factory.mktemp("sight"), SIGHT, known)


def test_systems_with_a_camera_can_be_put_in_other_light() -> None:
    assert "lighting" in KINDS
    assert "lighting" in kinds_of(SIGHT, {})
    assert "lighting" not in kinds_of(load_spec("nav2d"), {})
    Acceptance(shifts=("lighting",)).check(SIGHT)
    with pytest.raises(ValueError, match="a plant of kind nav2d has no change of kind lighting"):
        Acceptance(shifts=("lighting",)).check(load_spec("nav2d"))


def test_the_innovation_tells_the_dark_and_equal_seeds_give_equal_figures(
    monkeypatch: pytest.MonkeyPatch, bundle: Bundle
) -> None:
    monkeypatch.setattr(simulated, "SHIFT_TICKS", 36)
    lights = [one for one in shifts(SIGHT, bundle, {}) if one.kind == "lighting"]
    assert {one.name for one in lights} == LIGHTS
    one, same = (changed(SIGHT, bundle, ["lighting"], {"robots": 3}) for _ in range(2))
    assert one.as_dict() == same.as_dict()
    found = {each.shift.name: each for each in one.shifts}
    assert found.keys() == {"as usual, another seed", *LIGHTS}
    assert found["an eighth of the light"].innovation > 0.9
    assert found["an eighth of the light"].error_ratio > 1.5


def test_the_command_tells_of_light_beside_the_other_kinds(
    monkeypatch: pytest.MonkeyPatch, bundle: Bundle, tmp_path: Path
) -> None:
    monkeypatch.setattr(simulated, "FEW", {"nav2d": 1})
    for name, value in {"SOME": 2, "SHIFT_TICKS": 26, "REGRET_TICKS": 2}.items():
        monkeypatch.setattr(simulated, name, value)
    report = tmp_path / "report.html"
    words = ["evaluate", str(bundle.path), "--spec", str(FILE), "--simulate", "-o", "robots=2"]
    told = CliRunner().invoke(app, [*words, "--report", str(report), "--json"])
    assert "simulating: half the light" in told.stderr
    assert told.exit_code in (0, 1), told.output
    found = json.loads(told.stdout)["simulated"]
    kinds = {n: s["kind"] for n, s in found["out_of_distribution"]["shifts"].items()}
    assert {name for name, kind in kinds.items() if kind == "lighting"} == LIGHTS
    assert {"mass", "friction", "delay", "noise", "dropout"} < set(kinds.values())
    assert found["plant"] == "nav2d-2+encoded-1"
    assert found["left_out"] == {}
    page = report.read_text()
    assert all(name in page for name in ("a lamp from one side", "glare on the lens"))


def test_a_backtest_sees_through_the_camera_and_its_log_is_of_that(tmp_path: Path) -> None:
    made = {}
    for light in (1.0, 0.125):
        options = {"robots": 2, "light": light}
        setup = BacktestSetup(SIGHT, None, None, "explore", 0.7, 1, (), options)
        plant, policy = prepare(setup)
        assert isinstance(plant, Encoded)
        backtest(SIGHT, plant, policy, seed=1, ticks=6, log=tmp_path / str(light))
        made[light] = load_whole(SIGHT, [tmp_path / str(light)], shortest=2).obs
    usual, dark = (np.abs(made[light][:, :2] - made[light][:, 2:4]) for light in (1.0, 0.125))
    assert usual.max() < 1.0 < dark.max(), "camera and lidar tell one place, in the light"


def test_no_log_is_asked_for_the_light() -> None:
    assert set(_known(SIGHT, ())) == {"mass", "drag", "action_delay"}
