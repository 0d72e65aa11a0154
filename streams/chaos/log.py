"""What a run left behind, as it lies there: every record of its topics, every row of its files.

The checker's own way in: it shares nothing with the loop but the schemas.
"""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from schemas.system import SystemSpec
from schemas.topics import Kind, topics_of

SILENCE_S: Final = 20.0
COLUMNS: Final = ("cohort", "tick", "entity", "counted", "outcome", "partition", "offset")


class LogError(RuntimeError):
    """The topics cannot be read to their end; the message says which."""


@dataclass(frozen=True)
class Entry:
    """One record of a topic. `stamp_ms` is Kafka's."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    stamp_ms: int = 0
    headers: tuple[str, ...] = ()

    @property
    def place(self) -> tuple[str, int, int]:
        """Topic, partition, offset."""
        return self.topic, self.partition, self.offset


@dataclass
class Log:
    """All records by topic, in the order of each partition, and the rows of all Parquet files."""

    spec: SystemSpec
    clock: str
    topics: dict[str, list[Entry]] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)

    def of(self, kind: Kind) -> list[Entry]:
        """The records of a kind of topic; those of all sensors together."""
        names = dict.fromkeys(t.name for t in topics_of(self.spec) if t.kind == kind)
        return [entry for name in names for entry in self.topics.get(name, [])]


def read_log(
    spec: SystemSpec, clock: str, kafka: Mapping[str, str], out: Path, silence_s: float = SILENCE_S
) -> Log:
    """Reads everything of `spec`; `out` is the sink's folder. Raises `LogError`."""
    log = Log(spec, clock)
    for found in topics_of(spec):
        log.topics.setdefault(found.name, [])
        for partition in range(found.partitions):
            log.topics[found.name] += read_partition(kafka, found.name, partition, silence_s)
    log.rows = read_rows(out, spec)
    return log


def read_partition(
    kafka: Mapping[str, str],
    name: str,
    partition: int,
    silence_s: float = SILENCE_S,
    newest: int | None = None,
) -> list[Entry]:
    """All records of a partition up to where it ends now, or the `newest` so many.

    Raises `LogError`.
    """
    settings = {"group.id": "rehearse-chaos", "enable.auto.commit": "false", "log_level": "3"}
    consumer = Consumer({**settings, "enable.partition.eof": "true", **kafka})
    place = TopicPartition(name, partition)
    entries: list[Entry] = []
    try:
        low, high = consumer.get_watermark_offsets(place, timeout=silence_s)
        low = low if newest is None else max(low, high - newest)
        consumer.assign([TopicPartition(name, partition, low)])
        heard = time.monotonic()
        while low < high and time.monotonic() - heard < silence_s:
            for message in consumer.consume(1_000, 0.2):
                heard = time.monotonic()
                if (error := message.error()) is not None:
                    if error.code() == KafkaError._PARTITION_EOF:
                        return entries
                    continue  # transient: librdkafka goes on by itself
                names = tuple(str(header[0]) for header in message.headers() or ())
                at = (name, partition, message.offset() or 0)
                stamp = message.timestamp()[1]
                entries.append(Entry(*at, message.key(), message.value(), stamp, names))
                low = at[2] + 1
    except KafkaException as error:
        raise LogError(f"{name}, partition {partition}: {error.args[0].str()}") from error
    finally:
        consumer.close()
    if low < high:
        raise LogError(f"{name}, partition {partition}: silent at offset {low} of {high}")
    return entries


def read_rows(out: Path, spec: SystemSpec) -> list[dict[str, Any]]:
    """The rows of a system's Parquet files; what was merged into another file counts there."""
    paths = sorted((out / f"system={spec.system}").glob("day=*/*.parquet"))
    merged = set()
    for path in paths:
        content = json.loads((pq.read_schema(path).metadata or {}).get(b"rehearse-sink", b"{}"))
        merged |= {path.parent / name for name in content.get("replaces", ())}
    wanted = [*COLUMNS, *(f"action:{name}" for name in spec.action_columns)]
    tables = [pq.read_table(p, columns=wanted, partitioning=None) for p in paths if p not in merged]
    return pa.concat_tables(tables).to_pylist() if tables else []
