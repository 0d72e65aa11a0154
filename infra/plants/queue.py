"""A fleet of c-server FIFO queues whose servers come and go, one request at a time.

Every random number is a hash of (key, counter), so request `i` of a service arrives at the same
moment and needs the same work whatever the policy does (common random numbers). Server pools
are heaps of the times at which each server is next free; a server that is still starting is one
that is free when it becomes ready, so cold starts need no event of their own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numba as nb
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

# Columns of `Fleet.tally`: integers of one service.
# Requests are numbered as they arrive; HEAD is the first that neither began nor left yet.
ARRIVED, HEAD, ABANDONED, LATE, PEAK, SERVERS, STARTING, LAUNCHED, OVERFLOW = range(9)
TALLIES = 9
# Columns of `Fleet.clock`: times of one service in seconds.
NEXT, BIN_POSITION, WAITED = range(3)
CLOCKS = 3
# Columns of the snapshots that `advance` writes; the first four are totals since the start.
SNAPSHOT = ("arrived", "started", "abandoned", "late", "ready", "starting", "queue_peak", "queued")
EXPONENTIAL, CONSTANT = 0, 1
WAIT_BINS_PER_SECOND = 200.0  # bin 0 is a wait of exactly 0, bin n waits up to n bins

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_jit = nb.njit(cache=True, nogil=True, fastmath=False, error_model="numpy")


class Fleet(NamedTuple):
    """The whole state of `S` services between two calls; the kernels change it in place."""

    rates: Floats  # [S, bins] requests per second
    first: float  # time at which the first bin begins; before it the first rate holds
    width: float  # seconds per bin
    keys: NDArray[np.uint64]  # [S, 3] of arrivals, work, cold starts
    free: Floats  # [S, most servers] heap of the times at which servers are next free
    ready_at: Floats  # [S, most servers] of the servers still starting, oldest request first
    queue: Floats  # [S, power of two] ring of the arrival times of waiting requests
    waits: Ints  # [S, bins] histogram of waits that ended in service
    tally: Ints  # [S, TALLIES]
    clock: Floats  # [S, CLOCKS]
    cold: Floats  # [n] quantiles of the cold start in seconds, evenly spaced over (0, 1)
    work: float  # mean seconds of service per request
    law: int  # EXPONENTIAL or CONSTANT
    limit: float  # seconds of waiting above which a request is late
    patience: float  # seconds of waiting after which a request leaves


def make_fleet(
    rates: Floats,
    *,
    width: float,
    keys: Sequence[Sequence[int]],
    most_servers: int,
    cold: Floats,
    work: float,
    law: int,
    limit: float,
    patience: float,
) -> Fleet:
    """A fleet without state: call `begin` next. The arguments are those of `Fleet`.

    `most_servers` bounds `resize`. Memory for waiting requests is that of `patience`, or of ten
    minutes if that is less, at the highest rate and twenty standard deviations more.
    """
    services, longest = len(rates), min(patience, 600.0)
    waiting = float(rates.max()) * longest
    ring = 1 << math.ceil(math.log2(waiting + 20.0 * math.sqrt(waiting) + 1024.0))
    bins = math.ceil(longest * WAIT_BINS_PER_SECOND) + 2
    return Fleet(
        rates=np.ascontiguousarray(rates),
        first=0.0,
        width=width,
        keys=np.array(keys, dtype=np.uint64),
        free=np.zeros((services, most_servers)),
        ready_at=np.zeros((services, most_servers)),
        queue=np.zeros((services, ring)),
        waits=np.zeros((services, bins), np.int64),
        tally=np.zeros((services, TALLIES), np.int64),
        clock=np.zeros((services, CLOCKS)),
        cold=cold,
        work=work,
        law=law,
        limit=limit,
        patience=patience,
    )


@_jit
def uniform(key: np.uint64, counter: int) -> float:
    """The `counter`-th number of stream `key` in (0, 1] (SplitMix64, Steele et al. 2014)."""
    z = key + np.uint64(counter + 1) * _GOLDEN
    z = (z ^ (z >> np.uint64(30))) * _MIX_1
    z = (z ^ (z >> np.uint64(27))) * _MIX_2
    z = z ^ (z >> np.uint64(31))
    return (np.float64(z >> np.uint64(11)) + 1.0) * (1.0 / 9007199254740992.0)


@_jit
def _exponential(key: np.uint64, counter: int) -> float:
    """The `counter`-th number of stream `key` with the exponential distribution of mean 1."""
    return -math.log(uniform(key, counter))


@_jit
def _next_arrival(
    rates: Floats, first: float, width: float, time: float, place: int, needed: float
) -> tuple[float, int]:
    """Moves on from `time` in bin `place` until the rate integrates to `needed`.

    With exponential `needed` this is an exact Poisson process of rate(t). Returns time and bin.
    """
    while place < rates.size - 1:
        end = first + (place + 1) * width
        area = (end - time) * rates[place]
        if needed < area:
            break
        needed -= area
        time = end
        place += 1
    if rates[place] > 0.0:
        return time + needed / rates[place], place
    return math.inf, place


@_jit
def _replace_top(heap: Floats, size: int, value: float) -> None:
    """Puts `value` in the place of the smallest element and restores the heap."""
    hole = 0
    child = 1
    while child < size:
        if child + 1 < size and heap[child + 1] < heap[child]:
            child += 1
        if heap[child] >= value:
            break
        heap[hole] = heap[child]
        hole = child
        child = 2 * hole + 1
    heap[hole] = value


@_jit
def _push(heap: Floats, size: int, value: float) -> None:
    """Adds `value` to a heap of `size` elements."""
    hole = size
    while hole > 0:
        parent = (hole - 1) // 2
        if heap[parent] <= value:
            break
        heap[hole] = heap[parent]
        hole = parent
    heap[hole] = value


@_jit
def _remove(heap: Floats, size: int, value: float) -> None:
    """Takes the element that equals `value` out of a heap of `size` elements (rare, so linear)."""
    place = 0
    while heap[place] != value:
        place += 1
    kept = heap[:size].copy()
    filled = 0
    for i in range(size):
        if i != place:
            _push(heap, filled, kept[i])
            filled += 1


@_jit
def _run(fleet: Fleet, s: int, stop: float) -> None:
    """Simulates service `s` to `stop`: in order of time, the head of the line begins or leaves,
    or the next request joins the line.
    """
    # Locals instead of the fleet's fields: views and stores in the loop cost four times as much.
    rates, free, ring, waits = fleet.rates[s], fleet.free[s], fleet.queue[s], fleet.waits[s]
    tally, mask, last = fleet.tally[s], fleet.queue.shape[1] - 1, fleet.waits.shape[1] - 1
    arrivals_key, work_key = fleet.keys[s, 0], fleet.keys[s, 1]
    first, width, work, limit, patience = (
        fleet.first,
        fleet.width,
        fleet.work,
        fleet.limit,
        fleet.patience,
    )
    random_work = fleet.law == EXPONENTIAL
    servers, head, arrived, peak = tally[SERVERS], tally[HEAD], tally[ARRIVED], tally[PEAK]
    abandoned, late, waited = tally[ABANDONED], tally[LATE], fleet.clock[s, WAITED]
    arrival, place = fleet.clock[s, NEXT], int(fleet.clock[s, BIN_POSITION])
    while True:
        idle_at = free[0] if servers > 0 else math.inf
        now = min(arrival, stop)
        if head < arrived:
            joined = ring[head & mask]
            wait = max(idle_at - joined, 0.0)
            if wait > patience and joined + patience <= now:
                abandoned += 1
                late += 1
                head += 1
                continue
            if wait <= patience and joined + wait <= now:
                seconds = work * _exponential(work_key, head) if random_work else work
                _replace_top(free, servers, joined + wait + seconds)
                late += wait > limit
                waited += wait
                waits[min(math.ceil(wait * WAIT_BINS_PER_SECOND), last)] += 1
                head += 1
                continue
        if arrival > stop:
            break
        if arrived - head > mask:
            tally[OVERFLOW] += 1
            break
        ring[arrived & mask] = arrival
        arrived += 1
        if idle_at > arrival:
            peak = max(peak, arrived - head)
        arrival, place = _next_arrival(
            rates, first, width, arrival, place, _exponential(arrivals_key, arrived)
        )
    tally[HEAD], tally[ARRIVED], tally[PEAK] = head, arrived, peak
    tally[ABANDONED], tally[LATE], fleet.clock[s, WAITED] = abandoned, late, waited
    fleet.clock[s, NEXT], fleet.clock[s, BIN_POSITION] = arrival, place


@_jit
def _snapshot(fleet: Fleet, s: int, time: float, out: Floats) -> None:
    """Writes the columns of `SNAPSHOT` as of `time` and begins a new window of the queue's peak."""
    tally = fleet.tally[s]
    starting = 0
    for i in range(tally[STARTING]):
        starting += fleet.ready_at[s, i] > time
    queued = tally[ARRIVED] - tally[HEAD]
    out[0], out[1], out[2] = tally[ARRIVED], tally[HEAD] - tally[ABANDONED], tally[ABANDONED]
    out[3], out[4], out[5] = tally[LATE], tally[SERVERS] - starting, starting
    out[6], out[7] = tally[PEAK], queued
    tally[PEAK] = queued


