"""Raw messages → embeddings: gather, read, encode in one call, publish, acknowledge.

A camera's images, say, become readings of a sensor like any other; frames stay small. At least
once: a raw message is acknowledged when the broker has its embedding. One that is read again gives
the same bits, and the aligner drops what it has.
"""

import asyncio
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

import numpy as np

from planner.encoder import Encoder
from planner.session import F32
from schemas.messages import WATERMARK_HEADER, DeadLetter, encode
from schemas.perceive import RawInput
from schemas.spec_parts import SensorSpec
from schemas.system import SystemSpec
from schemas.topics import topic
from streams.codecs.base import Refused
from streams.metrics import counter, histogram
from streams.publish import Headers, Publisher, Record
from streams.raw_inputs import Raw, RawReader
from streams.tally import percentiles

ENCODER_HEADER: Final = "rehearse-encoder"
"""Of a reading that an encoder made: the first 16 hexadecimal digits of the encoder's SHA-256."""
CONFIRM_S: Final = 120.0
_FLYING: Final = 8  # batches sent but not confirmed
_LOG_APPEND_TIME: Final = 1  # Kafka's number of it
_KEPT: Final = 100_000  # newest durations, for percentiles


class Taken(NamedTuple):
    """A raw record as Faust hands it over, and when (monotonic nanoseconds)."""

    event: Any
    at_ns: int


class Perceiver:
    """Encodes the raw messages of one sensor. Lives in the event loop; encodes in a thread."""

    def __init__(
        self,
        spec: SystemSpec,
        sensor: SensorSpec,
        encoder: Encoder,
        publisher: Publisher,
        wall: bool,
    ) -> None:
        assert sensor.perceive is not None
        self.sensor, self.raw = sensor, sensor.perceive
        self.tally = Counts(spec.system, sensor.name)
        self.failure: BaseException | None = None
        self._letters = topic(spec, "deadletter")
        self._reader, self._encoder = RawReader(sensor, self.raw), encoder
        self._pack = Packer(sensor, encoder.digest)
        self._publisher = publisher
        self._queue: asyncio.Queue[Taken] = asyncio.Queue(2 * self.raw.batch)
        self._slots = asyncio.Semaphore(_FLYING)
        self._flying: set[asyncio.Task[None]] = set()
        self._oldest_us = sensor.max_age_us + spec.lateness_us + spec.period_us if wall else None

    async def take(self, stream: Any) -> None:
        """The Faust agent: hands over every record; nothing is acknowledged before its time."""
        async for event in stream.noack().events():
            await self._queue.put(Taken(event, time.monotonic_ns()))

    async def run(self) -> None:
        """Encodes batch after batch, until it is cancelled or something fails for good."""
        try:
            while True:
                batch = await self._gather()
                records, letters = await asyncio.to_thread(self._records, batch)
                await self._slots.acquire()
                task = asyncio.create_task(self._confirm(batch, [*records, *letters]))
                self._flying.add(task)
                task.add_done_callback(self._flying.discard)
        except Exception as error:
            self.failure = self.failure or error

    async def drain(self) -> None:
        """Waits until all that was sent is acknowledged."""
        await asyncio.gather(*self._flying, return_exceptions=True)

    async def _gather(self) -> list[Taken]:
        """A batch: as many as the spec says, or what has come when the first has waited enough."""
        batch = [await self._queue.get()]
        end = asyncio.get_running_loop().time() + self.raw.wait_us / 1e6
        while len(batch) < self.raw.batch:
            try:
                async with asyncio.timeout_at(end):
                    batch.append(await self._queue.get())
            except TimeoutError:
                break
        return batch

    def _records(self, batch: Sequence[Taken]) -> tuple[list[Record], list[Record]]:
        """What is to be sent of a batch: readings and watermarks in their order; dead letters."""
        found: list[tuple[Any, Raw | None]] = []
        letters = []
        for event, _ in batch:
            message = event.message
            headers = dict(message.headers or ())
            if message.key is None and WATERMARK_HEADER in headers:
                found.append((message, None))
            elif self._is_stale(message):
                self.tally.stale()
            else:
                try:
                    read = self._reader.read(message.key, message.value, headers)
                    found.append((message, read))
                except Exception as error:  # whatever it is, the other messages go on
                    letters.append(self._letter(message, error))
        values = self._encoded([raw for _, raw in found if raw is not None])
        name, own = self.sensor.topic, self._pack.headers
        # All keep their partition: a watermark promises nothing of what other partitions hold.
        records = [
            Record(name, message.partition, message.value, None, [(WATERMARK_HEADER, b"1")])
            if raw is None
            else Record(name, message.partition, next(values), raw.key, own)
            for message, raw in found
        ]
        return records, letters

    def _is_stale(self, message: Any) -> bool:
        """Whether it is too old for a frame, by the broker's clock; a device's may be wrong."""
        if self._oldest_us is None or message.timestamp_type != _LOG_APPEND_TIME:
            return False
        return bool(message.timestamp < time.time() - self._oldest_us / 1e6)

    def _encoded(self, raws: Sequence[Raw]) -> Iterator[bytes]:
        if not raws:
            return iter(())
        embeddings = self._encoder.encode(np.stack([raw.row for raw in raws]))
        self.tally.encoded(len(raws))
        return self._pack.values([raw.time for raw in raws], embeddings)

    def _letter(self, message: Any, error: Exception) -> Record:
        refused = error if isinstance(error, Refused) else Refused("malformed", repr(error))
        self.tally.refused(refused.reason)
        source = (message.topic, message.partition, message.offset)
        value = None if message.value is None else bytes(message.value)
        letter = DeadLetter.of(source, refused.reason, refused.detail, message.key, value)
        return Record(self._letters, 0, encode(letter), message.key)

    async def _confirm(self, batch: Sequence[Taken], records: Sequence[Record]) -> None:
        try:
            async with asyncio.timeout(CONFIRM_S):
                await self._publisher.send(records)
            for event, _ in batch:
                event.ack()
            now = time.monotonic_ns()
            self.tally.confirmed([(now - at_ns) / 1e9 for _, at_ns in batch])
        except BaseException as error:
            # Nothing is acknowledged after this: the messages are read again by who starts next.
            self.failure = self.failure or error
            raise
        finally:
            self._slots.release()


