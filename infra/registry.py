"""A schema registry: schemas by their ids, subjects with versions, over Confluent's own client.

Its address is a setting like those of Kafka (`-X schema.registry.url=…`), or stands in the
environment. The client is loaded with the first request: most systems need none.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

if TYPE_CHECKING:
    from confluent_kafka.schema_registry import SchemaRegistryClient

PREFIX: Final = "schema.registry."
VARIABLE: Final = "REHEARSE_SCHEMA_REGISTRY"
TIMEOUT_S: Final = 5.0
_MOST: Final = 1 << 20  # characters of a schema with all that it refers to
_DEEPEST: Final = 32  # schemas that one may refer to, one by one
_GONE: Final = range(400, 500)
_AGAIN: Final = (401, 403, 407, 408, 429)  # refused for now: by a proxy, a password, a limit
T = TypeVar("T")


class RegistryDown(RuntimeError):
    """The registry does not answer, or not with what was asked; a later attempt may do better."""


class UnknownSchema(LookupError):
    """The registry answers that it has no such schema."""


class Schema(NamedTuple):
    """A schema as the registry keeps it: `AVRO`, `PROTOBUF` or `JSON`, its text, and what it needs.

    `imports`: name → text of the schemas that it refers to, those first that others need.
    """

    kind: str
    text: str
    imports: Mapping[str, str] = {}


def registry_settings(extra: Mapping[str, str] | None) -> dict[str, str]:
    """The settings of the registry's client: those given with `-X schema.registry.…`, without it.

    Empty where neither they nor the environment name a registry.
    """
    given = {key: value for key, value in (extra or {}).items() if key.startswith(PREFIX)}
    found = {key.removeprefix(PREFIX): value for key, value in given.items()}
    if "url" not in found and os.environ.get(VARIABLE):
        found["url"] = os.environ[VARIABLE]
    return found if "url" in found else {}


class Registry:
    """One registry. Every call is a request: whoever asks twice remembers.

    Args:
        settings: as `registry_settings` gives them; the names are those of Confluent's client.
    """

    def __init__(self, settings: Mapping[str, str]) -> None:
        self.settings = dict(settings)

    @property
    def url(self) -> str:
        """Where it is, without the name and password that may stand in its address."""
        parts = (part.strip() for part in self.settings["url"].split(","))
        return ",".join(
            f"{head}{sign}{rest.rpartition('@')[2]}"
            for head, sign, rest in (part.rpartition("://") for part in parts)
        )

    @cached_property
    def _client(self) -> SchemaRegistryClient:
        from confluent_kafka.schema_registry import SchemaRegistryClient

        own: dict[str, Any] = {"timeout": TIMEOUT_S, "max.retries": 0}
        try:
            return SchemaRegistryClient({**own, **self.settings})
        except (TypeError, ValueError, OSError) as error:
            raise RegistryDown(
                f"the settings given with -X {PREFIX}… do not fit: {error}"
            ) from error

    def schema(self, number: int) -> Schema:
        """The schema of an id. Raises `UnknownSchema` or `RegistryDown`."""
        return self._whole(self._ask(lambda: self._client.get_schema(number), f"schema {number}"))

    def latest(self, subject: str) -> tuple[int, Schema]:
        """Id and schema of a subject's newest version. Raises `UnknownSchema`, `RegistryDown`."""
        found = self._ask(lambda: self._client.get_latest_version(subject), f"subject {subject}")
        return int(found.schema_id or 0), self._whole(found.schema)

    def register(self, subject: str, kind: str, text: str) -> int:
        """The id of a schema under a subject; a new version where it is not there yet."""
        from confluent_kafka.schema_registry import Schema as Registered

        wanted = Registered(text, kind)
        return int(
            self._ask(lambda: self._client.register_schema(subject, wanted), f"subject {subject}")
        )

    def _ask(self, request: Callable[[], T], what: str) -> T:
        from confluent_kafka.schema_registry.error import SchemaRegistryError

        try:
            return request()
        except RegistryDown:
            raise
        except SchemaRegistryError as error:
            code = error.http_status_code
            if code in _GONE and code not in _AGAIN:
                raise UnknownSchema(f"{what}: {error.error_message or error}") from error
            raise RegistryDown(f"{self.url} answers {what} with status {code}: {error}") from error
        except Exception as error:  # httpx's own kinds, and whatever it makes of an odd answer
            text = str(error) or type(error).__name__
            raise RegistryDown(f"{self.url} does not answer: {text}") from error

    def _whole(self, found: Any) -> Schema:
        """With the texts of all schemas that it refers to."""
        imports: dict[str, str] = {}
        self._fetch(found, imports, _DEEPEST)
        text = str(found.schema_str or "")
        if len(text) + sum(map(len, imports.values())) > _MOST:
            raise UnknownSchema(f"a schema of more than {_MOST} characters is not used")
        return Schema(str(found.schema_type or "AVRO").upper(), text, imports)

    def _fetch(self, found: Any, imports: dict[str, str], left: int) -> None:
        for reference in found.references or ():
            name, subject, version = reference.name, reference.subject, reference.version
            if name is None or subject is None or name in imports:
                continue
            if not left or len(imports) >= _DEEPEST:
                raise UnknownSchema("it refers to too many other schemas")
            other = self._ask(
                lambda s=subject, v=version: self._client.get_version(s, v),  # type: ignore[misc]
                f"{subject} {version}",
            )
            self._fetch(other.schema, imports, left - 1)
            imports[name] = str(other.schema.schema_str or "")
