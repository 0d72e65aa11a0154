"""Rights on a cluster: the table of roles as Kafka's access control lists."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any, Final

from confluent_kafka import KafkaException
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)

from infra.kafka import KafkaSetupError
from schemas.roles import Grant

_TIMEOUT_S: Final = 30.0
_KINDS: Final = {
    "topic": (ResourceType.TOPIC, ResourcePatternType.LITERAL),
    "topics beginning with": (ResourceType.TOPIC, ResourcePatternType.PREFIXED),
    "group": (ResourceType.GROUP, ResourcePatternType.LITERAL),
}


_ANYBODY: Any = (None, None, AclOperation.ANY, AclPermissionType.ANY)
_EVERYTHING: Any = (ResourceType.ANY, None, ResourcePatternType.ANY)
_EVERY: Final = AclBindingFilter(*_EVERYTHING, *_ANYBODY)


def grant(config: Mapping[str, str], grants: Iterable[Grant]) -> None:
    """Give rights, and wait until they count; those that are given already stay.

    Raises KafkaSetupError.
    """
    bindings = [
        AclBinding(
            *_resource(found),
            f"User:{found.role}",
            "*",
            AclOperation[found.operation.upper()],
            AclPermissionType.ALLOW,
        )
        for found in grants
    ]
    admin = _admin(config)
    _settle(admin.create_acls(bindings).values())
    # The controller has them; the broker that clients ask hears of them a little later.
    end = time.monotonic() + _TIMEOUT_S
    while not set(bindings) <= set(_settle([admin.describe_acls(_EVERY)])[0]):
        if time.monotonic() > end:
            raise KafkaSetupError(f"the broker does not know the rights after {_TIMEOUT_S:g} s")
        time.sleep(0.02)


def revoke(config: Mapping[str, str], grants: Iterable[Grant]) -> None:
    """Take away all rights on what `grants` name, whoever has them. Raises KafkaSetupError."""
    resources = dict.fromkeys(_resource(found) for found in grants)
    admin = _admin(config)
    filters = [AclBindingFilter(*resource, *_ANYBODY) for resource in resources]
    _settle(admin.delete_acls(filters).values())


def _resource(found: Grant) -> tuple[Any, str, Any]:
    kind, pattern = _KINDS[found.resource]
    return kind, found.name, pattern


def _admin(config: Mapping[str, str]) -> AdminClient:
    """To be kept until it has answered."""
    return AdminClient({"log_level": "0", **config})


def _settle(answers: Iterable[Any]) -> list[Any]:
    try:
        return [answer.result(_TIMEOUT_S) for answer in answers]
    except KafkaException as error:
        raise KafkaSetupError(
            f"rights cannot be given or taken: {error.args[0].name()}. Use the admin's settings"
        ) from error
