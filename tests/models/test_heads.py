"""What is read off a state keeps its value when its units change."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from models.heads import Heads, Scaled


@given(
    units=st.lists(st.tuples(st.floats(-100, 100), st.floats(0.01, 100)), min_size=1, max_size=4),
    seed=st.integers(0, 99),
)
def test_new_units_change_no_value(units: list[tuple[float, float]], seed: int) -> None:
    torch.manual_seed(seed)
    head, state = Scaled(4, 8).double(), torch.randn(16, 4).double()
    before = head(state)
    for offset, scale in units:
        head.rescale(offset, scale)
        torch.testing.assert_close(head(state), before, rtol=1e-6, atol=1e-6)
        assert float(head.offset) == offset
        assert float(head.scale) == scale


def test_the_reward_can_be_learned_again_without_the_rest() -> None:
    heads = Heads(memory=3, latent=2, shares=2, units=8)
    memory, latent = torch.randn(5, 3), torch.randn(5, 2)
    before = heads(memory, latent)
    heads.reward = Scaled(5, 8)
    after = heads(memory, latent)
    assert torch.equal(before[0], after[0])
    assert torch.equal(before[1], after[1])
    assert not torch.equal(before[2], after[2])
