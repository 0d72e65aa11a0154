"""SIGINT and SIGTERM: a command ends through its clean-up, wherever it was started from.

A shell starts background jobs with SIGINT ignored, and Python leaves it so: whoever sends one to
such a process means it, so handlers are set all the same.
"""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Final

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


def raise_interrupt() -> None:
    """From now on SIGINT and SIGTERM raise `KeyboardInterrupt` in the main thread."""
    for number in SIGNALS:
        signal.signal(number, signal.default_int_handler)


@contextlib.contextmanager
def interrupting() -> Iterator[None]:
    """The first SIGINT or SIGTERM raises `KeyboardInterrupt`; no later one stops the clean-up."""

    def handle(*_: object) -> None:
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    with _handled(handle):
        yield


@contextlib.contextmanager
def stopping() -> Iterator[threading.Event]:
    """An event that SIGINT and SIGTERM set, so that work ends cleanly; a second SIGINT interrupts.

    For what is begun in there may not look at the event for a while, such as a wait for a broker.
    """
    event = threading.Event()

    def handle(number: int, _: object) -> None:
        if event.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        event.set()

    with _handled(handle):
        yield event


@contextlib.contextmanager
def _handled(handle: Callable[[int, object], None]) -> Iterator[None]:
    before = {number: signal.signal(number, handle) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
