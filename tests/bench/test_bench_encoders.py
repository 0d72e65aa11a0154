"""What the benchmark of encoders is made of: its data mean what they say, and its ways can fail."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.bench import encoders_fusion, encoders_world
from tests.bench.bench_encoders import told
from tests.bench.encoders_crowd import MeanEncoder, rows
from tests.bench.encoders_fusion import CASES, SideBySide


def test_robots_of_a_crowd_drift_apart() -> None:
    seen, change = rows(0, 12)
    assert len(seen) == len(change) > 24
    near, there = seen[:, 0], seen[:, 0, -1] > 0
    assert there.float().mean() > 0.9
    towards = (near[:, :2] * change).sum(1)[there]
    assert (towards < 0).float().mean() > 0.7  # away from who was nearest
    order = torch.randperm(seen.shape[1], generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    mean = MeanEncoder(4, 2)
    with torch.no_grad():
        torch.testing.assert_close(mean(seen), mean(seen[:, order]), atol=1e-5, rtol=1e-5)


def test_what_is_away_does_not_reach_the_network_that_has_all_side_by_side() -> None:
    torch.manual_seed(0)
    model, present = SideBySide(), torch.tensor([[1.0, 0.0]])
    one, other = torch.tensor([[1.0, 2.0, 3.0, 4.0]]), torch.tensor([[1.0, 2.0, 9.0, 9.0]])
    with torch.no_grad():
        assert torch.equal(model(one, present)[0], model(other, present)[0])
        assert not torch.equal(model(one, torch.ones(1, 2))[0], model(one, present)[0])


def test_both_senses_tell_where_the_goal_is() -> None:
    seen, goal = encoders_fusion.embeddings(0, 40, 0.0)
    assert (seen[:, 2:] - goal).abs().median() < 0.03  # of a range of 10 m
    assert (seen[:, :2] - goal).abs().median() < 0.1
    assert set(CASES.values()) == {(1, 1), (1, 0), (0, 1), (0, 0)}


def test_a_log_of_embeddings_is_of_the_same_robots() -> None:
    encoded, true = encoders_world.logs(0, 4, 6)
    np.testing.assert_array_equal(encoded.applied, true.applied)
    off = encoded.seen - true.seen
    assert 0.0 < np.abs(off[..., :2]).max() < 0.5  # by the camera
    np.testing.assert_array_equal(off[..., 2:], 0.0)  # velocities are read as they are
    assert np.abs(true.seen[-1] - true.seen[0]).max() > 0.01


def test_medians_and_spreads_are_told() -> None:
    text = told("crowd", [{"a": {"b": 1.0}}, {"a": {"b": 3.0}}, {"a": {"b": 2.0}}])
    assert text.splitlines()[0] == "crowd"
    assert text.split()[1:] == ["a", "b", "2.0000", "(1.0000", "to", "3.0000)"]
    assert "(" not in told("crowd", [{"a": 1.0}])
    with pytest.raises(KeyError):
        told("crowd", [{"a": 1.0}, {"b": 1.0}])
