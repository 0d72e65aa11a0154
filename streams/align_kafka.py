"""The aligner's process: sensor topics in, frames out, from where the last frame left off."""

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal, Protocol

from confluent_kafka import KafkaError, KafkaException, Message, TopicPartition

from infra.log import Log
from infra.registry import Registry, registry_settings
from schemas.frames import Frame
from schemas.system import SystemSpec
from schemas.topics import topic
from streams.align import Aligner
from streams.align_begin import as_read_here, last_frames, offsets_to_begin, positions_of
from streams.align_discipline import Discipline
from streams.align_feed import Feed, Place, topics_read
from streams.align_held import Held
from streams.align_out import Out, Watch
from streams.align_resume import last_of_cohorts
from streams.align_share import WHOLE, Share
from streams.align_state import NEVER
from streams.backlog import Backlog
from streams.codecs import asks_registry, subject_of
from streams.codecs.schemas import Schemas
from streams.metrics import Values, exposed
from streams.topic_io import bounds, make_consumer, raise_fatal
from streams.warm import collector_at_rest, warm_frames

Clock = Literal["event", "wall"]
_MOST: Final = 10_000  # records taken at once
_LEAST: Final = 100
_TURN_S: Final = 0.1  # what they may take: meanwhile nothing is looked at, and nothing closes
_BUSY: Final = 500  # records at once from which on a batch may take its time to fill
_FILL_S: Final = 0.005
_FULL_S: Final = 0.01
_ASK_S: Final = 1.0
_IDLE_S: Final = 0.05
_PATIENCE_S: Final = 0.5  # by which a partition may be read later than another that is as old
_AHEAD_US: Final = 60_000_000  # by how much a device's clock may lead, under the wall clock
_REGISTRY_S: Final[dict[Clock, float]] = {"event": 60.0, "wall": 5.0}
"""For how long the records behind one of an unknown schema wait for a registry that is silent."""
_CLOCKS: Final = {
    "offset_s": "rehearse_align_clock_offset_seconds",
    "uncertainty_s": "rehearse_align_clock_uncertainty_seconds",
    "drift": "rehearse_align_clock_drift_ratio",
}

_log = Log("align")


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
    standby: bool = False,
    share: Share = WHOLE,
    on_batch: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """Aligns the readings of `spec` until `stop` is set; gives a summary as plain JSON values.

    It goes on where the last frames of the system say. Without any, it begins with the oldest
    records under the event clock, and with what is not too old to be seen under the wall clock.

    Args:
        clock: what lateness is measured by: `event`, the readings' own times; `wall`, real time.
        standby: says nothing as long as another aligner does, and takes over when it falls silent.
        share: of the cohorts, where several aligners run.
        on_batch: is told how many records came in, after they were dealt with.

    Summary: `epoch` (None where it never spoke), `frames`, `entities`, `counters` (readings by what
    became of them, since the beginning of the stream), `dead_letters` by reason, `clocks` of
    devices: how many are corrected, how often one was set, and the worst (None under the event
    clock, by which they are right).

    Raises:
        KafkaSetupError: the topics are not there or not those of the frames; no broker answers.
        KafkaException: the frames cannot be delivered.
        OvertakenError: another aligner makes the frames now.
    """
    run = _Run(spec, bootstrap, extra, clock, standby, share)
    try:
        with exposed(spec.system, run.metrics), collector_at_rest():
            run.go(stop, on_batch)
    finally:
        run.close()
    return run.summary()


