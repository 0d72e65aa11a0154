"""The vectorised aligner, the plain reference, and a restarted aligner say the same."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.frames import Frame
from schemas.system import SystemSpec
from streams.align import Aligner
from tests.streams.align_events import (
    SPEC,
    UNLINKED,
    Event,
    Step,
    assert_agrees,
    content,
    events_of,
    feed,
    new_aligner,
    random_steps,
    refer,
    steps,
    through_bytes,
)
from tests.streams.align_reference import Reference


def assert_agrees_with_the_reference(log: Sequence[Event], chunk: int) -> int:
    aligner = new_aligner()
    return assert_same(feed(aligner, log, chunk), aligner, refer(log))


def assert_same(frames: Sequence[Frame], aligner: Aligner, reference: Reference) -> int:
    by_place = {(f.tick, f.cohort): f for f in frames}
    assert len(by_place) == len(frames)
    assert sorted(by_place) == sorted((row["tick"], row["cohort"]) for row in reference.frames)
    for row in reference.frames:
        assert_agrees(by_place[row["tick"], row["cohort"]], row)
    rejected = [(letter.reason, letter.entity, letter.time_us) for letter in aligner.dead_letters()]
    assert sorted(rejected) == sorted(reference.rejected)
    return len(frames)


@settings(max_examples=100, deadline=None)
@given(steps, st.sampled_from([1, 3, 50]))
def test_agrees_with_the_reference(taken: list[Step], chunk: int) -> None:
    assert_agrees_with_the_reference(events_of(taken), chunk)


@pytest.mark.parametrize("seed", range(4))
def test_agrees_with_the_reference_on_long_streams(seed: int) -> None:
    log = events_of(random_steps(seed, 1_500), jitter=seed % 2)
    assert assert_agrees_with_the_reference(log, [1, 7, 1_000, 40][seed]) > 200


def assert_agrees_under_the_wall_clock(log: Sequence[Event], spec: SystemSpec) -> int:
    aligner = new_aligner(spec, "wall")
    frames: list[Frame] = []
    for event in log:
        frames += aligner.close(event.at)
        frames += feed(aligner, [event], 1)
    return assert_same(frames, aligner, refer(log, spec, "wall"))


@settings(max_examples=100, deadline=None)
@given(steps, st.sampled_from([SPEC, UNLINKED]))
def test_agrees_with_the_reference_under_the_wall_clock(
    taken: list[Step], spec: SystemSpec
) -> None:
    assert_agrees_under_the_wall_clock(events_of(taken), spec)


@pytest.mark.parametrize("seed", range(2))
def test_agrees_on_long_streams_under_the_wall_clock(seed: int) -> None:
    log = events_of(random_steps(400 + seed, 1_000), jitter=seed)
    assert assert_agrees_under_the_wall_clock(log, UNLINKED) > 200


def assert_cuts_do_not_matter(log: Sequence[Event], chunk: int) -> None:
    whole = [content(f) for f in feed(new_aligner(), log, chunk)]
    single = [content(f) for f in feed(new_aligner(), log, 1)]
    assert sorted(whole, key=lambda c: c[:2]) == sorted(single, key=lambda c: c[:2])


@settings(max_examples=100, deadline=None)
@given(steps, st.integers(2, 80))
def test_frames_do_not_depend_on_how_the_stream_was_cut(taken: list[Step], chunk: int) -> None:
    assert_cuts_do_not_matter(events_of(taken), chunk)


@pytest.mark.parametrize("seed", range(3))
def test_long_streams_do_not_depend_on_how_they_were_cut(seed: int) -> None:
    assert_cuts_do_not_matter(events_of(random_steps(100 + seed, 1_000), jitter=1), 1_000)


def assert_a_restart_changes_nothing(
    log: Sequence[Event], kill: int, chunk: int, again: int, lost: Sequence[int] = ()
) -> None:
    """Kills after `kill` events; the last frames of cohorts in `lost` never reached the broker."""
    undisturbed = feed(new_aligner(), log, chunk)
    emitted = feed(new_aligner(), log[:kill], chunk)
    newest = max((frame.tick for frame in emitted), default=0)
    emitted = [f for f in emitted if f.cohort not in lost or f.tick < newest - 1]
    restarted = new_aligner()
    seek = restarted.restore(through_bytes(emitted))
    rest = [
        event
        for event in log
        if event.kind == "control"
        or event.offset >= seek.get(event.topic, {}).get(event.partition, 0)
    ]
    further = feed(restarted, rest, again)
    last = {frame.cohort: frame.tick for frame in emitted}
    expected = [f for f in undisturbed if f.tick > last.get(f.cohort, -(2**60))]
    assert sorted(map(content, further), key=lambda c: c[:2]) == sorted(
        map(content, expected), key=lambda c: c[:2]
    )
    assert all(frame.header.epoch == (1 if emitted else 0) for frame in further)


@settings(max_examples=100, deadline=None)
@given(steps, st.floats(0, 1), st.sampled_from([1, 5, 60]), st.sampled_from([1, 4, 60]))
def test_a_restart_makes_the_same_further_frames(
    taken: list[Step], at: float, chunk: int, again: int
) -> None:
    log = events_of(taken)
    assert_a_restart_changes_nothing(log, round(at * len(log)), chunk, again)


@pytest.mark.parametrize("seed", range(6))
def test_restarts_anywhere_in_long_streams(seed: int) -> None:
    log = events_of(random_steps(200 + seed, 700), jitter=seed % 2)
    rng = np.random.default_rng(seed)
    for kill in rng.integers(0, len(log), 2).tolist():
        assert_a_restart_changes_nothing(log, kill, [1, 30][seed % 2], [30, 1, 7][seed % 3])


@pytest.mark.parametrize("seed", range(4))
def test_a_restart_when_some_partitions_lack_the_last_frames(seed: int) -> None:
    log = events_of(random_steps(300 + seed, 500), jitter=seed % 2)
    rng = np.random.default_rng(seed)
    for kill in rng.integers(100, len(log), 2).tolist():
        assert_a_restart_changes_nothing(
            log, kill, [1, 30][seed % 2], [30, 1, 7][seed % 3], lost=[1 + seed % 2]
        )
