"""The reading thread on a real broker: changes of mind, pressure, rebalances, commits, errors."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager

import pytest
from confluent_kafka import Consumer, KafkaException, Message, TopicPartition

from infra.kafka import ensure_topics
from streams.identity import Displaced
from streams.reader import HELD, MANY, Interrupted, NotOurs, Place, Reader, ReadingFailed
from streams.topic_io import consumer_config, make_consumer, make_producer
from tests.streams.rivals import join, take_the_place
from tests.support import unique

pytestmark = pytest.mark.broker
PARTITIONS, RECORDS = 3, 1_500


class Log:
    """Takes down what a reader tells; `on_revoked` is what a member does about its partitions."""

    def __init__(self, on_revoked: Callable[[], Awaitable[None]] | None = None) -> None:
        self.reader: Reader
        self.version = 0
        self.told: list[tuple[Place, int]] = []  # of the newest version
        self.taking = True
        self.assignments: list[set[Place]] = []
        self.fences = 0
        self.error: BaseException | None = None
        self._on_revoked = on_revoked

    def read(self, places: Mapping[Place, int]) -> None:
        self.told.clear()
        self.version = self.reader.read(places)

    def arrived(self, version: int, messages: list[Message]) -> None:
        if self.taking:
            self.reader.took(len(messages))
        if version == self.version:
            self.told += [
                ((m.topic() or "", m.partition() or 0), m.offset() or 0) for m in messages
            ]

    async def assigned(self, places: set[Place]) -> None:
        self.assignments.append(places)

    async def revoked(self, places: set[Place]) -> None:
        if self._on_revoked is not None:
            await self._on_revoked()
        self.version = self.reader.read({})
        self.assignments.append(set())

    async def fenced(self, member: str) -> None:
        assert member.startswith("one-")  # the broker's name of it
        self.fences += 1

    def failed(self, error: BaseException) -> None:
        self.error = error


@asynccontextmanager
async def reading(log: Log, config: Mapping[str, str], **settings: str) -> AsyncIterator[Reader]:
    bootstrap = config["bootstrap.servers"]
    log.reader = Reader(consumer_config(bootstrap, config, **settings), log)
    try:
        yield log.reader
    finally:
        await log.reader.close()


async def until(condition: Callable[[], bool], what: str) -> None:
    async with asyncio.timeout(120):
        while not condition():
            await asyncio.sleep(0.005)
    assert condition(), what


def offsets_of(told: list[tuple[Place, int]]) -> dict[Place, list[int]]:
    found: dict[Place, list[int]] = {}
    for place, offset in told:
        found.setdefault(place, []).append(offset)
    return found


@pytest.fixture(scope="module")
def numbers(kafka: dict[str, str]) -> str:
    """A topic with RECORDS records in each partition."""
    name = unique("numbers")
    ensure_topics(kafka, [(name, PARTITIONS, {})])
    producer = make_producer(kafka["bootstrap.servers"])
    for number in range(RECORDS):
        for partition in range(PARTITIONS):
            producer.produce(name, str(number).encode(), None, partition)
    assert producer.flush(30) == 0
    return name


@pytest.mark.parametrize("seed", [1, 2])
def test_whatever_is_wanted_in_between_each_version_has_no_gap(
    kafka: dict[str, str], numbers: str, seed: int
) -> None:
    """Partitions come and go and move to and fro at any moment, in the middle of batches."""
    rng = random.Random(seed)

    async def run() -> None:
        log = Log()
        async with reading(log, kafka):
            for _ in range(40):
                chosen = rng.sample(range(PARTITIONS), rng.randint(0, PARTITIONS))
                wanted = {(numbers, p): rng.randrange(RECORDS) for p in chosen}
                log.read(wanted)
                await asyncio.sleep(rng.choice([0, 0.002, 0.03, 0.1]))
                for place, offsets in offsets_of(log.told).items():
                    first = wanted[place]
                    assert offsets == list(range(first, first + len(offsets)))
            log.read({(numbers, p): p for p in range(PARTITIONS)})
            every = PARTITIONS * RECORDS - sum(range(PARTITIONS))
            await until(lambda: len(log.told) == every, "the end of all")
            for (_, partition), offsets in offsets_of(log.told).items():
                assert offsets == list(range(partition, RECORDS))

    asyncio.run(run())


def test_reading_stops_while_nobody_takes_and_goes_on_after(
    kafka: dict[str, str], numbers: str
) -> None:
    async def run() -> None:
        log = Log()
        log.taking = False
        async with reading(log, kafka) as reader:
            log.read({(numbers, 0): 0})
            await until(lambda: len(log.told) > HELD, "pressure")
            await asyncio.sleep(0.3)
            assert len(log.told) <= HELD + MANY + 1
            assert await reader.ask(lambda _: "asked") == "asked"
            log.taking = True
            reader.took(len(log.told))
            await until(lambda: len(log.told) == RECORDS, "the rest")
            assert [offset for _, offset in log.told] == list(range(RECORDS))

    asyncio.run(run())


def committed(kafka: Mapping[str, str], group: str, name: str) -> dict[int, int]:
    client = make_consumer(kafka["bootstrap.servers"], kafka, group_id=group)
    places = [TopicPartition(name, p) for p in range(PARTITIONS)]
    try:
        return {p.partition: p.offset for p in client.committed(places, 10)}
    finally:
        client.close()


MEMBER: dict[str, str] = {
    "partition_assignment_strategy": "range",
    "session_timeout_ms": "6000",
    "heartbeat_interval_ms": "500",
    "auto_offset_reset": "earliest",
}


def test_partitions_move_when_their_owner_has_committed(
    kafka: dict[str, str], numbers: str
) -> None:
    """Both topics' ranges move together, and nothing is read before it is wanted."""
    group, other = unique("group"), unique("others")
    ensure_topics(kafka, [(other, PARTITIONS, {})])

    async def run() -> None:
        async def give_back() -> None:
            await asyncio.sleep(0.2)  # longer than one poll
            await first.reader.commit({(numbers, p): 10 + p for p in range(PARTITIONS)})

        first, second = Log(give_back), Log()
        member = {**MEMBER, "group_id": group}
        async with reading(first, kafka, **member, group_instance_id="a") as one:
            await one.join([numbers, other])
            await until(lambda: len(first.assignments) == 1, "all partitions")
            every = {(name, p) for name in (numbers, other) for p in range(PARTITIONS)}
            assert first.assignments == [every]
            async with reading(second, kafka, **member, group_instance_id="b") as two:
                await two.join([numbers, other])
                await until(lambda: len(second.assignments) == 1, "a part")
                await until(lambda: len(first.assignments) == 3, "the other part")
                assert first.assignments[1] == set()
                assert first.assignments[2] | second.assignments[0] == every
                assert not first.assignments[2] & second.assignments[0]
                for part in (first.assignments[2], second.assignments[0]):
                    numbers_of = {name: {p for n, p in part if n == name} for name, _ in part}
                    assert numbers_of[numbers] == numbers_of[other]
                assert committed(kafka, group, numbers) == {0: 10, 1: 11, 2: 12}
                assert (first.told, second.told) == ([], [])
                places = dict.fromkeys(second.assignments[0], 5)
                second.read(places)
                await until(lambda: len(second.told) > 50, "records")

    asyncio.run(run())


