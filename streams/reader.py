"""A thread that reads what it is told to: librdkafka's consumer, at the service of an event loop.

The loop says which partitions are read and from which offset on (`read`); each time it does, a new
version begins. Records come back in batches, one call into the loop for each, with the version
under which they were read. As the thread applies a new version between two batches, all records of
one version follow each other without a gap from the offsets that were asked for; what arrives of
an older one is dropped, and is read again if it is still wanted. So nothing can be lost, doubled or
overtaken by a change of mind, and librdkafka's `seek`, `pause` and `resume`, each with buffers of
its own to think of, are not needed: `assign` says it all.

The consumer is a member of a group: librdkafka asks for partitions back inside `poll`, and the
thread waits there until the loop has put its affairs in order. The session is kept alive meanwhile
by another thread, librdkafka's own.

A static member whose place was given to another consumer is fenced, and librdkafka's consumer is of
no use after that. The rival may be librdkafka itself: after an outage it joins anew, under a new
member id, and a commit that waited through the outage still carries the old one. So the owner is
asked whether there is a real rival, and if not, a new consumer takes the old one's place. So it
does where the group gives out no partitions for two sessions, for whatever reason.

A consumer is closed in a thread of its own: librdkafka waits there for the answer to every commit,
and for ever where it connects to the coordinator no more, because it was fenced. A static member
does not tell the group that it leaves, so nobody else waits for that.

Every call to the consumer is made in this thread, also those for the loop (`ask`), which it sees to
while it waits as well: confluent-kafka lets one thread at a time use a consumer, and who polls
again and again keeps all others out.
"""

import asyncio
import math
import threading
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any, Final, NamedTuple, Protocol, TypeVar

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

T = TypeVar("T")
Place = tuple[str, int]  # topic, partition
POLL_S: Final = 0.05  # how long a new version, or a question, may wait while records are read
IDLE_S: Final = 0.01  # and while none are
MANY: Final = 32  # records that are handed over at once
HELD: Final = 32  # records that may wait in the loop before reading stops
SESSIONS: Final = 2  # without partitions, after which a new consumer asks for them
CLOSE_S: Final = 1.0  # for a consumer to close at the end; with a broker it takes milliseconds
_log = structlog.get_logger("worker")
# What no later attempt would do better.
_FINAL: Final = (KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.GROUP_AUTHORIZATION_FAILED)
# Ends a consumer; only its text tells more, and `fatal()` is false of it.
_FENCED: Final = (KafkaError._FATAL, KafkaError.FENCED_INSTANCE_ID)


class ReadingFailed(RuntimeError):
    """Kafka lets this consumer read no more; the message says why."""


class Interrupted(RuntimeError):
    """A rebalance came before the answer to a commit; it may be sent again at once."""


class NotOurs(RuntimeError):
    """Another member may have the partitions; what was not committed will be read again."""


class Reading(NamedTuple):
    """What is to be read: offsets by partition, in one version after the other."""

    version: int
    places: Mapping[Place, int]


class _Job(NamedTuple):
    work: Callable[[], None]
    answer: "asyncio.Future[Any]"


class Owner(Protocol):
    """Who is read for. All methods run in the event loop."""

    def arrived(self, version: int, messages: list[Message]) -> None:
        """Takes records, in order for each partition."""

    async def assigned(self, places: set[Place]) -> None:
        """Gets the partitions of a new generation of the group; nothing is read of them yet."""

    async def revoked(self, places: set[Place]) -> None:
        """Gives partitions back."""

    async def fenced(self, member: str) -> None:
        """Returns when `member` may join anew. Raises where another one has its place."""

    def failed(self, error: BaseException) -> None:
        """Is told that nothing is read any more."""


