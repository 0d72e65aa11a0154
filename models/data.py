"""Trajectories in Parquet become sequences: one entity, consecutive ticks, nothing invented."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt
import polars as pl
import torch
from torch import Tensor

from infra.storage import Place, name_of, placed
from models.logs import DataError, Days, read_run
from models.share import Part
from models.transforms import ColumnScale, fit_column, fit_step, kind_of
from schemas.codes import Flag
from schemas.frames import applied_columns
from schemas.system import SystemSpec

Split = Literal["time", "entity"]
Facts = tuple[dict[str, object], ...]
BLOCK = 64
"""Ticks that share a bootstrap weight: neighbours in time are too alike to be drawn apart."""


@dataclass(frozen=True)
class Batch:
    """B windows of L ticks, raw units. What is padded has `valid` 0."""

    obs: Tensor  # [B, L, O], 0 where missing
    mask: Tensor  # [B, L, O] 1 where present
    action: Tensor  # [B, L, A] applied during the interval that ends at the tick
    reward: Tensor  # [B, L] of the transition that ends at the tick; NaN where unknown
    alive: Tensor  # [B, L] 0 at the last tick of an episode
    valid: Tensor  # [B, L]
    weight: Tensor  # [B, L, M] bootstrap weight of each member
    reached: Tensor  # [B, L] see `Sequences`; NaN where unknown

    def to(self, device: torch.device) -> "Batch":
        """The batch on another device."""
        return Batch(*(t.to(device) for t in vars(self).values()))

    def rows(self, part: Part) -> "Batch":
        """The windows of one process."""
        return Batch(*(part.of(t) for t in vars(self).values()))


@dataclass(frozen=True)
class Sequences:
    """R rows (entity, tick) ordered by segment; a segment is unbroken in time.

    Attributes:
        obs: `[R, O]` float32 raw, NaN where missing.
        action: `[R, A]` float32 applied.
        reward: `[R]` float32; alive: `[R]` float32.
        first, last: `[R]` first row of the row's segment, and one past its last.
        entity: `[R]` names; tick: `[R]`; run: `[R]` number of the folder: where a row is from.
        reached: `[R]` discounted rewards that followed the row, at the least; or nothing.
    """

    obs: npt.NDArray[np.float32]
    action: npt.NDArray[np.float32]
    reward: npt.NDArray[np.float32]
    alive: npt.NDArray[np.float32]
    first: npt.NDArray[np.int64]
    last: npt.NDArray[np.int64]
    entity: npt.NDArray[np.str_]
    tick: npt.NDArray[np.int64]
    run: npt.NDArray[np.int64]
    reached: npt.NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.obs)

    @cached_property
    def segments(self) -> npt.NDArray[np.int64]:
        """`[S, 2]` first row and one past the last of each segment."""
        starts = np.flatnonzero(self.first == np.arange(len(self)))
        return np.stack([starts, self.last[starts]], 1)

    def window(self, starts: npt.NDArray[np.int64], length: int, weights: Tensor) -> Batch:
        """The windows that begin at rows `starts`, padded where their segment ends earlier.

        Args:
            starts: `[B]` rows.
            length: L, in ticks.
            weights: `[R // BLOCK + 1, M]` bootstrap weights.
        """
        rows = starts[:, None] + np.arange(length)
        valid = rows < self.last[starts][:, None]
        rows = np.minimum(rows, self.last[starts][:, None] - 1)
        obs = self.obs[rows]
        mask = np.isfinite(obs) & valid[..., None]
        return Batch(
            obs=torch.from_numpy(np.where(mask, obs, 0.0).astype(np.float32)),
            mask=torch.from_numpy(mask.astype(np.float32)),
            action=torch.from_numpy(self.action[rows]),
            reward=torch.from_numpy(self.reward[rows]),
            alive=torch.from_numpy(self.alive[rows]),
            valid=torch.from_numpy(valid.astype(np.float32)),
            weight=weights[torch.from_numpy(rows // BLOCK)],
            reached=self._reached(rows),
        )

    def _reached(self, rows: npt.NDArray[np.int64]) -> Tensor:
        if self.reached is None:
            return torch.full(rows.shape, torch.nan)
        return torch.from_numpy(self.reached[rows])

    def draw(
        self,
        rng: np.random.Generator,
        count: int,
        length: int,
        chances: npt.NDArray[np.float64] | None = None,
    ) -> npt.NDArray[np.int64]:
        """`[count]` first rows of windows, such that every row is about equally often in one.

        Args:
            chances: `[R]` cumulated, where some rows are to be in one more often than others.
        """
        if chances is None:
            rows = rng.integers(0, len(self), count)
        else:
            drawn = np.searchsorted(chances, rng.random(count) * chances[-1], side="right")
            rows = np.minimum(drawn, len(self) - 1)
        starts = rows - rng.integers(0, length, count)
        latest = np.maximum(self.last[rows] - length, self.first[rows])
        return np.asarray(np.clip(starts, self.first[rows], latest))


@dataclass(frozen=True)
class Dataset:
    """What a model is trained and judged on.

    Attributes:
        train: the earlier part of every run, validation: the later part.
        columns, actions: how each observation and action column is normalised (of `train` alone).
        sources: per run its folder's name, rows, entities and ticks, for the lineage.
        files: per run how many files it was read from, their bytes, and their digest.
    """

    train: Sequences
    validation: Sequences
    columns: tuple[ColumnScale, ...]
    actions: tuple[ColumnScale, ...]
    sources: Facts
    files: Facts = ()

    def bootstrap(self, members: int, seed: int) -> Tensor:
        """`[blocks, M]` weights drawn from Exponential(1) (Bayesian bootstrap, Rubin 1981)."""
        blocks = len(self.train) // BLOCK + 1
        rng = np.random.default_rng([seed, 7])
        return torch.from_numpy(rng.exponential(size=(blocks, members)).astype(np.float32))


def sensor_columns(spec: SystemSpec) -> tuple[tuple[int, ...], ...]:
    """Which of the O columns come together: those of each sensor, then those of the context."""
    sizes = [sum(len(c.columns) for c in s.channels.values()) for s in spec.sensors.values()]
    sizes.append(len(spec.columns) - sum(sizes))
    ends = np.cumsum(sizes)
    return tuple(tuple(range(e - n, e)) for n, e in zip(sizes, ends.tolist(), strict=True) if n)


def _with_reward(spec: SystemSpec, frame: pl.DataFrame) -> pl.DataFrame:
    if spec.reward is None:
        logged = pl.col("reward") if "reward" in frame.columns else pl.lit(float("nan"))
        return frame.with_columns(logged.cast(pl.Float64).alias("reward"))
    named = dict(zip(spec.action_columns, applied_columns(spec), strict=True))
    view = frame.select(*spec.columns, *(pl.col(old).alias(new) for new, old in named.items()))
    return frame.with_columns(view.select(spec.reward.polars().alias("reward")).to_series())


def _segments(frame: pl.DataFrame, applied: Sequence[str]) -> pl.DataFrame:
    """Adds `segment`, and `alive` 0 where the next tick of the entity begins a new episode."""
    fresh = (pl.col("flags") & int(Flag.JOINED | Flag.RESET)) != 0
    unknown = pl.any_horizontal(pl.col(name).fill_nan(None).is_null() for name in applied)
    same = (pl.col("run") == pl.col("run").shift(1)) & (
        pl.col("entity") == pl.col("entity").shift(1)
    )
    gap = (pl.col("tick") != pl.col("tick").shift(1) + 1) | ~same
    ends = (same & ((pl.col("flags") & int(Flag.RESET)) != 0)).shift(-1)
    breaks = gap.fill_null(True) | fresh | unknown | (pl.col("part") != pl.col("part").shift(1))
    return frame.with_columns(
        breaks.fill_null(True).cum_sum().alias("segment"),
        (1.0 - ends.fill_null(False).cast(pl.Float64)).alias("alive"),
    )


def _sequences(spec: SystemSpec, frame: pl.DataFrame) -> Sequences:
    segment = frame["segment"].to_numpy()
    starts = np.flatnonzero(np.diff(segment, prepend=-1))
    lengths = np.diff(np.append(starts, len(segment)))
    safe = spec.action_safe.astype(np.float32)
    action = frame.select(applied_columns(spec)).to_numpy().astype(np.float32)
    alive = frame["alive"].to_numpy().astype(np.float32)
    obs = frame.select(spec.columns).cast(pl.Float64).fill_null(np.nan).to_numpy()
    if spec.termination is not None:
        ended = frame.select(spec.termination.polars().cast(pl.Float64)).to_series().to_numpy()
        alive = np.where(ended > 0, 0.0, alive).astype(np.float32)
    return Sequences(
        obs=obs.astype(np.float32),
        action=np.where(np.isfinite(action), action, safe),
        reward=frame["reward"].to_numpy().astype(np.float32),
        alive=alive,
        first=np.repeat(starts, lengths),
        last=np.repeat(starts + lengths, lengths),
        entity=frame["entity"].to_numpy().astype(np.str_),
        tick=frame["tick"].to_numpy().astype(np.int64),
        run=frame["run"].to_numpy().astype(np.int64),
    )


def _present(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return values[np.isfinite(values)]


def scales_of(spec: SystemSpec, train: Sequences) -> tuple[tuple[ColumnScale, ...], ...]:
    """How each observation column is normalised, and each action column."""
    kinds = {c: (ch.unit, *ch.range) for ch in spec.channels for c in ch.columns}
    kinds |= {name: ("context", -1.0, 1.0) for name in spec.columns if name not in kinds}
    values = train.obs.astype(np.float64)
    inner = np.flatnonzero(np.arange(len(train)) + 1 < train.last)
    columns = []
    for i, name in enumerate(spec.columns):
        _, low, high = kinds[name]
        # Columns of one unit and range share a scale: their differences then mean something.
        alike = [j for j, other in enumerate(spec.columns) if kinds[other] == kinds[name]]
        if kinds[name][0] == "1":  # plain numbers have no unit in common
            alike = [i]
        if any(kind_of(_present(values[:, j]), low) == "log" for j in alike):
            alike = [i]
        pooled = values[:, alike].ravel()
        scale = fit_column(name, pooled, low, high, share=(low, high) == (0.0, 1.0))
        columns.append(fit_step(scale, values[inner, i], values[inner + 1, i]))
    actions = []
    for i, name in enumerate(spec.action_columns):
        low, high = float(spec.action_low[i]), float(spec.action_high[i])
        actions.append(fit_column(name, train.action[:, i].astype(np.float64), low, high))
    return tuple(columns), tuple(actions)


def load_dataset(
    spec: SystemSpec,
    folders: Sequence[Place],
    validation: float = 0.15,
    shortest: int = 4,
    split: Split = "time",
    days: Days | None = None,
) -> Dataset:
    """Reads the trajectories below `folders`, each a run of its own (ticks may repeat among them).

    They may be URLs; with `days`, no other days are read.

    A sequence is broken at gaps, at joins and episode resets, where the applied action is unknown,
    and at the time that parts training from validation: the last share `validation` of each run's
    ticks, or with `split="entity"` that share of the entities, where runs are episodes whose ends
    differ from their beginnings. Segments shorter than `shortest` ticks teach nothing and are left
    out. The reward is computed anew by the spec's expression; only without one is the logged
    reward taken.

    Raises:
        DataError: nothing to read, another interface, or too little of it.
        StorageError: a URL that cannot be read.
    """
    frame, sources, files = _read_runs(spec, folders, days)
    place = pl.col("tick") if split == "time" else pl.col("entity").rank("dense")
    cut = place.quantile(1.0 - validation).over("run")
    frame = _segmented(spec, frame.with_columns((place > cut).alias("part")), shortest)
    parts = [_sequences(spec, frame.filter(pl.col("part") == part)) for part in (False, True)]
    if not len(parts[0]) or not len(parts[1]):
        raise DataError(
            f"{', '.join(map(str, folders))}: too few consecutive ticks to train and validate on: "
            f"log longer runs (at least {2 * shortest} ticks)"
        )
    columns, actions = scales_of(spec, parts[0])
    return Dataset(parts[0], parts[1], columns, actions, sources, files)


def load_whole(
    spec: SystemSpec, folders: Sequence[Place], *, shortest: int = 8, days: Days | None = None
) -> Sequences:
    """All trajectories below `folders` as sequences: data that no part of was trained on.

    Raises:
        DataError, StorageError: as `load_dataset`.
    """
    return read_whole(spec, folders, days, shortest=shortest)[0]


def read_whole(
    spec: SystemSpec, folders: Sequence[Place], days: Days | None = None, *, shortest: int
) -> tuple[Sequences, Facts]:
    """As `load_whole`, and of each run what it was read from."""
    frame, sources, files = _read_runs(spec, folders, days)
    data = _sequences(spec, _segmented(spec, frame.with_columns(part=pl.lit(True)), shortest))
    if not len(data):
        raise DataError(f"{', '.join(map(str, folders))}: no {shortest} consecutive ticks there")
    return data, tuple({**a, **b} for a, b in zip(sources, files, strict=True))


def _read_runs(
    spec: SystemSpec, folders: Sequence[Place], days: Days | None
) -> tuple[pl.DataFrame, Facts, Facts]:
    read = [read_run(spec, placed(folder), days) for folder in folders]
    runs = [run.with_columns(pl.lit(i).alias("run")) for i, (run, _) in enumerate(read)]
    files = tuple(found for _, found in read)
    sources = tuple(_describe(folder, run) for folder, run in zip(folders, runs, strict=True))
    frame = pl.concat([_with_reward(spec, run) for run in runs], how="diagonal_relaxed")
    return frame, sources, files


def _segmented(spec: SystemSpec, frame: pl.DataFrame, shortest: int) -> pl.DataFrame:
    frame = _segments(frame.sort("run", "entity", "tick"), applied_columns(spec))
    return frame.filter(pl.len().over("segment") >= shortest)


def _describe(folder: Place, run: pl.DataFrame) -> dict[str, object]:
    ticks = run["tick"]
    return {
        "name": name_of(placed(folder)),
        "rows": run.height,
        "entities": run["entity"].n_unique(),
        "ticks": [int(ticks.min() or 0), int(ticks.max() or 0)],  # type: ignore[arg-type]
    }