def test_commits_are_answered_also_in_the_middle_of_a_rebalance(
    kafka: dict[str, str], numbers: str
) -> None:
    group = unique("group")

    async def run() -> None:
        member = {**MEMBER, "group_id": group}
        log, others = Log(), Log()
        async with reading(log, kafka, **member) as one:
            await one.join([numbers])
            await until(lambda: len(log.assignments) == 1, "the partitions")
            log.read(dict.fromkeys(log.assignments[0], 0))
            answers: Counter[str] = Counter()
            offset = 0

            async def keep_committing() -> None:
                nonlocal offset
                while len(log.assignments) < 3:
                    offset += 1
                    try:
                        await one.commit({(numbers, 0): offset})
                        answers["committed"] += 1
                    except (Interrupted, KafkaException) as error:
                        answers[type(error).__name__] += 1

            async with asyncio.timeout(60):
                task = asyncio.create_task(keep_committing())
                await until(lambda: answers["committed"] > 5, "commits")
                async with reading(others, kafka, **member) as two:
                    await two.join([numbers])
                    await task
            assert answers["committed"] > 5
            with pytest.raises(KafkaException):
                await one.commit({("no such topic", 0): 1})

    asyncio.run(run())


@pytest.mark.parametrize("committing", [False, True], ids=["idle", "committing"])
def test_a_member_that_is_fenced_joins_anew_and_reads_on(
    kafka: dict[str, str], numbers: str, committing: bool
) -> None:
    member = {**MEMBER, "group_id": unique("group"), "group_instance_id": "one"}
    every = {(numbers, p) for p in range(PARTITIONS)}
    refused: list[str] = []

    async def run() -> None:
        async def commit() -> None:
            try:
                await log.reader.commit({(numbers, 0): 3})
            except (NotOurs, Interrupted, KafkaException) as error:
                refused.append(type(error).__name__)

        log = Log(commit)
        async with reading(log, kafka, **member) as reader:
            await reader.join([numbers])
            await until(lambda: log.assignments == [every], "all partitions")
            await asyncio.to_thread(take_the_place, kafka, member, numbers)
            if committing:
                await commit()
            await until(lambda: log.assignments == [every, set(), every], "a new membership")
            assert log.fences == 1
            assert refused[-1] == "NotOurs"
            log.read(dict.fromkeys(every, 0))
            await until(lambda: len(log.told) == PARTITIONS * RECORDS, "all records")
            await reader.commit({(numbers, 0): 7})
        assert log.error is None
        assert committed(kafka, member["group_id"], numbers)[0] == 7

    asyncio.run(run())


