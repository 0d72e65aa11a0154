"""The publisher on a real broker: one report stands for a batch, and a refusal is not silent."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from confluent_kafka import Producer

from infra.kafka import ensure_topics
from streams.publish import DeliveryError, Publisher, Record
from streams.topic_io import read_to_end
from tests.support import unique

pytestmark = pytest.mark.broker


async def test_a_report_means_that_all_records_are_there_in_order(kafka: Mapping[str, str]) -> None:
    name = unique("publish")
    ensure_topics(kafka, [(name, 2, {})])
    bootstrap = kafka["bootstrap.servers"]
    publisher = Publisher(bootstrap, {})
    sent = [Record(name, i % 2, str(i).encode(), b"k", [("n", b"1")]) for i in range(200)]
    await publisher.send(sent)
    found = list(read_to_end(bootstrap, kafka, name))
    for partition in (0, 1):
        values = [m.value() for m in found if m.partition() == partition]
        assert values == [str(i).encode() for i in range(partition, 200, 2)]
    assert found[0].headers() == [("n", b"1")]
    assert await publisher.send([Record(name, 0, b"next")]) == 100
    assert await publisher.send([]) == -1
    assert publisher.close() == 0


async def test_the_log_does_not_hurry(
    kafka: Mapping[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    hurries = []

    class Watched(Producer):
        def flush(self, timeout: float = -1) -> int:
            hurries.append(timeout)
            return super().flush(timeout)

    monkeypatch.setattr("streams.publish.Producer", Watched)
    name = unique("hurry")
    ensure_topics(kafka, [(name, 1, {})])
    publisher = Publisher(kafka["bootstrap.servers"], {})
    await publisher.send([Record(name, 0, b"log")], hurry=False)
    assert not hurries
    await publisher.send([Record(name, 0, b"action")])
    assert len(hurries) == 1
    publisher.close()


async def test_what_the_broker_refuses_fails_this_batch_and_all_later_ones(
    kafka: Mapping[str, str],
) -> None:
    """Otherwise the last record's report would not stand for those before it."""
    name = unique("refused")
    ensure_topics(kafka, [(name, 1, {"max.message.bytes": "500"})])
    bootstrap = kafka["bootstrap.servers"]
    publisher = Publisher(bootstrap, {})
    await publisher.send([Record(name, 0, b"small")])
    large = Record(name, 0, bytes(range(256)) * 16)
    with pytest.raises(DeliveryError, match="large"):
        await publisher.send([large])
    with pytest.raises(DeliveryError):
        await publisher.send([Record(name, 0, b"small again")])
    publisher.close()
    assert [m.value() for m in read_to_end(bootstrap, kafka, name)] == [b"small"]
