"""What the loop has at hand: belief rows, bundles, the budget, and the way out to Kafka."""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple, Protocol

from infra.log import Log
from planner.budget import Budget, Cost, FreeBudget, WallBudget
from planner.session import Bundle
from schemas.frames import Frame, decode_frame
from schemas.messages import DeadLetter, encode
from schemas.system import SystemSpec
from schemas.topics import MOST_ROW_BYTES, WorkerRole, partition_of, topic, topics_of
from schemas.trajectories import KEY_FRAME_EVERY, Decisions, encode_trajectory
from streams.action_records import ActionRecords
from streams.belief import Row, RowError, decode_row, encode_row
from streams.bundles import Shelf
from streams.publish import DeliveryError, Publisher, Record
from streams.tally import Tally
from streams.turns import Turns
from streams.twin import Twin, without_plans

_log = Log("worker")
Clock = Literal["event", "wall"]
Place = tuple[str, int]
"""Topic and partition."""
CONFIRM_S = 120.0  # after which the broker is given up; a restart of it takes far less
RESERVE_US = 1_500  # for gate, encoding and sending, after planning
OUT_S = 0.005  # for actions to get to the broker before planning goes on
TAKEN_S = 0.004  # and from there to who waits for them
HEARD_US = 20_000  # for the first worker's answer to be sent, and to be heard by its twin
MAX_IN_FLIGHT = 64  # frames decided but not yet acknowledged


class CohortError(ValueError):
    """A cohort has more entities than one record can hold; the message says what helps."""


@dataclass(frozen=True)
class Options:
    """How one worker runs. `max_deadline_us` lowers the spec's deadline, it never raises it."""

    worker: str
    attempt: int = 0
    clock: Clock = "event"
    role: WorkerRole = "first"
    max_deadline_us: int | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)


class Table(Protocol):
    """Where rows are kept; see `streams.app.BeliefTable`."""

    def read(self, partition: int, cohort: int) -> bytes | None:
        """The row of `cohort`, whose frames come on `partition`."""

    async def write(self, publisher: Publisher, partition: int, cohort: int, row: bytes) -> None:
        """Stores a row, changelog first."""


class Acted(NamedTuple):
    """A frame's actions, on their way: when the broker has them, and how long they took.

    held: none was sent;  late: they came too late to be planned for;  alone: no twin's, or of one
    that does not expect the first worker.
    """

    confirmed: "asyncio.Future[int]"
    seconds: float
    held: bool = False
    late: bool = False
    alone: bool = True


