"""A process that has imported what it needs, and waits for its turn to be the one that does it.

Most of the time from a worker's death to its successor's first answer goes into importing
libraries: 2 to 4 s of CPU, and several times as long on a machine that has lost more than the
worker. A spare costs memory alone, and takes part in nothing until it is told to begin.
"""

import os
import socket
import subprocess
from collections.abc import Callable
from contextlib import suppress
from typing import Final

AFTER_S: Final = 10.0
"""A process that has run for so long is given a spare: at the start all have enough to do."""
_NAME: Final = "REHEARSE_SPARE"  # environment: wait for the word on standard input
_READY, _BEGIN = b"r", b"b"


class Spare:
    """The supervisor's end. `launch` starts the process: standard input, and more environment."""

    def __init__(self, launch: Callable[[int, dict[str, str]], "subprocess.Popen[bytes]"]) -> None:
        self._line, theirs = socket.socketpair()
        with theirs:
            self.child = launch(theirs.fileno(), {_NAME: "1"})
        self._line.setblocking(False)
        self._ready = False

    @property
    def ready(self) -> bool:
        """Whether it has imported all; it may be told to begin before."""
        with suppress(BlockingIOError, ConnectionError):
            self._ready = self._ready or self._line.recv(1) == _READY
        return self._ready

    def begin(self) -> "subprocess.Popen[bytes] | None":
        """Has it begin; None where it is no more."""
        with self._line, suppress(OSError):
            self._line.send(_BEGIN)
        return self.child if self.child.poll() is None else None

    def close(self) -> None:
        """It is not needed."""
        self._line.close()
        self.child.kill()  # it holds nothing, and may be busy importing
        self.child.wait()


def stand_ready() -> None:
    """To be called when all is imported: in a spare it returns when its time has come.

    Raises `SystemExit` where that will not be.
    """
    if os.environ.pop(_NAME, None) is None:
        return
    with suppress(BrokenPipeError):
        os.write(0, _READY)
    if os.read(0, 1) != _BEGIN:
        raise SystemExit(0)
