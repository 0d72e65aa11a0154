"""Recordings of real decisions, made without Kafka: frames of a small nav2d through `step`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from planner.budget import Budget
from planner.session import Bundle
from schemas.codes import Flag
from schemas.frames import Frame, encode_frame
from schemas.system import SystemSpec, parse_spec
from schemas.topics import topic
from schemas.trajectories import KEY_FRAME_EVERY, Decisions, encode_trajectory
from streams.belief import Row, encode_row
from streams.decide import step
from streams.recording import KINDS, SPEC, ChunkWriter, spec_text, write_manifest
from streams.recording_maker import raw_record
from tests.planner.worlds import double_integrator, make_bundle, make_frame
from tests.support import shipped_text

SMALL: dict[str, Any] = {
    "cohorts": 2,
    "budget": {
        "tiers": {
            "shallow": {"candidates": 10, "horizon": 4, "iterations": 1},
            "deep": {"candidates": 20, "horizon": 4, "iterations": 2},
        }
    },
}
RUN_SPEC = parse_spec(shipped_text("nav2d", **SMALL))
Change = Callable[[int, int, Decisions], Decisions]


def run_bundle(folder: Path) -> Bundle:
    """A bundle with known dynamics for `RUN_SPEC`."""
    calibration = {"innovation_band": 1e6, "channel_scale": [1.0] * len(RUN_SPEC.columns)}
    return make_bundle(folder, RUN_SPEC, double_integrator(noise=0.05), calibration=calibration)


class Uneven:
    """A budget like a busy machine's: how much there is depends on the tick."""

    def __init__(self, tick: int) -> None:
        self._left = tick % 4

    def some(self) -> bool:
        """See `planner.budget.Budget`."""
        return self._left > 0

    def more(self, group: int, iteration: int, work: float) -> bool:
        """As long as something is left."""
        self._left -= 1
        return self._left >= 0


def run_frames(cohort: int, ticks: Sequence[int], blind: bool = False) -> list[Frame]:
    """Frames of three robots that join at tick 0; some readings are missing.

    `blind`: the first column is never seen, so that a belief about it never forgets.
    """
    rng = np.random.default_rng(cohort)
    made, names = [], tuple(f"r{cohort}{i}" for i in range(3))
    values = rng.uniform(-4, 4, (3, len(RUN_SPEC.columns)))
    for tick in ticks:
        values = values + 0.1 * rng.normal(size=values.shape)
        seen = np.where(rng.random(values.shape) < (0.1 if tick else 0), np.nan, values)
        seen[:, 0] = np.nan if blind else seen[:, 0]
        applied = rng.uniform(-1, 1, (3, 2))
        frame = make_frame(RUN_SPEC, seen, tick=tick, applied=applied)
        header = replace(frame.header, cohort=cohort, spec_hash=RUN_SPEC.spec_hash)
        flags = np.full(3, 0 if tick else int(Flag.JOINED), np.uint8)
        made.append(replace(frame, header=header, entities=names, flags=flags))
    return made


def decide_all(
    bundle: Bundle | None,
    frames: Sequence[Frame],
    row: Row | None = None,
    budget: Callable[[int], Budget | None] = Uneven,
    spec: SystemSpec = RUN_SPEC,
    **spent: Any,
) -> list[tuple[Frame, Decisions, Row]]:
    """What a worker would have logged."""
    found = []
    for frame in frames:
        row, decisions = step(spec, bundle, row, frame, budget(frame.tick))
        decisions = replace(decisions, spent={**decisions.spent, "worker": "w", **spent})
        found.append((frame, decisions, row))
    return found


def write_recording(
    folder: Path,
    logged: Sequence[tuple[Frame, Decisions, Row]],
    spec: SystemSpec = RUN_SPEC,
    frames: Sequence[Frame] | None = None,
) -> Path:
    """A recording of frames (None: those that were decided) and of the decisions on them."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / SPEC).write_text(spec_text(spec))
    values: Mapping[str, list[bytes]] = {"frames": [], "trajectories": []}
    for frame in [frame for frame, _, _ in logged] if frames is None else frames:
        values["frames"].append(encode_frame(spec, frame))
    for frame, decisions, row in logged:
        key = encode_row(row) if frame.tick % KEY_FRAME_EVERY == 0 else None
        values["trajectories"].append(encode_trajectory(spec, frame, decisions, key))
    for kind in KINDS:
        writer = ChunkWriter(folder, kind, "id")
        for offset, value in enumerate(values[kind]):
            writer.add(raw_record(topic(spec, kind), 0, offset, 0, value))
        writer.flush()
    ticks = [frame.tick for frame, _, _ in logged]
    facts = {"spec_hash": spec.spec_hash, "from_tick": min(ticks), "to_tick": max(ticks)}
    write_manifest(folder, {"system": spec.system, **facts})
    return folder
