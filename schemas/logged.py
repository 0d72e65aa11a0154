"""Which Parquet files below a folder hold its rows, while a sink merges some into others."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Final, TypeVar

import pyarrow.parquet as pq

META_KEY: Final = b"rehearse-sink"
"""In a file's metadata: what the sink that wrote it says of it, as JSON."""
_Made = TypeVar("_Made")
_File = TypeVar("_File", Path, str)


def said(path: Path | BinaryIO) -> dict[str, Any] | None:
    """What a sink said of its file; None for a Parquet file that no sink wrote.

    Raises `FileNotFoundError` where it was merged into another one meanwhile.
    """
    about = (pq.read_schema(path).metadata or {}).get(META_KEY)
    return None if about is None else dict(json.loads(about))


def everything(files: list[Path]) -> list[Path]:
    """All of them."""
    return files


def current(
    files: Sequence[_File], about: Callable[[_File], Mapping[str, Any] | None]
) -> list[_File]:
    """Those that were not merged into one beside them; `about` says what a sink said of one.

    Raises `FileNotFoundError` where one was merged meanwhile.
    """
    merged = set[str]()
    for file in files:
        try:
            named = (about(file) or {}).get("replaces", ())
        except FileNotFoundError:
            raise
        except (OSError, ValueError):  # no Parquet file: whoever reads it says so
            continue
        beside = str(file).rsplit("/", 1)[0]
        merged |= {f"{beside}/{name}" for name in named}
    return [file for file in files if str(file) not in merged]


def logged_files(
    folder: Path, wanted: Callable[[list[Path]], list[Path]] = everything
) -> list[Path]:
    """The Parquet files below `folder`, but for those that were merged into one beside them.

    Those that are not `wanted` are not opened; merged are files of one folder alone.
    """
    paths: list[Path] = []
    while (found := sorted(folder.rglob("*.parquet"))) != paths:  # a listing is not of one moment
        paths = found
    try:
        return current(wanted(paths), said)
    except FileNotFoundError:
        return logged_files(folder, wanted)


def with_files(
    folder: Path,
    read: Callable[[list[Path]], _Made],
    wanted: Callable[[list[Path]], list[Path]] = everything,
) -> _Made:
    """What `read` makes of the `wanted` files below `folder`; again, where some were merged."""
    files = logged_files(folder, wanted)
    while True:
        try:
            return read(files)
        except FileNotFoundError:
            if (again := logged_files(folder, wanted)) == files:
                raise
            files = again


__all__ = ["META_KEY", "current", "logged_files", "said", "with_files"]
