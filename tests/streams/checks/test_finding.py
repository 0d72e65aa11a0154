"""Findings are gathered from all checks, whatever happens to one of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from streams.checks.finding import Finding, Place, examine, worst

FINE, ODD, BAD = (Finding("c", level, "w", "r") for level in ("ok", "warning", "problem"))


def test_a_check_that_fails_is_a_problem_and_the_others_go_on() -> None:
    def begins_well(_: Place) -> Iterator[Finding]:
        yield FINE
        raise RuntimeError("boom")

    def other(_: Place) -> Iterator[Finding]:
        yield ODD

    found = list(examine((begins_well, other), Place(Path())))
    assert [found[0], found[2]] == [FINE, ODD]
    assert (found[1].check, found[1].level) == ("begins_well", "problem")
    assert "boom" in found[1].what


def test_the_worst_counts() -> None:
    assert worst([]) == "ok"
    assert worst([FINE, ODD]) == "warning"
    assert worst([BAD, FINE, ODD]) == "problem"
