"""Logging of every process: to standard error, one line per event."""

import logging
import sys
import time
from collections.abc import Callable

from infra.log import show_events

REPEAT_S = 10.0
_KEPT = 1_000  # sorts of lines that are remembered


class Seldom(logging.Filter):
    """Lets a line of a library through once in `REPEAT_S`, and the next one says how many were not.

    While a broker is away, its clients say so ten times a second each.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._seen: dict[tuple[str, str], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is shown; those of one logger and template are of one sort."""
        sort, now = (record.name, str(record.msg)), self._clock()
        since, dropped = self._seen.get(sort, (-REPEAT_S, 0))
        if now - since < REPEAT_S:
            self._seen[sort] = (since, dropped + 1)
            return False
        if len(self._seen) >= _KEPT:
            self._seen.clear()
        self._seen[sort] = (now, 0)
        if dropped:
            record.msg = f"{record.msg} (and {dropped} more like it before)"
        return True


def set_up_logging() -> None:
    """Our own events from INFO on, those of libraries from WARNING on, to standard error."""
    logging.basicConfig(
        level=logging.WARNING,
        stream=sys.stderr,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    for handler in logging.getLogger().handlers:
        handler.addFilter(Seldom())
    show_events()