class Packer:
    """Embeddings as a sensor's readings, in its packed codec."""

    def __init__(self, sensor: SensorSpec, digest: str) -> None:
        codec = sensor.embedding_codec
        self._dtype, self._time = codec.dtype, sensor.time.field
        self._fields = [(c.field, c.shape) for c in sensor.channels.values()]
        self.headers: Headers = [(ENCODER_HEADER, digest[:16].encode())]

    def values(self, times: Sequence[float | int], embeddings: F32) -> Iterator[bytes]:
        """A message per row of `embeddings` [n, columns]; times in the sensor's unit."""
        packed = np.zeros(len(times), self._dtype)
        packed[self._time] = times
        at = 0
        for field, size in self._fields:
            packed[field] = embeddings[:, at] if size is None else embeddings[:, at : at + size]
            at += size or 1
        return (row.tobytes() for row in packed)


class Counts:
    """What became of one sensor's raw messages; counted once, for the summary and Prometheus."""

    def __init__(self, system: str, sensor: str) -> None:
        self._labels = (system, sensor)
        self.reasons: Counter[str] = Counter()
        self.done = self.messages = self.batches = self.passed = 0
        self.seconds: deque[float] = deque(maxlen=_KEPT)
        self._histogram = histogram("rehearse_perceive_seconds").labels(*self._labels)

    def _count(self, name: str, number: int = 1) -> None:
        counter(f"rehearse_perceive_{name}").labels(*self._labels).inc(number)

    def encoded(self, number: int) -> None:
        """A batch was encoded."""
        self.messages += number
        self.batches += 1
        self._count("encoded", number)
        self._count("batches")

    def refused(self, reason: str) -> None:
        """A message goes to the dead letters."""
        self.reasons[reason] += 1
        self._count("refused")

    def stale(self) -> None:
        """A message was too old to be seen."""
        self.passed += 1
        self._count("stale")

    def confirmed(self, seconds: Sequence[float]) -> None:
        """Messages are acknowledged, each so long after its receipt."""
        self.done += len(seconds)
        self.seconds.extend(seconds)
        for spent in seconds:
            self._histogram.observe(spent)

    def summary(self) -> dict[str, Any]:
        """Plain JSON values; durations in milliseconds."""
        return {
            "encoded": self.messages,
            "batches": self.batches,
            "refused": dict(sorted(self.reasons.items())),
            "stale": self.passed,
            "confirm_ms": percentiles(self.seconds, 1e3),
        }


def essence(raw: RawInput, encoder: Encoder) -> dict[str, Any]:
    """What a summary says of an encoder."""
    return {"encoder": encoder.digest[:16], "batch": raw.batch, "padded": encoder.padded}
