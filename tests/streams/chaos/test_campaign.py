"""What a campaign keeps and sums up, without running anything."""

import io
import json
from pathlib import Path

from rich.console import Console

from streams.chaos.campaign import (
    RESULTS,
    append_result,
    read_results,
    run_campaign,
    summary,
    table_of,
)

HELD = {
    "seed": 1, "clock": "wall", "outcome": "held", "by_invariant": {}, "longest_gap_ms": 900,
    "faults": [{"kind": "kill", "target": "sink"}],
    "asked": {"seconds": 60.0, "count": None, "kinds": []},
}  # fmt: skip
VIOLATED = {
    **HELD, "seed": 2, "outcome": "violated", "by_invariant": {"once": 2, "input": 1},
    "longest_gap_ms": 4_000, "faults": [{"kind": "kill", "target": "align"}] * 2,
}  # fmt: skip


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
    lines = [json.dumps(HELD), json.dumps(VIOLATED), '{"seed": 3, "outco']  # it was cut off
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


def test_the_table_has_a_line_for_each_run() -> None:
    console = Console(width=140, record=True, file=io.StringIO())
    console.print(table_of([HELD, VIOLATED]))
    text = console.export_text()
    assert "kill sink" in text
    assert "once 2, input 1" in text
