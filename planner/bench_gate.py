"""How fast the gate is on this machine, and whether anything outside the envelope left it.

Proposals are arbitrary bit patterns in part: NaN, infinities, denormals, values far out of range.
What comes out is checked against the envelope outside the time that is measured.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import numpy.typing as npt

from planner.gate import Gated, envelope, gate
from schemas.codes import Reason
from schemas.frames import ControlView, Frame, FrameHeader
from schemas.system import SystemSpec, parse_spec

F64 = npt.NDArray[np.float64]
ENTITIES = 1_000  # of a frame
SEED = 31
_SPEC = """
system: gatebench
tick: 100 ms
sensors:
  state:
    every: 100 ms
    max_age: 1 s
    channels: {speed: {unit: m/s, range: [-20, 20]}, level: {unit: "1", range: [0, 10]}}
actions:
  throttle: {unit: m/s², low: -1, high: 1, rate: {up: 0.5, down: 1}, accel: {up: 0.5, down: 0.5}}
  pumps: {unit: pumps, kind: integer, low: 0, high: 8, rate: {up: 2, down: 4}}
constraints:
  shared: {holds: "throttle + 0.25 * pumps <= 2", kind: hard}
  slow:
    holds: "speed <= 15"
    kind: hard
    barrier: {gamma: 0.5, next: {speed: "speed + 0.1 * throttle"}}
fallback: {kind: value}
budget: {tiers: {one: {candidates: 8, horizon: 2, iterations: 1}}}
gate: {max_uncertainty: 0.3, stale_after: 500 ms, critic: {max_risk: 0.1}}
"""


def bench_gate(proposals: int = 1_000_000) -> dict[str, Any]:
    """Gates `proposals`, a frame of `ENTITIES` at a time, under a spec with every kind of limit.

    Returns:
        `proposals`, `seconds` in the gate, `cpu_seconds` of its thread, `proposals_per_s`,
        `ms_per_frame` (median, and `_p99`), `refused` and `changed`; `outside`: how many left it
        outside the envelope.
    """
    spec, rng = parse_spec(_SPEC, "gatebench"), np.random.default_rng(SEED)
    times, busy, seen = [], [], {"refused": 0, "changed": 0, "outside": 0}
    for tick in range(-(-proposals // ENTITIES)):
        frame, proposal, before = _situation(spec, rng, tick)
        doubt, risk = rng.uniform(0, 0.4, (2, ENTITIES)) ** 2  # most of them are sure
        spare = np.zeros_like(proposal)
        began, used = time.perf_counter(), time.thread_time()
        gated = gate(spec, proposal, spare, frame, frame.applied, doubt, before=before, risk=risk)
        times.append(time.perf_counter() - began)
        busy.append(time.thread_time() - used)
        seen["refused"] += int((~gated.published).sum())
        seen["changed"] += int(((gated.reasons & ~np.uint32(Reason.ROUNDED)) != 0).sum())
        seen["outside"] += _outside(spec, frame, before, gated)
    done = len(times) * ENTITIES
    return {
        "proposals": done,
        "seconds": round(sum(times), 3),
        "cpu_seconds": round(sum(busy), 3),
        "proposals_per_s": round(done / sum(times)),
        "ms_per_frame": round(1e3 * float(np.median(times)), 3),
        "ms_per_frame_p99": round(1e3 * float(np.quantile(times, 0.99)), 3),
        **seen,
        "entities": ENTITIES,
        "numpy": np.__version__,
    }


def _situation(spec: SystemSpec, rng: np.random.Generator, tick: int) -> tuple[Frame, F64, F64]:
    """A frame, proposals for it, and what was applied before."""
    shape = (ENTITIES, len(spec.action_columns))
    wide = rng.normal(0.3, 1.5, shape)
    bits = rng.integers(0, 2**64, shape, dtype=np.uint64).view(np.float64)  # any number there is
    proposal = np.where(rng.random(shape) < 0.1, bits, wide)
    # Two of a hundred readings are missing, and two reports of what was applied.
    values = np.where(rng.random(shape) < 0.02, np.nan, rng.uniform(-16, 16, shape))
    applied, before = (
        np.where(rng.random(shape) < 0.02, np.nan, rng.uniform(-1, 1, shape)) for _ in range(2)
    )
    control = ControlView(holds=("e1", "e2", "e3", "e4", "e5"), overrides={"e8": {"pumps": 3.0}})
    frame = Frame(
        header=FrameHeader(spec.system, 0, tick, tick * spec.period_us, control=control),
        entities=tuple(f"e{i}" for i in range(ENTITIES)),
        values=values,
        ages=rng.uniform(0, 0.51, (ENTITIES, len(spec.channels))).astype(np.float32),
        applied=applied,
        status=np.zeros(ENTITIES, np.uint8),
        flags=np.zeros(ENTITIES, np.uint8),
    )
    return frame, proposal, before


def _outside(spec: SystemSpec, frame: Frame, before: F64, gated: Gated) -> int:
    low, high = envelope(spec, frame.applied, before)
    inside = (gated.action >= low) & (gated.action <= high)  # False for NaN
    whole = ~spec.action_integer | (np.rint(gated.action) == gated.action)
    return int((gated.published & ~(inside & whole).all(axis=1)).sum())
