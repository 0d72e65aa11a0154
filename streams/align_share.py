"""Several aligners: each takes a share of the cohorts, and the partitions that hold their entities.

Part K of N takes every cohort c and every partition p of entities with c ≡ p ≡ K − 1 (mod N). The
entities of these cohorts are in these partitions where topics are partitioned as Kafka's own
clients do it, by murmur2 of the key, and N divides both numbers: each is that hash modulo its own.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from confluent_kafka import Message
from confluent_kafka.admin import AdminClient

from infra.kafka import KafkaSetupError, client_config
from schemas.messages import ALL
from schemas.system import SystemSpec
from schemas.topics import cohort_of, cohort_partitions, topic
from streams.align_state import Bools
from streams.topic_io import TIMEOUT_S, read_to_end

SAMPLE: Final = 200  # newest records of each partition
REMEDY: Final = (
    "have its producers partition by key with murmur2 (librdkafka: partitioner=murmur2_random; "
    "Java does so by itself), or copy it: rehearse align SPEC --repartition FROM=TO"
)
_PART: Final = re.compile(r"([1-9]\d{0,5})/([1-9]\d{0,5})")


@dataclass(frozen=True)
class Share:
    """The part of the cohorts that one of `of` aligners takes; parts are counted from 1."""

    part: int = 1
    of: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.part <= self.of:
            raise ValueError(f"there is no part {self.part} of {self.of}: parts begin with 1")

    @property
    def name(self) -> str:
        """As claims name it."""
        return ALL if self.of == 1 else f"{self.part}/{self.of}"

    @classmethod
    def named(cls, name: str) -> "Share | None":
        """The share of this name; None where it is none."""
        if name == ALL:
            return cls()
        found = _PART.fullmatch(name)
        if found is None or int(found[1]) > int(found[2]):
            return None
        return cls(int(found[1]), int(found[2]))

    def holds(self, number: int) -> bool:
        """Whether a cohort, or a partition of entities, is of this share."""
        return number % self.of == self.part - 1

    def cohorts(self, count: int) -> Bools:
        """[count] which of `count` cohorts it holds."""
        return np.asarray(np.arange(count) % self.of == self.part - 1)

    def reads(self, spec: SystemSpec, name: str, partition: int) -> bool:
        """Whether an aligner of this share reads a partition; `S.control` is read by all."""
        return name == topic(spec, "control") or self.holds(partition)

    def check(self, spec: SystemSpec, counts: Mapping[str, int]) -> None:
        """Raises `KafkaSetupError` where topics (name → partitions) cannot be shared out."""
        if spec.cohorts % self.of or cohort_partitions(spec) % self.of:
            raise KafkaSetupError(
                f"{spec.system} has `cohorts: {spec.cohorts}`, which {self.of} aligners cannot "
                "share evenly: take a number of aligners that divides it, or raise it in the spec"
            )
        for name, count in counts.items():
            if name != topic(spec, "control") and count % self.of:
                raise KafkaSetupError(
                    f"{name} has {count} partitions, which {self.of} aligners cannot share evenly: "
                    "take a number of aligners that divides it, or create the topic with others"
                )

    def check_keys(self, spec: SystemSpec, bootstrap: str, extra: Mapping[str, str] | None) -> None:
        """Raises `KafkaSetupError` where sampled readings lie in partitions of other shares."""
        if self.of == 1:
            return
        for name in sensor_partitions(spec, bootstrap, extra):
            found = misplaced(read_to_end(bootstrap, extra, name, newest=SAMPLE), self.of)
            if found.wrong:
                raise KafkaSetupError(
                    f"{name}: {found}. {self.of} aligners would each see a part of an entity: "
                    f"{REMEDY}"
                )


WHOLE: Final = Share()


@dataclass(frozen=True)
class Misplaced:
    """How many of so many sampled records with keys are not where their key belongs."""

    sampled: int
    wrong: int
    example: str = ""

    def __str__(self) -> str:
        return (
            f"{self.wrong} of {self.sampled} sampled records are not in their key's partition"
            f"{self.example}"
        )


def misplaced(records: Iterable[Message], modulo: int) -> Misplaced:
    """Which records lie in partitions that, modulo `modulo`, are not their key's."""
    sampled, wrong = 0, ""
    count = 0
    for record in records:
        if not (key := record.key()):
            continue
        sampled += 1
        name, place = key.decode(errors="replace"), record.partition() or 0
        if cohort_of(name, modulo) != place % modulo:
            count += 1
            wrong = wrong or f" (key {name!r} is in partition {place})"
    return Misplaced(sampled, count, wrong)


def sensor_partitions(
    spec: SystemSpec, bootstrap: str, extra: Mapping[str, str] | None
) -> dict[str, int]:
    """Topics with readings → how many partitions they have; those that are absent are left out."""
    admin = AdminClient({"log_level": "0", **client_config(bootstrap, extra)})
    there = admin.list_topics(timeout=TIMEOUT_S).topics
    names = dict.fromkeys(sensor.topic for sensor in spec.sensors.values())
    return {name: len(there[name].partitions) for name in names if name in there}
