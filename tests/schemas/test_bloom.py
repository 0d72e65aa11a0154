"""A Bloom filter never denies what it holds, and seldom affirms what it does not."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas import bloom
from schemas.messages import action_id

KEYS = st.lists(st.integers(0, 2**64 - 1), max_size=60).map(lambda keys: np.array(keys, np.uint64))


def held_by(blocks: Sequence[bytes], keys: bloom.Keys) -> list[bool]:
    """Whether the filter may hold each key: its own block is looked at."""
    found, own = np.zeros(len(keys), bool), bloom.block_number(keys) % len(blocks)
    for number, block in enumerate(blocks):
        found[own == number] = bloom.may_hold(block, keys[own == number])
    return [bool(one) for one in found]


@given(KEYS, KEYS, st.integers(1, 40))
def test_what_is_held_is_never_denied(keys: bloom.Keys, more: bloom.Keys, at_once: int) -> None:
    both = np.concatenate([keys, more, keys])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bloom, "_AT_ONCE", at_once)
        blocks = bloom.filter_of(both)
    assert all(held_by(blocks, both))
    assert blocks == bloom.filter_of(both)


@given(st.integers(0, 2**32), st.integers(1, 20_000))
@settings(max_examples=20)
def test_few_others_seem_to_be_held(seed: int, count: int) -> None:
    """0.9 % are expected at ten bits a key; 1.5 % of 5,000 are five standard deviations off."""
    system = f"system-{seed}"
    held = bloom.keys_of([action_id(system, "robot", tick) for tick in range(count)])
    others = np.random.default_rng(seed).integers(0, 2**64, 5_000, np.uint64)
    blocks = bloom.filter_of(held)
    assert {len(block) for block in blocks} == {bloom.BLOCK_BYTES}
    assert 8 * bloom.BLOCK_BYTES * (len(blocks) - 1) < bloom.BITS * count
    assert sum(held_by(blocks, others)) < 75


def test_a_filter_does_not_depend_on_the_machine() -> None:
    """It lies in a catalog that others read."""
    ids = [action_id("nav2d", f"robot-{n}", 7) for n in range(9_000)]
    keys = np.concatenate([bloom.keys_of(ids), bloom.keys_of_entities(["robot-1", "Ω"])])
    blocks = bloom.filter_of(keys)
    assert len(blocks) == 3
    assert hashlib.sha256(b"".join(blocks)).hexdigest()[:16] == "f43471120b55ff46"


def test_an_empty_filter_holds_nothing() -> None:
    none = bloom.keys_of([])
    assert not any(held_by(bloom.filter_of(none), bloom.keys_of_entities(["a", "b"])))


def test_ids_are_numbers() -> None:
    assert bloom.keys_of(["00000000000000ff", "ffffffffffffffff"]).tolist() == [255, 2**64 - 1]


@pytest.mark.parametrize("wrong", ["x", "", "0" * 15, "0" * 17, "0" * 15 + "g", "00000000 0000000"])
def test_what_is_no_id_is_named(wrong: str) -> None:
    with pytest.raises(ValueError, match=repr(wrong)):
        bloom.keys_of(["0" * 16, wrong, "0" * 16])
    with pytest.raises(ValueError, match="no action id"):
        bloom.keys_of(["0" * 15, "0" * 17])
