"""Logs of made-up or simulated runs as the sink writes them, for benchmarks that train on them."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from models.data import Dataset, load_dataset
from schemas.codes import Flag
from schemas.frames import applied_columns
from schemas.system import SystemSpec

F64 = npt.NDArray[np.float64]


def trajectories(
    spec: SystemSpec, seen: F64, applied: F64, reward: F64 | None = None
) -> pl.DataFrame:
    """Trajectories of E entities that join at the first of T ticks.

    Args:
        seen: `[T, E, O]`, NaN where missing, in the order of `spec.columns`.
        applied: `[T, E, A]` in force until each tick.
        reward: `[T, E]` of the transition that ends at each tick, where it is logged.
    """
    ticks, entities, _ = seen.shape
    rows = np.concatenate([seen, applied], -1).reshape(ticks * entities, -1)
    names = [*spec.columns, *applied_columns(spec)]
    tick = np.repeat(np.arange(ticks), entities)
    return pl.DataFrame(
        {
            "entity": np.tile([f"e{i}" for i in range(entities)], ticks),
            "tick": tick,
            "flags": np.where(tick == 0, int(Flag.JOINED), 0).astype(np.uint8),
            **{name: rows[:, i] for i, name in enumerate(names)},
            **({} if reward is None else {"reward": reward.reshape(-1)}),
        }
    )


def dataset(spec: SystemSpec, seen: F64, applied: F64, reward: F64 | None = None) -> Dataset:
    """Of one run, by way of a file as the sink writes it; see `trajectories`."""
    with tempfile.TemporaryDirectory() as folder:
        table = trajectories(spec, seen, applied, reward)
        table.write_parquet(Path(folder) / "part-0.parquet")
        return load_dataset(spec, [Path(folder)])
