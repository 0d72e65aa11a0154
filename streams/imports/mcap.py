"""MCAP logs by Foxglove's library: messages in JSON, Protobuf, ROS 1 and ROS 2 encoding."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import msgspec

from streams.imports.log import Content, LogError, OnRead, Table, Want, missing_topic
from streams.imports.messages import Collection, field_names
from streams.imports.units import library

_DECODERS: Final = {
    "ros1": "mcap_ros1.decoder",
    "cdr": "mcap_ros2.decoder",
    "protobuf": "mcap_protobuf.decoder",
}
Decode = Callable[[bytes], Any]


class McapReader:
    """Reads the messages of an MCAP file; the time without a field is when they were logged."""

    def read(self, path: Path, wants: list[Want], shown: OnRead) -> list[list[Table]]:
        """See `log.Reader`."""
        collection, decoders = Collection(wants), _Decoders(path)
        with _open(path) as log:
            counts = _counts(log)
            total = sum(n for topic, n in counts.items() if collection.of(topic))
            done = 0
            for schema, channel, message in log.iter_messages(log_time_order=False):
                counts.setdefault(channel.topic, 0)
                takers = collection.of(channel.topic)
                if not takers:
                    continue
                decoded = decoders.of(schema, channel)(message.data)
                for taker in takers:
                    taker.add(message.log_time, decoded)
                done += 1
                shown(done, max(total, done))
        for want in wants:
            if not any(want.names_in(topic) is not None for topic in counts):
                raise missing_topic(want, path, list(counts))
        return collection.tables()

    def contents(self, path: Path) -> list[Content]:
        """See `log.Reader`."""
        counts: dict[str, int] = {}
        fields: dict[str, tuple[str, ...]] = {}
        decoders = _Decoders(path)
        with _open(path) as log:
            for schema, channel, message in log.iter_messages(log_time_order=False):
                topic = channel.topic
                counts[topic] = counts.get(topic, 0) + 1
                if topic not in fields:
                    try:
                        fields[topic] = field_names(decoders.of(schema, channel)(message.data))
                    except LogError as error:
                        fields[topic] = (str(error),)
        return [Content(topic, counts[topic], fields[topic]) for topic in sorted(counts)]


class _Decoders:
    """A decoder per channel; the library that an encoding needs is imported when it is met."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: dict[int, Decode] = {}
        self._factories: dict[str, Any] = {}

    def of(self, schema: Any, channel: Any) -> Decode:
        """Raises `LogError` for an encoding that cannot be read."""
        found = self._known.get(channel.id)
        if found is None:
            found = self._known[channel.id] = self._make(schema, channel)
        return found

    def _make(self, schema: Any, channel: Any) -> Decode:
        encoding = channel.message_encoding
        if encoding == "json":
            return msgspec.json.decode
        if encoding in _DECODERS:
            if encoding not in self._factories:
                module = library(_DECODERS[encoding], f"an MCAP log of {encoding} messages")
                self._factories[encoding] = module.DecoderFactory()
            decode: Decode | None = self._factories[encoding].decoder_for(encoding, schema)
            if decode is not None:
                return decode
        kind = "no schema" if schema is None else f"a schema in {schema.encoding!r}"
        raise LogError(
            f"{self._path}: topic {channel.topic} has messages in {encoding!r} with {kind}, which "
            "cannot be read; what can: json, and protobuf, ros1, cdr with their schemas"
        )


@contextmanager
def _open(path: Path) -> Iterator[Any]:
    module = library("mcap.reader", "an MCAP log")
    with path.open("rb") as stream:
        yield module.make_reader(stream)


def _counts(log: Any) -> dict[str, int]:
    """Messages by topic, as far as the log's summary says."""
    summary = log.get_summary()
    if summary is None:
        return {}
    known = {} if summary.statistics is None else summary.statistics.channel_message_counts
    counts: dict[str, int] = {}
    for number, channel in summary.channels.items():
        counts[channel.topic] = counts.get(channel.topic, 0) + known.get(number, 0)
    return counts
