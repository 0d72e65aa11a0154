"""A worker that ends in order: others take its cohorts at once; alone, it stays a member."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient

from infra.kafka import client_config
from schemas.topics import worker_group
from streams.identity import has_others, instance_id
from tests.system.processes import until
from tests.system.test_worker import World, make_world

pytestmark = [pytest.mark.broker, pytest.mark.system]


@pytest.fixture
def pair(kafka: Mapping[str, str], tmp_path: Path) -> Iterator[tuple[World, World]]:
    one = make_world(kafka, tmp_path)
    two = replace(one, worker="two")
    yield one, two
    for made in (one, two):
        if made.process is not None and made.process.poll() is None:
            made.kill()


def members(world: World) -> set[str]:
    """The static members of the workers' group, as the broker knows them now."""
    group = worker_group(world.spec)
    found = AdminClient({**client_config(world.kafka["bootstrap.servers"], world.kafka)})
    described = found.describe_consumer_groups([group])[group].result(10)
    return {str(member.group_instance_id) for member in described.members}


def test_who_ends_beside_others_leaves_and_who_is_alone_stays(pair: tuple[World, World]) -> None:
    one, two = pair
    group, bootstrap = worker_group(one.spec), one.kafka["bootstrap.servers"]
    names = {world.worker: instance_id(group, world.worker) for world in pair}
    one.start()
    until(lambda: has_others(bootstrap, one.kafka, group, two.worker), "the first one")
    two.start()
    until(lambda: members(one) == set(names.values()), "the second one")
    two.stop()
    assert members(one) == {names["one"]}
    one.stop()
    assert members(one) == {names["one"]}


def test_without_a_broker_nobody_is_known() -> None:
    assert not has_others("127.0.0.1:9", {}, "zoo", "one")
