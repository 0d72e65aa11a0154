"""The compose file says what the embedded broker says; it cannot be run without a Docker engine."""

from __future__ import annotations

from base64 import urlsafe_b64decode
from pathlib import Path
from typing import Any

import yaml

from infra import kraft
from infra.jars import KAFKA_VERSION

FILE = Path(kraft.__file__).with_name("compose.yaml")
# Where a container listens, and keeps its data, is its own affair.
PLACES = {"listeners", "advertised.listeners", "controller.quorum.voters", "log.dirs"}
# What the image reads itself, before there is a server.properties.
IMAGE = {"CLUSTER_ID", "KAFKA_HEAP_OPTS"}
# Without these a first user's run differs from ours.
NEEDED = {
    "auto.create.topics.enable",
    "group.min.session.timeout.ms",
    "group.initial.rebalance.delay.ms",
    "log.message.timestamp.after.max.ms",
    "offsets.topic.replication.factor",
}


def service() -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(FILE.read_text())
    kafka: dict[str, Any] = content["services"]["kafka"]
    assert {volume.split(":")[0] for volume in kafka["volumes"]} == set(content["volumes"])
    return kafka


def settings() -> dict[str, str]:
    """The broker settings, named as in server.properties: the image turns `_` into `.`."""
    names = set(service()["environment"]) - IMAGE
    assert all(name.startswith("KAFKA_") for name in names)
    return {
        name.removeprefix("KAFKA_").lower().replace("_", "."): service()["environment"][name]
        for name in names
    }


def embedded(tmp_path: Path) -> dict[str, str]:
    kraft.write_settings(tmp_path / "server.properties", port=20_000)
    lines = (tmp_path / "server.properties").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines)


def test_settings_are_those_of_the_embedded_broker(tmp_path: Path) -> None:
    ours, theirs = settings(), embedded(tmp_path)
    assert set(ours) <= set(theirs), "a setting that nobody here has run"
    assert {key: ours[key] for key in ours.keys() - PLACES} == {
        key: theirs[key] for key in ours.keys() - PLACES
    }
    assert set(ours) >= NEEDED | PLACES


def test_values_are_strings_and_image_is_the_same_version() -> None:
    environment = service()["environment"]
    assert all(isinstance(value, str) for value in environment.values())
    assert service()["image"] == f"apache/kafka:{KAFKA_VERSION}"
    assert len(urlsafe_b64decode(environment["CLUSTER_ID"] + "==")) == 16
    heap = {option for option in kraft.server_command([], Path()) if option.startswith("-Xm")}
    assert set(environment["KAFKA_HEAP_OPTS"].split()) == heap


def test_listeners_agree_with_each_other() -> None:
    ours = settings()
    client, controller = ours["listeners"].split(",")
    protocols = dict(pair.split(":") for pair in ours["listener.security.protocol.map"].split(","))
    assert {client.split(":")[0], controller.split(":")[0]} == set(protocols)
    assert controller.split(":")[0] == ours["controller.listener.names"]
    assert ours["controller.quorum.voters"].split(":")[1] == controller.rsplit(":", 1)[1]
    assert ours["controller.quorum.voters"].split("@")[0] == ours["node.id"]
    host, outside, inside = service()["ports"][0].split(":")
    assert ours["advertised.listeners"] == f"PLAINTEXT://{host}:{outside}"
    assert client.rsplit(":", 1)[1] == inside
    assert [inside in part for part in service()["healthcheck"]["test"]][-1]
    assert ours["log.dirs"] == service()["volumes"][0].split(":")[1]
