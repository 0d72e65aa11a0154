"""What answers: the embedded broker, a cluster and its age, its settings, its topics."""

import logging
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from confluent_kafka import KafkaException
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    ConfigResource,
    ResourceType,
)

from infra import broker as embedded
from infra.jars import KAFKA_VERSION
from infra.kafka import KafkaSetupError, client_config, wait_ready
from schemas.topics import topics_of
from streams.checks.finding import Finding, Level, Place
from streams.identity import SESSION_S
from streams.topic_check import check_topics

PATIENCE_S = 8.0
MESSAGE_BYTES = 1_000_000  # Faust's largest request; frames are cut to fit
# Which requests a broker takes says how old it is: (key, lowest version), of Kafka's protocol.
_FETCH, _JOIN, _DESCRIBE_CLUSTER = 1, 11, 60
_TOLD = re.compile(r"ApiKey \S+ \((\d+)\) Versions (\d+)\.\.(\d+)")


def embedded_broker(place: Place) -> Iterator[Finding]:
    """The broker of the home folder: running, or started when it is needed."""
    running = embedded.status(place.home)
    if running is None:
        what = f"not running in {place.home}; commands start it when they need it"
        yield Finding("broker", "ok", what)
        return
    try:
        wait_ready(client_config(running.bootstrap), PATIENCE_S)
    except KafkaSetupError as error:
        remedy = f"rehearse broker stop, then start; its log: {running.log}"
        yield Finding("broker", "problem", f"process {running.pid} lives, but {error}", remedy)
        return
    yield Finding("broker", "ok", f"answers at {running.bootstrap} (process {running.pid})")


def _address(place: Place) -> str | None:
    running = None if place.bootstrap else embedded.status(place.home)
    return place.bootstrap or (running.bootstrap if running else None)


def _quiet(address: str, place: Place) -> dict[str, str]:
    """Settings under which librdkafka does not log what the findings say."""
    return {"log_level": "0", **client_config(address, place.extra)}


def cluster(place: Place) -> Iterator[Finding]:
    """The cluster in use: whether it answers, how old it is, and settings that would hurt."""
    address = _address(place)
    if address is None:
        return
    config = _quiet(address, place)
    try:
        wait_ready(config, PATIENCE_S)
    except KafkaSetupError as error:
        yield Finding("kafka", "problem", str(error), "mend the address or the -X settings")
        return
    told: list[str] = []
    admin = AdminClient({**config, "debug": "feature"}, logger=_collector(told))
    begun = time.monotonic()
    listing = admin.list_topics(timeout=PATIENCE_S)
    milliseconds = 1_000 * (time.monotonic() - begun)
    brokers = len(listing.brokers)
    what = f"{address}: {brokers} broker{'s' * (brokers != 1)}, answers in {milliseconds:.0f} ms"
    yield Finding("kafka", "ok", what)
    admin.poll(0)  # which hands over what librdkafka logs
    yield _age(_versions(told))
    yield from _settings(admin, next(iter(listing.brokers)))


def _collector(lines: list[str]) -> logging.Logger:
    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())

    logger = logging.Logger("librdkafka", logging.DEBUG)
    logger.addHandler(Collector())
    return logger


def _versions(lines: Iterable[str]) -> dict[int, tuple[int, int]]:
    """Request → its lowest and highest version, which librdkafka tells in its log alone."""
    told = (_TOLD.search(line) for line in lines)
    return {int(m[1]): (int(m[2]), int(m[3])) for m in told if m}


def _age(versions: Mapping[int, tuple[int, int]]) -> Finding:
    tested = f"tested: {KAFKA_VERSION}"
    if not versions:
        return Finding("kafka", "ok", f"the broker's version is not told ({tested})")
    if versions[_FETCH][0] >= 4:  # KIP-896 took the oldest requests away
        return Finding("kafka", "ok", f"Kafka 4.0 or later ({tested})")
    if _DESCRIBE_CLUSTER in versions:
        return Finding("kafka", "ok", f"Kafka between 2.8 and 3.9 ({tested})")
    if versions.get(_JOIN, (0, 0))[1] >= 5:
        return Finding("kafka", "warning", f"Kafka before 2.8 ({tested})", "use a newer one")
    what = f"Kafka before 2.3, without static group membership ({tested})"
    return Finding("kafka", "problem", what, "use a newer one")


def _settings(admin: Any, node: int) -> Iterator[Finding]:
    resource = ConfigResource(ResourceType.BROKER, str(node))
    try:
        found = admin.describe_configs([resource])[resource].result(PATIENCE_S)
    except (KafkaException, TimeoutError) as error:
        yield Finding("kafka", "ok", f"the broker does not tell its settings ({error})")
        return
    values = {name: entry.value for name, entry in found.items() if entry.value is not None}
    wrong = list(setting_findings(values))
    yield from wrong
    if not wrong:
        yield Finding("kafka", "ok", "its settings suit the loop")


def setting_findings(values: Mapping[str, str]) -> Iterator[Finding]:
    """What is wrong with a broker's settings; those that it does not tell are taken as right."""
    session_ms = 1_000 * SESSION_S
    rules: tuple[tuple[str, bool, Level, str], ...] = (
        (
            "auto.create.topics.enable",
            values.get("auto.create.topics.enable") == "true",
            "warning",
            "set it to false: a topic made by accident has the wrong number of partitions",
        ),
        (
            "group.min.session.timeout.ms",
            float(values.get("group.min.session.timeout.ms", 0)) > session_ms,
            "problem",
            f"set it to {session_ms:.0f} or less: workers could not join their group",
        ),
        (
            "group.max.session.timeout.ms",
            float(values.get("group.max.session.timeout.ms", session_ms)) < session_ms,
            "problem",
            f"set it to {session_ms:.0f} or more: workers could not join their group",
        ),
        (
            "message.max.bytes",
            float(values.get("message.max.bytes", MESSAGE_BYTES)) < MESSAGE_BYTES,
            "warning",
            f"set it to {MESSAGE_BYTES} or more: frames of large cohorts would be refused",
        ),
    )
    for name, is_wrong, level, remedy in rules:
        if is_wrong:
            yield Finding("kafka", level, f"{name} is {values[name]}", remedy)


def topics(place: Place) -> Iterator[Finding]:
    """The topics of the spec, where one is given."""
    if place.spec is None:
        return
    address = _address(place)
    if address is None:
        remedy = "rehearse broker start, or give --bootstrap-servers"
        yield Finding("topics", "warning", "no broker to ask for the topics of the spec", remedy)
        return
    wanted = topics_of(place.spec)
    try:
        problems = check_topics(_quiet(address, place), wanted)
    except KafkaSetupError as error:
        yield Finding("topics", "problem", str(error), "mend what is said about kafka first")
        return
    if len(problems) == len(wanted) and all(": absent" in problem for problem in problems):
        what = f"none of the {len(wanted)} topics of {place.spec.system} is there yet"
        yield Finding(
            "topics", "warning", what, "rehearse run SPEC, or rehearse topics create SPEC"
        )
        return
    remedy = f"rehearse topics create {place.spec.system}; what is there already is not altered"
    for problem in problems:
        yield Finding("topics", "problem", problem, remedy)
    if not problems:
        yield Finding("topics", "ok", f"all {len(wanted)} of {place.spec.system} are as needed")


CHECKS = (embedded_broker, cluster, topics)
