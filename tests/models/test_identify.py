"""What a log says of a plant's parameters is found, with an interval that holds them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from infra.plants.base import PlantError, make_plant
from infra.plants.gym import spec_for
from infra.plants.seen import Seen
from models.cli import app
from models.data import Sequences, load_whole
from models.identify import _weight, identify
from models.logs import DataError
from schemas.system import SystemSpec, load_spec, parse_spec
from tests.bench.logs import trajectories

NAV2D = load_spec("nav2d")
PENDULUM = parse_spec(spec_for("Pendulum-v1"))


def write_log(spec: SystemSpec, folder: Path, ticks: int, seed: int = 0, **options: Any) -> Path:
    """A log of the spec's plant under held random actions."""
    plant, rng = make_plant(spec, **options), np.random.default_rng(seed)
    count, size = len(plant.entities), len(spec.action_columns)
    seen, rows, applied = Seen(spec, count), [], []
    sample = plant.reset(seed)
    action = np.zeros((count, size))
    for _ in range(ticks):
        seen.take(sample)
        rows.append(seen.values(sample.tick))
        applied.append(action)
        fresh = rng.uniform(spec.action_low, spec.action_high, (count, size))
        action = np.where(rng.random((count, 1)) < 0.3, fresh, action)
        sample = plant.step(action)
    folder.mkdir(parents=True)
    trajectories(spec, np.array(rows), np.array(applied)).write_parquet(folder / "part-0.parquet")
    return folder


def logged(spec: SystemSpec, folder: Path, ticks: int, **options: Any) -> Sequences:
    return load_whole(spec, [write_log(spec, folder, ticks, **options)])


def test_mass_drag_and_delay_of_robots_are_found(tmp_path: Path) -> None:
    truth = {"mass": 1.5, "drag": 0.4, "action_delay": 0.2}
    data = logged(NAV2D, tmp_path / "log", 150, robots=4, **truth)
    found = identify(NAV2D, data, windows=60, resamples=100)
    assert found.told
    assert found.windows <= 60
    assert found.error < 0.5 * found.error_now
    for name, value in truth.items():
        one = found.parameters[name]
        assert one.low <= one.value <= one.high
        assert one.value == pytest.approx(value, abs={"action_delay": 1e-9}.get(name, 0.06)), name
        wide = one.high - one.low
        assert one.low - wide <= value <= one.high + wide, name
        assert wide < 0.3


def test_a_torque_that_comes_late_to_a_heavy_pendulum(tmp_path: Path) -> None:
    data = logged(
        PENDULUM, tmp_path / "log", 120, entities=2, set={"m": 1.4}, friction=0.3, action_delay=0.1
    )
    wanted = ("m", "friction", "action_delay")
    found = identify(PENDULUM, data, wanted=wanted, ticks=6, windows=24, resamples=50)
    assert found.told
    values = {name: one.value for name, one in found.parameters.items()}
    assert values == pytest.approx({"m": 1.4, "friction": 0.3, "action_delay": 0.1}, abs=0.01)


def test_what_others_can_make_up_for_is_not_told(tmp_path: Path) -> None:
    """Of a pendulum only g / l and m l² show."""
    data = logged(PENDULUM, tmp_path / "log", 120, entities=2)
    found = identify(PENDULUM, data, wanted=("m", "l", "g"), ticks=6, windows=24, resamples=50)
    assert not found.told
    assert not any(one.told for one in found.parameters.values())


def test_it_is_the_same_again_and_looks_within_the_ranges_of_the_spec(tmp_path: Path) -> None:
    log = write_log(NAV2D, tmp_path / "log", 120, robots=3, mass=1.3)
    plant = "{kind: nav2d, robots: 3, randomise: {mass: [0.8, 1.2]}}"
    text = (Path(__file__).parents[2] / "schemas/systems/nav2d.yaml").read_text()
    spec = tmp_path / "mine.yaml"
    spec.write_text(text.replace("{kind: nav2d, robots: 200}", plant))
    asked = ["identify", str(spec), "--data", str(log), "--windows", "30"]
    done = [CliRunner().invoke(app, [*asked, "--json"]) for _ in range(2)]
    assert done[0].stdout == done[1].stdout
    said = json.loads(done[0].stdout)
    assert said["parameters"].keys() == {"mass"}
    assert said["parameters"]["mass"]["value"] == pytest.approx(1.2)
    told = CliRunner().invoke(app, [*asked, "--entity", "e1", "--parameter", "mass"])
    fragment = yaml.safe_load(told.stdout[told.stdout.index("plant:") :])
    assert fragment["plant"].keys() >= {"kind", "robots", "randomise"}
    wrong = CliRunner().invoke(app, [*asked, "--parameter", "weight"])
    assert wrong.exit_code == 2
    assert "no parameter 'weight'; it has mass, drag, action_delay" in wrong.output


def test_what_cannot_be_found_from_is_told(tmp_path: Path) -> None:
    data = logged(NAV2D, tmp_path / "log", 40, robots=1)
    with pytest.raises(DataError, match="8 are the least"):
        identify(NAV2D, data)
    with pytest.raises(PlantError, match="has no parameters to find"):
        identify(load_spec("autoscale"), data)


def test_far_off_readings_count_linearly() -> None:
    off = np.array([0.0, 1e6])
    assert _weight(off)[0] == 1.0
    assert (_weight(off) * off)[1] == pytest.approx(2.0, rel=1e-3)