@_jit
def begin(fleet: Fleet, time: float, servers: Ints) -> None:
    """Empties every queue, makes `servers[s]` servers free at `time`, draws the first arrivals."""
    fleet.tally[:] = 0
    fleet.waits[:] = 0
    fleet.clock[:] = 0.0
    for s in range(fleet.rates.shape[0]):
        fleet.free[s, : servers[s]] = time
        fleet.tally[s, SERVERS] = servers[s]
        needed = _exponential(fleet.keys[s, 0], 0)
        fleet.clock[s, NEXT], fleet.clock[s, BIN_POSITION] = _next_arrival(
            fleet.rates[s], fleet.first, fleet.width, time, 0, needed
        )


@_jit
def advance(fleet: Fleet, stops: Floats, out: Floats) -> None:
    """Simulates every service to each of `stops` (seconds, rising).

    Writes the snapshots there to `out` `[stops, S, len(SNAPSHOT)]`.
    """
    for s in range(fleet.rates.shape[0]):
        for i in range(stops.size):
            _run(fleet, s, stops[i])
            _snapshot(fleet, s, stops[i], out[i, s])


@_jit
def _cold_start(fleet: Fleet, s: int, number: int) -> float:
    """Seconds from request to readiness of the `number`-th replica that service `s` launches."""
    place = uniform(fleet.keys[s, 2], number) * fleet.cold.size - 0.5
    lower = min(max(math.floor(place), 0), fleet.cold.size - 1)
    upper = min(lower + 1, fleet.cold.size - 1)
    share = min(max(place - lower, 0.0), 1.0)
    return float(fleet.cold[lower] * (1.0 - share) + fleet.cold[upper] * share)


