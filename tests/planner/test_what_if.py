"""Alternatives are compared in the same futures, and what happened is summed as futures are."""

from __future__ import annotations

import numpy as np
import pytest

from planner.session import Bundle, Posterior
from planner.what_if import DRAWS, Alternative, Rehearsal, earned
from tests.planner.worlds import MEMBERS, double_integrator, edited, make_bundle

SPEC = edited("nav2d")
RNG = np.random.default_rng(1)
STEPS = 6
PUSH = np.tile([[1.0, -0.5]], (STEPS, 1))


def posterior(bundle: Bundle) -> Posterior:
    h = np.array([[1, 2, 0, 0, 0, 0], [-3, 1, 0.5, 0, 1, 1]], np.float32)
    z = np.zeros((2, bundle.latent), np.float32)
    return Posterior(h, z, z + 1, np.zeros(2, np.float32))


@pytest.fixture(scope="module")
def noisy(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    world = double_integrator(noise=0.3, value=7.0)
    return make_bundle(tmp_path_factory.mktemp("noisy"), SPEC, world)


@pytest.fixture(scope="module")
def certain(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_bundle(tmp_path_factory.mktemp("certain"), SPEC, double_integrator(noise=0.0))


def test_the_same_action_differs_in_no_future_and_noise_cancels_out(noisy: Bundle) -> None:
    rehearsal = Rehearsal(SPEC, noisy, posterior(noisy), 1, (5, 0, 9))
    names = ("decided", "again", "less")
    sequences = (PUSH, PUSH, 0.9 * PUSH)
    given = [Alternative(n, "", s) for n, s in zip(names, sequences, strict=True)]
    decided, again, less = rehearsal.futures(given)
    assert rehearsal.count == MEMBERS * DRAWS
    assert (decided.difference, decided.better) == (0.0, 0.0)
    assert (again.difference, again.better) == (0.0, 0.0)
    assert again.returned.tolist() == decided.returned.tolist()
    assert again.channels.tobytes() == decided.channels.tobytes()
    assert less.difference == pytest.approx(less.mean - decided.mean)
    apart, alone = less.differences, less.returned
    assert apart[2] - apart[0] < 0.2 * (alone[2] - alone[0]), "common random numbers"
    low, middle, high = np.moveaxis(decided.channels, -1, 0)
    assert (low <= middle).all()
    assert (middle <= high).all()
    assert decided.channels.shape == (STEPS, 6, 3)


def test_who_else_is_compared_changes_nothing(noisy: Bundle) -> None:
    rehearsal = Rehearsal(SPEC, noisy, posterior(noisy), 0, (5, 0, 9))
    alone = rehearsal.futures([Alternative("a", "", PUSH)])[0]
    beside = rehearsal.futures([Alternative("a", "", PUSH), Alternative("b", "", -PUSH)])[0]
    assert np.allclose(alone.channels, beside.channels, rtol=1e-5, atol=1e-6)
    assert alone.mean == pytest.approx(beside.mean, rel=1e-5)


def test_what_is_within_the_horizon_leaves_the_value_out(noisy: Bundle) -> None:
    rehearsal = Rehearsal(SPEC, noisy, posterior(noisy), 0, (5, 0, 9))
    found = rehearsal.futures([Alternative("a", "", PUSH)])[0]
    beyond = noisy.discount**STEPS * 7.0
    assert found.returned - found.within == pytest.approx([beyond] * 3, abs=1e-3)
    assert rehearsal.within(PUSH).tolist() == found.within.tolist()
    shorter = rehearsal.within(PUSH[:2])
    assert shorter[1] > found.within[1], "each tick away from the goal costs"


def test_what_was_observed_earns_what_the_same_future_would(certain: Bundle) -> None:
    rehearsal = Rehearsal(SPEC, certain, posterior(certain), 1, (5, 0, 9))
    found = rehearsal.futures([Alternative("a", "", PUSH)])[0]
    seen = found.channels[..., 1]  # the only future there is
    got = earned(SPEC, certain, 9, seen, PUSH)
    assert got == pytest.approx(found.within[1], rel=1e-6)
    outside = seen.copy()
    outside[2, 0] = 16.0  # beyond the arena: a soft constraint
    inside = seen.copy()
    inside[2, 0] = 14.9
    worse, better = (earned(SPEC, certain, 9, s, PUSH) for s in (outside, inside))
    assert worse is not None
    assert better is not None
    assert better - worse > certain.discount**2 * 1.0
    missing = seen.copy()
    missing[3, 0] = np.nan
    assert np.isnan(earned(SPEC, certain, 9, missing, PUSH) or 0.0)


def test_hard_constraints_are_counted_in_ticks(tmp_path_factory: pytest.TempPathFactory) -> None:
    strict = edited("nav2d", ("kind: soft", "kind: hard"), ("<= 15", "<= 3.05"))
    bundle = make_bundle(tmp_path_factory.mktemp("hard"), strict, double_integrator(noise=0.0))
    rehearsal = Rehearsal(strict, bundle, posterior(bundle), 1, (5, 0, 9))
    west, still = np.tile([[-1.0, 0.0]], (20, 1)), np.zeros((20, 2))
    away, back = rehearsal.futures([Alternative("a", "", west), Alternative("b", "", still)])
    assert back.hard == 0.0
    steps = np.arange(1, 21)
    x = -3.0 + 0.05 * steps - 0.005 * steps**2  # from x = -3 at 0.5 m/s to the east
    broken = bundle.discount ** (steps - 1) * (x < -3.05)
    assert away.hard == pytest.approx(broken.sum(), rel=1e-6)
