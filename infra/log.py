"""What our own processes say: one line an event, through Python's logging, with facts beside it."""

import logging
import sys
from typing import Final

ROOT: Final = "rehearse"
"""The logger above all of ours; who uses a part of us in a program of theirs may configure it."""
_WIDTH: Final = 30
_COLOURS: Final = {"debug": "34", "info": "32", "warning": "33", "error": "31"}


class Log:
    """Tells the events of one part of the program.

    `Log("worker").info("worker ready", seconds=0.8)`: what does not change from one such event to
    the next is the text, what does stands beside it.
    """

    def __init__(self, part: str) -> None:
        self._logger = logging.getLogger(f"{ROOT}.{part}")

    def debug(self, event: str, **facts: object) -> None:
        """For whoever looks for a defect; not shown otherwise."""
        self._say(logging.DEBUG, event, facts)

    def info(self, event: str, **facts: object) -> None:
        """All is well."""
        self._say(logging.INFO, event, facts)

    def warning(self, event: str, **facts: object) -> None:
        """It goes on, but something is to be known."""
        self._say(logging.WARNING, event, facts)

    def error(self, event: str, **facts: object) -> None:
        """Something is lost, or does not go on."""
        self._say(logging.ERROR, event, facts)

    def _say(self, level: int, event: str, facts: dict[str, object]) -> None:
        if self._logger.isEnabledFor(level):
            said = " ".join(f"{name}={_plain(facts[name])}" for name in sorted(facts))
            self._logger.log(level, f"{event:<{_WIDTH}} {said}" if said else event)


def _plain(value: object) -> str:
    """A fact as one word: with quotes where it has spaces, and on one line whatever it is."""
    text = str(value)
    simple = bool(text) and text.isprintable() and not set(text) & set(" \"'=")
    return text if simple or not isinstance(value, str) else repr(value)


class Lines(logging.Formatter):
    """When, how grave, what: `12:30:01.250 [info     ] worker ready   seconds=0.8`."""

    default_time_format = "%H:%M:%S"
    default_msec_format = "%s.%03d"

    def __init__(self, colours: bool) -> None:
        super().__init__()
        self._colours = colours

    def format(self, record: logging.LogRecord) -> str:
        """The line of a record."""
        name = record.levelname.lower()
        grave = f"{name:<9}"
        if self._colours:
            grave = f"\x1b[{_COLOURS[name]}m{grave}\x1b[0m"
        return f"{self.formatTime(record)} [{grave}] {record.getMessage()}"


def show_events() -> None:
    """Has our own events, from INFO on, written to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Lines(sys.stderr.isatty()))
    ours = logging.getLogger(ROOT)
    ours.handlers, ours.propagate = [handler], False
    ours.setLevel(logging.INFO)
