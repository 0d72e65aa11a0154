"""A twin that joins late begins with the first worker's beliefs, not with a week of frames."""

from collections.abc import Mapping

from confluent_kafka import ConsumerGroupTopicPartitions, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from infra.kafka import client_config
from infra.log import Log
from schemas.system import SystemSpec
from schemas.topics import changelog_of, cohort_partitions, partition_of, topic
from streams.belief import Row, RowError, decode_row
from streams.topic_io import TIMEOUT_S, make_consumer, make_producer, partitions, read_to_end

_log = Log("worker")


def begin_with_beliefs(
    spec: SystemSpec, bootstrap: str, extra: Mapping[str, str], group: str
) -> list[int]:
    """Copies the first worker's rows where a twin's `group` has not begun; gives the partitions.

    Beliefs are functions of frames, so a row of the first worker is what the twin would come to by
    itself. It goes on behind the frames that the rows are of. Without rows it begins at the first
    frame, as the first worker did. Raises `KafkaSetupError` without topics or a broker.
    """
    new = _not_begun(spec, bootstrap, extra, group)
    rows = _rows(spec, bootstrap, extra, new) if new else {}
    begun: dict[int, int] = {}  # partition → the first frame that is not in all of its rows
    producer = make_producer(bootstrap, extra)
    for cohort, (row, packed) in rows.items():
        place = partition_of(cohort, cohort_partitions(spec))
        producer.produce(topic(spec, changelog_of("twin")), packed, str(cohort).encode(), place)
        begun[place] = min(begun.get(place, row.offset + 1), row.offset + 1)
    if begun and not producer.flush(TIMEOUT_S):
        _begin(spec, bootstrap, extra, group, begun)
    return sorted(begun)


def _not_begun(spec: SystemSpec, bootstrap: str, extra: Mapping[str, str], group: str) -> set[int]:
    """Partitions of frames of which the group has committed nothing."""
    consumer = make_consumer(bootstrap, extra, group_id=group)
    frames = [TopicPartition(topic(spec, "frames"), n) for n in range(cohort_partitions(spec))]
    try:
        partitions(consumer, topic(spec, changelog_of("twin")))  # says so where there is none
        found = consumer.committed(frames, timeout=TIMEOUT_S)
    finally:
        consumer.close()
    return {place.partition for place in found if place.offset < 0}


def _rows(
    spec: SystemSpec, bootstrap: str, extra: Mapping[str, str], wanted: set[int]
) -> dict[int, tuple[Row, bytes]]:
    """The newest row of each cohort on the wanted partitions of the first worker's changelog."""
    rows: dict[int, tuple[Row, bytes]] = {}
    for message in read_to_end(bootstrap, extra, topic(spec, changelog_of("first"))):
        packed = message.value() or b""
        try:
            row = decode_row(packed)
        except RowError:
            continue
        if message.partition() in wanted and row.offset >= 0:
            rows[row.cohort] = (row, packed)
    return rows


def _begin(
    spec: SystemSpec,
    bootstrap: str,
    extra: Mapping[str, str],
    group: str,
    begun: Mapping[int, int],
) -> None:
    frames = topic(spec, "frames")
    places = [TopicPartition(frames, number, offset) for number, offset in begun.items()]
    admin = AdminClient({"log_level": "0", **client_config(bootstrap, extra)})
    asked = admin.alter_consumer_group_offsets([ConsumerGroupTopicPartitions(group, places)])
    try:
        asked[group].result(TIMEOUT_S)
    except KafkaException as error:  # another twin of the group is running already, and has begun
        _log.warning("twin begins at the first frame", detail=str(error))
