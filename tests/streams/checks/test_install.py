"""What is installed is looked at, not assumed: versions, a real session, a real Java."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from infra import jars
from planner.runtime import cuda_usable
from streams.checks import install
from streams.checks.finding import Place, worst

HERE = Place(Path())


def test_this_environment_meets_its_requirements() -> None:
    for check in (install.python, install.packages, install.onnxruntime):
        found = list(check(HERE))
        assert worst(found) == "ok", found


def test_requirements_come_from_the_project_file() -> None:
    python, needed, training = install.requirements()
    assert python.startswith(">=3.")
    assert {"numpy", "confluent-kafka", "polars"} <= {r.name for r in needed}
    assert "torch" in {r.name for r in training}
    assert "torch" not in {r.name for r in needed}


def test_versions_that_do_not_fit_are_named() -> None:
    numpy = metadata.version("numpy")
    needed = [
        Requirement(text)
        for text in (
            "numpy>=1",
            "numpy>=99",
            "no-such-package-of-ours",
            "numpy>=99; python_version < '3'",
        )
    ]
    assert [(str(r), v) for r, v in install.wrong_versions(needed)] == [
        ("numpy>=99", numpy),
        ("no-such-package-of-ours", "absent"),
    ]


def test_wrong_packages_are_problems_with_a_command(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = (">=3.99", [Requirement("numpy>=99")], [Requirement("no-such-package-of-ours")])
    monkeypatch.setattr(install, "requirements", lambda: wrong)
    (python,) = install.python(HERE)
    (package,) = install.packages(HERE)
    (torch,) = install.torch(HERE)
    assert (python.level, package.level, torch.level) == ("problem", "problem", "ok")
    assert package.remedy == "python -m pip install 'numpy>=99'"
    assert torch.remedy == "to train: python -m pip install 'no-such-package-of-ours'"


def test_two_runtimes_at_once_are_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(install, "_is_there", lambda name: True)
    found = list(install.onnxruntime(HERE))
    assert [finding.level for finding in found] == ["problem", "ok"]
    uninstall, again = found[0].remedy.split("; ")
    assert all(name in uninstall for name in install.RUNTIMES)
    assert again.count("onnxruntime") == 1  # that of this platform


def test_the_session_computes_a_product() -> None:
    assert 0 <= install.product_error("CPUExecutionProvider") < 1e-5


def test_cuda_says_why_not() -> None:
    (found,) = install.cuda(HERE)
    assert found.what
    assert ("a session runs on it" in found.what) == cuda_usable()
    assert (found.level == "warning") == bool(found.remedy)


def test_java_of_the_wheel_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (found,) = install.java(HERE)
    assert found.level == "ok"
    assert "Java 2" in found.what
    broken = tmp_path / "java"
    broken.write_text("#!/bin/sh\necho 'java version \"1.8.0\"' >&2\n")
    broken.chmod(0o755)
    monkeypatch.setattr(install, "JAVA", broken)
    (found,) = install.java(HERE)
    assert found.level == "problem"
    assert "1.8.0" in found.what


def test_jars_are_counted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("REHEARSE_CACHE", str(tmp_path))
    first = tmp_path / "jars" / jars.pins()[0].path
    first.parent.mkdir(parents=True)
    first.touch()
    (found,) = install.kafka_jars(HERE)
    assert found.what.startswith(f"1 of {len(jars.pins())} jars")
    assert found.remedy.endswith(jars.repository())
