"""The aligner's process: sensor topics in, frames out, from where the last frame left off."""

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal, Protocol

import structlog
from confluent_kafka import KafkaError, KafkaException, Message, TopicPartition

from infra.kafka import KafkaSetupError
from infra.registry import Registry, registry_settings
from schemas.frames import Frame, FrameError, Offsets, decode_frame, encode_frame
from schemas.messages import EPOCH_HEADER, encode
from schemas.system import SystemSpec
from schemas.topics import cohort_partitions, partition_of, topic
from streams.align import Aligner
from streams.align_discipline import Discipline
from streams.align_feed import Feed, Place, topics_read
from streams.align_held import Held
from streams.align_state import NEVER
from streams.codecs import asks_registry, subject_of
from streams.codecs.schemas import Schemas
from streams.metrics import Values, exposed
from streams.topic_io import (
    TIMEOUT_S,
    bounds,
    make_consumer,
    make_producer,
    raise_fatal,
    read_to_end,
    send,
)
from streams.warm import collector_at_rest, warm_frames

Clock = Literal["event", "wall"]
_MOST: Final = 10_000  # records taken at once
_BUSY: Final = 500  # records at once from which on a batch may take its time to fill
_FILL_S: Final = 0.005
_IDLE_S: Final = 0.05
_PATIENCE_S: Final = 0.5  # by which a partition may be read later than another that is as old
_AHEAD_US: Final = 60_000_000  # by how much a device's clock may lead, under the wall clock
_REGISTRY_S: Final[dict[Clock, float]] = {"event": 60.0, "wall": 5.0}
"""For how long the records behind one of an unknown schema wait for a registry that is silent."""
_OLD_US: Final = 10_000_000  # a first start under the wall clock reads at least so much of the past
_GAPLESS: Final = {
    "enable.gapless.guarantee": "true",
    "message.timeout.ms": "0",  # else frames could expire one by one, and leave gaps
    "log_level": "3",  # it warns at every start that the guarantee is new
}

_CLOCKS: Final = {
    "offset_s": "rehearse_align_clock_offset_seconds",
    "uncertainty_s": "rehearse_align_clock_uncertainty_seconds",
    "drift": "rehearse_align_clock_drift_ratio",
}

_log = structlog.get_logger("align")


class Stop(Protocol):
    """A `threading.Event` or an `asyncio.Event`."""

    def is_set(self) -> bool:
        """Whether the aligner is to stop."""


