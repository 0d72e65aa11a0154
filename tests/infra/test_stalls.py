"""A machine that stands still is seen; one that does not, has no pauses."""

from __future__ import annotations

import os

from infra.stalls import measure_stalls, summary


def test_pieces_that_took_longer_are_pauses() -> None:
    calm = [(i / 100, 0.004 + 0.0001 * (i % 3)) for i in range(200)]
    late = [(at, took + (0.03 if i in (50, 51) else 0.0)) for i, (at, took) in enumerate(calm)]
    found = summary([calm, late], 2.0)
    assert (found["processors"], found["pieces"], found["pauses"]) == (2, 400, 2)
    assert found["pauses_per_s"] == 0.5
    assert 29.8 < found["longest_ms"] < 30.3
    assert 0.0149 < found["stopped_share"] < 0.0152
    assert summary([calm], 2.0)["pauses"] == 0


def test_every_processor_is_looked_at() -> None:
    found = measure_stalls(0.3)
    assert found["processors"] == len(os.sched_getaffinity(0))
    assert found["pieces"] >= found["processors"]
