"""What a campaign keeps and sums up, without running anything."""

import json
from pathlib import Path

import pytest

from streams.chaos.campaign import (
    RESULTS,
    append_result,
    read_results,
    run_campaign,
    summary,
)
from streams.chaos.schedule import make_schedule

HELD = {
    "seed": 1, "clock": "wall", "outcome": "held", "by_invariant": {}, "longest_gap_ms": 900,
    "faults": [{"kind": "kill", "target": "sink"}],
    "asked": {"seconds": 60.0, "count": None, "kinds": []},
}  # fmt: skip
VIOLATED = {
    **HELD, "seed": 2, "outcome": "violated", "by_invariant": {"once": 2, "input": 1},
    "longest_gap_ms": 4_000, "faults": [{"kind": "kill", "target": "align"}] * 2,
}  # fmt: skip


def faults_of(seed: int) -> list[dict[str, object]]:
    return [fault.as_dict() for fault in make_schedule(seed).faults]


def test_runs_are_summed_up() -> None:
    assert summary([HELD, VIOLATED]) == {
        "runs": 2,
        "idle": 0,
        "violations": 3,
        "by_invariant": {"input": 1, "once": 2},
        "longest_gap_ms": 4_000,
        "faults": {"kill": 3},
    }


def test_a_campaign_goes_on_where_it_was(tmp_path: Path) -> None:
    mine = [{**HELD, "faults": faults_of(1)}, {**VIOLATED, "faults": faults_of(2)}]
    lines = [*map(json.dumps, mine), '{"seed": 3, "outco']  # it was cut off
    (tmp_path / RESULTS).write_text("\n".join(lines))
    assert [outcome["seed"] for outcome in read_results(tmp_path / RESULTS)] == [1, 2]
    told: list[str] = []
    result = run_campaign(tmp_path, Path("no bundle"), [1, 2], 60.0, say=told.append)
    assert (result["runs"], result["violations"]) == (2, 3)
    assert told == ["seed 1 was run before: held", "seed 2 was run before: violated"]


def test_a_line_that_was_cut_off_does_not_spoil_the_next(tmp_path: Path) -> None:
    (tmp_path / RESULTS).write_text('{"seed": 3, "outco')
    append_result(tmp_path / RESULTS, HELD)
    append_result(tmp_path / RESULTS, VIOLATED)
    assert read_results(tmp_path / RESULTS) == [HELD, VIOLATED]


def test_what_was_run_with_other_faults_is_run_again(tmp_path: Path) -> None:
    """Of another version, whose seed 1 was another run: here it fails, as there is no bundle."""
    other = {**HELD, "faults": faults_of(2)}
    (tmp_path / RESULTS).write_text(json.dumps(other) + "\n")
    told: list[str] = []

    def say(text: str) -> None:
        told.append(text)
        raise InterruptedError

    with pytest.raises(InterruptedError):
        run_campaign(tmp_path, Path("no bundle"), [1], 60.0, say=say)
    assert told == ["run 1 of 1: seed 1, wall clock"]