def run_align(
    spec: SystemSpec,
    bootstrap: str,
    extra: Mapping[str, str] | None,
    stop: Stop,
    *,
    clock: Clock = "event",
    on_batch: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """Aligns the readings of `spec` until `stop` is set; gives a summary as plain JSON values.

    It goes on where the last frames of the system say. Without any, it begins with the oldest
    records under the event clock, and with what is not too old to be seen under the wall clock.

    Args:
        clock: what lateness is measured by: `event`, the readings' own times; `wall`, real time.
        on_batch: is told how many records came in, after they were dealt with.

    Summary: `epoch`, `frames`, `entities`, `counters` (readings by what became of them, since the
    beginning of the stream), `dead_letters` by reason, `clocks` of devices: how many are corrected,
    how often one was set, and the worst (None under the event clock, by which they are right).

    Raises:
        KafkaSetupError: the topics are not there or not those of the frames; no broker answers.
        KafkaException: the frames cannot be delivered.
    """
    run = _Run(spec, bootstrap, extra, clock)
    try:
        with exposed(spec.system, run.metrics), collector_at_rest():
            run.go(stop, on_batch)
    finally:
        run.close()
    return run.summary()


class _Run:
    """One life of the aligner: its consumer, its producer, and what lies between."""

    def __init__(
        self, spec: SystemSpec, bootstrap: str, extra: Mapping[str, str] | None, clock: Clock
    ) -> None:
        self.spec, self.clock = spec, clock
        self.frames = 0
        self.frames_topic, self.letters_topic = topic(spec, "frames"), topic(spec, "deadletter")
        self.partitions = cohort_partitions(spec)
        self.consumer = make_consumer(
            bootstrap, extra, enable_partition_eof="true", auto_offset_reset="earliest"
        )
        # Gapless: where a frame cannot be delivered, none after it is, so a restart makes it anew.
        self.producer = make_producer(bootstrap, {**_GAPLESS, **(extra or {})}, linger_ms=0)
        self.producer.list_topics(self.frames_topic, timeout=TIMEOUT_S)
        warm_frames(spec)  # the first tick is not kept waiting
        last = last_frames(spec, bootstrap, extra)
        names = topics_read(spec)
        self.bounds = {
            (name, number): ends
            for name in names
            for number, ends in bounds(self.consumer, name).items()
        }
        counts = {name: sum(place[0] == name for place in self.bounds) for name in names}
        ahead = max(_AHEAD_US, spec.lateness_us) if clock == "wall" else None
        self.aligner = Aligner(spec, clock, partitions=counts, ahead_us=ahead, patient=True)
        self.newest: deque[tuple[float, int]] = deque()
        seek = self.aligner.restore(last)
        schemas = _schemas(spec, extra, clock)
        named = self.aligner.names.__getitem__
        self.clocks = Discipline(spec, named, _now_us) if clock == "wall" else None
        known = _positions(last)
        self.feed = Feed(spec, self.aligner, self._high, known, schemas, self.clocks)
        framed = {sensor.topic for sensor in spec.sensors.values() if asks_registry(sensor)}
        self.held = Held(self.consumer, self.feed, framed)
        begin = self._begin(seek)
        self.consumer.assign([TopicPartition(*place, first) for place, first in begin.items()])
        self.feed.begin(p for p, first in begin.items() if first < self.bounds[p][1])
        _log.info("aligner ready", epoch=self.aligner.epoch, restored=len(last), clock=clock)

    # where to begin

    def _begin(self, seek: Offsets) -> dict[Place, int]:
        """The offset to start from, of each partition."""
        begin = {place: low for place, (low, _) in self.bounds.items()}
        if seek:
            for place in begin:
                name, number = place
                if name != topic(self.spec, "control"):  # it begins with what is in force
                    begin[place] = self._checked(
                        place, seek.get(name, {}).get(number, begin[place])
                    )
        elif self.clock == "wall":
            begin |= self._recent()
        return begin

    def _checked(self, place: Place, offset: int) -> int:
        low, high = self.bounds[place]
        if offset > high:
            raise KafkaSetupError(
                f"{place[0]}, partition {place[1]}, ends at offset {high}, but the last frames "
                f"were made of records up to {offset}: it is another topic than then. Delete "
                f"{self.frames_topic} as well, or give the system another name."
            )
        return max(offset, low)

    def _recent(self) -> dict[Place, int]:
        """Offsets of what can still be in a frame under the wall clock."""
        spec = self.spec
        old = max(_OLD_US, spec.lateness_us, *(s.max_age_us for s in spec.sensors.values()))
        since_ms = time.time_ns() // 1_000_000 - old // 1_000
        control = topic(spec, "control")
        asked = [TopicPartition(*p, since_ms) for p in self.bounds if p[0] != control]
        found = self.consumer.offsets_for_times(asked, timeout=TIMEOUT_S)
        places = {(part.topic, part.partition): part.offset for part in found}
        return {p: self.bounds[p][1] if first < 0 else first for p, first in places.items()}

    def _high(self, place: Place) -> int:
        """The offset after the last record that a partition is known to have."""
        _, high = self.consumer.get_watermark_offsets(TopicPartition(*place), cached=True)
        return max(high, self.bounds[place][1])

    # the loop

    def go(self, stop: Stop, on_batch: Callable[[int], None] | None) -> None:
        """Records in, frames out, until told to stop."""
        consume, count = self.consumer.consume, 0
        while not stop.is_set():
            # The first record is waited for, those behind it only where they are many.
            messages = consume(1, self._patience_s())
            if messages:
                messages += consume(_MOST, _FILL_S if count > _BUSY else 0.0)
            count = self._take(messages) if messages or self.held else 0
            self._send(
                self.aligner.frames()
            )  # they are waited for; whether time closes more is not
            self._settle()
            self._send(self.aligner.close(_now_us() if self.clock == "wall" else None))
            if self.clocks is not None:
                self.clocks.rest()
            if on_batch is not None:
                on_batch(count)

    def _take(self, messages: list[Message]) -> int:
        events = [m for m in messages if m.error() is not None]
        if events:
            messages = [m for m in messages if m.error() is None]
        messages = self.held.sift(messages)
        ends = _ends(events)
        if self.held:  # what is held back comes before an end
            ends = [m for m in ends if not self.held.holds(m.topic() or "", m.partition() or 0)]
        self.feed.take(messages, ends)
        return len(messages)

    def _settle(self) -> None:
        """Lets lateness run out as far as was read a while ago: every partition was asked since."""
        now, settled = time.monotonic(), NEVER
        if not self.newest or self.aligner.newest_us > self.newest[-1][1]:
            self.newest.append((now, self.aligner.newest_us))
        while self.newest and self.newest[0][0] <= now - _PATIENCE_S:
            settled = self.newest.popleft()[1]
        self.aligner.settle(settled)

    def _patience_s(self) -> float:
        """How long nothing can happen without a new record."""
        if self.clock == "event":
            return _IDLE_S
        now, spec = _now_us(), self.spec
        # Ticks close by lateness, or when they are there and nothing is waited for.
        left = min(
            spec.period_us - (now - spec.epoch_us - due) % spec.period_us
            for due in (0, spec.lateness_us)
        )
        return min(left / 1e6 + 0.0005, _IDLE_S)

    def _send(self, frames: Sequence[Frame]) -> None:
        for frame in frames:
            self._produce_frame(frame)
        self.frames += len(frames)
        if self.feed.letters:
            letters, self.feed.letters = self.feed.letters, []
            for letter in letters:
                send(self.producer, self.letters_topic, encode(letter), letter.key)
        self.producer.poll(0)

    def _produce_frame(self, frame: Frame) -> None:
        value = encode_frame(self.spec, frame)
        partition = partition_of(frame.cohort, self.partitions)
        key = str(frame.cohort)
        headers: dict[str, str | bytes | None] = {EPOCH_HEADER: str(frame.header.epoch)}
        while True:
            try:
                self.producer.produce(self.frames_topic, value, key, partition, headers=headers)
                return
            except BufferError:
                self.producer.poll(0.01)
            except KafkaException as error:
                if error.args[0].code() != KafkaError.MSG_SIZE_TOO_LARGE:
                    raise
                raise KafkaSetupError(
                    f"the frame of cohort {frame.cohort} has {len(frame.entities)} entities and "
                    f"{len(value)} bytes, which the broker refuses: raise cohorts in the spec (a "
                    "new generation of topics), or message.max.bytes"
                ) from error

    # the end

    def close(self) -> None:
        """Leaves when the broker has every frame."""
        left = self.producer.flush(TIMEOUT_S)
        self.consumer.close()
        if left:
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT, f"{left} records not delivered"))

    def metrics(self) -> Values:
        """What Prometheus is shown; called from another thread."""
        values: dict[str, float | dict[str, float]] = {
            "rehearse_align_frames": self.frames,
            "rehearse_align_readings": dict(self.aligner.counters),
        }
        if self.clocks is not None:
            worst = dict(self.clocks.worst())
            for key, name in _CLOCKS.items():
                values[name] = {device: known[key] for device, known in worst.items()}
            values["rehearse_align_clocks_corrected"] = self.clocks.corrected
            values["rehearse_align_clock_jumps"] = self.clocks.jumps
        return values

    def summary(self) -> dict[str, Any]:
        """What happened, as plain JSON values."""
        return {
            "system": self.spec.system,
            "clock": self.clock,
            "epoch": self.aligner.epoch,
            "frames": self.frames,
            "entities": self.aligner.entities,
            "counters": dict(sorted(self.aligner.counters.items())),
            "dead_letters": dict(sorted(self.feed.reasons.items())),
            "clocks": self.clocks.summary() if self.clocks is not None else None,
        }


