"""The aligner's core in any order of events, killed and restored between any two of them."""

from collections.abc import Sequence

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from schemas.frames import Frame
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
                del self.frames[max(ticks), cohort]
                self.checked.discard((max(ticks), cohort))
        self.aligner = new_aligner()
        seek = self.aligner.restore(through_bytes(list(self.frames.values())))
        rest = [event for event in self.log.events if self._reads(event, seek)]
        self._emit(feed(self.aligner, rest, 1))

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
