"""What a log of the tests ends with: every failing test by name, with its reason on one line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
FAILING = """
import pytest

@pytest.mark.parametrize("number", range(9))
def test_that_fails_under_a_name_that_leaves_little_room_on_a_line_of_eighty(number):
    assert [number] * 3_000 == [number + 1] * 3_000

def test_of_text():
    assert "one line\\n" * 2_000 == "another line\\n" * 2_000

def test_that_breaks():
    raise RuntimeError("no broker answers")
"""


def test_the_end_of_a_log_names_each_failure_with_its_reason(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text("from tests.conftest import *\n")
    (tmp_path / "test_it.py").write_text(FAILING)
    options = (
        "-c",
        str(ROOT / "pyproject.toml"),
        "--rootdir",
        str(tmp_path),
        "-p",
        "no:cacheprovider",
    )
    for verbosity in ((), ("-q",)):
        log = subprocess.run(
            [sys.executable, "-m", "pytest", *options, *verbosity, str(tmp_path)],
            cwd=ROOT,
            env={**os.environ, "CI": "true", "COLUMNS": "80"},
            capture_output=True,
            text=True,
            check=False,
        ).stdout.splitlines()
        assert len(log) < 300
        assert max(map(len, log)) <= 1_500
        failures = [line for line in log[-14:] if line.startswith("FAILED")]
        assert len(failures) == 11
        assert all(" - " in line for line in failures)
        assert "RuntimeError: no broker answers" in failures[-1]
