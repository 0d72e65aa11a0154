"""One librdkafka producer; asyncio is woken once per batch, when the broker has all of it."""

import asyncio
import logging
import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from infra.kafka import client_config
from streams.topic_io import HURRY_S, LINGER_MS

FLUSH_SECONDS = 10.0

Headers = list[tuple[str, str | bytes | None]]


class Record(NamedTuple):
    """One message to send. Partitions are always explicit; see `schemas.topics.partition_of`."""

    topic: str
    partition: int
    value: bytes | None
    key: bytes | None = None
    headers: Headers | None = None


class DeliveryError(RuntimeError):
    """The broker did not confirm a record; the message says which topic, and why."""


class _Batch:
    """Counts delivery reports in librdkafka's thread and resolves one future at the last one."""

    __slots__ = ("error", "future", "left", "offset")

    def __init__(self, size: int, future: "asyncio.Future[int]") -> None:
        self.left = size
        self.future = future
        self.offset = -1
        self.error: str | None = None

    def report(self, error: KafkaError | None, message: Message) -> None:
        if error is None:
            self.offset = message.offset() or 0
        else:
            self.error = f"{message.topic()}: {error.str()}"
        self.left -= 1
        if self.left == 0:
            self.future.get_loop().call_soon_threadsafe(self._resolve)

    def _resolve(self) -> None:
        if self.future.done():
            return
        if self.error is None:
            self.future.set_result(self.offset)
        else:
            self.future.set_exception(DeliveryError(self.error))


class Publisher:
    """Sends records and says when the broker has them. Make it inside the running event loop.

    Idempotent and gapless, and records do not expire: what is retried inside librdkafka is neither
    doubled nor reordered, and when a record cannot be delivered, nothing after it is. So the report
    of the last record of a partition stands for all before it; one report per record would take the
    interpreter's lock from the loop fifty times a frame. Whoever awaits a report sets the time-out.
    """

    def __init__(self, bootstrap: str, extra: Mapping[str, str]) -> None:
        settings: dict[str, Any] = {
            "enable.idempotence": True,
            "enable.gapless.guarantee": True,
            "linger.ms": LINGER_MS,
            "socket.nagle.disable": True,
            "message.timeout.ms": 0,  # else records could expire one by one, and leave gaps
            **client_config(bootstrap, extra),
        }
        # It warns at every start that the gapless guarantee is new; what matters is raised.
        quiet = logging.getLogger("librdkafka")
        quiet.setLevel(logging.ERROR)
        self._producer = Producer(settings, logger=quiet)
        self._loop = asyncio.get_running_loop()
        self._pending: set[asyncio.Future[int]] = set()
        self._closing = threading.Event()
        self._sent = threading.Event()
        self._hurry = False
        # librdkafka calls back from flush() and poll(), which wait without the interpreter's lock.
        self._poller = threading.Thread(target=self._poll, name="delivery-reports", daemon=True)
        self._poller.start()

    def _poll(self) -> None:
        while not self._closing.is_set():
            try:
                if self._sent.is_set():
                    self._sent.clear()
                    if self._hurry:
                        self._hurry = False
                        self._producer.flush(HURRY_S)
                elif len(self._producer):
                    self._producer.poll(0.2)  # or until the next report
                else:
                    self._producer.poll(0)  # errors
                    self._sent.wait(0.2)
            except KafkaException as error:  # fatal: nothing is sent any more, nor reported
                self._loop.call_soon_threadsafe(self._fail, DeliveryError(str(error.args[0].str())))
                self._closing.wait(0.2)

    def _fail(self, error: DeliveryError) -> None:
        for future in list(self._pending):
            if not future.done():
                future.set_exception(error)

    def send(self, records: Sequence[Record], hurry: bool = True) -> "asyncio.Future[int]":
        """Hands `records` over; the future gives the last confirmed offset, or `DeliveryError`.

        hurry: somebody waits for them, so they do not wait for others to go with them.
        """
        future: asyncio.Future[int] = self._loop.create_future()
        if not records:
            future.set_result(-1)
            return future
        self._pending.add(future)
        future.add_done_callback(self._pending.discard)
        # The last record of each partition, by topic and partition.
        last = set({record[:2]: i for i, record in enumerate(records)}.values())
        batch = _Batch(len(last), future)
        produce, report = self._producer.produce, batch.report
        for i, (topic, partition, value, key, headers) in enumerate(records):
            on_delivery = report if i in last else None
            try:
                produce(topic, value, key, partition, on_delivery, headers=headers)
            except (BufferError, KafkaException) as error:
                # The count can no longer reach zero, so nothing else resolves the future.
                future.set_exception(DeliveryError(f"{topic}: {error}"))
                break
        self._hurry |= hurry
        self._sent.set()
        return future

    def connect(self, topics: Iterable[str]) -> None:
        """Learns where `topics` are, so that the first records find their way at once."""
        for topic in topics:
            self._producer.list_topics(topic, timeout=FLUSH_SECONDS)

    def close(self) -> int:
        """Waits until everything is delivered; gives the number of records that were not."""
        try:
            left = int(self._producer.flush(FLUSH_SECONDS))
        except KafkaException:  # fatal: whoever awaits a report has been told
            left = len(self._producer)
        self._closing.set()
        self._sent.set()
        self._poller.join()
        return left
