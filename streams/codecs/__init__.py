"""Codecs: the bytes of a sensor's messages, to numbers and back; one module per format.

A format's module, and the library that it needs, are loaded where a spec names it.
"""

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any, Final, Protocol

from infra.registry import Registry
from schemas.part import Part
from schemas.spec_parts import SensorSpec
from streams.codecs.base import Codec, Field
from streams.codecs.schemas import Schemas


class Writer(Protocol):
    """Makes messages of readings; one implementation per format."""

    def encode(self, fields: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[bytes]:
        """A message per row; a row has a member per field: a number, or a list of them."""


_MODULES: Final[Mapping[str, str]] = {
    "json": "json_codec",
    "avro": "avro_codec",
    "protobuf": "protobuf_codec",
    "arrow": "arrow_codec",
    "raw": "raw_codec",
}
"""The module of each format that a sensor may name: with `codec` and `writer`."""


def _module(form: Part) -> Any:
    return import_module(f"streams.codecs.{_MODULES[form.kind]}")  # type: ignore[attr-defined]


def make_codec(
    sensor: SensorSpec, fields: Sequence[Field], schemas: Schemas | None = None
) -> Codec:
    """The codec that reads `fields` of a sensor's messages.

    Raises `ValueError` where the spec's schema cannot be used, and says which sensor's.
    """
    make: Callable[..., Codec] = _module(sensor.codec).codec
    try:
        return make(sensor, fields, schemas or Schemas())
    except ValueError as error:
        raise ValueError(f"sensor {sensor.name}: {error}") from error


def make_writer(sensors: Sequence[SensorSpec], registry: Registry | None = None) -> Writer:
    """What a plant writes the readings of the first of `sensors` with; all of them share its topic.

    Raises `ValueError` where there is no schema to write under, `RegistryDown` where it is not to
    be had now.
    """
    sensor = sensors[0]
    make: Callable[..., Writer] = _module(sensor.codec).writer
    try:
        return make(sensors, registry)
    except ValueError as error:
        raise ValueError(f"sensor {sensor.name}: {error}") from error


def subject_of(sensor: SensorSpec) -> str:
    """The registry's subject of a sensor's messages."""
    return getattr(sensor.codec, "subject", None) or f"{sensor.topic}-value"


def asks_registry(sensor: SensorSpec) -> bool:
    """Whether a schema's id stands in front of a sensor's messages."""
    return bool(getattr(sensor.codec, "framed", False))
