"""The aligner's way out: frames and dead letters by one producer, once it is its turn to speak."""

import os
import socket
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException, TopicPartition

from infra.kafka import KafkaSetupError
from infra.log import Log
from schemas.arrow_io import FrameError, header_of, read_batch
from schemas.frames import Frame, FrameHeader, encode_frame, header_from_json
from schemas.messages import EPOCH_HEADER, DeadLetter, encode
from schemas.system import SystemSpec
from schemas.topics import cohort_partitions, partition_of, topic
from streams.align_seat import OvertakenError, Seat, StandsByAgain
from streams.align_share import Share
from streams.align_standby import SILENT_S, Kept, at_epoch
from streams.topic_io import TIMEOUT_S, bounds, make_consumer, make_producer, raise_fatal, send

_GAPLESS: Final = {
    "enable.gapless.guarantee": "true",
    "message.timeout.ms": "0",  # else frames could expire one by one, and leave gaps
    "log_level": "3",  # it warns at every start that the guarantee is new
}
_ASK_S: Final = 1.0
_log = Log("align")


class Watch:
    """What the active aligner publishes from now on, for one that stands by."""

    def __init__(
        self, spec: SystemSpec, bootstrap: str, extra: Mapping[str, str] | None, share: Share
    ) -> None:
        self._spec, self._share = spec, share
        self._consumer = make_consumer(bootstrap, extra)
        name = topic(spec, "frames")
        self._next = {number: high for number, (_, high) in bounds(self._consumer, name).items()}
        self._consumer.assign([TopicPartition(name, *place) for place in self._next.items()])

    def poll(self) -> list[FrameHeader]:
        """The headers of the frames that came since the last call."""
        found = []
        for message in self._consumer.consume(1_000, 0.0):
            if (error := message.error()) is not None:
                _log.warning("frames", error=raise_fatal(error))
                continue
            self._next[message.partition() or 0] = 1 + (message.offset() or 0)
            try:
                header = header_from_json(header_of(read_batch(message.value() or b"")[1]))
            except FrameError:  # what is no frame is said to whoever starts
                continue
            if header.system == self._spec.system and self._share.holds(header.cohort):
                found.append(header)
        return found

    def at_end(self) -> bool:
        """Whether the broker answers, and has nothing that was not read here."""
        name = topic(self._spec, "frames")
        try:
            for number, at in self._next.items():
                place = TopicPartition(name, number)
                if self._consumer.get_watermark_offsets(place, timeout=_ASK_S)[1] > at:
                    return False
        except KafkaException:
            return False
        return True

    def rest(self) -> None:
        """Reads no more."""
        self._consumer.unassign()

    def close(self) -> None:
        """Leaves."""
        self._consumer.close()


