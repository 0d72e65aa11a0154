"""A part of an evaluation's report: a title, a sentence how to read it, figures and tables."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Section:
    """What stands under one heading.

    Attributes:
        title, text: the heading, and one sentence that says how to read what follows.
        figure: a plotly figure, or None; height: its height in pixels.
        rows: a small table, the keys of its first row are its head.
    """

    title: str
    text: str
    figure: Any = None
    rows: Sequence[Mapping[str, Any]] = ()
    height: int = 380
