"""The one table of rights: which part of a system may read and write which of its topics."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal, get_args

from schemas.system import SystemSpec
from schemas.topics import Kind, perceive_group, topics_of, worker_group

Role = Literal[
    "admin",
    "perceive",
    "align",
    "worker",
    "twin",
    "shadow",
    "sink",
    "plant",
    "operator",
    "replay",
]
Operation = Literal["read", "write", "describe", "create", "describe_configs"]
Resource = Literal["topic", "group", "topics beginning with"]
ROLES: Final[tuple[Role, ...]] = get_args(Role)


@dataclass(frozen=True)
class Rights:
    """What a role reads and writes, and who it is. Reading and writing include looking."""

    what: str
    reads: Sequence[Kind] = ()
    writes: Sequence[Kind] = ()
    joins: bool = False  # a consumer group, see `_group`


RIGHTS: Final[dict[Role, Rights]] = {
    "admin": Rights("makes topics and gives rights: everything is allowed"),
    "perceive": Rights(
        "encodes raw messages into readings", ("raw",), ("sensors", "deadletter"), joins=True
    ),
    "align": Rights(
        "the aligner; on the control topic it says which of several speaks",
        ("sensors", "control", "outcomes", "applied", "actions", "frames"),
        ("frames", "deadletter", "control"),
    ),
    "worker": Rights(
        "decides; with its twin the only one that writes actions",
        ("frames", "beliefs", "control"),
        ("actions", "trajectories", "beliefs", "deadletter"),
        joins=True,
    ),
    "twin": Rights(
        "a worker that answers where the first one does not",
        ("frames", "beliefs", "beliefs-twin", "control", "actions"),
        ("actions", "trajectories", "beliefs-twin", "deadletter"),
        joins=True,
    ),
    "shadow": Rights(
        "a worker that publishes no action",
        ("frames", "beliefs", "control"),
        ("trajectories", "beliefs", "deadletter"),
        joins=True,
    ),
    "sink": Rights("stores trajectories", ("trajectories", "applied")),
    "plant": Rights(
        "a plant with its actuators",
        ("actions", "control", "applied"),
        ("raw", "sensors", "applied", "outcomes"),
    ),
    "operator": Rights(
        "holds, resumes, re-arms, releases", ("control", "frames", "applied"), ("control",)
    ),
    "replay": Rights("records and watches", ("frames", "trajectories", "outcomes")),
}
"""`admin` has no row of its own on the broker: it is a super user."""

NO_GROUP: Final = "rehearse"
"""The group that consumers name which take partitions by hand; nobody joins it."""

REPLAYED: Final = "replay-"
"""Systems whose names begin so are not live: `replay` may make and fill their topics."""


@dataclass(frozen=True)
class Grant:
    """A role may do `operation` on the topic or group `name`, or on topics that begin so."""

    role: Role
    operation: Operation
    resource: Resource
    name: str


def grants_of(spec: SystemSpec) -> list[Grant]:
    """What the roles may do with the topics and groups of one system."""
    found = []
    for role, rights in RIGHTS.items():
        for topic in topics_of(spec):
            if topic.kind in rights.reads:
                found.append(Grant(role, "read", "topic", topic.name))
            if topic.kind in rights.writes:
                found.append(Grant(role, "write", "topic", topic.name))
        if rights.joins and (spec.perceived or role != "perceive"):
            found.append(Grant(role, "read", "group", _group(spec, role)))
    return found


def _group(spec: SystemSpec, role: Role) -> str:
    if role == "perceive":
        return perceive_group(spec)
    return worker_group(spec, role if role in ("twin", "shadow") else "first")


def common_grants() -> Iterator[Grant]:
    """What they may do besides, whatever the system."""
    for role in ROLES:
        if role != "admin":
            yield Grant(role, "describe", "group", NO_GROUP)
    for operation in ("read", "write", "create", "describe_configs"):
        yield Grant("replay", operation, "topics beginning with", REPLAYED)


def role_of(command: Sequence[str]) -> Role:
    """The role of one of the loop's processes, by its command line; `admin` for any other."""
    name = command[0] if command else ""
    if name == "worker":
        return "shadow" if "--shadow" in command else "twin" if "--twin" in command else "worker"
    return next((role for role in ROLES if role == name), "admin")