class Out:
    """Publishes frames and dead letters when this aligner speaks, and keeps them until then.

    It claims its cohorts when `S.control` has been read to its end; one that stands by, when
    the active aligner has been silent. Who stood still for long may have been overtaken meanwhile,
    and reads that topic first.

    Args:
        watch: of one that stands by.
        high: the offset after the last record of `S.control`, as the broker says; None: no answer.
    """

    def __init__(
        self,
        spec: SystemSpec,
        bootstrap: str,
        extra: Mapping[str, str] | None,
        share: Share,
        watch: Watch | None,
        high: Callable[[], int | None],
    ) -> None:
        self.spec, self.watch = spec, watch
        self.frames = 0
        self._share, self._high = share, high
        self._names = topic(spec, "frames"), topic(spec, "deadletter"), topic(spec, "control")
        self._partitions = cohort_partitions(spec)
        # Gapless: where a frame cannot be delivered, none after it is, so a restart makes it anew.
        self.producer = make_producer(bootstrap, {**_GAPLESS, **(extra or {})}, linger_ms=0)
        self.producer.list_topics(self._names[0], timeout=TIMEOUT_S)
        self._until: int | None = None  # how far `S.control` is to be read before it speaks
        self._read = 0
        self._looked = time.monotonic()
        self._problem: KafkaError | None = None

    def begin(self, last: Sequence[Frame]) -> None:
        """Goes on after the `last` frame of each cohort."""
        epochs = [frame.header.epoch for frame in last]
        margin = 64 - (-self.spec.lateness_us // self.spec.period_us)
        self.kept = Kept(last, margin)
        least = 1 + max(epochs, default=-1)
        self.seat = Seat(self._share, self.spec.cohorts, _name(), least)
        self._until = self._high()
        self._looked = time.monotonic()

    # whose turn it is

    @property
    def speaks(self) -> bool:
        """Whether what closes is published at once."""
        return self._until is not None and self._read >= self._until and self.seat.holds

    @property
    def full(self) -> bool:
        """Whether a standby is so far ahead of the active aligner that it should not read on."""
        return self.kept.full and not self.speaks and not self.seat.pending

    def look(self, read: int) -> None:
        """Does what is due; `read` is the offset up to which `S.control` was read.

        Raises:
            OvertakenError: another aligner speaks in place of this one.
        """
        now = time.monotonic()
        passed, self._looked, self._read = now - self._looked, now, read
        if self._problem is not None:
            raise KafkaSetupError(f"{self._names[2]}: {self._problem.str()}")
        if self._until is None or passed > SILENT_S:
            self._until = self._high()
        if self._until is None or read < self._until:
            return
        if self.seat.overtaken or (self.seat.refused and self.watch is None):
            raise self._overtaken()
        if self.seat.epoch is None:
            self._wait(passed)
        elif self.kept:
            self._speak_up()

    def _overtaken(self) -> OvertakenError:
        cohorts = "" if self._share.of == 1 else f" for the cohorts of part {self._share.name}"
        told = f"{self.seat.holder} makes the frames of {self.spec.system}{cohorts} now: "
        if self.watch is not None:
            return StandsByAgain(f"{told}start this one again, and it stands by")
        return OvertakenError(
            f"{told}two of them are of no use; add --standby for one that takes over by itself"
        )

    def _wait(self, passed_s: float) -> None:
        if self.watch is not None:
            self.kept.heard(self.watch.poll())
            if self.seat.pending or not self.kept.silent(passed_s):
                return
            self.kept.wait_anew()
            if not self.watch.at_end():
                return
        if not self.seat.pending:
            claim = self.seat.claim()
            self._send(self._names[2], encode(claim), claim.key, 0, on_delivery=self._told)

    def _speak_up(self) -> None:
        if self.watch is not None:
            self.watch.rest()
        frames, letters = self.kept.take()
        _log.info("speaks", epoch=self.seat.epoch, kept=len(frames))
        self._publish(frames, letters)

    # what is said

    def put(self, frames: Sequence[Frame], letters: Sequence[DeadLetter]) -> None:
        """Publishes frames and dead letters, or keeps them."""
        if frames or letters:
            stood_still = time.monotonic() - self._looked > SILENT_S
            if self.speaks and not stood_still:  # who took over may have been behind
                self._publish(self.kept.unsaid(frames), letters)
            else:
                self.kept.closed(frames, letters)
        self.producer.poll(0)

    def _publish(self, frames: Sequence[Frame], letters: Sequence[DeadLetter]) -> None:
        assert self.seat.epoch is not None
        for frame in frames:
            self._produce_frame(at_epoch(frame, self.seat.epoch))
        self.frames += len(frames)
        for letter in letters:
            send(self.producer, self._names[1], encode(letter), letter.key)

    def _produce_frame(self, frame: Frame) -> None:
        value = encode_frame(self.spec, frame)
        partition = partition_of(frame.cohort, self._partitions)
        headers: dict[str, str | bytes | None] = {EPOCH_HEADER: str(frame.header.epoch)}
        try:
            self._send(self._names[0], value, str(frame.cohort), partition, headers=headers)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.MSG_SIZE_TOO_LARGE:
                raise
            raise KafkaSetupError(
                f"the frame of cohort {frame.cohort} has {len(frame.entities)} entities and "
                f"{len(value)} bytes, which the broker refuses: raise cohorts in the spec (a "
                "new generation of topics), or message.max.bytes"
            ) from error

    def _send(self, name: str, value: bytes, key: str, partition: int, **more: Any) -> None:
        while True:
            try:
                self.producer.produce(name, value, key, partition, **more)
                return
            except BufferError:
                self.producer.poll(0.01)

    def _told(self, error: KafkaError | None, _: object) -> None:
        self._problem = self._problem or error

    # the end

    def close(self) -> None:
        """Leaves when the broker has every frame."""
        left = self.producer.flush(TIMEOUT_S)
        if self.watch is not None:
            self.watch.close()
        if left:
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT, f"{left} records not delivered"))


def _name() -> str:
    """A name that no other aligner has, by which people find it."""
    return f"{socket.gethostname()}, process {os.getpid()} ({uuid.uuid4().hex[:8]})"
