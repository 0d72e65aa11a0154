"""A Bloom filter never denies what it holds, and seldom affirms what it does not."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import bloom
from schemas.messages import action_id

KEYS = st.lists(st.integers(0, 2**64 - 1), max_size=60).map(lambda keys: np.array(keys, np.uint64))


@given(KEYS, KEYS)
def test_what_is_held_is_never_denied(keys: bloom.Keys, more: bloom.Keys) -> None:
    both = np.concatenate([keys, more, keys])
    assert bloom.may_hold(bloom.filter_of(both), both).all()


@given(st.integers(0, 2**32), st.integers(1, 3_000))
def test_few_others_seem_to_be_held(seed: int, count: int) -> None:
    """0.8 % are expected at ten bits a key; 1.5 % of 20,000 are ten standard deviations off."""
    system = f"system-{seed}"
    held = bloom.keys_of([action_id(system, "robot", tick) for tick in range(count)])
    others = np.random.default_rng(seed).integers(0, 2**64, 20_000, np.uint64)
    bits = bloom.filter_of(held)
    assert 8 * len(bits) <= max(1_024, bloom.BITS * count + 8)
    assert np.count_nonzero(bloom.may_hold(bits, others)) < 300


def test_a_filter_does_not_depend_on_the_machine() -> None:
    """It lies in a catalog that others read."""
    keys = bloom.keys_of([action_id("nav2d", f"robot-{n}", 7) for n in range(100)])
    bits = bloom.filter_of(np.concatenate([keys, bloom.keys_of_entities(["robot-1", "Ω"])]))
    assert hashlib.sha256(bits).hexdigest()[:16] == "d8441b4aee164909"


def test_an_empty_filter_holds_nothing() -> None:
    none = bloom.keys_of([])
    assert not bloom.may_hold(bloom.filter_of(none), bloom.keys_of_entities(["a", "b"])).any()


def test_ids_are_numbers() -> None:
    assert bloom.keys_of(["00000000000000ff", "ffffffffffffffff"]).tolist() == [255, 2**64 - 1]


@pytest.mark.parametrize("wrong", ["x", "", "0" * 15, "0" * 17, "0" * 15 + "g", "00000000 0000000"])
def test_what_is_no_id_is_named(wrong: str) -> None:
    with pytest.raises(ValueError, match=repr(wrong)):
        bloom.keys_of(["0" * 16, wrong, "0" * 16])
    with pytest.raises(ValueError, match="no action id"):
        bloom.keys_of(["0" * 15, "0" * 17])