class Reader:
    """The thread. Public methods are for the event loop that it was made in."""

    def __init__(self, config: Mapping[str, Any], owner: Owner) -> None:
        self._config = {**config, "on_commit": self._on_commit}
        self._patience_s = SESSIONS * float(config.get("session.timeout.ms", 45_000)) / 1e3
        self._consumer = Consumer(self._config)
        self._topics: list[str] = []
        self._owner, self._loop = owner, asyncio.get_running_loop()
        self._wanted, self._applied = Reading(0, {}), Reading(0, {})
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._commit: tuple[Mapping[Place, int], asyncio.Future[None]] | None = None
        self._in_rebalance = self._fenced = False
        self._vain = math.inf  # when it was waited for partitions for too long
        self._assigned: set[Place] | None = None  # None: no member, or one that lost its place
        self._handed = self._taken = 0  # each is written by one thread alone
        self._closing, self._ended = threading.Event(), asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="reader", daemon=True)
        self._thread.start()

    # in the event loop

    def read(self, places: Mapping[Place, int]) -> int:
        """From now on reads `places`, each from its offset on; returns the version of this."""
        self._wanted = Reading(self._wanted.version + 1, places)
        self._jobs.put(None)
        return self._wanted.version

    def took(self, count: int) -> None:
        """Tells that `count` records wait no longer in the loop."""
        self._taken += count

    async def join(self, topics: Iterable[str]) -> None:
        """Becomes a member of the group, for all of `topics`."""
        self._topics = list(topics)
        await self.ask(lambda _: self._subscribe())

    async def ask(self, function: Callable[[Consumer], T]) -> T:
        """What `function` returns or raises; nothing is read while it runs.

        Raises `ReadingFailed` when the thread has ended, or ends before there is an answer.
        """
        answer: asyncio.Future[T] = self._loop.create_future()

        def job() -> None:
            try:
                result = function(self._consumer)
            except Exception as error:
                self._tell(_fail, answer, error)
            else:
                self._tell(_settle, answer, result)

        return await self._queue(job, answer)

    async def commit(self, offsets: Mapping[Place, int]) -> None:
        """Returns when the offsets are committed.

        Raises `KafkaException`, `Interrupted`, `NotOurs`, or `ReadingFailed` as `ask` does.
        """
        answer: asyncio.Future[None] = self._loop.create_future()
        await self._queue(lambda: self._send_commit(offsets, answer), answer)

    async def _queue(self, job: Callable[[], None], answer: "asyncio.Future[T]") -> T:
        if self._ended.is_set():
            raise ReadingFailed("the reading has ended")
        self._jobs.put(_Job(job, answer))
        return await answer

    async def close(self) -> None:
        """Ends, without asking for anything any more; the group waits for a static member."""
        self._closing.set()
        self._jobs.put(None)
        await self._ended.wait()

    # in the thread

    def _run(self) -> None:
        try:
            while not self._closing.is_set():
                self._turn()
        except BaseException as error:
            self._tell(self._owner.failed, error)
        finally:
            self._closing.set()
            self._drop().join(CLOSE_S)
            self._tell(self._end)

    def _end(self) -> None:
        """In the event loop: whoever still waits for an answer does not get one."""
        self._ended.set()
        answers = [] if self._commit is None else [self._commit[1]]
        while not self._jobs.empty():
            if (job := self._jobs.get()) is not None:
                answers.append(job.answer)
        for answer in answers:
            _fail(answer, ReadingFailed("the reading has ended"))

    def _turn(self) -> None:
        if self._fenced or time.monotonic() > self._vain:
            self._join_anew()
        while not self._jobs.empty():
            self._work(0)
        wanted = self._wanted
        if wanted is not self._applied:
            self._assign(wanted.places)
            self._applied = wanted
        if self._handed - self._taken > HELD:
            # Rebalances wait as well, for as long as some frames take.
            self._work(IDLE_S)
            return
        # `consume` waits until it has as many as it was asked for: the first is waited for alone,
        # and is on its way before there is a look for others.
        first = self._consumer.poll(POLL_S if wanted.places else IDLE_S)
        if first is not None:
            self._hand_over(wanted.version, [first])
            self._hand_over(wanted.version, self._consumer.consume(MANY, 0))

    def _subscribe(self) -> None:
        self._consumer.subscribe(
            self._topics,
            on_assign=self._on_assign,
            on_revoke=self._on_revoke,
            on_lost=self._on_lost,
        )
        self._vain = time.monotonic() + self._patience_s

    def _join_anew(self) -> None:
        self._give_up()
        if self._fenced:
            self._in_loop(self._owner.fenced(self._consumer.memberid() or ""))
        else:
            _log.warning("no partitions came, asking anew", seconds=self._patience_s)
        if self._closing.is_set():
            return
        self._drop()
        self._consumer = Consumer(self._config)
        self._applied = Reading(0, {})
        self._fenced = False
        self._subscribe()

    def _drop(self) -> threading.Thread:
        """Has the consumer closed; what it calls back meanwhile comes in that thread."""
        thread = threading.Thread(target=_close, args=[self._consumer], name="close", daemon=True)
        thread.start()
        return thread

    def _is_current(self) -> bool:
        return threading.current_thread() is self._thread

    def _hand_over(self, version: int, found: list[Message]) -> None:
        messages = [message for message in found if self._usable(message)]
        if messages:
            self._handed += len(messages)
            self._tell(self._owner.arrived, version, messages)

    def _work(self, seconds: float) -> None:
        try:
            job = self._jobs.get(timeout=seconds)
        except Empty:
            return
        if job is not None:
            job.work()

    def _assign(self, places: Mapping[Place, int]) -> None:
        self._consumer.assign(_listed(places))

    def _on_assign(self, _: Consumer, places: list[TopicPartition]) -> None:
        self._assign({})  # else librdkafka would begin to read
        self._assigned = _places(places)
        self._vain = math.inf
        self._in_loop(self._owner.assigned(self._assigned))

    def _on_revoke(self, consumer: Consumer, _: list[TopicPartition]) -> None:
        if self._is_current():
            if self._assigned is not None:
                self._in_loop(self._owner.revoked(self._assigned))
                self._assigned = None
            self._vain = time.monotonic() + self._patience_s
        consumer.unassign()

    def _on_lost(self, consumer: Consumer, _: list[TopicPartition]) -> None:
        if self._is_current():
            self._give_up()
            self._vain = time.monotonic() + self._patience_s
        consumer.unassign()

    def _give_up(self) -> None:
        """Has the loop give back what is lost: nothing can be committed any more."""
        lost, self._assigned = self._assigned, None
        if lost is not None:
            self._in_loop(self._owner.revoked(lost))

    def _in_loop(self, work: Coroutine[Any, Any, None]) -> None:
        """Has the loop do something, and waits for its end: the group moves on only then."""
        if self._commit is not None:  # its answer would come by `poll`
            _, answer = self._commit
            self._commit = None
            self._tell(_fail, answer, Interrupted("a rebalance began"))
        if self._closing.is_set():
            work.close()
            return
        self._in_rebalance = True
        try:
            done = asyncio.run_coroutine_threadsafe(work, self._loop)
            done.add_done_callback(lambda _: self._jobs.put(None))
            while not done.done() and not self._closing.is_set():
                self._work(POLL_S)
            if done.done():
                done.result()
        finally:
            self._in_rebalance = False

    def _send_commit(self, offsets: Mapping[Place, int], answer: "asyncio.Future[None]") -> None:
        if self._assigned is None:
            self._tell(_fail, answer, NotOurs("the partitions are not this member's any more"))
            return
        try:
            if not self._in_rebalance:
                # Reading goes on, and `poll` calls `_on_commit`.
                self._consumer.commit(offsets=_listed(offsets), asynchronous=True)
                self._commit = (offsets, answer)
                return
            found = self._consumer.commit(offsets=_listed(offsets), asynchronous=False)
            _raise_first(found or [])
        except KafkaException as error:
            self._refuse_commit(answer, error)
        else:
            self._tell(_settle, answer, None)

    def _on_commit(self, error: KafkaError | None, places: list[TopicPartition]) -> None:
        if self._commit is None or not self._is_current():
            return
        offsets, answer = self._commit
        if places and {(p.topic, p.partition): p.offset for p in places} != offsets:
            return  # that of an interrupted one
        self._commit = None
        try:
            if error is not None:
                raise KafkaException(error)
            _raise_first(places)
        except KafkaException as refused:
            self._refuse_commit(answer, refused)
        else:
            self._tell(_settle, answer, None)

    def _refuse_commit(self, answer: "asyncio.Future[None]", error: KafkaException) -> None:
        self._fenced = self._fenced or error.args[0].code() in _FENCED
        self._tell(_fail, answer, error)

    def _usable(self, message: Message) -> bool:
        """Whether it is a record. Raises `ReadingFailed` for errors that do not heal."""
        error = message.error()
        if error is None:
            return True
        if error.code() in _FENCED:
            self._fenced = True
        elif error.fatal() or error.code() in _FINAL:
            raise ReadingFailed(f"{message.topic() or 'the group'}: {error.str()}")
        if error.code() != KafkaError._PARTITION_EOF:
            _log.warning("reading", topic=message.topic(), said=error.str())
        return False

    def _tell(self, function: Callable[..., object], *arguments: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(function, *arguments)
        except RuntimeError:  # the loop is closed; nobody listens any more
            self._closing.set()


def _close(consumer: Consumer) -> None:
    with suppress(KafkaException, RuntimeError):  # of a fenced one, or one that is closed
        consumer.close()


def _listed(places: Mapping[Place, int]) -> list[TopicPartition]:
    return [TopicPartition(*place, at) for place, at in places.items()]


def _places(partitions: list[TopicPartition]) -> set[Place]:
    return {(p.topic, p.partition) for p in partitions}


def _settle(answer: "asyncio.Future[T]", result: T) -> None:
    if not answer.done():
        answer.set_result(result)


def _fail(answer: "asyncio.Future[T]", error: Exception) -> None:
    if not answer.done():
        answer.set_exception(error)


def _raise_first(partitions: list[TopicPartition]) -> None:
    for partition in partitions:
        if partition.error is not None:
            raise KafkaException(partition.error)
