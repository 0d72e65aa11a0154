"""Whether sensors' messages can be read: their schemas, here or in a registry, have the fields."""

from collections.abc import Iterator
from typing import Any

from infra.registry import (
    VARIABLE,
    Registry,
    RegistryDown,
    Schema,
    UnknownSchema,
    registry_settings,
)
from schemas.formats import SchemaFormat
from schemas.spec_parts import SensorSpec
from streams.checks.finding import Finding, Place
from streams.codecs import asks_registry, make_codec, subject_of
from streams.codecs.base import Field
from streams.codecs.schemas import Schemas
from streams.decode import fields_of

_GIVE = f"give -X schema.registry.url=http://HOST:8081, or set {VARIABLE}"


def codecs(place: Place) -> Iterator[Finding]:
    """Every sensor of the spec that does not send plain JSON."""
    if place.spec is None:
        return
    settings = registry_settings(place.extra)
    registry = Registry(settings) if settings else None
    for sensor in place.spec.sensors.values():
        if sensor.codec.kind != "json":
            yield _sensor(sensor, registry)


def _sensor(sensor: SensorSpec, registry: Registry | None) -> Finding:
    form, name = sensor.codec, f"{sensor.name}: {sensor.codec.kind}"
    try:
        fields = list(fields_of(sensor).values())
        make_codec(sensor, fields)
    except ValueError as error:
        return Finding("codecs", "problem", str(error), "mend its codec, or its channels' fields")
    if not isinstance(form, SchemaFormat) or not asks_registry(sensor):
        return Finding("codecs", "ok", f"{name}, its schema is in the spec")
    if form.schemas:
        newest = max(form.schemas)
        what = f"{name}, schema {newest} of the spec"
        return _fits(sensor, fields, what, Schema(form.kind.upper(), form.schemas[newest]))
    if registry is None:
        return Finding("codecs", "problem", f"{name} asks a registry, and none is named", _GIVE)
    subject = subject_of(sensor)
    try:
        number, schema = registry.latest(subject)
    except UnknownSchema:
        what = (
            f"{name}: {registry.url} has no subject {subject} yet; ids are asked for all the same"
        )
        return Finding("codecs", "warning", what, "register its schema, or name its subject")
    except RegistryDown as error:
        return Finding("codecs", "problem", f"{name}: {error}", "mend the registry, or its address")
    what = f"{name}, schema {number} of {subject} at {registry.url}"
    return _fits(sensor, fields, what, schema)


def _fits(sensor: SensorSpec, fields: list[Field], what: str, schema: Schema) -> Finding:
    reason, *absent = _absent(sensor, fields, schema)
    if reason:
        remedy = "mend the schema, or the sensor's codec, time and channels"
        return Finding("codecs", "problem", f"{what}: {reason}", remedy)
    if absent:
        what = f"{what} has no {', '.join(absent)}: always missing"
        return Finding("codecs", "warning", what, "mend the channels' `field`, or the schema")
    return Finding("codecs", "ok", what)


def _absent(sensor: SensorSpec, fields: list[Field], schema: Schema) -> list[str]:
    """Why a schema cannot be used (empty: it can), and the fields that it does not have."""
    settings: dict[str, Any] = {"schema_text": schema.text, "schemas": {}, "subject": None}
    alone = sensor.model_copy(update={"codec": sensor.codec.model_copy(update=settings)})
    if schema.imports:
        return [""]  # what it refers to is not part of a spec
    try:
        make_codec(alone, fields, Schemas())
    except ValueError as error:
        return [str(error)]
    absent = []
    for field in fields:
        try:
            make_codec(alone, [field._replace(required=True)], Schemas())
        except ValueError:
            absent.append(field.name)
    return ["", *absent]


CHECKS = (codecs,)
