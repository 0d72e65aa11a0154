"""The table of rights: what it promises, and that it names the topics of a system and no others."""

from __future__ import annotations

import pytest

from schemas.roles import RIGHTS, ROLES, common_grants, grants_of, role_of
from schemas.system import load_spec
from schemas.topics import Kind, topics_of


def who_may(verb: str, kind: Kind) -> set[str]:
    return {role for role, rights in RIGHTS.items() if kind in getattr(rights, verb)}


def test_the_table_says_what_is_promised() -> None:
    assert who_may("writes", "actions") == {"worker", "twin"}
    assert who_may("writes", "beliefs") == {"worker", "shadow"}
    assert who_may("writes", "beliefs-twin") == {"twin"}
    assert who_may("writes", "frames") == {"align"}
    assert who_may("writes", "sensors") == {"plant", "perceive"}
    assert who_may("writes", "applied") == {"plant"}
    assert who_may("writes", "control") == {"operator", "align"}
    assert who_may("reads", "beliefs") == {"worker", "twin", "shadow"}
    assert who_may("reads", "raw") == {"perceive"}
    assert set(RIGHTS["plant"].reads) == {"actions", "control", "applied"}
    assert RIGHTS["replay"].writes == ()


def test_grants_are_of_this_systems_topics_and_groups() -> None:
    spec = load_spec("nav2d")
    found = grants_of(spec)
    assert {g.name for g in found if g.resource == "topic"} == {t.name for t in topics_of(spec)}
    groups = {(g.role, g.name) for g in found if g.resource == "group"}
    assert groups == {
        ("worker", "rehearse-nav2d"),
        ("shadow", "rehearse-nav2d-shadow"),
        ("twin", "rehearse-nav2d-twin"),
    }
    assert {g.operation for g in found} == {"read", "write"}
    assert not any(g.role == "admin" for g in (*found, *common_grants()))
    assert {g.role for g in common_grants()} == set(ROLES) - {"admin"}


@pytest.mark.parametrize(
    ("command", "role"),
    [
        (("worker", "nav2d"), "worker"),
        (("worker", "nav2d", "--shadow"), "shadow"),
        (("worker", "nav2d", "--twin"), "twin"),
        (("align", "nav2d"), "align"),
        (("plant", "nav2d"), "plant"),
        (("perceive", "sight.yaml"), "perceive"),
        (("topics", "create", "nav2d"), "admin"),
        ((), "admin"),
    ],
)
def test_a_process_has_the_role_of_its_command(command: tuple[str, ...], role: str) -> None:
    assert role_of(command) == role
