"""The base of every part of a spec."""

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from schemas.clock import parse_duration

Name = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", max_length=64)]


def parsed_duration(value: Any) -> Any:
    """Microseconds of a text like '15 s'."""
    if isinstance(value, str):
        return parse_duration(value)
    raise ValueError("write a duration with its unit, like '15 s'")


Duration = Annotated[int, BeforeValidator(parsed_duration), Field(gt=0)]


class Part(BaseModel):
    """A part of the spec: immutable, and without fields that nobody reads."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)
