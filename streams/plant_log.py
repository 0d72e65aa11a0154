"""What a run of a plant leaves: latencies, outcomes for `S.outcomes`, and a table of every tick."""

from __future__ import annotations

from array import array
from collections import Counter
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from infra.plants.base import Sample
from infra.plants.seen import Seen
from schemas.clock import tick_time
from schemas.codes import Mode, Status
from schemas.messages import Outcome, action_id
from schemas.system import SystemSpec
from streams.actuator_state import Report

Floats = npt.NDArray[np.float64]
PERCENTILES: Final = (("p50", 50.0), ("p99", 99.0), ("p999", 99.9), ("max", 100.0))


def summary_ms(nanoseconds: array[int]) -> dict[str, float] | None:
    """Percentiles in milliseconds, with their count `n`; None where nothing was measured."""
    if not nanoseconds:
        return None
    values = np.frombuffer(nanoseconds, dtype=np.int64) / 1e6
    found = {name: float(np.percentile(values, share)) for name, share in PERCENTILES}
    return {**found, "n": float(len(values))}


_MODES: Final = {int(mode): mode.name.lower() for mode in Mode}


class RewardMeter:
    """The spec's reward on a plant's own readings: channels of a tick and the action before it."""

    def __init__(self, spec: SystemSpec, entities: int) -> None:
        self._spec, self._entities = spec, entities
        self._seen = Seen(spec, entities)

    def reward(self, sample: Sample, action: Floats | None) -> Floats:
        """[E] reward of the transition that ends at the sample's tick; NaN where there is none."""
        self._seen.take(sample)
        if action is None or self._spec.reward is None:
            return np.full(self._entities, np.nan)
        actions = dict(zip(self._spec.action_columns, action.T, strict=True))
        known = {**self._seen.columns, **actions}
        if not self._spec.reward.names <= known.keys():  # it reads context columns as well
            return np.full(self._entities, np.nan)
        reward = self._spec.reward.numpy(known).astype(np.float64)
        return np.broadcast_to(reward, (self._entities,)).copy()


def outcomes_of(
    entities: tuple[str, ...],
    sample: Sample,
    reward: Floats,
    ended: npt.NDArray[np.bool_],
    tick: int,
    time_us: int,
) -> list[Outcome]:
    """One label per entity and tick, and one of kind `end` where `ended` [E] says so."""
    columns = {"reward": reward, **sample.outcomes}
    rows = zip(*(column.tolist() for column in columns.values()), strict=True)
    found = []
    for entity, row, done in zip(entities, rows, ended.tolist(), strict=True):
        pairs = zip(columns, row, strict=True)
        values = {name: float(value) for name, value in pairs if value == value}  # NaN: left out
        found.append(Outcome(entity, tick, time_us, values))
        if done:
            found.append(Outcome(entity, tick, time_us, {}, "end"))
    return found


class TickTable:
    """One row per entity and tick: what was decided, done, and what came of it until the next."""

    def __init__(self, spec: SystemSpec, entities: tuple[str, ...]) -> None:
        self._spec, self._entities = spec, entities
        self._modes: dict[int, dict[int, tuple[int, int]]] = {}
        self._columns: dict[str, list[npt.NDArray[Any]]] = {}
        self._ticks: list[int] = []

    def heard(self, report: Report) -> None:
        """Remembers who decided, and what became of it."""
        self.note(report.applied.tick, report.slot, report.mode, report.applied.status)

    def note(self, tick: int, slot: int, mode: int, status: int) -> None:
        """Remembers that entity `slot` got a decision in `mode` for `tick`, and its `status`."""
        self._modes.setdefault(tick, {})[slot] = (mode, status)

    def mode_counts(self) -> dict[str, int]:
        """Decisions by mode; `none` where an entity had none."""
        counts: Counter[int] = Counter()
        for modes in self._columns.get("mode", []):
            counts.update(modes.tolist())
        return {_MODES.get(code, "none"): count for code, count in sorted(counts.items())}

    def add(self, tick: int, action: Floats, reward: Floats, sample: Sample) -> None:
        """The interval from `tick` to the next, under `action` [E, A]."""
        self._ticks.append(tick)
        known = self._modes.pop(tick, {})
        pairs = [known.get(slot, (-1, int(Status.UNKNOWN))) for slot in range(len(self._entities))]
        row = dict(zip(self._spec.action_columns, action.T, strict=True))
        modes, statuses = np.array(pairs, dtype=np.int64).T
        row |= {**sample.outcomes, "reward": reward, "mode": modes, "status": statuses}
        for name, values in row.items():
            self._columns.setdefault(name, []).append(np.array(values))

    def table(self) -> pa.Table:
        """The rows; `time_s` is the tick's event time in seconds, `action_id` its only id."""
        spec, count = self._spec, len(self._entities)
        ticks = np.repeat(np.array(self._ticks, dtype=np.int64), count)
        entities = list(self._entities) * len(self._ticks)
        seconds = np.array([tick_time(int(k), spec.epoch_us, spec.period_us) for k in ticks]) / 1e6
        columns: dict[str, Any] = {"entity": entities, "time_s": seconds, "tick": ticks}
        columns |= {name: np.concatenate(parts) for name, parts in self._columns.items()}
        if self._ticks:
            columns["mode"] = _named(columns["mode"], Mode, "none")
            columns["status"] = _named(columns["status"], Status, "unknown")
        pairs = zip(entities, ticks.tolist(), strict=True)
        columns["action_id"] = [action_id(spec.system, entity, tick) for entity, tick in pairs]
        return pa.table(columns)

    def write(self, path: Path) -> None:
        """Writes the table as Parquet."""
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(self.table(), path, compression="zstd")


def _named(codes: npt.NDArray[np.int64], kind: type[Mode] | type[Status], other: str) -> list[str]:
    names = {int(code): code.name.lower() for code in kind}
    return [names.get(int(code), other) for code in codes]


class Latencies:
    """Nanoseconds from when the readings that close a tick were due to its actions' arrival."""

    def __init__(self) -> None:
        self._due: dict[int, int] = {}
        self.to_action = array("q")
        self.lateness = array("q")  # of sending
        self.modes: Counter[str] = Counter()

    def closing(self, tick: int, due_ns: int) -> None:
        """The readings that close `tick` are due at `due_ns` on the machine's clock."""
        self._due[tick] = due_ns
        self._due.pop(tick - 64, None)

    def heard(self, report: Report) -> None:
        """Counts a report; those without an action have no latency."""
        if report.mode < 0:
            return
        self.modes[_MODES.get(report.mode, "unknown")] += 1
        due_ns = self._due.get(report.applied.tick)
        if due_ns is not None:
            self.to_action.append(report.arrived_ns - due_ns)
