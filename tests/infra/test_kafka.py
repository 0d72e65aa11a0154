"""Administration of topics on the real broker; settings that are passed through."""

from __future__ import annotations

import socket

import pytest
from confluent_kafka.admin import AdminClient

from infra.kafka import (
    KafkaSetupError,
    client_config,
    delete_topics,
    ensure_topics,
    wait_ready,
)
from tests.support import unique


def test_a_setting_that_librdkafka_does_not_know_is_said() -> None:
    with pytest.raises(KafkaSetupError, match=r"securty\.protocol"):
        wait_ready(client_config("127.0.0.1:9", {"securty.protocol": "SSL"}))


def test_nobody_at_the_address_is_said() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(KafkaSetupError, match=f"no broker answers at {address}"):
            wait_ready(client_config(address), timeout=0.2)


@pytest.mark.broker
def test_topics_are_created_once_with_their_settings(kafka: dict[str, str]) -> None:
    frames, beliefs = f"{unique()}.frames", f"{unique()}.beliefs"
    wanted = [
        (frames, 4, {"message.timestamp.type": "LogAppendTime", "retention.ms": "3600000"}),
        (beliefs, 2, {"cleanup.policy": "compact"}),
    ]
    assert ensure_topics(kafka, wanted) == [frames, beliefs]
    assert ensure_topics(kafka, wanted) == []
    listed = AdminClient({**kafka}).list_topics(timeout=10).topics
    assert len(listed[frames].partitions) == 4
    assert len(listed[beliefs].partitions) == 2
    assert ensure_topics(kafka, []) == []


@pytest.mark.broker
def test_a_topic_that_differs_is_refused_and_nothing_is_made(kafka: dict[str, str]) -> None:
    old, new = f"{unique()}.old", f"{unique()}.new"
    ensure_topics(kafka, [(old, 4, {"cleanup.policy": "delete"})])
    wanted = [(old, 8, {"cleanup.policy": "compact", "no.such": "1"}), (new, 1, {})]
    with pytest.raises(KafkaSetupError) as caught:
        ensure_topics(kafka, wanted)
    assert f"{old} has 4 partitions, not 8" in str(caught.value)
    assert f"{old} has cleanup.policy=delete, not compact" in str(caught.value)
    assert f"{old} has no.such=unknown, not 1" in str(caught.value)
    assert new not in AdminClient({**kafka}).list_topics(timeout=10).topics


@pytest.mark.broker
def test_a_setting_that_kafka_does_not_know_is_said_with_the_topic(kafka: dict[str, str]) -> None:
    name = unique()
    with pytest.raises(KafkaSetupError, match=f"cannot create topic {name}: .*no.such"):
        ensure_topics(kafka, [(name, 1, {"no.such": "1"})])


@pytest.mark.broker
def test_deleted_topics_are_gone_and_can_be_made_anew(kafka: dict[str, str]) -> None:
    name = unique()
    ensure_topics(kafka, [(name, 2, {})])
    assert delete_topics(kafka, [name, "never-was", name]) == [name]
    assert name not in AdminClient({**kafka}).list_topics(timeout=10).topics
    assert delete_topics(kafka, [name]) == []
    assert ensure_topics(kafka, [(name, 3, {})]) == [name]
