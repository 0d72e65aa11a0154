"""How fast a plan is on this machine, beside the fastest that its arithmetic could be.

What is timed alternates within one loop: an iteration of a planner with everything that belongs to
it, the bare session call, and square matrix products of ONNX Runtime on one thread, whose best
median is taken as the peak. Ratios of medians of one run are what to compare between machines.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from planner import reference
from planner.draws import Draws
from planner.imagine import Imagination
from planner.planners import PLANNERS
from planner.reference import ACTION, CANDIDATES, HORIZON, MEMBERS, STATE, Reference
from planner.runtime import Provider, choose, providers, session_options
from planner.search import Search, Start
from planner.session import Posterior
from schemas.spec_parts import PlannerName

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
PEAK_SIZES = (384, 512, 768)
SEED = 20
BURST = 4


def bench_plan(
    repeats: int = 30, provider: Provider = "cpu", planner: PlannerName = "icem"
) -> dict[str, Any]:
    """Times the reference ensemble on one thread.

    Args:
        repeats: turns; in each, every thing that is timed runs `BURST` times.
        planner: whose iterations.
        provider: where all of it runs; on a GPU the peak is that of such small products there.

    Returns:
        `ms_per_iteration` and `ms_per_call`: medians of elapsed time, with `_p99` and `_best`;
        `cpu_ms_per_iteration`, `cpu_ms_per_call`: medians of the thread's processor time, which
        other processes disturb less. `gflops` of the call, `peak_gflops` and their ratio
        `share_of_peak`, from elapsed times; `cpu_share_of_peak` and `iteration_share_of_peak`, from
        processor times. And what ran: candidates, horizon, members, threads, versions.
    """
    device = choose(provider)
    timed: dict[str, Callable[[], object]] = {
        "iteration": _iteration(device, planner),
        "call": _call(device),
        **{f"peak_{size}": _product(size, device) for size in PEAK_SIZES},
    }
    elapsed, used = _interleaved(timed, repeats)
    peak, cpu_peak = _peak(elapsed), _peak(used)
    call, cpu_call = float(np.median(elapsed["call"])), float(np.median(used["call"]))
    cpu_iteration = float(np.median(used["iteration"]))
    work = reference.flops() / 1e9
    return {
        **_figures("iteration", elapsed["iteration"], used["iteration"]),
        **_figures("call", elapsed["call"], used["call"]),
        "gflops": round(work / call, 1),
        "peak_gflops": round(peak, 1),
        "share_of_peak": round(work / call / peak, 3),
        "cpu_share_of_peak": round(work / cpu_call / cpu_peak, 3),
        "iteration_share_of_peak": round(work / cpu_iteration / cpu_peak, 3),
        "candidates": CANDIDATES,
        "horizon": HORIZON,
        "members": MEMBERS,
        "planner": planner,
        "device": device,
        "threads": 1,
        "repeats": repeats,
        "onnxruntime": ort.__version__,
        "numpy": np.__version__,
        "machine": platform.machine(),
    }


def _figures(name: str, elapsed: F64, used: F64) -> dict[str, float]:
    """Milliseconds of one thing, rounded to microseconds."""
    return {
        f"ms_per_{name}": round(1e3 * float(np.median(elapsed)), 3),
        f"ms_per_{name}_p99": round(1e3 * float(np.quantile(elapsed, 0.99)), 3),
        f"ms_per_{name}_best": round(1e3 * float(elapsed.min()), 3),
        f"cpu_ms_per_{name}": round(1e3 * float(np.median(used)), 3),
    }


def _peak(seconds: dict[str, F64]) -> float:
    """GFLOP/s of the fastest matrix product, by medians."""
    sizes = ((size, float(np.median(seconds[f"peak_{size}"]))) for size in PEAK_SIZES)
    return max(2 * size**3 / median for size, median in sizes) / 1e9


def _interleaved(
    timed: dict[str, Callable[[], object]], repeats: int
) -> tuple[dict[str, F64], dict[str, F64]]:
    """Elapsed and processor seconds [repeats × BURST] of each, in turn.

    Each runs `BURST` times in a row, as the iterations of one plan do.
    """
    elapsed = {name: np.zeros((repeats, BURST)) for name in timed}
    used = {name: np.zeros((repeats, BURST)) for name in timed}
    for turn in range(-max(1, repeats // 10), repeats):
        for name, run in timed.items():
            for i in range(BURST):
                began, cpu = time.perf_counter(), time.thread_time()
                run()
                if turn >= 0:
                    used[name][turn, i] = time.thread_time() - cpu
                    elapsed[name][turn, i] = time.perf_counter() - began
    return elapsed, used


def _iteration(device: str, planner: PlannerName) -> Callable[[], object]:
    """Iterations as the loop does them: noise, sampling, rollout, reward, elites."""
    spec, model = reference.reference_spec(), Reference(provider=device)
    tier = next(iter(spec.budget.tiers.values()))
    state = np.ones((1, STATE), dtype=np.float32)
    nothing = np.zeros((1, STATE), dtype=np.float32)
    posterior = Posterior(state, nothing, nothing, np.zeros(1, dtype=np.float32))
    start = Start(np.array([0]), np.zeros((1, ACTION)), np.zeros((1, 3, HORIZON, ACTION)))
    done = 0

    def begin() -> Search:
        imagination = Imagination(spec, model, posterior, done)
        draws = Draws((SEED, 0, done), 0, tier, ACTION, STATE)
        return PLANNERS[planner](spec, imagination, tier, start, draws)

    search = begin()

    def run() -> None:
        nonlocal done, search
        if done % BURST == 0:  # a new plan on a new tick, with new noise
            search = begin()
        done += 1
        search.improve()

    return run


def _call(device: str) -> Callable[[], object]:
    model, generator = Reference(provider=device), np.random.default_rng(SEED)

    def random(*shape: int) -> F32:
        return generator.standard_normal(shape).astype(np.float32)

    rows = CANDIDATES // MEMBERS
    inputs = {
        "h": random(MEMBERS, rows, STATE),
        "actions": random(HORIZON, MEMBERS, rows, ACTION),
        "noise": random(HORIZON, MEMBERS, rows, STATE),
    }
    return lambda: model.session.run(None, inputs)


def _product(size: int, device: str) -> Callable[[], object]:
    """A [size,size] matrix product."""
    generator = np.random.default_rng(size)
    x, y = generator.standard_normal((2, size, size)).astype(np.float32)
    graph = reference.PRODUCT.read_bytes()
    options = session_options(1)
    session = ort.InferenceSession(graph, options, providers=providers(device))
    return lambda: session.run(None, {"x": x, "y": y})
