"""The reference ensemble: the shipped graphs are the generated ones and compute what they say."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from models import reference as generator
from planner import bench, reference
from planner.reference import ACTION, LAYERS, MEMBERS, STATE, Reference

F32 = npt.NDArray[np.float32]


def test_the_shipped_graphs_are_the_generated_ones() -> None:
    """`python -m models.reference` writes them again."""
    pairs = ((reference.GRAPH, generator.build()), (reference.PRODUCT, generator.product()))
    for path, model in pairs:
        assert path.read_bytes() == model.SerializeToString(deterministic=True), path.name


def test_it_is_the_ensemble_written_in_numpy() -> None:
    draw = np.random.default_rng(0).standard_normal
    steps, count = 4, 3
    h = draw((MEMBERS, count, STATE)).astype(np.float32)
    actions = draw((steps, MEMBERS, count, ACTION)).astype(np.float32)
    noise = draw((steps, MEMBERS, count, STATE)).astype(np.float32)
    weights = reference.weights()
    futures = Reference().imagine(h, h, actions, noise)
    x = h.astype(np.float64)
    for t in range(steps):
        for m in range(MEMBERS):
            layer: npt.NDArray[np.floating] = np.concatenate([x[m], actions[t, m]], axis=1)
            for i in range(LAYERS):
                layer = layer @ weights[f"w{m}_{i}"] + weights[f"b{m}_{i}"]
                layer = np.maximum(layer, 0) if i < LAYERS - 1 else layer
            x[m] = x[m] + layer[:, :STATE] + np.exp(layer[:, STATE:]) * noise[t, m]
        np.testing.assert_allclose(futures.channels[t], x, rtol=1e-4, atol=1e-4)


def test_futures_of_the_whole_horizon_are_finite() -> None:
    noise = np.zeros((15, MEMBERS, 51, STATE), np.float32)
    h = np.ones((MEMBERS, 51, STATE), np.float32)
    actions = np.ones((15, MEMBERS, 51, ACTION), np.float32)
    assert np.abs(Reference().imagine(h, h, actions, noise).channels).max() < 1e3


def test_the_count_of_operations() -> None:
    per_row = 2 * (10 * 200 + 200 * 200 + 200 * 200 + 200 * 16)
    assert reference.flops(rows=1, steps=1) == per_row
    assert reference.flops() == per_row * 255 * 15


def test_bench_figures_fit_together() -> None:
    found = bench.bench_plan(repeats=2, planner="mppi")
    assert found["planner"] == "mppi"
    work = reference.flops() / 1e6
    assert abs(found["gflops"] * found["ms_per_call"] / work - 1) < 0.02
    assert abs(found["share_of_peak"] * found["peak_gflops"] / found["gflops"] - 1) < 0.02
    for name in ("iteration", "call"):
        best, median = found[f"ms_per_{name}_best"], found[f"ms_per_{name}"]
        assert 0 < best <= median <= found[f"ms_per_{name}_p99"]
    assert (found["candidates"], found["horizon"], found["threads"]) == (255, 15, 1)