class Desk:
    """One worker's surroundings. All methods run in the event loop; none blocks but `bundle`.

    A frame's way out is a chain of confirmations: actions and trajectory; after them, and after the
    cohort's previous frame, the belief row's changelog record; then the acknowledgement. The next
    frame is decided meanwhile, on the row in memory.
    """

    def __init__(
        self,
        spec: SystemSpec,
        table: Table,
        publisher: Publisher,
        shelf: Shelf,
        options: "Options",
        twin: Twin | None = None,
    ) -> None:
        self.spec, self.options, self.tally = spec, options, Tally(spec.system)
        self._table, self._publisher, self._shelf = table, publisher, shelf
        self._twin, self._alone = twin, True
        self._turns = Turns(min(spec.deadline_us, options.max_deadline_us or spec.deadline_us))
        self._cost = Cost()
        self._rows: dict[int, Row] = {}
        self._tails: dict[int, asyncio.Task[None]] = {}  # the last confirmation of each cohort
        self._slots = asyncio.Semaphore(MAX_IN_FLIGHT)
        self.failure: BaseException | None = None
        self._partitions = {t.kind: t.partitions for t in topics_of(spec)}
        self._records = ActionRecords(spec, options.worker, options.attempt)
        self.read: dict[Place, int] = {}  # the offset up to which each partition was taken up
        self.written_s = float("inf")  # when the frame that was taken up last was written
        self._over: dict[Place, int] = {}  # that before which frames go by unread

    def rehearse(self, frame: Frame, row: Row, decisions: Decisions) -> None:
        """Does all that sending a frame's decisions takes, but for sending them."""
        self._records.make(frame, decisions, 0)
        self._trajectory(frame, decisions, encode_row(row), {"step_ms": 0.0})

    # in

    def sheds(self, event: Any) -> bool:
        """Whether a frame goes by unread, acknowledged: see `pass_over`."""
        message = event.message
        place = (message.topic, message.partition)
        self.read[place], self.written_s = message.offset + 1, message.timestamp
        if message.offset >= self._over.get(place, 0):
            return False
        self.tally.shed()
        event.ack()
        return True

    async def pass_over(self, ends: Mapping[Place, int]) -> None:
        """Lets the frames before these offsets go by, as there is no time for them.

        For each partition there is one dead letter, which says from where to where.
        """
        letters = []
        for place, end in ends.items():
            begin = self.read.get(place, end)
            if begin < end:
                text = f"{end - begin} frames, up to offset {end - 1}: no time to decide them"
                letter = encode(DeadLetter(*place, begin, "shed", text, end=end))
                letters.append(Record(topic(self.spec, "deadletter"), 0, letter))
        self._over = dict(ends)
        await self._publisher.send(letters)

    def open(self, event: Any) -> Frame:
        """The frame in an event. Raises `FrameError`."""
        return decode_frame(self.spec, event.value)

    def row(self, event: Any, frame: Frame) -> Row | None:
        """The cohort's row before `frame`; None for a cohort that was never seen."""
        row = self._rows.get(frame.cohort) or self._stored(event.message.partition, frame.cohort)
        if row is not None and frame.tick > row.tick + 1:
            self.tally.gaps += 1
        return row

    def _stored(self, partition: int, cohort: int) -> Row | None:
        data = self._table.read(partition, cohort)
        try:
            return None if data is None else decode_row(data)
        except RowError as error:
            # Of another version, say. The belief can be had again: from the next observation.
            _log.error("belief row unusable; anchoring", cohort=cohort, error=str(error))
            self.tally.unreadable += 1
            return None

    async def turn(self, frame: Frame, row: Row | None) -> Row | None:
        """A twin waits until the first worker has answered, or its answer is overdue.

        Gives the row to go on from. As long as the first one answers, a twin makes no plans, and
        has none to go on with; so a replay needs to know nothing of what it did before.
        """
        if self._twin is None:
            return row
        self._alone = self._twin.stand_in.alone(frame)
        if self._alone:
            return row
        begun = self._turns.begin(frame.tick, time.monotonic_ns(), self._cohorts)
        due_us = self._turns.deadline_us + self._heard_us
        await self._twin.wait(frame, begun + 1_000 * due_us)
        return without_plans(row, self.spec)

    @property
    def _heard_us(self) -> int:
        """How long after its deadline an answer may be heard; a tick is not waited through."""
        return min(HEARD_US, self.spec.period_us // 4)

    @property
    def _cohorts(self) -> int:
        """How many frames come each tick, as far as is known."""
        return max(1, len(self._rows))

    def bundle(self, frame: Frame) -> Bundle | None:
        """The released bundle as of the frame's tick; waits for one that is not loaded yet."""
        return self._shelf.get(frame.header.control.bundle)

    def trial_budget(self) -> Budget:
        """All the time that the spec allows, for a frame that nobody waits for."""
        return WallBudget(self.spec.deadline_us, time.monotonic_ns(), self._cost)

    def budget(self, frame: Frame) -> Budget | None:
        """The time to plan `frame`; None where it is too old to be planned on.

        A twin has none where the first worker has answered, else half a deadline of its own.
        """
        if self.options.clock == "wall":
            age = time.time_ns() // 1_000 - frame.header.time_us
            if age > self.spec.lateness_us + self.spec.period_us:
                return None
        more_us = 0
        if self._twin is not None and not self._alone:
            if not self._twin.stand_in.owed(frame):
                return FreeBudget(0)
            more_us = self._heard_us + self._turns.deadline_us // 2
        now = time.monotonic_ns()
        share = self._turns.take(frame.tick, now, self._cohorts, more_us)
        return WallBudget(share, now, self._cost, min(RESERVE_US, share // 4))

    def repeated(self, event: Any) -> None:
        """Acknowledges a frame whose tick or epoch was done before."""
        self.tally.skipped()
        event.ack()

    async def reject(self, event: Any, error: Exception) -> None:
        """Writes the dead letter of a frame that cannot be used, and acknowledges it."""
        self.tally.refused()
        try:
            await self.report(event, error)
        except DeliveryError as undelivered:
            self.failure = self.failure or undelivered
        else:
            event.ack()

    async def report(self, event: Any, error: Exception) -> None:
        """Writes a dead letter with the frame's coordinates and the error, and waits for it."""
        message = event.message
        source = (message.topic, message.partition, message.offset)
        if self.tally.failed():
            _log.error("frame failed", place=source, error=repr(error))
        letter = DeadLetter.of(source, type(error).__name__, str(error), message.key, message.value)
        record = Record(topic(self.spec, "deadletter"), 0, encode(letter), message.key)
        await self._publisher.send([record])

    # out

    async def act(self, frame: Frame, row: Row, decisions: Decisions, began_ns: int) -> Acted:
        """Sends the actions, before all else: somebody waits for these.

        Raises `CohortError` where the belief row is more than Kafka would take.
        """
        if row.nbytes > MOST_ROW_BYTES:
            raise CohortError(
                f"cohort {frame.cohort}: the beliefs of {len(row.entities)} entities take "
                f"{row.nbytes} bytes, more than {MOST_ROW_BYTES}: raise `cohorts` in the spec"
            )
        await self._slots.acquire()
        if self._twin is not None:
            await asyncio.sleep(0)  # for what was heard while it decided
        try:
            decided = time.time_ns() // 1_000
            only = self._answers(frame)
            held = only is not None and not only
            actions = [] if held else self._records.make(frame, decisions, decided, only)
            confirmed = self._publisher.send(actions)
        except BaseException:
            self._slots.release()
            raise
        seconds = (time.monotonic_ns() - began_ns) / 1e9
        self.tally.decided(decisions, seconds, held and self._twin is not None)
        late = bool(decisions.spent.get("late", False))
        return Acted(confirmed, seconds, held, late, self._alone)

    def _answers(self, frame: Frame) -> frozenset[str] | None:
        """The entities whose actions are sent; None: of all."""
        if self._twin is not None:
            return self._twin.stand_in.answers(frame)
        return frozenset() if self.options.role == "shadow" else None

    async def out(self, acted: Acted) -> None:
        """Lets the actions get to their actuators: what is computed meanwhile is in their way.

        Nobody waits for those of late frames, but for the worker that has to catch up.
        """
        if not (acted.held or acted.late) and self.spec.budget.ahead_us:
            await asyncio.wait([acted.confirmed], timeout=OUT_S)
            if self.options.clock == "wall":
                await asyncio.sleep(TAKEN_S)

    def ahead(self, frame: Frame) -> Budget | None:
        """The time to plan for the ticks after `frame`, once every cohort has its answer.

        What is planned for the last cohort of a tick would keep the others waiting. A twin plans
        ahead only where it does not expect the first worker to answer.
        """
        allowed = (self.spec.budget.ahead_us or 0) if self._alone else 0
        if self.options.clock == "wall":  # the next frame is not kept waiting either
            next_us = frame.header.time_us + self.spec.period_us
            allowed = min(allowed, next_us - time.time_ns() // 1_000)
        if allowed <= 0 or not self._turns.all_taken(len(self._rows)):
            return None
        return WallBudget(allowed, time.monotonic_ns(), self._cost)

    async def publish(
        self, event: Any, frame: Frame, row: Row, decisions: Decisions, acted: Acted
    ) -> None:
        """Sends the trajectory, and leaves the rest of the frame's way to a task."""
        row = replace(row, offset=event.message.offset)
        packed = encode_row(row)
        try:
            log = self._trajectory(frame, decisions, packed, _notes(acted))
            sent = [acted.confirmed, self._publisher.send([log], hurry=False)]
        except BaseException:
            self._slots.release()
            raise
        self._rows[frame.cohort] = row
        before = self._tails.get(frame.cohort)
        task = asyncio.create_task(self._confirm(event, frame, sent, packed, before))
        self._tails[frame.cohort] = task
        if not acted.held:
            self._records.expect(frame.cohort, frame.tick + 1, frame.entities)

    async def _confirm(
        self,
        event: Any,
        frame: Frame,
        sent: list["asyncio.Future[int]"],
        packed: bytes,
        before: "asyncio.Task[None] | None",
    ) -> None:
        began = time.monotonic_ns()
        try:
            async with asyncio.timeout(CONFIRM_S):
                for confirmed in sent:
                    await confirmed
                if before is not None:
                    await before
                partition = event.message.partition
                await self._table.write(self._publisher, partition, frame.cohort, packed)
            event.ack()
        except BaseException as error:
            # Nothing is acknowledged after this: the frames are read again by whoever starts next.
            self.failure = self.failure or error
            raise
        finally:
            self._slots.release()
        self.tally.confirmed((time.monotonic_ns() - began) / 1e9)

    def _trajectory(
        self, frame: Frame, decisions: Decisions, packed: bytes, notes: Mapping[str, Any]
    ) -> Record:
        key_frame = packed if frame.tick % KEY_FRAME_EVERY == 0 else None
        who = {"worker": self.options.worker, "attempt": self.options.attempt}
        spent = {**decisions.spent, **who, **self.options.provenance, **notes}
        data = encode_trajectory(self.spec, frame, replace(decisions, spent=spent), key_frame)
        partition = partition_of(frame.cohort, self._partitions["trajectories"])
        key = str(frame.cohort).encode()
        return Record(topic(self.spec, "trajectories"), partition, data, key)

    # around

    async def drain(self) -> None:
        """Waits until everything that was decided is acknowledged, and forgets the rows."""
        await asyncio.gather(*self._tails.values(), return_exceptions=True)
        self._tails.clear()
        self._rows.clear()
        self.read.clear()


def _notes(acted: Acted) -> dict[str, Any]:
    """What a trajectory says of how its actions went out.

    held: none did;  fresh: they were made without earlier plans.
    """
    notes: dict[str, Any] = {"step_ms": round(1e3 * acted.seconds, 3)}
    if acted.held:
        notes["held"] = True
    if not acted.alone:
        notes["fresh"] = True
    return notes
