"""Faust's consumer over `Reader`: what is read, where from, and its way into the streams."""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final, TypeVar

import confluent_kafka
import structlog
from confluent_kafka import (
    OFFSET_BEGINNING,
    OFFSET_INVALID,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)
from faust.transport import base
from faust.types import TP, ConsumerMessage
from mode.utils.futures import notify

from streams.identity import Rivals
from streams.pending import Pending
from streams.reader import Interrupted, NotOurs, Place, Reader, ReadingFailed
from streams.topic_io import consumer_config, reach

T = TypeVar("T")
FULL_S: Final = 0.005  # after which a full stream is looked at again
ANSWER_S: Final = 3.0  # for an answer
AGAIN_S: Final = 0.2  # after which a broker that does not answer is asked again
# For the group, the offsets of these partitions are not ours to say any more.
_NOT_OURS: Final = (
    KafkaError.ILLEGAL_GENERATION,
    KafkaError.UNKNOWN_MEMBER_ID,
    KafkaError.REBALANCE_IN_PROGRESS,
    KafkaError.FENCED_INSTANCE_ID,
    KafkaError._ASSIGNMENT_LOST,
    KafkaError._FATAL,
)
_log = structlog.get_logger("worker")


class Consumer(base.Consumer):
    """Reads for Faust: from `Reader` through a small inbox straight into Faust's streams.

    Faust keeps its say: it stops and resumes the flow, pauses partitions and seeks. What is to be
    read follows from that (`_wanted`), and where from is known here alone: `_positions` has the
    offset of the next record that Faust gets of a partition. A partition without one is not read.

    Frames are held from the moment that partitions are taken away until Faust has recovered its
    tables and found the committed offsets, however long it lets them flow before: at the end of a
    recovery it resumes them, seeks, and only then empties the buffers of its streams.
    """

    app: Any
    transport: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._reader: Reader | None = None
        self._assigned: set[TP] = set()
        self._positions: dict[TP, int] = {}
        self._reading: set[Place] = set()
        self._version = 0
        self._inbox: deque[Message] = deque()
        self._again: asyncio.TimerHandle | None = None  # when streams are full
        self._held = True
        self._pending = Pending()

    @property
    def reader(self) -> Reader:
        """The reading thread. Raises `RuntimeError` before the start."""
        if self._reader is None:
            raise RuntimeError("the consumer is not started")
        return self._reader

    # start and end

    async def on_start(self) -> None:
        """Connects. Raises `KafkaSetupError` where no broker answers."""
        config = consumer_config(*self.transport.address, **self.transport.settings())
        self._reader = Reader(config, self)
        try:
            await self._reader.ask(lambda consumer: reach(consumer, config["bootstrap.servers"]))
        except BaseException:
            await self._reader.close()
            raise

    async def subscribe(self, topics: Iterable[str]) -> None:
        """Joins the group."""
        await self.reader.join(topics)

    async def on_stop(self) -> None:
        """Commits what was acknowledged, and leaves the group."""
        await super().on_stop()
        if self._reader is not None:
            await self._reader.close()

    # what the reading thread tells

    def arrived(self, version: int, messages: list[Message]) -> None:
        """Takes records, unless something else was wanted in the meantime."""
        if version != self._version:
            self.reader.took(len(messages))
            return
        self._inbox.extend(messages)
        if self._again is None:
            self._go_on()

    async def revoked(self, places: set[Place]) -> None:
        """Gives partitions back, when all that was begun is acknowledged."""
        self.app.on_rebalance_start()
        self._held = True
        await self.on_partitions_revoked({TP(*place) for place in places})
        await self.commit()  # Faust's own may have met one under way, which knew less
        self._take(set())

    async def assigned(self, places: set[Place]) -> None:
        """Takes partitions; Faust recovers their tables after this."""
        if not self.app.rebalancing:
            self.app.on_rebalance_start()
        self._held = True
        _check_together(places)
        self.app.consumer_generation_id += 1  # librdkafka keeps the group's own to itself
        self._take({TP(*place) for place in places})
        await self.on_partitions_assigned(self.assignment(), self.app.consumer_generation_id)

    async def fenced(self, member: str) -> None:
        """Returns when this worker may join anew. Raises `Displaced` where another has its id."""
        names = {member}

        async def own() -> set[str]:
            # The answer to a joining may still come.
            names.add(await self.reader.ask(lambda consumer: consumer.memberid()))
            return names

        rivals = Rivals(*self.transport.address, **self.transport.membership())
        await rivals.none(own, lambda: self.should_stop)

    def failed(self, error: BaseException) -> None:
        """Ends the app: nothing is read any more."""
        self.add_future(self.crash(error))

    def _take(self, assigned: set[TP]) -> None:
        self._assigned = assigned
        self._positions.clear()
        self._pending = Pending()
        self._change(moved=True)

    # what is read

    def release(self) -> None:
        """Lets frames in, at the end of a recovery; at that of an older generation, does not."""
        if self.app.tables.recovery._generation_id != self.app.consumer_generation_id:
            return
        self._held = False
        self._change()
        if unknown := [tp for tp in self._assigned if tp not in self._positions]:
            # Faust goes on when a broker took too long to answer; these would never be read.
            self.failed(TimeoutError(f"no broker said where to read {unknown} from"))

    def _wanted(self) -> dict[Place, int]:
        """Partitions that are to be read now, with the offset of the next record of each."""
        if not self.flow_active:
            return {}
        return {
            tp: at
            for tp, at in self._positions.items()
            if tp in self._active_partitions and not (self._held and not self._is_changelog_tp(tp))
        }

    def _change(self, moved: bool = False) -> None:
        """Has other partitions read, or the same ones from elsewhere where a position `moved`."""
        wanted = self._wanted()
        if moved or wanted.keys() != self._reading:
            self.reader.took(len(self._inbox))
            self._inbox.clear()
            self._reading = set(wanted)
            self._version = self.reader.read(wanted)

    def stop_flow(self) -> None:
        """Lets nothing in."""
        super().stop_flow()
        self._change()

    def resume_flow(self) -> None:
        """Goes on where the flow was stopped, or where was sought since."""
        super().resume_flow()
        self._change()

    def pause_partitions(self, tps: Iterable[TP]) -> None:
        """Lets nothing in of some partitions."""
        super().pause_partitions(tps)
        self._change()

    def resume_partitions(self, tps: Iterable[TP]) -> None:
        """Goes on with some partitions."""
        super().resume_partitions(tps)
        self._change()

    def on_buffer_full(self, tp: TP) -> None:
        """Nothing: `_push` looks for room before it puts something into a stream."""

    def on_buffer_drop(self, tp: TP) -> None:
        """Nothing; see `on_buffer_full`."""

    async def seek_wait(self, partitions: Mapping[TP, int]) -> None:
        """Goes on from other offsets, each that of the next record that Faust gets."""
        self._positions.update(partitions)
        for tp in partitions:
            self._pending.forget(tp)
        self._change(moved=True)

    async def _seek(self, partition: TP, offset: int) -> None:
        await self.seek_wait({partition: offset})

    async def seek_to_committed(self) -> Any:
        """Goes back to the committed offsets; without one, to the first record that is there."""
        frames = [TopicPartition(*tp) for tp in self._assigned if not self._is_changelog_tp(tp)]
        found = await self._answer(lambda consumer: consumer.committed(frames, ANSWER_S))
        committed = {
            TP(p.topic, p.partition): None if p.offset == OFFSET_INVALID else p.offset
            for p in found
        }
        await self.seek_wait(
            {tp: OFFSET_BEGINNING if at is None else at for tp, at in committed.items()}
        )
        return committed

    # the way of a record

    def _go_on(self) -> None:
        self._again = None
        try:
            self._push()
        except Exception as error:  # asyncio would log it, and no more
            self.failed(error)

    def _push(self) -> None:
        """Puts records into Faust's streams, as long as there is room in them.

        Faust's conductor would do it in several turns of the event loop, and wait for room with the
        record in hand, past the end of a flow. Here all records are bytes, so nothing is decoded.
        """
        while self._inbox:
            message = self._inbox[0]
            tp = TP(message.topic() or "", message.partition() or 0)
            channels = self.app.topics._tp_index[tp]
            if any(channel.queue.full() for channel in channels):
                self._again = self.loop.call_later(FULL_S, self._go_on)
                return
            self._inbox.popleft()
            self.reader.took(1)
            self._positions[tp] = (message.offset() or 0) + 1
            if self.app.topics.acks_enabled_for(tp.topic):
                self._pending.handed_over(tp, message.offset() or 0)
            record = self._to_message(tp, message)
            record.incref(len(channels))
            event = self.app.create_event(record.key, record.value, record.headers, record)
            for channel in channels:
                channel.queue.put_nowait(event)

    def _to_message(self, tp: TP, record: Message) -> ConsumerMessage:
        kind, milliseconds = record.timestamp()
        headers: Any = record.headers()
        return ConsumerMessage(
            *tp,
            record.offset() or 0,
            milliseconds / 1e3,
            kind - 1,  # 0: the producer's, 1: the broker's
            headers,
            record.key(),
            record.value(),
            None,
            tp=tp,
            generation_id=self.app.consumer_generation_id,
        )

    # what is acknowledged

    def ack(self, message: Any) -> bool:
        """Takes down that a record is done; False where it was already."""
        if message.acked:
            return False
        message.acked = True
        self.unacked.discard(message)
        self._pending.acknowledged(message.tp, message.offset)
        notify(self._waiting_for_ack)
        return True

    def _filter_tps_with_pending_acks(self, topics: Any = None) -> Iterator[TP]:
        found = self._pending.partitions()
        return (tp for tp in found if topics is None or tp in topics or tp.topic in topics)

    def _new_offset(self, tp: TP) -> int | None:
        return self._pending.committable(tp)

    # what Faust asks

    def assignment(self) -> set[TP]:
        """The partitions of this member."""
        return set(self._assigned)

    async def position(self, tp: TP) -> int | None:
        """The offset of the next record that Faust gets."""
        return self._positions.get(tp)

    def highwater(self, tp: TP) -> int:
        """Refuses: nothing of Faust that is used here asks for it."""
        raise NotImplementedError("ask for `highwaters`")

    async def earliest_offsets(self, *partitions: TP) -> Mapping[TP, int]:
        """The first offset of each partition."""
        return {tp: low for tp, (low, _) in (await self._bounds(partitions)).items()}

    async def highwaters(self, *partitions: TP) -> Mapping[TP, int]:
        """The offset after the last one of each partition."""
        return {tp: high for tp, (_, high) in (await self._bounds(partitions)).items()}

    async def _bounds(self, tps: Iterable[TP]) -> dict[TP, tuple[int, int]]:
        places = {tp: TopicPartition(*tp) for tp in tps}
        return await self._answer(
            lambda consumer: {
                tp: consumer.get_watermark_offsets(place, timeout=ANSWER_S)
                for tp, place in places.items()
            }
        )

    async def _answer(self, function: Callable[[confluent_kafka.Consumer], T]) -> T:
        """What the broker says, however long it is away; Faust gives up by itself."""
        while True:
            try:
                return await self.reader.ask(function)
            except KafkaException as error:
                if self.should_stop:
                    raise
                _log.warning("asking again", said=_reason(error))
                await asyncio.sleep(AGAIN_S)

    async def _commit(self, offsets: Mapping[TP, int]) -> bool:
        places: dict[Place, int] = dict(offsets.items())
        while self._assigned.issuperset(offsets):
            try:
                await self.reader.commit(places)
                return True
            except Interrupted:
                continue
            except (NotOurs, ReadingFailed):
                break
            except KafkaException as error:
                if self.should_stop or error.args[0].code() in _NOT_OURS:
                    break
                _log.warning("committing again", said=_reason(error))
                await asyncio.sleep(AGAIN_S)
        return False

    def topic_partitions(self, topic: str) -> int | None:
        """The number of a topic's partitions, of which all have the same here."""
        return int(self.app.conf.topic_partitions)

    async def create_topic(self, topic: str, *_: Any, **__: Any) -> None:
        """Nothing: `rehearse topics create` does that."""

    def key_partition(self, topic: str, key: bytes | None, partition: int | None = None) -> int:
        """Refuses: who sends says the partition."""
        raise NotImplementedError(f"{topic}: partitions are given by schemas.topics")

    def _new_topicpartition(self, topic: str, partition: int) -> TP:
        return TP(topic, partition)

    async def _getmany(self, active_partitions: Any, timeout: float) -> Any:
        raise NotImplementedError("records are not fetched, they arrive")


def _check_together(places: set[Place]) -> None:
    """Raises `ReadingFailed` where frames come without the beliefs of their cohorts."""
    numbers: dict[str, set[int]] = {}
    for topic, partition in places:
        numbers.setdefault(topic, set()).add(partition)
    if len({frozenset(found) for found in numbers.values()}) > 1:
        raise ReadingFailed(f"the group gave out partitions that do not belong together: {numbers}")


def _reason(error: KafkaException) -> str:
    """What librdkafka says about an error."""
    return str(error.args[0].str())
