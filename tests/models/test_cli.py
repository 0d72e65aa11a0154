"""The commands: one object on standard output, exit status as designed, plain messages."""

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from infra.plants.base import make_plant
from models.cli import app
from models.cli_parts import command_line
from planner.library import SHIPPED
from planner.manifest import read_manifest
from planner.session import load_bundle
from schemas.system import load_spec
from streams.backtest import backtest, policies
from tests.models.synthetic import SPEC


@pytest.fixture
def spec_file(tmp_path: Path) -> Path:
    path = tmp_path / "mass.yaml"
    path.write_text(SPEC)
    return path


def test_train_then_evaluate(spec_file: Path, run_folder: Path, tmp_path: Path) -> None:
    runner, out = CliRunner(), tmp_path / "bundle"
    common = ["train", str(spec_file), "--data", str(run_folder), "--out", str(out)]
    sizes = ["--memory", "6", "--units", "9", "--free", "2"]
    sizes += ["--form", "categorical", "--classes", "3", "--encoder", "fused"]
    sizes += ["--physics", "tests.models.test_physics:mass"]
    done = runner.invoke(app, [*common, *sizes, "--steps", "12", "--actor-steps", "2", "--json"])
    assert done.exit_code == 0, done.output
    lineage = json.loads((out / "manifest.json").read_text())["lineage"]
    made = lineage["config"]["model"]
    assert (made["memory"], made["units"], made["free"]) == (6, 9, 2)
    assert (made["form"], made["classes"], made["encoder"]) == ("categorical", 3, "fused")
    assert lineage["physics"]["function"] == "tests.models.test_physics:mass"
    summary = json.loads(done.stdout)
    usual = {"one_step_loss", "rollout_error@5", "rollout_error@20"}
    assert summary["metrics"].keys() == usual
    assert summary["bytes"] == sum(p.stat().st_size for p in out.glob("*.onnx"))
    assert (tmp_path / ".bundle.training" / "training.html").stat().st_size > 1000
    words = ["evaluate", str(out), "--data", str(run_folder), "--spec", str(spec_file)]
    words += ["--split", "none", "--windows", "200", "--report", str(tmp_path / "page.html")]
    again = tmp_path / "again"
    judged = runner.invoke(app, [*words, "--recalibrate", str(again), "--json"])
    assert judged.exit_code in (0, 1)
    found = json.loads(judged.stdout)
    assert set(found["steps"]) == {"1", "5", "10", "20", "50"}
    assert found["recalibration"]["by"] == "the bundle"
    assert found["recalibrated"]["digest"] == read_manifest(again).digest
    assert (tmp_path / "page.html").stat().st_size > 100_000
    worse = any(x["of_persistence"] > 1.05 for x in found["steps"]["5"].values())
    assert judged.exit_code == int(worse)


WORKFLOW = """
workflow: mine
system: {system}
data: {{folders: [{data}]}}
run: {{out: {out}}}
loop: {{steps: 6}}
actor_critic: {{enabled: false}}
dynamics: {{memory: 6, free: 1}}
ensemble: {{units: 9}}
metrics: {{one_step_loss: , rollout_error@5: {bound}, rollout_error@20: , task_return: }}
deployment:
  fallback: hold
  caution: 0.5
  monitors: {{innovation: 0.9, disagreement: 0.8}}
"""


