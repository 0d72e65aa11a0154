"""Settings and administration of any Kafka cluster, embedded or not: plain dicts for librdkafka."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    ConfigResource,
    NewTopic,
    ResourceType,
)

from infra.registry import PREFIX
from infra.settings import BrokerAwayError as BrokerAwayError
from infra.settings import KafkaSetupError as KafkaSetupError
from schemas.roles import REPLAYED

TopicRequest = tuple[str, int, Mapping[str, str]]
"""Name, number of partitions, and the topic's configuration as Kafka names it."""

# Every partition in the log costs files and recovery time; creation is asked for in such groups.
_BATCH = 100
_POLL_S = 0.05
_NOT_ALLOWED = (
    " Use settings that allow it: on the secured embedded broker, the admin's; a replay may make "
    f"topics of systems whose names begin with {REPLAYED!r}"
)
_REFUSALS = (KafkaError._AUTHENTICATION, KafkaError._SSL)
_AWAY = (
    KafkaError._TRANSPORT,
    KafkaError._ALL_BROKERS_DOWN,
    KafkaError._TIMED_OUT,
    KafkaError._UNKNOWN_PARTITION,  # of one that was there: nobody said where it is
)


def client_config(bootstrap: str, extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """librdkafka settings for the cluster at `bootstrap`; `extra` (TLS, SASL, ...) wins over it.

    Those of a schema registry, which is asked by another client, are left out.
    """
    own = {k: v for k, v in (extra or {}).items() if not k.startswith(PREFIX)}
    return {"bootstrap.servers": bootstrap, **own}


def is_away(error: BaseException) -> bool:
    """Whether it says that no broker answered: all that was asked for may be there later."""
    if isinstance(error, KafkaException):
        return error.args[0].code() in _AWAY
    return isinstance(error, BrokerAwayError)


def wait_ready(
    config: Mapping[str, str],
    timeout: float = 30.0,
    check: Callable[[], None] = lambda: None,
) -> None:
    """Wait until a broker answers a metadata request.

    `check` is called between attempts; what it raises ends the wait (a broker that died).
    Raises BrokerAwayError after `timeout` seconds, and KafkaSetupError when the settings are not
    librdkafka's, or when TLS or SASL fails: with these settings no later attempt would do better.
    """
    refusals: list[str] = []

    def on_error(error: KafkaError) -> None:
        if error.code() in _REFUSALS:
            refusals.append(error.str())

    quick = {"reconnect.backoff.ms": "20", "reconnect.backoff.max.ms": "100"}
    admin = _admin({**quick, **config}, on_error)
    end = time.monotonic() + timeout
    reason = "no answer"
    while True:
        check()
        try:
            if admin.list_topics(timeout=0.5).brokers:
                return
        except KafkaException as error:
            reason = _text(error)
        admin.poll(0)  # which calls on_error
        if refusals:
            raise KafkaSetupError(
                f"the cluster does not let us in: {refusals[-1]}. "
                "Check the TLS and SASL settings given with -X key=value."
            )
        if time.monotonic() > end:
            raise BrokerAwayError(
                f"no broker answers at {config['bootstrap.servers']} after {timeout:g} s "
                f"({reason}). Check the address, and TLS or SASL settings given with -X key=value."
            )
        time.sleep(_POLL_S)


def ensure_topics(
    config: Mapping[str, str], topics: Iterable[TopicRequest], timeout: float = 30.0
) -> list[str]:
    """Create the topics that are missing, check those that are there, wait until all can be used.

    Returns the names of those created. The replication factor is the cluster's default. Raises
    KafkaSetupError when an existing topic has other partitions or another value of a given setting:
    cohorts are bound to partitions, so nothing is altered silently.
    """
    wanted = {name: (partitions, settings) for name, partitions, settings in topics}
    if not wanted:
        return []
    admin = _admin(config)
    existing = _listed(admin, timeout)
    missing = [name for name in wanted if name not in existing]
    present = {name: wanted[name] for name in wanted if name in existing}
    if wrong := [*_other_partitions(present, existing), *_other_settings(admin, present, timeout)]:
        raise KafkaSetupError(
            "existing topics differ from what is needed: " + "; ".join(wrong) + ". "
            "Delete these topics, alter their settings, or use another system name."
        )
    _create(admin, [(name, *wanted[name]) for name in missing], timeout)
    _wait_for(
        lambda: all(_has_leaders(admin, name, parts) for name, (parts, _) in wanted.items()),
        timeout,
        "the new topics have no leader yet",
    )
    return missing


def delete_topics(
    config: Mapping[str, str], names: Iterable[str], timeout: float = 30.0
) -> list[str]:
    """Delete those of `names` that exist, wait until they are gone, and return them."""
    admin = _admin(config)
    existing = _listed(admin, timeout)
    doomed = [name for name in dict.fromkeys(names) if name in existing]
    if not doomed:
        return []
    futures = admin.delete_topics(doomed, operation_timeout=timeout)
    _settle(futures, timeout, "delete", ignore=KafkaError.UNKNOWN_TOPIC_OR_PART)
    _wait_for(
        lambda: not set(doomed) & set(_listed(admin, timeout)),
        timeout,
        "the deleted topics are still listed",
    )
    return doomed


def _admin(
    config: Mapping[str, str], on_error: Callable[[KafkaError], None] | None = None
) -> AdminClient:
    # A starting broker refuses connections: what matters is raised, not logged.
    settings: dict[str, Any] = {"log_level": "0", **config}
    if on_error is not None:
        settings["error_cb"] = on_error
    try:
        return AdminClient(settings)
    except KafkaException as error:
        raise KafkaSetupError(
            f"librdkafka refuses the settings: {_text(error)}. Check the pairs given with -X."
        ) from error


def _listed(admin: AdminClient, timeout: float) -> dict[str, int]:
    """The number of partitions of each topic of the cluster."""
    try:
        topics = admin.list_topics(timeout=timeout).topics
    except KafkaException as error:
        raise BrokerAwayError(f"the cluster does not list its topics: {_text(error)}") from error
    return {name: len(topic.partitions) for name, topic in topics.items()}


def _create(admin: AdminClient, topics: Sequence[TopicRequest], timeout: float) -> None:
    for first in range(0, len(topics), _BATCH):
        new = [
            NewTopic(name, num_partitions=partitions, replication_factor=-1, config=dict(settings))
            for name, partitions, settings in topics[first : first + _BATCH]
        ]
        futures = admin.create_topics(new, operation_timeout=timeout)
        _settle(futures, timeout, "create", ignore=KafkaError.TOPIC_ALREADY_EXISTS)


def _settle(futures: Mapping[str, Future[Any]], timeout: float, verb: str, ignore: int) -> None:
    """Wait for the answers; `ignore` is the error of somebody who was faster with the same work."""
    for name, future in futures.items():
        try:
            future.result(timeout)
        except KafkaException as error:
            if (code := error.args[0].code()) != ignore:
                remedy = _NOT_ALLOWED if code == KafkaError.TOPIC_AUTHORIZATION_FAILED else ""
                raise KafkaSetupError(
                    f"cannot {verb} topic {name}: {_text(error)}{remedy}"
                ) from error


def _other_partitions(
    present: Mapping[str, tuple[int, Mapping[str, str]]], existing: Mapping[str, int]
) -> list[str]:
    return [
        f"{name} has {existing[name]} partitions, not {partitions}"
        for name, (partitions, _) in present.items()
        if existing[name] != partitions
    ]


def _other_settings(
    admin: AdminClient, present: Mapping[str, tuple[int, Mapping[str, str]]], timeout: float
) -> list[str]:
    names = [name for name, (_, settings) in present.items() if settings]
    if not names:
        return []
    futures = admin.describe_configs([ConfigResource(ResourceType.TOPIC, name) for name in names])
    wrong = []
    for resource, future in futures.items():
        try:
            found = future.result(timeout)
        except KafkaException as error:
            raise KafkaSetupError(
                f"cannot read the settings of topic {resource.name}: {_text(error)}"
            ) from error
        for key, value in present[resource.name][1].items():
            if key not in found or found[key].value != value:
                actual = found[key].value if key in found else "unknown"
                wrong.append(f"{resource.name} has {key}={actual}, not {value}")
    return sorted(wrong)


def _has_leaders(admin: AdminClient, name: str, partitions: int) -> bool:
    topic = admin.list_topics(name, timeout=5).topics[name]
    return len(topic.partitions) == partitions and all(
        partition.leader >= 0 for partition in topic.partitions.values()
    )


def _wait_for(done: Callable[[], bool], timeout: float, otherwise: str) -> None:
    end = time.monotonic() + timeout
    while not done():
        if time.monotonic() > end:
            raise KafkaSetupError(f"{otherwise} after {timeout:g} s")
        time.sleep(_POLL_S)


def _text(error: KafkaException) -> str:
    return str(error.args[0].str()) if error.args else str(error)
