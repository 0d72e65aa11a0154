"""Settings of Kafka's clients as a user gives them: `-X KEY=VALUE`, `-X @FILE`, or the environment.

A command line can be read by everybody on the machine (`ps`), so passwords stand in a file, and a
process hands settings to its children in the environment, which only their user can read.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

VARIABLE: Final = "REHEARSE_KAFKA_CONFIG"  # a JSON object of settings
_MOST: Final = 1 << 20  # bytes of a file of settings
_KEYS = "the keys are those of librdkafka's CONFIGURATION.md"


class KafkaSetupError(RuntimeError):
    """The cluster does not answer, or a topic is not as it must be; the message says the remedy."""


class BrokerAwayError(KafkaSetupError):
    """No broker answers: the address is wrong, or one is away and will be back."""


def kafka_settings(given: Iterable[str]) -> dict[str, str]:
    """The settings in the environment, then those of each `KEY=VALUE` or `@FILE`; the last counts.

    Raises KafkaSetupError that names the argument, or the file and its line, and never a value.
    """
    settings = _from_environment()
    for argument in given:
        if argument.startswith("@"):
            settings.update(read_settings(Path(argument[1:]).expanduser()))
            continue
        key, equals, value = argument.partition("=")
        if not equals or not key.strip():
            raise KafkaSetupError(
                "-X: expected key=value, for instance -X security.protocol=SSL, or @FILE with such "
                f"lines ({_KEYS})"
            )
        settings[key.strip()] = value
    return settings


def read_settings(file: Path) -> dict[str, str]:
    """The settings in a file of `key=value` lines; empty lines and those with `#` are left out.

    Raises KafkaSetupError with the file and the line.
    """
    return dict(_pairs(file, _text(file)))


def _text(file: Path) -> str:
    try:
        with file.open("rb") as stream:
            content = stream.read(_MOST + 1)
        if len(content) > _MOST:
            raise KafkaSetupError(f"-X @{file}: larger than {_MOST} bytes; is it the right file?")
        return content.decode("utf-8-sig")
    except OSError as error:
        raise KafkaSetupError(f"-X @{file}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise KafkaSetupError(f"-X @{file}: not a text in UTF-8 of key=value lines") from error


def _pairs(file: Path, text: str) -> Iterator[tuple[str, str]]:
    for number, line in enumerate(text.splitlines(), start=1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        key, equals, value = (part.strip() for part in line.partition("="))
        if not equals or not key:
            raise KafkaSetupError(f"-X @{file}: line {number}: expected key=value ({_KEYS})")
        yield key, value


def _from_environment() -> dict[str, str]:
    text = os.environ.get(VARIABLE)
    if not text:
        return {}
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        # Not even a part of it is repeated: it may hold a password.
        raise KafkaSetupError(
            f'{VARIABLE}: expected a JSON object such as {{"sasl.username": "me"}}'
        )
    return found


def as_environment(settings: Mapping[str, str]) -> dict[str, str]:
    """The variable that hands settings to a child process."""
    return {VARIABLE: json.dumps(dict(settings))}
