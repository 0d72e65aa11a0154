"""The loop without Kafka: plant → align → step → actuator in one process, at full speed.

The same aligner and the same `step` as in the live loop; between them stand arrays instead of
topics. Used to score policies, to collect trajectories, and to try a spec before it goes live.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from infra.plants.base import Plant, Sample
from planner.budget import Budget, Cost, FreeBudget, WallBudget
from planner.session import Bundle
from schemas.clock import tick_time
from schemas.codes import Status
from schemas.frames import Frame
from schemas.spec_parts import ExploreSpec
from schemas.system import SystemSpec
from schemas.topics import topic
from schemas.trajectories import Decisions, log_table
from streams.align import Aligner
from streams.belief import Row
from streams.decide import prepare, respond
from streams.plant_log import RewardMeter, TickTable
from streams.recording_maker import RecordingMaker

F64 = npt.NDArray[np.float64]
MakeBudget = Callable[[], Budget]
OnTick = Callable[[int], None]
FLUSH_ROWS: Final = 200_000  # of the trajectory log, kept in memory before a file is written


@dataclass(frozen=True)
class Policy:
    """Who decides in a backtest: a spec (perhaps with exploration), a bundle or none, budgets."""

    spec: SystemSpec
    bundle: Bundle | None
    budget: MakeBudget
    ahead: MakeBudget | None = None


def policies(spec: SystemSpec, bundle: Bundle | None, unhurried: bool = False) -> dict[str, Policy]:
    """planner (as live, in the spec's time), actor alone, fallback alone.

    Where `unhurried`, the planner goes through all tiers for everyone, however long that takes: the
    same bundle and seed then give the same run, on an idle machine and on a busy one.
    """
    cost = Cost()

    def live(allowed_us: int) -> Budget:
        if unhurried:
            return FreeBudget()
        return WallBudget(allowed_us, time.monotonic_ns(), cost)

    nothing = partial(FreeBudget, 0)
    found = {"fallback": Policy(spec, None, nothing)}
    if bundle is not None:
        found = {
            "planner": Policy(
                spec,
                bundle,
                partial(live, spec.deadline_us),
                partial(live, spec.budget.ahead_us) if spec.budget.ahead_us else None,
            ),
            "actor": Policy(spec, bundle, nothing),
        } | found
    return found


def exploring(spec: SystemSpec, share: float, seed: int) -> Policy:
    """The fallback with deliberate variation: what a first model is trained from."""
    update = {"explore": ExploreSpec(share=share, seed=seed)}
    return Policy(spec.model_copy(update=update), None, partial(FreeBudget, 0))


@dataclass(frozen=True)
class BacktestResult:
    """What a backtest gave; `seconds` of real time for `simulated` seconds."""

    score: dict[str, float]
    mean_return: float  # sum of rewards per entity, mean over entities
    ticks: int
    frames: int
    decisions: int
    modes: dict[str, int]
    seconds: float
    simulated: float

    @property
    def speed(self) -> float:
        """Multiple of real time."""
        return self.simulated / self.seconds if self.seconds else 0.0


def backtest(
    spec: SystemSpec,
    plant: Plant,
    policy: Policy,
    *,
    seed: int = 0,
    ticks: int | None = None,
    decisions: Path | None = None,
    log: Path | None = None,
    recording: Path | None = None,
    on_tick: OnTick = lambda _: None,
) -> BacktestResult:
    """Runs `plant` under `policy` for `ticks` (None: its whole length).

    Args:
        spec: the system; the policy's own spec may differ from it in what it wants.
        decisions: Parquet file with a row per tick and entity.
        log: folder of trajectory files, as a sink writes them, to train from.
        recording: new folder for a recording, as `rehearse record` makes it, to be replayed.
        on_tick: called after each tick with the count of ticks done.
    """
    if plant.ticks is not None:
        ticks = plant.ticks if ticks is None else min(ticks, plant.ticks)
    if ticks is None:
        raise ValueError("this plant never ends: say how many ticks")
    loop = _Loop(spec, plant, policy, seed)
    loop.log = _Log(log, f"{spec.system}-{seed}") if log else None
    loop.maker = RecordingMaker(policy.spec, recording, "backtest") if recording else None
    began = time.perf_counter()
    for done in range(ticks):
        loop.turn()
        on_tick(done + 1)
    loop.finish(decisions)
    if loop.maker is not None:
        loop.maker.finish()
    seconds = time.perf_counter() - began
    return BacktestResult(
        score=plant.score(),
        mean_return=float(np.nansum(loop.returns) / len(plant.entities)),
        ticks=ticks,
        frames=loop.frames,
        decisions=loop.decisions,
        modes=loop.table.mode_counts(),
        seconds=seconds,
        simulated=ticks * spec.period_us / 1e6,
    )


class _Loop:
    """One plant and the loop around it; `turn` is one tick."""

    def __init__(self, spec: SystemSpec, plant: Plant, policy: Policy, seed: int) -> None:
        self.spec, self.plant, self.policy = spec, plant, policy
        self.sample = plant.reset(seed)
        self.aligner = Aligner(spec, "event", start_tick=self.sample.tick)
        self.index = self.aligner.intern(plant.entities)
        self.place = {entity: i for i, entity in enumerate(plant.entities)}
        self.rows: dict[int, Row] = {}
        self.action = np.tile(spec.action_safe, (len(plant.entities), 1))
        self.meter = RewardMeter(spec, len(plant.entities))
        self.meter.reward(self.sample, None)
        self.table = TickTable(spec, plant.entities)
        self.returns = np.zeros(len(plant.entities))
        self.sources = list(dict.fromkeys(sensor.topic for sensor in spec.sensors.values()))
        self.log: _Log | None = None
        self.maker: RecordingMaker | None = None
        self.frames = self.decisions = 0

    def turn(self) -> None:
        """Sense, decide for every cohort, act, and let the plant go on to the next tick."""
        tick = self.sample.tick
        for frame in self._frames(self.sample):
            self._decide(frame)
        action = self.action.copy()
        everyone = np.arange(len(self.plant.entities))
        self.aligner.applied(
            self.index,
            np.full(everyone.size, tick, dtype=np.int64),
            action,
            np.full(everyone.size, int(Status.APPLIED), dtype=np.int64),
        )
        self.sample = self.plant.step(action)
        reward = self.meter.reward(self.sample, action)
        self.returns += np.nan_to_num(reward)
        self.table.add(tick, action, reward, self.sample)

    def _frames(self, sample: Sample) -> list[Frame]:
        for batch in sample.batches:
            self.aligner.readings(
                batch.sensor, self.index[batch.entity], batch.time_us, batch.values
            )
        now = tick_time(sample.tick, self.spec.epoch_us, self.spec.period_us)
        for name in (topic(self.spec, "applied"), *self.sources):
            self.aligner.watermark(name, now)
        return self.aligner.close()

    def _decide(self, frame: Frame) -> None:
        policy = self.policy
        row = self.rows.get(frame.cohort)
        answer = respond(policy.spec, policy.bundle, row, frame, policy.budget())
        ahead = None if policy.ahead is None else policy.ahead()
        row, decided = prepare(policy.spec, frame, answer, ahead)
        self.rows[frame.cohort] = row
        self.frames += 1
        self.decisions += len(frame.entities)
        for i, entity in enumerate(frame.entities):
            slot = self.place[entity]
            self.table.note(frame.tick, slot, int(decided.mode[i]), int(Status.APPLIED))
            if np.isfinite(decided.action[i]).all():
                self.action[slot] = decided.action[i]
        if self.log is not None:
            self.log.add(self.spec, frame, decided)
        if self.maker is not None:
            self.maker.add(frame, decided, row)

    def finish(self, decisions: Path | None) -> None:
        """Write what is to be kept."""
        if decisions is not None:
            self.table.write(decisions)
        if self.log is not None:
            for frame in self._frames(self.sample):  # its observations complete the last transition
                self._decide(frame)
            self.log.flush()


class _Log:
    """Trajectory files in a folder, partitioned by system and day as a sink's are."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.name = folder, name
        self.parts: list[pa.Table] = []
        self.rows = self.files = 0

    def add(self, spec: SystemSpec, frame: Frame, decided: Decisions) -> None:
        """Take one frame's decisions."""
        self.parts.append(log_table(spec, frame, decided))
        self.rows += len(frame.entities)
        if self.rows >= FLUSH_ROWS:
            self.flush()

    def flush(self) -> None:
        """Write what was taken to a file of its own."""
        if not self.parts:
            return
        table = pa.concat_tables(self.parts)
        system = table.column("system")[0].as_py()
        day = np.datetime64(table.column("time_us")[0].as_py(), "us").astype("datetime64[D]")
        folder = self.folder / f"system={system}" / f"day={day}"
        folder.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, folder / f"{self.name}-{self.files:04d}.parquet", compression="zstd")
        self.parts, self.rows, self.files = [], 0, self.files + 1