def test_a_member_whose_place_another_one_has_ends(kafka: dict[str, str], numbers: str) -> None:
    class Replaced(Log):
        async def fenced(self, member: str) -> None:
            raise Displaced("by another")

    async def run() -> None:
        log = Replaced()
        member = {**MEMBER, "group_id": unique("group"), "group_instance_id": "one"}
        async with reading(log, kafka, **member) as reader:
            await reader.join([numbers])
            await until(lambda: len(log.assignments) == 1, "all partitions")
            await asyncio.to_thread(take_the_place, kafka, member, numbers)
            await until(lambda: log.error is not None, "the end")
            assert log.assignments[1:] == [set()]
            assert isinstance(log.error, Displaced)
            with pytest.raises(ReadingFailed, match="ended"):
                await reader.commit({(numbers, 0): 1})

    asyncio.run(run())


def test_a_member_that_waits_in_vain_asks_anew(kafka: dict[str, str], numbers: str) -> None:
    """Another member holds the rebalance up, longer than two sessions; it does not poll."""
    quick = {"session_timeout_ms": "1500", "heartbeat_interval_ms": "300"}
    member = {**MEMBER, **quick, "group_id": unique("group")}
    consumers: list[Consumer] = []

    async def run() -> None:
        log = Log()
        async with reading(log, kafka, **member, group_instance_id="one") as reader:

            async def another() -> bool:
                consumers.append(await reader.ask(lambda consumer: consumer))
                return consumers[-1] is not consumers[0]

            await reader.join([numbers])
            async with asyncio.timeout(60):
                while not await another():
                    await asyncio.sleep(0.1)
            assert log.assignments == []
            await asyncio.to_thread(idler.close)
            await until(lambda: bool(log.assignments), "the partitions")
            log.read(dict.fromkeys(log.assignments[-1], 0))
            await until(lambda: len(log.told) == PARTITIONS * RECORDS, "all records")
        assert log.error is None

    idler = join(kafka, member, numbers)
    try:
        asyncio.run(run())
    finally:
        idler.close()


def test_what_is_asked_comes_back_with_its_error(kafka: dict[str, str], numbers: str) -> None:
    async def run() -> None:
        log = Log()

        def wrong(_: Consumer) -> int:
            raise ValueError("on purpose")

        async with reading(log, kafka) as reader:
            with pytest.raises(ValueError, match="on purpose"):
                await reader.ask(wrong)
            place = TopicPartition(numbers, 1)
            bounds = await reader.ask(lambda c: c.get_watermark_offsets(place, timeout=10))
            assert bounds == (0, RECORDS)
            assert log.error is None

    asyncio.run(run())


def test_an_owner_that_fails_ends_the_reading(kafka: dict[str, str], numbers: str) -> None:
    class Failing(Log):
        async def assigned(self, places: set[Place]) -> None:
            raise ReadingFailed("cannot take them")

    async def run() -> None:
        log = Failing()
        async with reading(log, kafka, **MEMBER, group_id=unique("group")) as reader:
            await reader.join([numbers])
            await until(lambda: log.error is not None, "the end")
        assert isinstance(log.error, ReadingFailed)
        with pytest.raises(ReadingFailed, match="ended"):
            await reader.ask(lambda _: None)
        with pytest.raises(ReadingFailed, match="ended"):
            await reader.commit({(numbers, 0): 1})

    asyncio.run(run())


def test_settings_that_librdkafka_does_not_know_are_refused_at_once() -> None:
    async def run() -> None:
        config = consumer_config("127.0.0.1:1", {"no.such.setting": "1"})
        Reader(config, Log())

    with pytest.raises(KafkaException, match=r"no\.such\.setting"):
        asyncio.run(run())
