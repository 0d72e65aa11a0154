"""A cluster as the doctor sees it, its age, its settings, and the topics of a spec."""

from __future__ import annotations

from pathlib import Path

import pytest

from infra import kraft
from infra.broker import Broker
from infra.kafka import ensure_topics
from schemas.topics import topics_of
from streams.checks import cluster
from streams.checks.finding import Place, worst
from tests.streams.specs import small_spec
from tests.support import unique


def levels(values: dict[str, str]) -> dict[str, str]:
    return {f.what.split()[0]: f.level for f in cluster.setting_findings(values)}


def test_settings_of_the_embedded_broker_suit(tmp_path: Path) -> None:
    kraft.write_settings(tmp_path / "p", 20_000)
    values = dict(line.split("=", 1) for line in (tmp_path / "p").read_text().splitlines())
    assert levels(values) == {}
    assert levels({}) == {}


def test_settings_that_would_hurt() -> None:
    assert levels(
        {
            "auto.create.topics.enable": "true",
            "group.min.session.timeout.ms": "10000",
            "group.max.session.timeout.ms": "7000",
            "message.max.bytes": "100000",
        }
    ) == {
        "auto.create.topics.enable": "warning",
        "group.min.session.timeout.ms": "problem",
        "group.max.session.timeout.ms": "problem",
        "message.max.bytes": "warning",
    }


@pytest.mark.parametrize(
    ("versions", "level"),
    [
        ({1: (4, 17), 11: (2, 9), 60: (0, 2)}, "ok"),
        ({1: (0, 15), 11: (0, 9), 60: (0, 0)}, "ok"),
        ({1: (0, 11), 11: (0, 6)}, "warning"),
        ({1: (0, 8), 11: (0, 3)}, "problem"),
        ({}, "ok"),
    ],
)
def test_the_age_of_a_cluster(versions: dict[int, tuple[int, int]], level: str) -> None:
    assert cluster._age(versions).level == level


def test_no_broker_of_this_home_is_no_problem(tmp_path: Path) -> None:
    place = Place(tmp_path, spec=small_spec())
    (found,) = cluster.embedded_broker(place)
    assert found.level == "ok"
    assert list(cluster.cluster(place)) == []
    (found,) = cluster.topics(place)
    assert (found.level, found.remedy[:21]) == ("warning", "rehearse broker start")


def test_nobody_answers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(cluster, "PATIENCE_S", 0.2)
    (found,) = cluster.cluster(Place(tmp_path, bootstrap="127.0.0.1:1"))
    assert found.level == "problem"
    assert "127.0.0.1:1" in found.what


def test_settings_that_librdkafka_does_not_know(tmp_path: Path) -> None:
    place = Place(tmp_path, bootstrap="127.0.0.1:1", extra={"no.such.setting": "1"})
    (found,) = cluster.cluster(place)
    assert found.level == "problem"
    assert "no.such.setting" in found.what


@pytest.mark.broker
def test_a_real_broker_and_its_topics(broker: Broker) -> None:
    spec = small_spec(unique("doctor"))
    place = Place(broker.home, spec=spec)
    assert [f.level for f in cluster.embedded_broker(place)] == ["ok"]
    found = list(cluster.cluster(place))
    assert worst(found) == "ok", found
    assert any("Kafka 4.0 or later" in f.what for f in found)
    wanted = topics_of(spec)
    absent = list(cluster.topics(place))
    assert [f.level for f in absent] == ["warning"], "`run` makes them"
    assert f"none of the {len(wanted)} topics" in absent[0].what

    kafka = {"bootstrap.servers": broker.bootstrap}
    ensure_topics(kafka, [(t.name, t.partitions, t.config) for t in wanted])
    (found_topics,) = cluster.topics(Place(Path(), spec=spec, bootstrap=broker.bootstrap))
    assert found_topics.level == "ok"


@pytest.mark.broker
def test_a_protocol_that_the_broker_does_not_speak(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "PATIENCE_S", 3.0)
    place = Place(broker.home, bootstrap=broker.bootstrap, extra={"security.protocol": "ssl"})
    (found,) = cluster.cluster(place)
    assert found.level == "problem"