@_jit
def _forget_ready(fleet: Fleet, s: int, time: float) -> None:
    """Drops the servers that have become ready from the list of those that are starting."""
    kept = 0
    for i in range(fleet.tally[s, STARTING]):
        if fleet.ready_at[s, i] > time:
            fleet.ready_at[s, kept] = fleet.ready_at[s, i]
            kept += 1
    fleet.tally[s, STARTING] = kept


@_jit
def _launch(fleet: Fleet, s: int, time: float) -> None:
    """Asks for one more server."""
    tally = fleet.tally[s]
    ready_at = time + _cold_start(fleet, s, tally[LAUNCHED])
    _push(fleet.free[s], tally[SERVERS], ready_at)
    if ready_at > time:
        fleet.ready_at[s, tally[STARTING]] = ready_at
        tally[STARTING] += 1
    tally[SERVERS] += 1
    tally[LAUNCHED] += 1


@_jit
def _stop(fleet: Fleet, s: int, time: float) -> float:
    """Stops one server; returns the seconds for which it still drains."""
    tally = fleet.tally[s]
    if tally[STARTING] > 0:
        tally[STARTING] -= 1
        _remove(fleet.free[s], tally[SERVERS], fleet.ready_at[s, tally[STARTING]])
        drain = 0.0
    else:
        drain = max(fleet.free[s, 0] - time, 0.0)
        _replace_top(fleet.free[s], tally[SERVERS] - 1, fleet.free[s, tally[SERVERS] - 1])
    tally[SERVERS] -= 1
    return drain


@_jit
def resize(fleet: Fleet, time: float, servers: Ints, drained: Floats) -> None:
    """Launches or stops servers at `time` until service `s` has `servers[s]`.

    First those still starting are cancelled, newest first; then those that are free soonest stop
    taking requests and end with the one that they are serving. Adds the seconds of this draining
    to `drained` `[S]`.
    """
    for s in range(servers.size):
        _forget_ready(fleet, s, time)
        while fleet.tally[s, SERVERS] < servers[s]:
            _launch(fleet, s, time)
        while fleet.tally[s, SERVERS] > servers[s]:
            drained[s] += _stop(fleet, s, time)


@_jit
def overdue(fleet: Fleet, time: float) -> int:
    """Requests of all services that still wait at `time`, longer already than the limit."""
    total = 0
    for s in range(fleet.rates.shape[0]):
        for i in range(fleet.tally[s, HEAD], fleet.tally[s, ARRIVED]):
            total += time - fleet.queue[s, i & (fleet.queue.shape[1] - 1)] > fleet.limit
    return total
