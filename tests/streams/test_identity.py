"""Who holds a worker's place is asked of a broker that may just have started."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any, cast

import pytest
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from infra.kafka import KafkaSetupError
from streams import identity


class Broker:
    """Answers one question after the other with what it is told to."""

    def __init__(self, *answers: int | str) -> None:
        self.answers = list(answers)

    def describe_consumer_groups(self, groups: list[str], **_: Any) -> dict[str, Future[str]]:
        answer, future = self.answers.pop(0), Future[str]()
        if isinstance(answer, int):
            future.set_exception(KafkaException(KafkaError(answer, "ConsumerGroupDescribe: ")))
        else:
            future.set_result(answer)
        return {groups[0]: future}


def described(*answers: int | str) -> Any:
    return identity._describe(cast(AdminClient, Broker(*answers)), "group")


def test_a_broker_that_has_just_started_is_asked_again() -> None:
    assert described(KafkaError.NOT_COORDINATOR, KafkaError.COORDINATOR_NOT_AVAILABLE, "g") == "g"
    assert described(KafkaError.COORDINATOR_LOAD_IN_PROGRESS, "g") == "g"


def test_a_group_that_nobody_knows_is_none() -> None:
    assert described(KafkaError.GROUP_ID_NOT_FOUND) is None


def test_any_other_error_is_told_by_its_name() -> None:
    with pytest.raises(KafkaSetupError, match="GROUP_AUTHORIZATION_FAILED"):
        described(KafkaError.GROUP_AUTHORIZATION_FAILED)
