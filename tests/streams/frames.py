"""Frames and trajectory frames of the small spec, for tests of sink, recording and replay."""

from __future__ import annotations

from typing import Any

import numpy as np

from schemas.codes import Mode
from schemas.frames import Frame, FrameHeader
from schemas.system import SystemSpec
from schemas.topics import cohort_of
from schemas.trajectories import Decisions, encode_trajectory

NAMES = ("a", "b", "c", "d", "e")


def cohort_names(spec: SystemSpec, cohort: int) -> tuple[str, ...]:
    """Those of `NAMES` that belong to a cohort."""
    return tuple(name for name in NAMES if cohort_of(name, spec.cohorts) == cohort)


def frame(spec: SystemSpec, cohort: int, tick: int, **header: Any) -> Frame:
    """A frame whose numbers tell tick and entity."""
    names = cohort_names(spec, cohort)
    n, o, a = len(names), len(spec.columns), len(spec.action_columns)
    values = tick + np.arange(n * o, dtype=np.float64).reshape(n, o) / 100
    return Frame(
        header=FrameHeader(
            system=spec.system,
            cohort=cohort,
            tick=tick,
            time_us=spec.epoch_us + tick * spec.period_us,
            spec_hash=spec.spec_hash,
            interface_hash=spec.interface_hash,
            **header,
        ),
        entities=names,
        values=values,
        ages=np.full((n, len(spec.channels)), 0.5, dtype=np.float32),
        applied=np.full((n, a), 0.25),
        status=np.full(n, 2, dtype=np.uint8),
        flags=np.zeros(n, dtype=np.uint8),
    )


def decisions(
    spec: SystemSpec, of: Frame, valve: float = 0.5, size: int = 0, **spent: Any
) -> Decisions:
    """Decisions of the fallback; `size` is that of the belief, 0 without a model."""
    n, o, a = len(of.entities), len(spec.columns), len(spec.action_columns)
    nothing = np.full((n, o), np.nan, dtype=np.float32)
    action = np.tile([valve, 2.0][:a], (n, 1))
    return Decisions(
        proposal=action,
        action=action,
        mode=np.full(n, int(Mode.FALLBACK), dtype=np.uint8),
        reasons=np.zeros(n, dtype=np.uint32),
        hidden=np.full((n, size), of.tick, dtype=np.float32),
        latent=np.full((n, size), 0.5, dtype=np.float32),
        predicted=nothing,
        predicted_std=nothing,
        returned=np.full((n, 4), np.nan, dtype=np.float32),
        uncertainty=np.full(n, np.nan, dtype=np.float32),
        innovation=np.full(n, np.nan, dtype=np.float32),
        reward=np.full(n, -1.0, dtype=np.float32),
        tier=np.full(n, -1, dtype=np.int8),
        iterations=np.zeros(n, dtype=np.uint16),
        group=np.full(n, -1, dtype=np.int16),
        bundle="b" * 8 if size else "",
        spent={"worker": "w0", "attempt": 0, **spent},
    )


def trajectory(
    spec: SystemSpec, cohort: int, tick: int, row: bytes | None = None, **options: Any
) -> bytes:
    """The record of a frame and its decisions."""
    of = frame(spec, cohort, tick)
    return encode_trajectory(spec, of, decisions(spec, of, **options), row)