def test_a_workflow_file_is_run_and_judged(
    spec_file: Path, run_folder: Path, tmp_path: Path
) -> None:
    file, out = tmp_path / "mine.yaml", tmp_path / "made"
    file.write_text(WORKFLOW.format(system=spec_file, data=run_folder, out=out, bound=0.001))
    missed = CliRunner().invoke(app, ["train", str(file)])
    assert missed.exit_code == 1, missed.output
    assert "misses: rollout_error@5" in missed.stderr
    manifest = json.loads((out / "manifest.json").read_text())
    found = manifest["metrics"]["asked"]
    assert found.keys() == {"one_step_loss", "rollout_error@5", "rollout_error@20", "task_return"}
    assert manifest["metrics"]["passed"] is False
    assert "names no plant" in found["task_return"]["reason"]
    assert "task_return  - (mass: the spec names no plant" in missed.stdout
    assert "at most 0.001: missed" in missed.stdout
    assert f"  {found['one_step_loss']['value']:.4g}\n" in missed.stdout
    assert manifest["lineage"]["workflow"]["metrics"]["rollout_error@5"] == 0.001
    monitors = manifest["metrics"]["monitors"]
    assert monitors["innovation"]["quantile"] == 0.9
    assert monitors["disagreement"]["quantile"] == 0.8
    limit = monitors["disagreement"]["limit"]
    assert manifest["calibration"]["max_uncertainty"] == pytest.approx(limit, rel=1e-3)
    spec = load_spec(out / "system.yaml")
    assert (spec.fallback.kind, spec.budget.caution) == ("hold", 0.5)
    load_bundle(out, provider="cpu").check(spec)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("shifts: [mass]", "shifts: mass names no plant"),
        ("metrics: {task_return: 3}", "metrics.task_return: mass names no plant"),
        ("deployment: {fallback: hpa}", "fallback.capacity: required by kind hpa"),
        ("deployment: {deadline: soon}", "budget.deadline"),
    ],
)
def test_what_a_system_does_not_allow_is_refused_before_anything_is_learned(
    spec_file: Path, run_folder: Path, tmp_path: Path, more: str, message: str
) -> None:
    file, out = tmp_path / "mine.yaml", tmp_path / "made"
    head = f"workflow: x\nsystem: {spec_file}\ndata: {{folders: [{run_folder}]}}\n"
    file.write_text(f"{head}run: {{out: {out}}}\n{more}\n")
    refused = CliRunner().invoke(app, ["train", str(file)])
    assert refused.exit_code == 2
    assert message in refused.stderr
    assert not (tmp_path / ".made.training").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_training_keeps_what_it_did_and_says_how_to_go_on(
    spec_file: Path, run_folder: Path, tmp_path: Path, number: signal.Signals
) -> None:
    work = tmp_path / ".bundle.training"

    def interrupt() -> None:
        while not (work / "progress.json").exists():
            time.sleep(0.01)
        os.kill(os.getpid(), number)

    words = ["train", str(spec_file), "--data", str(run_folder), "--out", str(tmp_path / "bundle")]
    words += ["--memory", "6", "--units", "9", "--free", "2", "--no-actor", "--json"]
    threading.Thread(target=interrupt).start()
    stopped = CliRunner().invoke(app, [*words, "--steps", "100000"])
    assert stopped.exit_code == 130, stopped.output
    assert stopped.stdout == ""
    assert f"of 100,000 updates are kept in {work / 'checkpoint.pt'}" in stopped.stderr
    assert "--resume" in stopped.stderr
    done = torch.load(work / "checkpoint.pt", weights_only=True)["progress"]["step"]
    assert 0 < done < 100_000


def test_one_short_run_is_too_little_to_judge_on_and_the_folder_is_named(tmp_path: Path) -> None:
    spec = load_spec("nav2d")
    log = tmp_path / "log"
    plant = make_plant(spec, robots=1)
    backtest(spec, plant, policies(spec, None)["fallback"], ticks=20, log=log)
    words = ["evaluate", str(SHIPPED / "nav2d"), "--data", str(log), "--split", "none"]
    refused = CliRunner().invoke(app, words)
    assert refused.exit_code == 2
    assert f"{log}, all of it: 21 rows, 21 of them in the longest" in refused.stderr
    assert "needed are 34 in one" in refused.stderr
    assert "log longer runs" in refused.stderr


def test_help_has_an_example() -> None:
    for command in ("train", "evaluate"):
        shown = CliRunner().invoke(app, [command, "--help"])
        assert shown.exit_code == 0
        assert f"Example: rehearse {command}" in shown.stdout


def test_errors_are_plain_and_status_2(spec_file: Path, tmp_path: Path) -> None:
    out = ["--out", str(tmp_path / "b")]
    runner = CliRunner()
    missing = runner.invoke(app, ["train", str(spec_file), "--data", str(tmp_path / "none"), *out])
    assert missing.exit_code == 2
    assert "no Parquet files" in missing.stderr
    assert "Traceback" not in missing.stderr
    unknown = runner.invoke(app, ["train", "nothing-of-the-kind", "--data", str(tmp_path), *out])
    assert unknown.exit_code == 2
    assert "no such spec" in unknown.stderr
    bad = runner.invoke(app, ["evaluate", str(tmp_path), "--data", str(tmp_path)])
    assert bad.exit_code == 2


def test_without_torch_it_says_what_to_install(
    spec_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    for name in [name for name in sys.modules if name.startswith("models.")]:
        if name != "models.cli":
            monkeypatch.delitem(sys.modules, name)
    result = CliRunner().invoke(
        app, ["train", str(spec_file), "--data", str(tmp_path), "--out", str(tmp_path / "b")]
    )
    assert result.exit_code == 2
    assert "pip install 'rehearse[train]'" in result.stderr


def test_a_bundle_names_the_command_that_makes_it_again(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["/somewhere/bin/rehearse", "train", "mass", "--resume", "--data", "a log"]
    monkeypatch.setattr("sys.argv", words)
    assert command_line() == "rehearse train mass --data 'a log'"