class _Run:
    """One life of the aligner: its consumer, its producer, and what lies between."""

    def __init__(
        self,
        spec: SystemSpec,
        bootstrap: str,
        extra: Mapping[str, str] | None,
        clock: Clock,
        standby: bool,
        share: Share,
    ) -> None:
        self.spec, self.clock, self.control = spec, clock, (topic(spec, "control"), 0)
        self.consumer = make_consumer(
            bootstrap, extra, enable_partition_eof="true", auto_offset_reset="earliest"
        )
        # Before the last frames are read, so that none comes in between.
        watch = Watch(spec, bootstrap, extra, share) if standby else None
        self.out = Out(spec, bootstrap, extra, share, watch, self._said)
        warm_frames(spec)  # the first tick is not kept waiting
        names = topics_read(spec)
        self.bounds = self._bounds(names, share)
        share.check_keys(spec, bootstrap, extra)
        found = [f for f in last_frames(spec, bootstrap, extra) if share.holds(f.cohort)]
        last = [as_read_here(frame, self.bounds) for frame in found]
        self.out.begin(last_of_cohorts(last))
        counts = {name: sum(place[0] == name for place in self.bounds) for name in names}
        ahead = max(_AHEAD_US, spec.lateness_us) if clock == "wall" else None
        self.aligner = Aligner(spec, clock, partitions=counts, ahead_us=ahead, patient=True)
        self.newest: deque[tuple[float, int]] = deque()
        self.backlog, self.looked = Backlog(), time.monotonic()
        self.most = _MOST
        seek = self.aligner.restore(last)
        schemas = _schemas(spec, extra, clock)
        named = self.aligner.names.__getitem__
        self.clocks = Discipline(spec, named, _now_us) if clock == "wall" else None
        known = positions_of(last)
        self.feed = Feed(
            spec,
            self.aligner,
            self._high,
            known,
            schemas,
            self.clocks,
            self.out.seat.heard,
            share,
        )
        framed = {sensor.topic for sensor in spec.sensors.values() if asks_registry(sensor)}
        self.held = Held(self.consumer, self.feed, framed)
        self.places = [place for place in self.bounds if place[0] in self.feed.timed]
        begin = offsets_to_begin(spec, clock, self.consumer, self.bounds, seek)
        self.consumer.assign([TopicPartition(*place, first) for place, first in begin.items()])
        self.feed.read.update(begin)
        self.feed.begin(p for p, first in begin.items() if first < self.bounds[p][1])
        _log.info("aligner ready", restored=len(last), clock=clock, standby=standby)

    def _bounds(self, names: Sequence[str], share: Share) -> dict[Place, tuple[int, int]]:
        """The first offset and the one after the last, of each partition that is read here."""
        there = {name: bounds(self.consumer, name) for name in names}
        share.check(self.spec, {name: len(parts) for name, parts in there.items()})
        return {
            (name, number): ends
            for name, parts in there.items()
            for number, ends in parts.items()
            if share.reads(self.spec, name, number)
        }

    def _high(self, place: Place) -> int:
        """The offset after the last record that a partition is known to have."""
        _, high = self.consumer.get_watermark_offsets(TopicPartition(*place), cached=True)
        return max(high, self.bounds[place][1])

    def _highs(self) -> dict[Place, int]:
        return {place: self._high(place) for place in self.places}

    def _said(self) -> int | None:
        """The offset after the last record of `S.control`; None where no broker answers."""
        return self._end(self.control)

    def _end(self, place: Place) -> int | None:
        """The offset after the last record, as the broker says now; None where none answers."""
        try:
            ends = self.consumer.get_watermark_offsets(TopicPartition(*place), timeout=_ASK_S)
        except KafkaException:
            return None
        return int(ends[1])

    # the loop

    def go(self, stop: Stop, on_batch: Callable[[int], None] | None) -> None:
        """Records in, frames out, until told to stop."""
        count = 0
        while not stop.is_set():
            messages = self._consume(count)
            began = time.monotonic()
            count = self._take(messages) if messages or self.held else 0
            self.out.look(self.feed.read.get(self.control, 0))
            if self.clock == "wall":
                self._keep_up()
            # What records close is waited for; whether time closes more is not.
            self._send(self.aligner.frames())
            self._settle()
            self._send(self.aligner.close(_now_us() if self.clock == "wall" else None))
            if self.clocks is not None:
                self.clocks.rest()
            if on_batch is not None:
                on_batch(count)
            if count > self.most // 2:
                fitting = int(count * _TURN_S / (time.monotonic() - began))
                self.most = min(_MOST, max(_LEAST, fitting))

    def _consume(self, before: int) -> list[Message]:
        """The next records; the first is waited for, those behind it only where they are many."""
        if self.out.full:
            time.sleep(_FULL_S)
            return []
        messages: list[Message] = self.consumer.consume(1, self._patience_s())
        if messages:
            messages += self.consumer.consume(self.most, _FILL_S if before > _BUSY else 0.0)
        return messages

    def _take(self, messages: list[Message]) -> int:
        events: list[Message] = []
        if any(map(Message.error, messages)):  # each is true, and None is not
            events = [m for m in messages if m.error() is not None]
            messages = [m for m in messages if m.error() is None]
        messages = self.held.sift(messages)
        ends = _ends(events)
        if self.held:  # what is held back comes before an end
            ends = [m for m in ends if not self.held.holds(m.topic() or "", m.partition() or 0)]
        self.feed.take(messages, ends)
        return len(messages)

    def _keep_up(self) -> None:
        """Passes over what cannot be caught up with."""
        now = time.monotonic()
        passed, self.looked = now - self.looked, now
        found = self.backlog.look(passed, self.feed.read, self._highs)
        over = {place: end for place, end in found.items() if not self.held.holds(*place)}
        if not over:
            return
        for place, end in over.items():
            self.consumer.seek(TopicPartition(*place, end))
        count = self.feed.shed(over)
        _log.warning("too much to read; records were passed over", records=count)

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
        letters, self.feed.letters = self.feed.letters, []
        self.out.put(frames, letters)

    # the end

    def close(self) -> None:
        """Leaves when the broker has every frame."""
        try:
            self.out.close()
        finally:
            self.consumer.close()

    def metrics(self) -> Values:
        """What Prometheus is shown; called from another thread."""
        values: dict[str, float | dict[str, float]] = {
            "rehearse_align_frames": self.out.frames,
            "rehearse_align_speaks": self.out.speaks,
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
            "epoch": self.out.seat.epoch,
            "frames": self.out.frames,
            "entities": self.aligner.entities,
            "counters": dict(sorted(self.aligner.counters.items())),
            "dead_letters": dict(sorted(self.feed.reasons.items())),
            "clocks": self.clocks.summary() if self.clocks is not None else None,
        }


def _schemas(spec: SystemSpec, extra: Mapping[str, str] | None, clock: Clock) -> Schemas:
    """The schemas of a system's messages; the newest are asked for before one names them."""
    settings = registry_settings(extra)
    asking = [sensor for sensor in spec.sensors.values() if asks_registry(sensor)]
    if not settings or not asking:
        return Schemas()
    found = Schemas(Registry(settings), _REGISTRY_S[clock])
    found.prepare(dict.fromkeys(map(subject_of, asking)))
    return found


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
