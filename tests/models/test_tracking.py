"""MLflow, in a local SQLite store: parameters, losses by step, the bundle, where it is from."""

import builtins
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from models.cli import app
from models.tracking import TrackingError, tracked
from tests.models.synthetic import SPEC

mlflow = pytest.importorskip("mlflow.tracking", reason="needs rehearse[mlflow]")
SIZES = ["--steps", "30", "--no-actor", "--memory", "4", "--units", "6", "--free", "1"]


@pytest.fixture
def uri(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'runs.db'}"


def only_run(uri: str) -> tuple[Any, Any]:
    client = mlflow.MlflowClient(tracking_uri=uri)
    (experiment,) = [e for e in client.search_experiments() if e.name == "mass"]
    (run,) = client.search_runs([experiment.experiment_id])
    return client, run


def test_a_training_is_logged(run_folder: Path, tmp_path: Path, uri: str) -> None:
    (tmp_path / "mass.yaml").write_text(SPEC)
    words = ["train", str(tmp_path / "mass.yaml"), "--data", str(run_folder), "--json"]
    words += ["--out", str(tmp_path / "mine"), "--mlflow", uri, *SIZES]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    manifest = json.loads((tmp_path / "mine/manifest.json").read_text())
    client, run = only_run(uri)
    assert run.info.status == "FINISHED"
    assert run.data.params["dynamics.memory"] == "4"
    assert run.data.params["loop.steps"] == "30"
    assert run.data.tags["digest"] == manifest["digest"]
    assert run.data.tags["fingerprint"] == manifest["lineage"]["fingerprint"]
    curves = json.loads((tmp_path / ".mine.training/curves.json").read_text())
    for name in ("predict", "imagine"):
        history = client.get_metric_history(run.info.run_id, f"loss/{name}")
        assert [m.step for m in history] == [10, 20, 30]
        assert [m.value for m in history] == [dict(curves[name])[m.step] for m in history]
    held_out = manifest["metrics"]["held_out"]["steps"]["5"]["place"]["of_persistence"]
    assert run.data.metrics["held_out/steps/5/place/of_persistence"] == held_out
    files = {Path(one.path).name for one in client.list_artifacts(run.info.run_id, "bundle")}
    assert {"manifest.json", "believe.onnx", "imagine.onnx"} <= files
    judged = ["evaluate", str(tmp_path / "mine"), "--spec", str(tmp_path / "mass.yaml")]
    judged += ["--data", str(run_folder), "--windows", "64", "--mlflow", uri]
    assert CliRunner().invoke(app, judged).exit_code in (0, 1)
    runs = client.search_runs([run.info.experiment_id])
    (other,) = [one for one in runs if one.info.run_id != run.info.run_id]
    assert other.data.tags["digest"] == manifest["digest"]
    assert "steps/5/place/of_persistence" in other.data.metrics


def test_what_is_resumed_is_the_same_run(tmp_path: Path, uri: str) -> None:
    def begin() -> None:
        with tracked(uri, "mass", "mine", tmp_path) as run:
            assert run is not None
            run.metrics({"x": 1.0}, 1)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        begin()
    assert only_run(uri)[1].info.status == "KILLED"
    with tracked(uri, "mass", "mine", tmp_path, resume=True) as run:
        assert run is not None
        run.metrics({"x": 2.0}, 2)
    client, found = only_run(uri)
    assert found.info.status == "FINISHED"
    assert [m.value for m in client.get_metric_history(found.info.run_id, "x")] == [1.0, 2.0]
    with pytest.raises(ValueError, match="odd"), tracked(uri, "mass", "mine", tmp_path) as run:
        raise ValueError("odd")
    statuses = [r.info.status for r in client.search_runs([found.info.experiment_id])]
    assert sorted(statuses) == ["FAILED", "FINISHED"]


def test_without_mlflow_the_remedy_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = builtins.__import__

    def missing(name: str, *rest: Any, **named: Any) -> Any:
        if name.startswith("mlflow"):
            raise ImportError(name)
        return kept(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", missing)
    with tracked(None, "mass", "mine") as nothing:
        assert nothing is None
    with (
        pytest.raises(TrackingError, match=r"pip install 'rehearse\[mlflow\]'"),
        tracked("sqlite:///x.db", "mass", "mine"),
    ):
        pass


def test_a_uri_of_no_kind_is_refused() -> None:
    with (
        pytest.raises(TrackingError, match=r"nothing://x: MLflow: .*; check the URI"),
        tracked("nothing://x", "mass", "mine"),
    ):
        pass