def last_frames(spec: SystemSpec, bootstrap: str, extra: Mapping[str, str] | None) -> list[Frame]:
    """The newest frames on `S.frames`: the last of every cohort among them.

    What is no frame is passed over, and as many are looked for before it.

    Raises:
        KafkaSetupError: there are records, but none of them is a frame of this spec.
    """
    # Cohorts of a partition move together but for what lateness lets one fall behind.
    shared = -(-spec.cohorts // cohort_partitions(spec))
    wanted = newest = shared * (2 + spec.lateness_us // spec.period_us)
    name, read = topic(spec, "frames"), -1
    while True:
        frames: dict[int, list[Frame]] = {}
        errors: dict[int, FrameError] = {}
        before, read = read, 0
        for message in read_to_end(bootstrap, extra, name, newest=newest):
            read += 1
            place = message.partition() or 0
            try:
                frames.setdefault(place, []).append(decode_frame(spec, message.value() or b""))
            except FrameError as error:
                errors[place] = error
        if all(len(frames.get(place, ())) >= wanted for place in errors) or read == before:
            break
        newest *= 8
    found = [frame for some in frames.values() for frame in some]
    for place, problem in errors.items():
        if not found:
            raise KafkaSetupError(
                f"{name} does not say where to go on: {problem}. Give the system another name, or "
                "delete its topics."
            )
        _log.warning("no frame; passed over", topic=name, partition=place, detail=str(problem))
    return found


def _schemas(spec: SystemSpec, extra: Mapping[str, str] | None, clock: Clock) -> Schemas:
    """The schemas of a system's messages; the newest are asked for before one names them."""
    settings = registry_settings(extra)
    asking = [sensor for sensor in spec.sensors.values() if asks_registry(sensor)]
    if not settings or not asking:
        return Schemas()
    found = Schemas(Registry(settings), _REGISTRY_S[clock])
    found.prepare(dict.fromkeys(map(subject_of, asking)))
    return found


def _positions(frames: Sequence[Frame]) -> Offsets:
    """How far everything had been read when the newest of `frames` closed."""
    if not frames:
        return {}
    return max(frames, key=lambda frame: frame.header.seen_us).header.positions


def _ends(events: Sequence[Message]) -> list[Message]:
    """The ends of partitions that were reached; other errors heal by themselves, or are raised."""
    ends = []
    for event in events:
        error = event.error()
        if error is not None and error.code() == KafkaError._PARTITION_EOF:
            ends.append(event)
        elif error is not None:
            _log.warning("consumer", error=raise_fatal(error))
    return ends


def _now_us() -> int:
    return time.time_ns() // 1_000
