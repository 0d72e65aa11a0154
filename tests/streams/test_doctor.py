"""`rehearse doctor` as its users run it: lines, JSON, exit status."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from streams.cli import app
from streams.commands import doctor

RUNNER = CliRunner()


@pytest.fixture(autouse=True)
def _home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("REHEARSE_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("REHEARSE_DATA", raising=False)


def test_json_names_every_check_and_changes_nothing(tmp_path: Path) -> None:
    result = RUNNER.invoke(app, ["doctor", "--json"])
    content = json.loads(result.stdout)
    checks = {finding["check"] for finding in content["findings"]}
    assert {"python", "packages", "onnxruntime", "cuda", "torch", "java", "jars"} <= checks
    assert {"cores", "memory", "disk", "files", "clocks"} <= checks
    assert {"bundles", "catalog", "data", "broker"} <= checks
    assert result.exit_code == (1 if content["status"] == "problem" else 0)
    assert all(f["remedy"] for f in content["findings"] if f["level"] != "ok")
    assert not (tmp_path / "home").exists()


def test_a_problem_is_status_1_with_its_remedy(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("REHEARSE_DATA", str(tmp_path / "nowhere"))
    result = RUNNER.invoke(app, ["doctor"])
    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    at = next(i for i, line in enumerate(lines) if "which is no folder" in line)
    assert lines[at].startswith("✗")
    assert "unset it" in lines[at + 1]


def test_what_cannot_be_examined_is_status_2() -> None:
    assert RUNNER.invoke(app, ["doctor", "no-such-system"]).exit_code == 2
    assert RUNNER.invoke(app, ["doctor", "-X", "no-equals-sign"]).exit_code == 2


def test_every_level_has_a_sign() -> None:
    assert {"ok", "warning", "problem"} == set(doctor._SIGNS)
