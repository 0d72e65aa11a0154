"""A small file from anywhere, read whole and once, and no further than it may be long."""

from pathlib import Path


class TooLargeError(ValueError):
    """A file holds more than it may."""


def read_at_most(path: Path, most: int) -> bytes:
    """All bytes of a file, `most` or fewer. Raises `TooLargeError`, or `OSError`."""
    with path.open("rb") as stream:
        data = stream.read(most + 1)
    if len(data) > most:
        raise TooLargeError(f"{path}: larger than {most} bytes")
    return data
