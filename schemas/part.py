"""The base of every part of a spec."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Name = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", max_length=64)]


class Part(BaseModel):
    """A part of the spec: immutable, and without fields that nobody reads."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)
