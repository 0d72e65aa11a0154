"""Tests of the queue kernels: theory, an independent simulator, and a slow reference of our own."""

from __future__ import annotations

import heapq
import math
from typing import Any

import ciw
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.plants import queue as q
from infra.plants.base import Floats

PARAMETERS: dict[str, Any] = {
    "width": 60.0,
    "most_servers": 256,
    "cold": np.array([30.0]),
    "work": 1.0,
    "law": q.EXPONENTIAL,
    "limit": 0.5,
    "patience": math.inf,
}


def fleet(rate: float | Floats, servers: int, seed: int = 0, **changes: Any) -> q.Fleet:
    """One service with a constant rate or one rate per bin, begun at time 0."""
    keys = [list(np.random.SeedSequence([seed, 0]).generate_state(3, np.uint64))]
    rates = np.atleast_2d(np.asarray(rate, dtype=np.float64))
    made = q.make_fleet(rates, keys=keys, **{**PARAMETERS, **changes})
    q.begin(made, 0.0, np.array([servers]))
    return made


def advance(made: q.Fleet, *stops: float) -> Floats:
    """`[stops, snapshot]` of the one service."""
    out = np.zeros((len(stops), 1, len(q.SNAPSHOT)))
    q.advance(made, np.array(stops, dtype=np.float64), out)
    assert not made.tally[0, q.OVERFLOW]
    return out[:, 0]


def resize(made: q.Fleet, time: float, servers: int) -> float:
    """Returns the seconds of draining."""
    drained = np.zeros(1)
    q.resize(made, time, np.array([servers]), drained)
    return float(drained[0])


def batch_means(made: q.Fleet, seconds: float, batches: int = 40) -> tuple[float, float]:
    """Mean wait and its standard error, after a warm-up of one batch."""
    means = []
    for i in range(batches + 1):
        before = made.clock[0, q.WAITED], made.tally[0, q.HEAD]
        advance(made, (i + 1) * seconds)
        waited, begun = made.clock[0, q.WAITED] - before[0], made.tally[0, q.HEAD] - before[1]
        means.append(waited / begun)
    return float(np.mean(means[1:])), float(np.std(means[1:], ddof=1) / math.sqrt(batches))


def erlang_c(load: float, servers: int) -> float:
    """The share that waits in M/M/c (Erlang 1917), by the stable recursion over Erlang B."""
    blocked = 1.0
    for c in range(1, servers + 1):
        blocked = load * blocked / (c + load * blocked)
    return blocked / (1.0 - load / servers * (1.0 - blocked))


@pytest.mark.parametrize(("servers", "load"), [(1, 0.7), (5, 4.0), (20, 18.0), (100, 95.0)])
def test_waits_agree_with_erlang_c(servers: int, load: float) -> None:
    made = fleet(load, servers)
    mean, error = batch_means(made, 10_000.0 if servers < 20 else 1000.0 * 100 / servers)
    expected = erlang_c(load, servers) / (servers - load)
    assert abs(mean - expected) < 4.0 * error
    assert error < 0.1 * expected


def test_the_share_that_waits_longer_than_the_limit_agrees_with_erlang_c() -> None:
    made = fleet(18.0, 20)
    snapshot = advance(made, 400_000.0)[0]
    expected = erlang_c(18.0, 20) * math.exp(-(20 - 18.0) * 0.5)
    assert snapshot[3] / snapshot[1] == pytest.approx(expected, rel=0.04)
    waits = 1.0 - made.waits[0, 0] / made.waits.sum()
    assert waits == pytest.approx(erlang_c(18.0, 20), rel=0.03)


def share_that_leaves(load: float, servers: int, patience: float) -> float:
    """Of M/M/c with constant patience (Barrer 1957), for a mean work of 1."""
    below = sum(
        math.exp(math.lgamma(servers) - math.lgamma(j + 1) + (j - servers + 1) * math.log(load))
        for j in range(servers)
    )
    excess = load - servers
    stays = load * (math.expm1(excess * patience) / excess if excess else patience)
    leaves = load * math.exp(excess * patience) / servers
    return leaves / (below + stays + leaves)


@pytest.mark.parametrize(("servers", "load"), [(1, 0.9), (10, 10.5), (20, 24.0)])
def test_the_share_that_leaves_agrees_with_theory(servers: int, load: float) -> None:
    snapshot = advance(fleet(load, servers, patience=1.0), 300_000.0 / servers)[0]
    assert snapshot[2] / snapshot[0] == pytest.approx(
        share_that_leaves(load, servers, 1.0), rel=0.04
    )


