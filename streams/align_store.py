"""Everything the aligner knows, in one place; intake fills it, closing empties it."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from schemas.frames import Frame
from schemas.system import SystemSpec
from schemas.topics import topic
from streams.align_actions import Actions
from streams.align_control import ControlLog
from streams.align_progress import Progress
from streams.align_resume import Resume
from streams.align_state import (
    FAR,
    Bools,
    Entities,
    Ints,
    Readings,
    Rejected,
    SensorState,
    Sources,
    grown,
)


class Store:
    """The state of one aligner.

    members      [E] who was in the last frame of its cohort
    reset_tick   [E] the tick from which an entity's next frame is flagged RESET; FAR where none
    """

    def __init__(
        self,
        spec: SystemSpec,
        clock: Literal["event", "wall"],
        start_tick: int | None,
        partitions: dict[str, int],
    ) -> None:
        self.spec = spec
        self.entities = Entities(spec.cohorts)
        self.sources = Sources(partitions)
        self.progress = Progress(spec, self.entities, self.sources, clock, start_tick)
        self.sensors: dict[str, SensorState] = {}
        column, channel = 0, 0
        for number, (name, sensor) in enumerate(spec.sensors.items()):
            state = self.sensors[name] = SensorState(sensor, number, column, channel)
            column, channel = state.columns.stop, state.channel_range.stop
        self.actions = Actions(len(spec.action_columns), -(-spec.forget_us // spec.period_us))
        self.control = ControlLog()
        self.members: Bools = np.zeros(0, dtype=np.bool_)
        self.reset_tick: Ints = np.zeros(0, dtype=np.int64)
        self.in_cohort: npt.NDArray[np.float32] = np.zeros((0, spec.cohorts), dtype=np.float32)
        self.populated = 0  # cohorts that have entities, whether or not they are members
        self.resume: Resume | None = None
        self.counters: dict[str, int] = {}
        self.rejected: list[Rejected] = []
        self.frames: list[Frame] = []
        self.applied_topic, self.actions_topic = topic(spec, "applied"), topic(spec, "actions")

    def intern(self, names: Sequence[str]) -> Ints:
        """[n] the rows of entities; room is made for new ones."""
        rows = self.entities.intern(names)
        size = len(self.entities)
        if size > len(self.members):
            self.members = grown(self.members, size, 0).astype(np.bool_)
            self.reset_tick = grown(self.reset_tick, size, FAR).astype(np.int64)
            self.progress.grow(size)
            self.actions.grow(size)
            for state in self.sensors.values():
                state.grow(size)
            one = np.arange(self.spec.cohorts) == self.entities.cohort[:, None]
            self.in_cohort = one.astype(np.float32)
            self.populated = int(one.any(axis=0).sum())
        return rows

    def earliest(self) -> Ints:
        """[cohorts] the first tick of what waits, for cohorts without members; FAR for others."""
        earliest = np.full(self.spec.cohorts, FAR, dtype=np.int64)
        if self.populated <= self.progress.member_cohorts:
            return earliest
        cohort = self.entities.cohort
        for state in self.sensors.values():
            for part in state.parts:
                rows = ~self.progress.has_members[cohort[part.entity]]
                if not part.complete:
                    rows &= ~np.isnan(part.values).all(axis=1)
                np.minimum.at(earliest, cohort[part.entity[rows]], part.tick[rows])
        return earliest

    def count(self, name: str, number: int) -> None:
        """Adds to a counter."""
        if number:
            self.counters[name] = self.counters.get(name, 0) + number

    def reject(self, sensor: str, batch: Readings, rows: Ints, reason: str, detail: str) -> None:
        """Rejects `rows` of a batch; each is counted under its reason."""
        self.count(reason, len(rows))
        for row in rows.tolist():
            place = self.sources.places[int(batch.source[row])]
            name = self.entities.names[int(batch.entity[row])]
            offset, time_us = int(batch.offset[row]), int(batch.time[row])
            text = f"{sensor}: {detail}"
            self.rejected.append(Rejected(*place, offset, reason, text, name, time_us))
