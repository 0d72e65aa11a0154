"""What is remembered: episodes as they were, no more than fits, and drawn as the mix says."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.evaluation.world import Record
from models.replay import Mix, Replay
from models.undertaking import judged_on
from tests.models.synthetic import mass_spec

SPEC = mass_spec()
OBS, ACTIONS = len(SPEC.columns), len(SPEC.action_columns)


def record(
    ticks: int,
    entities: int = 1,
    begun: tuple[int, ...] = (),
    ended: tuple[int, ...] = (),
    first: int = 0,
    surprise: float = 1.0,
) -> Record:
    """Rows that tell where they are from: row t sees t, and acts with 100 + t until t + 1."""
    rows = np.arange(ticks + 1.0)[:, None, None]
    begins, ends = np.zeros((ticks + 1, entities), bool), np.zeros((ticks, entities), bool)
    begins[[0, *begun]], ends[list(ended)] = True, True
    empty = np.zeros((ticks + 1, entities, 1), np.float32)
    return Record(
        first=first,
        obs=np.broadcast_to(rows, (ticks + 1, entities, OBS)),
        action=np.broadcast_to(100 + rows[:-1], (ticks, entities, ACTIONS)),
        reward=np.broadcast_to(200 + rows[:-1, :, 0], (ticks, entities)),
        h=empty,
        mean=empty,
        std=empty,
        innovation=np.full((ticks + 1, entities), surprise, np.float32),
        begun=begins,
        ended=ends,
    )


def test_a_row_holds_the_action_and_the_reward_that_led_to_it() -> None:
    replay = Replay(1000)
    replay.add(SPEC, record(9, entities=2, begun=(5,), ended=(3,), first=40))
    rows = replay.sequences()
    assert rows.segments.tolist() == [[0, 5], [5, 10], [10, 15], [15, 20]]
    assert rows.obs[:, 0].tolist() == [0.0, 1, 2, 3, 4, 5, 6, 7, 8, 9] * 2
    safe = float(SPEC.action_safe[0])
    assert rows.action[:7, 0].tolist() == [safe, 100, 101, 102, 103, safe, 105]
    assert np.isnan(rows.reward[[0, 5]]).all()
    assert rows.reward[[1, 4, 6]].tolist() == [200, 203, 205]
    assert rows.alive[:10].tolist() == [1, 1, 1, 1, 0, 1, 1, 1, 1, 1]
    assert rows.tick[:10].tolist() == list(range(40, 50))


def test_what_was_reached_is_told_at_the_least() -> None:
    replay = Replay(1000)
    replay.add(SPEC, record(9, begun=(5,), ended=(3,)))
    assert replay.sequences().reached is None
    reached = replay.sequences(0.5).reached
    assert reached is not None
    # Five rows that end in failure: rewards 200, 201, 202, 203 led to rows 1 to 4.
    assert reached[:5] == pytest.approx([200 + 100.5 + 50.5 + 25.375, 352.75, 303.5, 203, 0])
    # Cut off after row 9, and nothing that was paid is below 0: at least 0 goes on.
    assert reached[5:] == pytest.approx([205 + 103 + 51.75 + 26, 361.5, 311, 208, 0])


def test_what_was_cut_off_may_have_gone_on_as_badly_as_it_was_ever() -> None:
    replay = Replay(1000)
    made = record(6)
    replay.add(SPEC, replace(made, reward=-made.reward))  # -200 to -205
    reached = replay.sequences(0.5).reached
    assert reached is not None
    assert reached[-1] == pytest.approx(-410), "the worst reward for ever: -205 / (1 - 0.5)"
    assert reached[-2] == pytest.approx(-205 - 205)
    # After an end for good nothing is paid any more, neither good nor bad.
    failing = record(6, ended=(5,))
    replay.add(SPEC, replace(failing, reward=-failing.reward))
    reached = replay.sequences(0.5).reached
    assert reached is not None
    assert reached[-2:] == pytest.approx([-205, 0])


def test_the_oldest_go_first_and_failures_later() -> None:
    replay = Replay(50, Mix(kept=0.5))
    replay.add(SPEC, record(9, ended=(8,), first=1))
    for first in range(100, 1000, 100):
        replay.add(SPEC, record(9, first=first))
    assert [episode.tick for episode in replay.episodes] == [1, 600, 700, 800, 900]
    for first in range(1000, 1500, 100):
        replay.add(SPEC, record(9, ended=(8,), first=first))
    assert len(replay) <= 50
    assert replay.episodes[0].tick > 1, "when failures alone would fill it, the oldest of them go"


@given(
    mix=st.builds(
        Mix,
        recent=st.floats(0, 0.3),
        surprising=st.floats(0, 0.3),
        failed=st.floats(0, 0.3),
        newest=st.integers(1, 40),
    ),
    lengths=st.lists(st.integers(4, 20), min_size=1, max_size=6),
    surprises=st.lists(st.sampled_from([0.0, 1.0, 5.0, np.nan]), min_size=6, max_size=6),
)
def test_chances_are_shares_of_one(mix: Mix, lengths: list[int], surprises: list[float]) -> None:
    replay = Replay(1000, mix)
    for ticks, surprise in zip(lengths, surprises, strict=False):
        replay.add(SPEC, record(ticks, ended=(ticks - 1,), surprise=surprise))
    chances = replay.chances()
    assert len(chances) == len(replay)
    assert chances.sum() == pytest.approx(1.0)
    assert (chances >= 0).all()
    newest = chances[-mix.newest :].sum()
    least = mix.recent + (1 - mix.recent - mix.surprising - mix.failed) * min(
        mix.newest / len(replay), 1
    )
    assert newest >= least - 1e-9


def test_what_surprised_and_what_failed_is_drawn_more_often() -> None:
    replay = Replay(1000, Mix(recent=0.0, surprising=0.4, failed=0.4, newest=50))
    replay.add(SPEC, record(9, surprise=1.0))
    replay.add(SPEC, record(9, surprise=3.0))
    replay.add(SPEC, record(9, surprise=0.0, ended=(8,)))
    chances = replay.chances().reshape(3, 10)
    even = 0.2 / 30
    np.testing.assert_allclose(chances[0], even + 0.4 * 1 / 40)
    np.testing.assert_allclose(chances[1], even + 0.4 * 3 / 40)
    np.testing.assert_allclose(chances[2], even + np.repeat([0, 0.4 / 5], 5))
    drawn = replay.sequences().draw(np.random.default_rng(0), 4000, 1, np.cumsum(chances))
    found = np.bincount(drawn // 10, minlength=3) / 4000
    np.testing.assert_allclose(found, chances.sum(1), atol=0.03)


def test_memory_outlives_a_checkpoint() -> None:
    replay, other = Replay(1000), Replay(1000)
    replay.add(SPEC, record(9, entities=3, begun=(4,), ended=(3,), first=7))
    other.restore(replay.state())
    for name, value in vars(replay.sequences()).items():
        np.testing.assert_array_equal(value, getattr(other.sequences(), name))
    np.testing.assert_array_equal(replay.chances(), other.chances())


def test_episodes_that_are_too_short_to_judge_on_give_way_to_those_of_practice() -> None:
    """As where every pole falls at once: what was learned must not be lost for want of a figure."""
    long, short, lived = record(40, first=3), record(12), Replay(1000)
    assert judged_on(SPEC, [short, long], lived).segments.tolist() == [[0, 13], [13, 54]]
    lived.add(SPEC, long)
    assert judged_on(SPEC, [short], lived).tick.tolist() == list(range(3, 44))
    lived.episodes.clear()
    lived.add(SPEC, short)
    with pytest.raises(ValueError, match="no episode of 18 ticks"):
        judged_on(SPEC, [record(2)], lived)
