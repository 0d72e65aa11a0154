"""Made-up streams for first calls, and a collector that comes back."""

import gc
from collections.abc import Iterator

import numpy as np
import pytest

from schemas.system import load_spec
from streams.warm import ENTITIES, TICKS, collector_at_rest, warm_frames


@pytest.mark.parametrize("system", ["autoscale", "nav2d"])
def test_every_entity_is_seen_in_every_tick(system: str) -> None:
    spec = load_spec(system)
    frames = warm_frames(spec)
    assert [f.tick for f in frames] == [t for t in range(1, TICKS + 1) for _ in range(spec.cohorts)]
    assert sum(len(f.entities) for f in frames) == ENTITIES * TICKS
    assert all(np.isfinite(frame.values).all() for frame in frames)


@pytest.fixture
def collector() -> Iterator[tuple[tuple[int, int, int], int]]:
    """Thresholds and frozen objects of a fresh process, whatever this one ran before.

    Aligners that ran in overlapping threads of it leave each other's.
    """
    was = gc.get_threshold()
    gc.unfreeze()
    gc.set_threshold(700, 10, 10)
    yield gc.get_threshold(), gc.get_freeze_count()
    gc.set_threshold(*was)


def test_the_collector_is_as_before_also_after_an_error(
    collector: tuple[tuple[int, int, int], int],
) -> None:
    before, seen = collector, []

    def fail() -> None:
        seen.append((gc.get_threshold()[0], gc.get_freeze_count()))
        raise KeyError

    with pytest.raises(KeyError), collector_at_rest():
        fail()
    assert seen[0][0] > before[0][0]
    assert seen[0][1] > before[1]
    assert (gc.get_threshold(), gc.get_freeze_count()) == before
