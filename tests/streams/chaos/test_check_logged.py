"""Whose beliefs are held to which frames; a belief says here which ticks went into it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from streams.chaos.check_logged import check_beliefs
from streams.chaos.facts import Findings

TICKS = range(6)


def replay(frames: list[Any], digest: str) -> dict[tuple[int, int], str]:
    ticks = [frame.tick for frame in frames]
    return {(0, tick): str(ticks[: place + 1]) for place, tick in enumerate(ticks)}


def decided(worker: str, over: set[int]) -> list[tuple[Any, Any]]:
    """What a worker logs that decides all frames but those in `over`."""
    frames = [SimpleNamespace(cohort=0, tick=tick) for tick in TICKS if tick not in over]
    beliefs = replay(frames, "")
    return [
        (
            SimpleNamespace(place=frame.tick),
            SimpleNamespace(
                frame=frame,
                decisions=SimpleNamespace(
                    bundle="b",
                    spent={"worker": worker, "attempt": 0, "belief": beliefs[0, frame.tick]},
                ),
            ),
        )
        for frame in frames
    ]


def wrong(*logged: list[tuple[Any, Any]], shed: set[int]) -> int:
    """How many beliefs are found to be wrong, where these ticks were told as passed over."""
    facts: Any = SimpleNamespace(
        trajectories=[entry for entries in logged for entry in entries],
        frames={(0, tick): SimpleNamespace(cohort=0, tick=tick) for tick in TICKS},
        places={(0, tick): tick for tick in TICKS},
        was_shed=lambda place: place in shed,
    )
    findings = Findings()
    check_beliefs(facts, findings, replay)
    return findings.counts["belief"]


@pytest.mark.parametrize(("other", "found"), [("twin-0", 0), ("worker-1", 5)])
def test_a_twin_passes_over_other_frames_than_the_first_one(other: str, found: int) -> None:
    """Two of one group share a belief: ticks 3 to 5 of the one then, 4 and 5 of the other."""
    assert wrong(decided("worker-0", {1}), decided(other, {3}), shed={1, 3}) == found


def test_who_began_again_before_what_was_passed_over_may_have_it_in_its_belief() -> None:
    assert wrong(decided("worker-0", set()), shed={1}) == 0


@pytest.mark.parametrize("worker", ["worker-0", "twin-0"])
def test_a_frame_that_was_not_told_as_passed_over_is_missed(worker: str) -> None:
    assert wrong(decided("worker-0", set()), decided(worker, {2}), shed={4}) == 3
