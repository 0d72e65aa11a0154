"""A pretraining, as a file: what is read, how much of it is hidden, what labels there are."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from pydantic import Field, ValidationError, model_validator

from schemas.part import Part
from schemas.yaml_lines import load_yaml, problem, read_text

KEY = "pretraining"


class PretrainError(ValueError):
    """A pretraining that cannot be done as asked; the message names file, line, field, remedy."""


class Streams(Part):
    """Recorded streams without labels: Parquet files or folders of them, and columns of theirs.

    `window`: numbers one after another that are encoded together; the next window begins `every`
    numbers later (None: where the one before ended). See `models.encoders.windows`.
    """

    files: tuple[Path, ...] = ()
    series: tuple[str, ...] = ()
    window: int = Field(default=256, ge=2)
    every: int | None = Field(default=None, ge=1)


class Labels(Part):
    """Recorded streams with labels, the columns that the encoder shall tell in the end.

    Of its windows the last `held_out` are not learned from, but tell how good the encoder is.
    """

    files: tuple[Path, ...] = ()
    columns: tuple[str, ...] = ()
    held_out: float = Field(default=0.2, gt=0, lt=1)


class SeriesPart(Part):
    """Sizes of the transformer; see `models.encoders.series.AttentionSeriesEncoder`.

    `of`: weights of an earlier pretraining to begin with, `pretrained.pt` of its folder.
    """

    piece: int = Field(default=16, ge=1)
    width: int = Field(default=32, ge=1)
    heads: int = Field(default=4, ge=1)
    layers: int = Field(default=2, ge=1)
    units: int = Field(default=64, ge=1)
    of: Path | None = None


class Masking(Part):
    """`share` of the pieces are hidden, others each time."""

    share: float = Field(default=0.5, gt=0, lt=1)


class Learning(Part):
    """Updates: `steps` of pretraining, `finetune_steps` with labels (where there are any)."""

    steps: int = Field(default=2000, ge=0)
    finetune_steps: int = Field(default=600, ge=1)
    batch: int = Field(default=64, ge=1)
    learning_rate: float = Field(default=2e-3, gt=0)
    finetune_rate: float = Field(default=1e-3, gt=0)
    checkpoint_every: int = Field(default=250, ge=1)


class Run(Part):
    """Where the encoder goes, and how many threads torch takes; no result depends on it."""

    out: Path | None = None
    threads: int = Field(default=1, ge=1)


class Pretraining(Part):
    """All that decides what is learned, and `run`."""

    pretraining: str = "pretraining"
    seed: int = 0
    data: Streams = Streams()
    labels: Labels | None = None
    encoder: SeriesPart = SeriesPart()
    masking: Masking = Masking()
    loop: Learning = Learning()
    run: Run = Run()

    @model_validator(mode="after")
    def _fits(self) -> Self:
        piece, window = self.encoder.piece, self.data.window
        if window % piece or window < 2 * piece:
            raise ValueError(f"data.window {window}: take two or more times encoder.piece, {piece}")
        if self.encoder.width % self.encoder.heads:
            raise ValueError(f"encoder.width: take a multiple of its {self.encoder.heads} heads")
        if self.labels is not None and not (self.labels.files and self.labels.columns):
            raise ValueError("labels: name files, and the columns in them")
        return self

    def with_options(self, options: Mapping[str, Any]) -> Pretraining:
        """With fields set by dotted name; None and empty are not set. Raises `PretrainError`."""
        content = self.model_dump(exclude_unset=True)
        for name, value in options.items():
            if value is None or (isinstance(value, list | tuple) and not value):
                continue
            *sections, last = name.split(".")
            part = content
            for section in sections:
                part = part.setdefault(section, {})
            part[last] = value
        return _validated(content, {}, "options")


def load_pretraining(path: Path) -> Pretraining:
    """A file in YAML. Raises `PretrainError`."""
    try:
        document, lines = load_yaml(read_text(path), str(path))
    except OSError as error:
        raise PretrainError(f"{path}: {error.strerror or error}; name a YAML file") from error
    except ValueError as error:
        raise PretrainError(str(error)) from error
    if not isinstance(document, dict) or KEY not in document:
        raise PretrainError(f"{path}:1: a pretraining is a mapping that begins with '{KEY}:'")
    return _validated(document, lines, str(path))


def _validated(content: Any, lines: Any, name: str) -> Pretraining:
    try:
        return Pretraining.model_validate(content)
    except ValidationError as error:
        problems = [problem(item, lines, name, KEY) for item in error.errors()]
        raise PretrainError("\n".join(problems)) from error
