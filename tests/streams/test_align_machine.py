"""The aligner's core in any order of events, killed between any two of them: restored, or replaced.

A standby reads the same log, at its own pace, and takes over.
"""

from collections.abc import Sequence

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from schemas.frames import Frame
from streams.align_resume import last_of_cohorts
from streams.align_standby import Kept, at_epoch
from tests.streams.align_events import (
    NAMES,
    PARTITIONS,
    SPEC,
    Event,
    Log,
    assert_agrees,
    feed,
    new_aligner,
    tell,
    through_bytes,
)
from tests.streams.align_reference import Reference

numbers = st.integers(-40, 40)
masks = st.integers(0, 255)
whose = st.integers(0, len(NAMES) - 1)
passes = st.integers(0, 9)


class Life(RuleBasedStateMachine):
    """One log, one undisturbed plain reference, and aligners that take over from each other.

    Whatever happens, the frames that reached the broker are those of the reference, each once; what
    was lost with a kill is made again, equal.
    """

    def __init__(self) -> None:
        super().__init__()
        self.log = Log()
        self.reference = Reference(SPEC, PARTITIONS)
        self.aligner = new_aligner()
        self.read = 0
        self.frames: dict[tuple[int, int], Frame] = {}
        self.checked: set[tuple[int, int]] = set()
        self._stand_by()

    # what is written

    @rule(who=whose, fast=st.booleans(), time=passes, mask=masks, value=numbers)
    def reading(self, who: int, fast: bool, time: int, mask: int, value: int) -> None:
        self._write(9 if fast else 1, who, time, 0, mask, value)

    @rule(who=whose, time=passes, late=st.integers(41, 59), value=numbers)
    def late_reading(self, who: int, time: int, late: int, value: int) -> None:
        self._write(9, who, time, late, 1, value)

    @rule(what=st.integers(14, 19), who=whose, time=passes, late=st.integers(0, 59), mask=masks)
    def other(self, what: int, who: int, time: int, late: int, mask: int) -> None:
        self._write(what, who, time, late, mask, who)

    @precondition(lambda self: any(event.kind == "reading" for event in self.log.events))
    @rule(data=st.data())
    def duplicate(self, data: st.DataObject) -> None:
        readings = [event for event in self.log.events[-20:] if event.kind == "reading"]
        if readings:
            self.log.repeat(data.draw(st.sampled_from(readings)))
            self._take(1)

    @rule(
        burst=st.lists(st.tuples(whose, st.booleans(), passes, st.integers(0, 50)), max_size=12),
        chunk=st.sampled_from([2, 50]),
    )
    def burst(self, burst: Sequence[tuple[int, bool, int, int]], chunk: int) -> None:
        for who, fast, time, late in burst:
            self.log.step((9 if fast else 1, who, time, late, 1, time))
        self._take(chunk)

    def _write(self, *step: int) -> None:
        what, who, time, late, mask, value = step
        self.log.step((what, who, time, late, mask, value))
        self._take(1)

    def _take(self, chunk: int) -> None:
        fresh = self.log.events[self.read :]
        self.read = len(self.log.events)
        self.ahead += fresh
        for event in fresh:
            tell(self.reference, event)
        self._emit(feed(self.aligner, fresh, chunk))

    def _emit(self, frames: Sequence[Frame]) -> None:
        for frame in frames:
            place = (frame.tick, frame.cohort)
            assert place not in self.frames, "made twice"
            self.frames[place] = frame

    # what goes wrong

    @rule(lost=st.sets(st.integers(0, 2), max_size=2))
    def kill(self, lost: set[int]) -> None:
        """Another aligner goes on; the last frame of cohorts in `lost` never reached the broker.

        Not their only one: of a cohort that has no frame nothing says that it had begun. And it is
        read one by one: in a batch with what came later, a frame that was lost takes in what was
        late for it before.
        """
        for cohort in lost:
            ticks = [tick for tick, of in self.frames if of == cohort]
            if len(ticks) > 1 and max(ticks) == max(tick for tick, _ in self.frames):
                self._lose(max(ticks), cohort)
        self.aligner = new_aligner()
        seek = self.aligner.restore(through_bytes(list(self.frames.values())))
        rest = [event for event in self.log.events if self._reads(event, seek)]
        self._emit(feed(self.aligner, rest, 1))

    def _lose(self, tick: int, cohort: int) -> None:
        if (tick, cohort) not in self.heard:
            del self.frames[tick, cohort]
            self.checked.discard((tick, cohort))

    # somebody stands by

    def _stand_by(self) -> None:
        """Starts a standby, from what is on the broker now."""
        frames = through_bytes(list(self.frames.values()))
        self.standby, self.kept = new_aligner(), Kept(last_of_cohorts(frames))
        seek = self.standby.restore(frames)
        self.heard = set(self.frames)
        self.ahead = [event for event in self.log.events if self._reads(event, seek)]

    @rule(count=st.integers(1, 40), chunk=st.sampled_from([1, 5]))
    def standby_reads(self, count: int, chunk: int) -> None:
        """Some of what it has not read yet; it may be behind the active aligner, or before it."""
        events, self.ahead = self.ahead[:count], self.ahead[count:]
        self.kept.closed(feed(self.standby, events, chunk), [])

    @rule()
    def standby_listens(self) -> None:
        """To all that is on the broker."""
        fresh = self.frames.keys() - self.heard
        self.heard |= fresh
        self.kept.heard([self.frames[place].header for place in sorted(fresh)])

    @rule(lost=st.sets(st.integers(0, 2)), ticks=st.integers(1, 3))
    def take_over(self, lost: set[int], ticks: int) -> None:
        """The active one is gone, and with it the last frames of cohorts in `lost`."""
        for cohort in lost:
            for tick in sorted(tick for tick, of in self.frames if of == cohort)[-ticks:]:
                self._lose(tick, cohort)
        self.standby_listens()
        self.aligner, (kept, _) = self.standby, self.kept.take()
        epochs = [frame.header.epoch for frame in self.frames.values()]
        self.aligner.epoch = 1 + max(epochs, default=-1)
        self._emit([at_epoch(frame, self.aligner.epoch) for frame in kept])
        self._emit(self.kept.unsaid(feed(self.aligner, self.ahead, 1)))
        self._stand_by()

    def _reads(self, event: Event, seek: dict[str, dict[int, int]]) -> bool:
        begin = seek.get(event.topic, {}).get(event.partition, 0)
        return event.kind == "control" or event.offset >= begin

    @invariant()
    def says_what_the_reference_does(self) -> None:
        rows = {(row["tick"], row["cohort"]): row for row in self.reference.frames}
        assert rows.keys() == self.frames.keys()
        for place in rows.keys() - self.checked:
            assert_agrees(self.frames[place], rows[place])
        self.checked |= rows.keys()


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=8, stateful_step_count=25, deadline=None)
