"""The one table of topics: names, keys, codecs, partitions, retention."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Literal

from schemas.system import SystemSpec

Kind = Literal[
    "raw",
    "sensors",
    "frames",
    "actions",
    "applied",
    "trajectories",
    "beliefs",
    "beliefs-twin",
    "outcomes",
    "control",
    "deadletter",
]
MAX_RAW_BYTES: Final = 8 << 20
"""Bytes of a raw message, an image say."""
MOST_COHORT_PARTITIONS: Final = 16
"""Of frames, trajectories and beliefs: so many workers can share a system."""
MOST_ROW_BYTES: Final = 450_000
"""Of a cohort's beliefs: Kafka takes records of 1 MB, and a key frame holds as much again."""
WorkerRole = Literal["first", "twin", "shadow"]
"""Of a worker: it acts; it acts where no first one does; it decides, and does not act."""
_DAY_MS: Final = 86_400_000
_LOG: Final = {"cleanup.policy": "delete", "retention.ms": str(7 * _DAY_MS)}
_COMPACT: Final = {"cleanup.policy": "compact"}
_CHANGELOG: Final = {
    **_COMPACT,
    "segment.bytes": str(16 * 1024 * 1024),
    "segment.ms": "60000",
    "min.cleanable.dirty.ratio": "0.1",
}


@dataclass(frozen=True)
class TopicKind:
    """What all topics of a kind share."""

    key: Literal["entity", "cohort", "none", "source"]
    codec: Literal["json", "arrow", "raw"]
    spread: Literal["entity", "cohort", "one"]  # what its partitions are split by
    config: dict[str, str]
    what: str


TABLE: Final[dict[Kind, TopicKind]] = {
    "raw": TopicKind(
        "entity",
        "raw",
        "entity",
        {
            **_LOG,
            "retention.ms": str(_DAY_MS),
            "max.message.bytes": str(MAX_RAW_BYTES),
            "message.timestamp.type": "LogAppendTime",
        },
        "images, clouds of points and tensors as the devices send them, to be encoded",
    ),
    "sensors": TopicKind(
        "entity",
        "json",
        "entity",
        {**_LOG, "message.timestamp.type": "LogAppendTime"},
        "readings as the devices send them",
    ),
    "frames": TopicKind("cohort", "arrow", "cohort", _LOG, "one cohort at one tick"),
    "actions": TopicKind("entity", "json", "entity", _LOG, "what the gate let out"),
    "applied": TopicKind("entity", "json", "entity", _LOG, "what the actuators did about it"),
    "trajectories": TopicKind("cohort", "arrow", "cohort", _LOG, "decisions with their reasons"),
    "beliefs": TopicKind(
        "cohort", "raw", "cohort", _CHANGELOG, "belief rows: the changelog of the worker's table"
    ),
    "beliefs-twin": TopicKind(
        "cohort", "raw", "cohort", _CHANGELOG, "belief rows: the changelog of the twin's own table"
    ),
    "outcomes": TopicKind("entity", "json", "entity", _LOG, "labels from the plant or a person"),
    "control": TopicKind(
        "none", "json", "one", _COMPACT, "release, hold, resume, rearm, budget; who aligns"
    ),
    "deadletter": TopicKind("source", "json", "one", _LOG, "what could not be used, and why"),
}


@dataclass(frozen=True)
class Topic:
    """One topic of a system, as it is to be created."""

    name: str
    kind: Kind
    partitions: int
    config: dict[str, str]


def topic(spec: SystemSpec, kind: Kind) -> str:
    """The name of a system's only topic of `kind` (sensors name their own, raw ones too)."""
    return f"{spec.system}.{kind}"


def worker_group(spec: SystemSpec, role: WorkerRole = "first") -> str:
    """The consumer group of a system's workers; each role has its own, and sees every frame."""
    return f"rehearse-{spec.system}{'' if role == 'first' else f'-{role}'}"


def changelog_of(role: WorkerRole) -> Kind:
    """The changelog of a worker's beliefs; a twin's are never mixed with those of the first."""
    return "beliefs-twin" if role == "twin" else "beliefs"


def perceive_group(spec: SystemSpec) -> str:
    """The consumer group of a system's perceiving processes."""
    return f"rehearse-{spec.system}-perceive"


def cohort_partitions(spec: SystemSpec) -> int:
    """Partitions of the topics that are keyed by cohort: one each, up to the limit."""
    return min(spec.cohorts, MOST_COHORT_PARTITIONS)


def entity_partitions(spec: SystemSpec) -> int:
    """Partitions of the topics that are keyed by entity."""
    return min(spec.cohorts, 4)


def topics_of(spec: SystemSpec) -> list[Topic]:
    """Every topic of a system, raw ones and sensors first."""
    counts = {"entity": entity_partitions(spec), "cohort": cohort_partitions(spec), "one": 1}
    found = []
    for kind, row in TABLE.items():
        names = [topic(spec, kind)]
        if kind == "sensors":
            names = list(dict.fromkeys(sensor.topic for sensor in spec.sensors.values()))
        elif kind == "raw":
            names = list(dict.fromkeys(raw.topic for _, raw in spec.perceived))
        found += [Topic(name, kind, counts[row.spread], dict(row.config)) for name in names]
    return found


def murmur2(data: bytes) -> int:
    """MurmurHash2 as Kafka's Java client has it (32 bits, seed 0x9747b28c)."""
    mask, m = 0xFFFFFFFF, 0x5BD1E995
    h = (0x9747B28C ^ len(data)) & mask
    whole = len(data) - len(data) % 4
    for i in range(0, whole, 4):
        k = int.from_bytes(data[i : i + 4], "little") * m & mask
        k = (k ^ (k >> 24)) * m & mask
        h = (h * m & mask) ^ k
    if rest := data[whole:]:
        h = (h ^ int.from_bytes(rest, "little")) * m & mask
    h = (h ^ (h >> 13)) * m & mask
    return h ^ (h >> 15)


@lru_cache(maxsize=1_000_000)
def cohort_of(entity: str, cohorts: int) -> int:
    """The cohort of an entity: `murmur2(entity) mod cohorts`, sign bit cleared as Kafka does."""
    return (murmur2(entity.encode()) & 0x7FFFFFFF) % cohorts


def partition_of(cohort: int, partitions: int) -> int:
    """The partition of a cohort's records; explicit, never by key hash."""
    return cohort % partitions
