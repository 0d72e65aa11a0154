"""All runs as a table and as a document, from one file of results or several; and their source."""

from __future__ import annotations

import io
import json
import subprocess
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from streams.chaos.listing import document_of, read_all, table_of
from streams.chaos.source import PACKAGES, source
from streams.cli import app

HELD = {
    "seed": 2, "clock": "wall", "outcome": "held", "by_invariant": {}, "longest_gap_ms": 940,
    "faults": [{"kind": "kill", "target": "sink"}] * 2
    + [{"kind": "broker_refuses", "target": "broker", "how": "half-open"}],
    "folder": "/r/a", "at": "20261127-001139", "commit": "abcdef0123", "clean": True, "source": "s",
}  # fmt: skip
VIOLATED = {
    **HELD, "seed": 1, "outcome": "violated", "by_invariant": {"once": 2, "input": 1},
    "twin": True, "longest_gap_ms": 4_000, "clean": False, "folder": "/r/b",
    "faults": [{"kind": "clock_jump", "target": "device"}, {"kind": "poison", "target": "frames"}],
}  # fmt: skip
OLD = {k: v for k, v in HELD.items() if k not in ("commit", "clean", "source", "at", "folder")}
INSTALLED = {**HELD, "seed": 5, "commit": "", "source": "0123456789"}


def written(file: Path, *outcomes: object) -> Path:
    file.write_text("".join(json.dumps(outcome) + "\n" for outcome in outcomes))
    return file


def test_several_files_are_one_list_and_a_run_in_two_of_them_is_one(tmp_path: Path) -> None:
    first = written(tmp_path / "a", HELD, INSTALLED)
    second = written(tmp_path / "b", VIOLATED, HELD)
    assert read_all([first, second]) == [VIOLATED, HELD, INSTALLED]
    with pytest.raises(FileNotFoundError, match="name files of results"):
        read_all([first, tmp_path / "c"])


@pytest.mark.parametrize(
    ("line", "lacks"),
    [('{"seed": 1}', "clock"), ("7", "seed")],
)
def test_a_line_that_is_no_outcome_is_named(tmp_path: Path, line: str, lacks: str) -> None:
    file = tmp_path / "runs.jsonl"
    file.write_text(json.dumps(HELD) + "\n" + line + "\n")
    told = CliRunner().invoke(app, ["chaos", "--list", "--results", str(file)])
    assert told.exit_code == 2
    assert "runs.jsonl:2" in told.output.replace("\n", "")
    assert lacks in told.output


def test_the_document_has_a_short_line_for_each_run() -> None:
    text = document_of([VIOLATED, HELD, OLD, INSTALLED])
    assert "4 runs of `rehearse chaos`, 11 faults: 3 held, 1 violated, 0 idle" in text
    assert "was 4.0 s" in text
    assert text.splitlines()[-4:] == [
        (
            "| 1 | wall, twin | clock jump, poison frames | violated: once 2 input 1 | 4.0 "
            "| abcdef0123* | 2026-11-27 |"
        ),
        (
            "| 2 | wall | kill sink ×2, broker refuses half-open | held | 0.9 | abcdef0123 "
            "| 2026-11-27 |"
        ),
        "| 2 | wall | kill sink ×2, broker refuses half-open | held | 0.9 | ? | ? |",
        (
            "| 5 | wall | kill sink ×2, broker refuses half-open | held | 0.9 | [0123456789] "
            "| 2026-11-27 |"
        ),
    ]


def test_the_table_has_a_line_for_each_run() -> None:
    console = Console(width=180, record=True, file=io.StringIO())
    console.print(table_of([HELD, VIOLATED]))
    text = console.export_text()
    assert "kill sink" in text
    assert "once 2 input 1" in text
    assert "abcdef0123*" in text


def test_the_command_lists_and_runs_nothing(tmp_path: Path) -> None:
    files = [written(tmp_path / "a", HELD), written(tmp_path / "b", VIOLATED)]
    out = tmp_path / "RUNS.md"
    named = [part for file in files for part in ("--results", str(file))]
    done = CliRunner().invoke(app, ["chaos", "--list", *named, "--markdown", str(out), "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["runs"] == 2
    assert out.read_text() == document_of([VIOLATED, HELD])
    missing = CliRunner().invoke(app, ["chaos", "--list", "--results", str(tmp_path / "none")])
    assert missing.exit_code == 2
    unknown = CliRunner().invoke(app, ["chaos", "--kind", "earthquake"])
    assert unknown.exit_code == 2


def test_the_source_is_told_by_its_commit_and_by_what_lies_there(tmp_path: Path) -> None:
    for package in PACKAGES:
        (tmp_path / package).mkdir()
    module = tmp_path / "streams" / "one.py"
    module.write_text("ONE = 1\n")
    bare = source(tmp_path)
    assert (bare.commit, bare.clean) == ("", False)

    def git(*arguments: str) -> str:
        who = ["-c", "user.name=a", "-c", "user.email=a@b"]
        done = subprocess.run(
            ["git", *who, *arguments], cwd=tmp_path, check=True, capture_output=True, text=True
        )
        return done.stdout.strip()

    git("init", "-q")
    git("add", ".")
    git("commit", "-q", "-m", "one")
    clean = source(tmp_path)
    assert (clean.commit, clean.clean) == (git("rev-parse", "--short=10", "HEAD"), True)
    assert clean.source == bare.source
    module.write_text("ONE = 2\n")
    changed = source(tmp_path)
    assert (changed.commit, changed.clean) == (clean.commit, False)
    assert changed.source != clean.source
    git("checkout", "-q", ".")
    (tmp_path / "streams" / "two.py").write_text("")
    beside = source(tmp_path)
    assert not beside.clean
    assert beside.source != clean.source
