"""Replayed frames, or what was decided on them, on topics that were named."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

from infra.kafka import KafkaSetupError
from schemas.frames import Frame, encode_frame
from schemas.messages import EPOCH_HEADER
from schemas.system import SystemSpec
from schemas.topics import cohort_partitions, partition_of, topic
from schemas.trajectories import encode_trajectory
from streams.action_records import ActionRecords
from streams.make_topics import make_topics
from streams.publish import Headers, Record
from streams.replay_deck import Played
from streams.target import shift_to_now
from streams.topic_io import TIMEOUT_S, make_producer

What = Literal["frames", "decisions", "all"]


class ReplayPublisher:
    """Sends what a replay plays to the topics of `target` (see `target.target_of`).

    Args:
        what: `frames`, on which the workers of `target` decide; `decisions`: the actions and
            trajectories of this replay; or both.
        now: ticks are shifted, so that the first one sent is of now. Each pass of a loop begins at
            its own now; without it, who reads the topics takes a second pass for a repetition.
    """

    def __init__(
        self,
        target: SystemSpec,
        bootstrap: str,
        extra: Mapping[str, str] | None,
        what: What,
        now: bool,
    ) -> None:
        make_topics(target, bootstrap, extra)
        self._spec, self._what, self._now = target, what, now
        self._producer = make_producer(bootstrap, extra)
        self._actions = ActionRecords(target, "replay", 0)
        self._partitions = cohort_partitions(target)
        self._shift: int | None = None
        self.sent = 0

    def again(self) -> None:
        """The recording begins once more."""
        self._shift = None

    def send(self, played: Sequence[Played]) -> None:
        """Sends one tick; with `now`, as soon as it can."""
        for item in played:
            frame = self._moved(item.frame)
            place = partition_of(frame.cohort, self._partitions)
            key = str(frame.cohort).encode()
            if self._what != "decisions":
                value = encode_frame(self._spec, frame)
                epoch: Headers = [(EPOCH_HEADER, str(frame.header.epoch))]
                self._put(Record(topic(self._spec, "frames"), place, value, key, epoch))
            if self._what != "frames":
                for record in self._actions.make(frame, item.decisions, decided_us=0):
                    self._put(record)
                value = encode_trajectory(self._spec, frame, item.decisions)
                self._put(Record(topic(self._spec, "trajectories"), place, value, key))
        self._producer.poll(0)

    def close(self) -> None:
        """Waits until the broker has everything. Raises `KafkaSetupError` where it has not."""
        if left := self._producer.flush(TIMEOUT_S):
            raise KafkaSetupError(f"the broker did not take {left} records within {TIMEOUT_S:g} s")

    def _moved(self, frame: Frame) -> Frame:
        """The frame as one of the target: without other topics' offsets, perhaps later."""
        spec, header = self._spec, frame.header
        if self._shift is None:
            self._shift = shift_to_now(spec, header.time_us) if self._now else 0
        shift = self._shift
        moved = replace(
            header,
            system=spec.system,
            spec_hash=spec.spec_hash,
            tick=header.tick + shift // spec.period_us,
            time_us=header.time_us + shift,
            seen_us=header.seen_us + shift,
            exact_us=tuple((row, channel, us + shift) for row, channel, us in header.exact_us),
            offsets={},
            positions={},
        )
        return replace(frame, header=moved)

    def _put(self, record: Record) -> None:
        while True:
            try:
                self._producer.produce(
                    record.topic, record.value, record.key, record.partition, headers=record.headers
                )
                self.sent += 1
                return
            except BufferError:
                self._producer.poll(0.05)
