"""A disk that is full: how it is told from other errors, and when it has room again."""

import errno
import tempfile
from pathlib import Path
from typing import Final

from sqlalchemy.exc import OperationalError

ROOM_S: Final = 1.0  # after which a full disk is looked at again
ROOM_BYTES: Final = 1 << 20


def is_full(error: Exception) -> bool:
    """Whether an error says that a disk is full, that of the files or of the catalog."""
    if isinstance(error, OperationalError):
        return "disk is full" in str(error)
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def look_for_room(folder: Path) -> None:
    """Raises `OSError` where the disk of `folder` has no room for a file."""
    with tempfile.TemporaryFile(dir=folder) as probe:
        probe.write(bytes(ROOM_BYTES))
        probe.flush()
