"""What is watched: counts that add up, and a table that shows them."""

from dataclasses import replace

import numpy as np
from rich.console import Console, RenderableType

from schemas.codes import Mode, Reason
from schemas.messages import Outcome
from schemas.system import load_spec
from streams.monitor import Statistics, live_table
from tests.streams.frames import decisions, frame

SPEC = load_spec("nav2d")


def shown(renderable: RenderableType) -> str:
    console = Console(width=110, record=True, file=None, quiet=False, force_terminal=False)
    with console.capture() as capture:
        console.print(renderable)
    return capture.get()


def fed() -> tuple[Statistics, int]:
    """Two frames of one cohort, under no bundle and then under one; and the cohort's size."""
    seen = Statistics()
    cohort = next(c for c in range(SPEC.cohorts) if frame(SPEC, c, 0).entities)
    for tick, size in ((7, 0), (9, 2)):
        of = frame(SPEC, cohort, tick)
        count = len(of.entities)
        made = replace(
            decisions(SPEC, of, size=size, step_ms=float(tick)),
            mode=np.full(count, int(Mode.PLAN if size else Mode.FALLBACK), np.uint8),
            reasons=np.full(count, int(Reason.RATE | Reason.UNCERTAIN) if size else 0, np.uint32),
        )
        seen.add_decisions(tick, of.entities, made)
    return seen, len(frame(SPEC, cohort, 0).entities)


def test_decisions_are_counted_by_mode_reason_and_bundle() -> None:
    seen, count = fed()
    assert (seen.frames, seen.decisions, len(seen.entities)) == (2, 2 * count, count)
    assert seen.modes == {"fallback": count, "plan": count}
    assert seen.gate == {"rate": count, "uncertain": count}
    assert seen.bundles == {"none": count, "b" * 8: count}
    assert seen.share(Mode.PLAN) == 0.5
    assert seen.share(Mode.HOLD) == 0.0
    assert seen.step_ms == [7.0, 9.0]


def test_ticks_count_from_the_first_to_the_last_in_any_order() -> None:
    seen = Statistics()
    assert (seen.ticks, seen.share(Mode.PLAN)) == (0, 0.0)
    for tick in (12, 10, 15, 11):
        of = frame(SPEC, 0, tick)
        seen.add_decisions(tick, of.entities, decisions(SPEC, of))
    assert (seen.first_tick, seen.last_tick, seen.ticks) == (10, 15, 6)


def test_outcomes_are_summed_by_name_and_kind() -> None:
    seen = Statistics()
    seen.add_outcome(Outcome("a", 1, 0, {"reward": -1.5, "late": 2.0}))
    seen.add_outcome(Outcome("b", 1, 0, {"reward": -0.5}))
    seen.add_outcome(Outcome("b", 1, 0, {}, "end"))
    assert seen.outcomes == {
        "kind:tick": 2.0, "kind:end": 1.0, "reward": -2.0, "late": 2.0,
    }  # fmt: skip


def test_the_table_shows_what_was_counted() -> None:
    seen, count = fed()
    seen.add_outcome(Outcome("a", 1, 0, {"reward": -1.5, "requests": 1e4, "late": 5.0}))
    seen.add_outcome(Outcome("a", 2, 0, {"reward": -0.5, "cost": 7_200.0}))
    text = shown(live_table(SPEC, seen, 30, 2.0, "training: update 5 of 10"))
    for part in (
        f"{count} (robot)", f"{2 * count} · {count}/s · 2 frames", "plan 50.0 %", "rate 50.0 %",
        "p50 8.0", "99.9500 % in time", "2.0 replica-hours", "-1.0000 per decision",
        "update 5 of 10",
    ):  # fmt: skip
        assert part in text


def test_the_table_can_be_shown_before_anything_came() -> None:
    text = shown(live_table(SPEC, Statistics(), None, 0.0))
    assert "0 (robot)" in text
    assert "–" in text
