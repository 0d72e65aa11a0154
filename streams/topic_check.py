"""Whether the topics of a cluster are what a spec needs, and what to do where they are not."""

from collections.abc import Mapping, Sequence

from confluent_kafka import KafkaException
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    ConfigResource,
    ResourceType,
)

from infra.kafka import BrokerAwayError
from schemas.system import SystemSpec
from schemas.topics import Topic
from streams.align_share import REMEDY, SAMPLE, misplaced, sensor_partitions
from streams.topic_io import read_to_end

TIMEOUT_S = 10.0


def check_topics(config: Mapping[str, str], wanted: Sequence[Topic]) -> list[str]:
    """One line per difference: absent topics, other partitions, other settings."""
    admin = AdminClient(dict(config))
    try:
        there = admin.list_topics(timeout=TIMEOUT_S).topics
    except KafkaException as error:
        raise BrokerAwayError(f"no broker answers: {error.args[0].str()}") from error
    problems = []
    for topic in wanted:
        found = there.get(topic.name)
        if found is None:
            problems.append(f"{topic.name}: absent; create it with `rehearse topics create`")
        elif len(found.partitions) != topic.partitions:
            problems.append(
                f"{topic.name}: {len(found.partitions)} partitions, the spec needs "
                f"{topic.partitions}: create it anew, or set `cohorts` to fit"
            )
    present = [topic for topic in wanted if topic.name in there]
    return problems + _settings(admin, present)


def for_one_aligner(spec: SystemSpec, bootstrap: str, extra: Mapping[str, str] | None) -> list[str]:
    """One line per sensor topic whose partitions several aligners could not share; by a sample."""
    found = []
    for name, count in sensor_partitions(spec, bootstrap, extra).items():
        sample = misplaced(read_to_end(bootstrap, extra, name, newest=SAMPLE), count)
        if sample.wrong:
            found.append(f"{name}: {sample}. For several aligners: {REMEDY}")
    return found


def _settings(admin: AdminClient, topics: Sequence[Topic]) -> list[str]:
    if not topics:
        return []
    resources = {ConfigResource(ResourceType.TOPIC, topic.name): topic for topic in topics}
    problems = []
    for resource, future in admin.describe_configs(list(resources)).items():
        topic, actual = resources[resource], future.result(TIMEOUT_S)
        for name, value in topic.config.items():
            entry = actual.get(name)
            if entry is not None and entry.value != value:
                problems.append(f"{topic.name}: {name} is {entry.value}, the spec needs {value}")
    return problems
