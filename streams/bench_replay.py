"""A pinned replay of many planned decisions: equal to the last bit, and how fast."""

from __future__ import annotations

import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from infra.plants.base import make_plant
from planner.library import SHIPPED
from planner.session import load_bundle
from schemas.frames import decode_frame
from schemas.system import SystemSpec, load_spec
from schemas.trajectories import decode_trajectory
from streams.backtest import backtest, policies
from streams.recording import Recording
from streams.replay import replay

_DEADLINE_US: Final = 4_000  # of each frame, and for the ticks to come: what is planned in it, is
_AHEAD_US: Final = 15_000


def bench_replay(decisions: int = 100_000, folder: Path | None = None) -> dict[str, Any]:
    """Has the shipped nav2d planner drive until there are `decisions`, and decides them again.

    The planner works under a deadline of the real clock, so what it gets done is different every
    time; a replay has to find out all of it from the recording.

    Args:
        folder: where the recording shall stay; None: nowhere.

    Returns `decisions`, `frames`, `modes`, `compared`, `differences` (values), `bit_exact`;
    `times_real_time`, `frames_per_s` and `decisions_per_s` of the replay; beside it
    `backtest_frames_per_s`, the speed at which they were made, and `reading_frames_per_s`: how
    fast the recording is decoded and nothing decided, which is the limit.
    """
    spec = _spec()
    bundle = load_bundle(SHIPPED / "nav2d", "cpu")
    policy = policies(spec, bundle)["planner"]
    ticks = make_plant(spec, robots=1).ticks or 300
    robots = -(-decisions // ticks)
    with TemporaryDirectory(prefix="rehearse-bench-") as temporary:
        where = folder or Path(temporary) / "recording"
        plant = make_plant(spec, robots=robots)
        made = backtest(spec, plant, policy, recording=where)
        found = replay(where, bundles=[SHIPPED], provider="cpu")
        reading_s = _read(where)
    seconds = found["seconds"]
    shown = ("decisions", "frames", "modes", "compared", "differences", "times_real_time")
    return {
        **{name: found[name] for name in shown},
        "bit_exact": found["differences"] == 0 and found["compared"] == made.frames,
        "frames_per_s": found["frames_per_s"],
        "decisions_per_s": found["decisions"] / seconds,
        "backtest_frames_per_s": made.frames / made.seconds,
        "reading_frames_per_s": made.frames / reading_s,
        "machine": found["machine"],
    }


def _spec() -> SystemSpec:
    spec = load_spec("nav2d")
    update = {"deadline_us": _DEADLINE_US, "ahead_us": _AHEAD_US}
    return spec.model_copy(update={"budget": spec.budget.model_copy(update=update)})


def _read(folder: Path) -> float:
    """Seconds for decoding every frame and trajectory."""
    began = time.monotonic()
    recording = Recording.open(folder)
    for _, _, value in recording.records("frames"):
        decode_frame(recording.spec, value)
    for _, _, value in recording.records("trajectories"):
        decode_trajectory(recording.spec, value)
    return time.monotonic() - began
