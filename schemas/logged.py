"""Which Parquet files below a folder hold its rows, while a sink merges some into others."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import pyarrow.parquet as pq

META_KEY: Final = b"rehearse-sink"
"""In a file's metadata: what the sink that wrote it says of it, as JSON."""
_Made = TypeVar("_Made")


def said(path: Path) -> dict[str, Any] | None:
    """What a sink said of its file; None for a Parquet file that no sink wrote.

    Raises `FileNotFoundError` where it was merged into another one meanwhile.
    """
    about = (pq.read_schema(path).metadata or {}).get(META_KEY)
    return None if about is None else dict(json.loads(about))


def logged_files(folder: Path) -> list[Path]:
    """The Parquet files below `folder`, but for those that were merged into one beside them."""
    paths: list[Path] = []
    while (found := sorted(folder.rglob("*.parquet"))) != paths:  # a listing is not of one moment
        paths = found
    merged = set[Path]()
    for path in paths:
        try:
            about = said(path)
        except FileNotFoundError:
            return logged_files(folder)
        except (OSError, ValueError):  # no Parquet file: whoever reads it says so
            continue
        merged |= {path.parent / name for name in (about or {}).get("replaces", ())}
    return [path for path in paths if path not in merged]


def with_files(folder: Path, read: Callable[[list[Path]], _Made]) -> _Made:
    """What `read` makes of the files below `folder`; again, where some were merged meanwhile."""
    files = logged_files(folder)
    while True:
        try:
            return read(files)
        except FileNotFoundError:
            if (again := logged_files(folder)) == files:
                raise
            files = again


__all__ = ["META_KEY", "logged_files", "said", "with_files"]
