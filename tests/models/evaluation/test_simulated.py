"""Everything against a simulator in one call, and as a command."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from infra.plants.base import PlantError
from infra.plants.degrade import Faults
from models.cli import app
from models.cli_simulate import plant_options
from models.evaluation import simulated
from models.evaluation.simulated import simulate
from planner.library import SHIPPED
from planner.session import Bundle
from schemas.system import SystemSpec

BUNDLE = str(SHIPPED / "nav2d")
PARTS = (
    "out_of_distribution",
    "counterfactuals",
    "policy_sensitivity",
    "planner_regret",
    "model_exploitation",
)


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simulated, "FEW", {"nav2d": 1})
    for name, value in {"SOME": 2, "SHIFT_TICKS": 40, "REGRET_TICKS": 3}.items():
        monkeypatch.setattr(simulated, name, value)


def test_the_command(tmp_path: Path) -> None:
    report = tmp_path / "report.html"
    words = ["evaluate", BUNDLE, "--simulate", "-o", "robots=4", "--report", str(report), "--json"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)["simulated"]
    assert tuple(name for name in found if name in PARTS) == PARTS
    assert found["left_out"] == {}
    assert found["out_of_distribution"]["moments"] == 4 * 2
    assert found["planner_regret"]["entities"] == 1
    assert "simulating: mass × 1.5" in done.stderr
    page = report.read_text()
    for title in ("Out of distribution", "Counterfactuals", "Planner regret", "Model exploitation"):
        assert f"<h2>{title}</h2>" in page


def test_what_a_plant_does_not_allow_is_left_out_with_the_reason(
    nav2d: SystemSpec, bundle: Bundle
) -> None:
    options = {"robots": 3, "faults": {"odometry": Faults(dropout=0.05)}}
    found = simulate(nav2d, bundle, options)
    assert set(found.left_out) == {"counterfactuals", "planner_regret", "model_exploitation"}
    assert "cannot be taken back" in found.left_out["counterfactuals"]
    assert not found.worse
    assert [one.title for one in found.sections()] == ["Out of distribution", "Policy sensitivity"]
    text = found.text()
    assert "left out: planner_regret" in text
    assert "AUROC of innovation" in text


def test_too_short_a_plant_is_refused(nav2d: SystemSpec, bundle: Bundle) -> None:
    with pytest.raises(PlantError, match="it ends after 39 ticks, and 40 are needed"):
        simulate(nav2d, bundle, {"robots": 1, "ticks": 39})


def test_options_are_read_as_in_a_spec() -> None:
    found = plant_options(["robots=50", "set={m: 1.5}", "cold_start=30 s", "env=Pendulum-v1"])
    assert found == {
        "robots": 50,
        "set": {"m": 1.5},
        "cold_start": "30 s",
        "env": "Pendulum-v1",
    }


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "nothing to judge on: give --data FOLDER, or --simulate, or both"),
        (["-o", "robots=3", "--data", "x"], "give --simulate as well"),
        (["--simulate", "-o", "robots"], "write it as NAME=VALUE"),
        (["--simulate", "-o", "set={m"], "not YAML"),
        (["--simulate", "-o", "robbots=3"], "no option"),
    ],
)
def test_what_cannot_be_judged_is_said(words: list[str], message: str) -> None:
    done = CliRunner().invoke(app, ["evaluate", BUNDLE, *words])
    assert done.exit_code == 2
    assert message in done.stderr