@pytest.mark.parametrize(("servers", "load"), [(1, 0.8), (4, 3.4), (20, 18.0)])
def test_constant_work_agrees_with_pollaczek_khinchine_and_cosmetatos(
    servers: int, load: float
) -> None:
    """For one server the formula is exact, for more it is good to about 1 % (Cosmetatos 1976)."""
    made = fleet(load, servers, law=q.CONSTANT)
    mean, error = batch_means(made, 20_000.0 / servers)
    share = load / servers
    exponential = erlang_c(load, servers) / (servers - load)
    more = (1 - share) * (servers - 1) * (math.sqrt(4 + 5 * servers) - 2) / (16 * share * servers)
    expected = 0.5 * (1.0 + more) * exponential
    assert abs(mean - expected) < 4.0 * error + 0.015 * expected


def simulate_with_ciw(rate: float, servers: int, patience: float, seconds: float) -> list[Any]:
    """Records of an independent simulator after a warm-up of a tenth, by arrival."""
    network = ciw.create_network(
        arrival_distributions=[ciw.dists.Exponential(rate)],
        service_distributions=[ciw.dists.Exponential(1.0)],
        number_of_servers=[servers],
        reneging_time_distributions=[ciw.dists.Deterministic(patience)],
    )
    ciw.seed(1)
    simulation = ciw.Simulation(network)
    simulation.simulate_until_max_time(seconds)
    records: list[Any] = simulation.get_all_records()
    records.sort(key=lambda record: record.arrival_date)
    return [record for record in records if record.arrival_date > 0.1 * seconds]


def test_waits_and_time_outs_agree_with_ciw() -> None:
    made = fleet(10.5, 10, patience=1.0)
    _, begun, left = advance(made, 60_000.0)[0, :3]
    theirs = simulate_with_ciw(10.5, 10, 1.0, 4000.0)
    for ours, of in (
        (left / (begun + left), [float(r.record_type == "renege") for r in theirs]),
        (
            made.clock[0, q.WAITED] / begun,
            [r.waiting_time for r in theirs if r.record_type == "service"],
        ),
    ):
        batches = [float(np.mean(batch)) for batch in np.array_split(of, 20)]
        error = float(np.std(batches, ddof=1) / math.sqrt(20))
        assert abs(ours - np.mean(of)) < 4.0 * error
        assert error < 0.1 * ours


def reference(
    made: q.Fleet, plan: list[tuple[float, int]], servers: int
) -> tuple[dict[str, int], float, float]:
    """The same fleet, one request after the other, in plain Python without any of the kernels.

    Returns counts, the sum of waits, and the seconds of draining.
    """
    end = plan[-1][0]
    arrivals, time, i = [], 0.0, 0
    while True:
        time += -math.log(q.uniform(made.keys[0, 0], i)) / made.rates[0, 0]
        if time > end:
            break
        arrivals.append(time)
        i += 1
    pool = [(0.0, -1, 0.0)] * servers  # free at, number, ready at
    counts = {"begun": 0, "left": 0, "late": 0}
    waited, drained, launched, line = 0.0, 0.0, 0, list(enumerate(arrivals))
    for now, wanted in plan:
        while line:
            number, joined = line[0]
            first = min(pool)[0] if pool else math.inf
            start = max(joined, first)
            if start - joined > made.patience and joined + made.patience <= now:
                counts["left"] += 1
                counts["late"] += 1
            elif start - joined <= made.patience and start <= now:
                work = -math.log(q.uniform(made.keys[0, 1], number)) * made.work
                _, name, ready = heapq.heappop(pool)
                heapq.heappush(pool, (start + work, name, ready))
                counts["begun"] += 1
                counts["late"] += start - joined > made.limit
                waited += start - joined
            else:
                break
            line.pop(0)
        while len(pool) < wanted:
            heapq.heappush(pool, (now + 30.0, launched, now + 30.0))
            launched += 1
        while len(pool) > wanted:
            starting = [server for server in pool if server[2] > now]
            gone = max(starting, key=lambda server: server[1]) if starting else min(pool)
            drained += 0.0 if starting else max(0.0, gone[0] - now)
            pool.remove(gone)
            heapq.heapify(pool)
    return counts, waited, drained


@settings(max_examples=60, deadline=None)
@given(
    rate=st.floats(0.1, 30.0),
    patience=st.sampled_from([0.7, 10.0, math.inf]),
    plan=st.lists(st.tuples(st.floats(0.5, 20.0), st.integers(0, 40)), min_size=2, max_size=12),
    seed=st.integers(0, 1000),
)
def test_any_plan_of_servers_agrees_with_the_reference(
    rate: float, patience: float, plan: list[tuple[float, int]], seed: int
) -> None:
    times = np.cumsum([step for step, _ in plan]).tolist()
    scheduled = list(zip(times, [servers for _, servers in plan], strict=True))
    made = fleet(rate, 3, seed, patience=patience)
    drained = 0.0
    for time, servers in scheduled:
        snapshot = advance(made, time)[0]
        drained += resize(made, time, servers)
        arrived, begun, left, queued = snapshot[[0, 1, 2, 7]]
        assert arrived == begun + left + queued
        assert snapshot[6] >= queued
    counts, waited, expected = reference(made, scheduled, 3)
    assert {"begun": begun, "left": left, "late": snapshot[3]} == counts
    assert made.clock[0, q.WAITED] == pytest.approx(waited, rel=1e-9, abs=1e-9)
    assert drained == pytest.approx(expected, rel=1e-9, abs=1e-9)
    assert made.waits.sum() == begun


def test_twice_the_servers_have_twice_the_throughput_under_saturation() -> None:
    begun = []
    for servers in (10, 20, 40):
        made = fleet(200.0, servers, patience=5.0)
        snapshots = advance(made, 20.0, 1020.0)
        begun.append((snapshots[1] - snapshots[0])[1])
    assert begun[1] / begun[0] == pytest.approx(2.0, rel=0.02)
    assert begun[2] / begun[0] == pytest.approx(4.0, rel=0.02)


def test_arrivals_follow_the_rates_of_the_bins() -> None:
    rates = np.tile([2.0, 40.0, 0.0, 10.0], 250)
    made = fleet(rates, 100)
    arrived = advance(made, *(60.0 * np.arange(1, 1001)))[:, 0]
    per_bin = np.diff(arrived, prepend=0.0).reshape(250, 4)
    assert (per_bin[:, 2] == 0).all()
    for column, rate in ((0, 2.0), (1, 40.0), (3, 10.0)):
        mean = rate * 60.0
        assert per_bin[:, column].mean() == pytest.approx(mean, abs=4.0 * math.sqrt(mean / 250))
        assert per_bin[:, column].var() == pytest.approx(mean, rel=0.4)


def test_how_the_stops_lie_changes_nothing() -> None:
    coarse, fine = fleet(12.0, 10), fleet(12.0, 10)
    advance(coarse, 300.0)
    advance(fine, *np.linspace(0.7, 300.0, 501))
    np.testing.assert_array_equal(coarse.waits, fine.waits)
    assert coarse.clock[0, q.NEXT] == fine.clock[0, q.NEXT]


def test_a_stopped_server_finishes_its_request_and_takes_no_more() -> None:
    made = fleet(0.01, 2, law=q.CONSTANT, work=7.0)
    first = made.clock[0, q.NEXT]
    assert advance(made, first + 1.0)[0, 1] == 1
    assert resize(made, first + 1.0, 1) == 0.0  # the idle one goes
    assert resize(made, first + 1.0, 0) == pytest.approx(6.0)  # the busy one has 6 s to go
    assert advance(made, 10_000.0)[0, 1] == 1


def test_a_server_serves_after_its_cold_start_and_not_before() -> None:
    made = fleet(50.0, 0, cold=np.array([30.0]))
    resize(made, 0.0, 3)
    before, after = advance(made, 29.99, 30.01)
    assert (before[1], before[4], before[5]) == (0, 0, 3)
    assert (after[1], after[4], after[5]) == (3, 3, 0)


def test_the_newest_of_the_starting_servers_is_cancelled_first() -> None:
    made = fleet(1.0, 0, cold=np.linspace(10.0, 50.0, 101))
    resize(made, 0.0, 4)
    ready = made.ready_at[0, :4].copy()
    assert resize(made, 1.0, 2) == 0.0
    np.testing.assert_array_equal(np.sort(made.free[0, :2]), np.sort(ready[:2]))
    assert advance(made, 60.0)[0, 4] == 2


def test_cold_starts_follow_their_quantiles() -> None:
    made = fleet(1.0, 0, cold=np.linspace(10.0, 50.0, 101), most_servers=4000)
    resize(made, 0.0, 4000)
    ready = made.ready_at[0]
    assert ready.mean() == pytest.approx(30.0, abs=0.6)
    assert np.quantile(ready, 0.9) == pytest.approx(46.0, abs=1.0)
    assert (ready.min() >= 10.0, ready.max() <= 50.0) == (True, True)


def test_a_line_that_outgrows_its_memory_is_reported() -> None:
    made = fleet(1e5, 1, work=1e9)
    made = made._replace(queue=np.zeros((1, 1024)))
    q.advance(made, np.array([10.0]), np.zeros((1, 1, len(q.SNAPSHOT))))
    assert made.tally[0, q.OVERFLOW] == 1
