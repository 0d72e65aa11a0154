"""What a person may ask of a replay while it runs: pause, step, back, seek, slower, faster, end."""

from __future__ import annotations

import os
import re
import select
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Final, Protocol

from schemas.clock import parse_duration, tick_of, tick_time
from schemas.trajectories import KEY_FRAME_EVERY
from streams.plant import Stop
from streams.replay_deck import Deck, Played
from streams.target import Pace

KEYS: Final = (
    "space: go on or pause   n →: next tick   b ←: one back   ] [: 64 on or back   "
    "g: go to …   + -: faster, slower   q: end"
)
# Of a terminal: what it sends for a key, and the command that this is.
_TERMINAL: Final = {
    " ": "p",
    "\r": "n",
    "\n": "n",
    "\x1b[C": "n",
    "\x1b[D": "b",
    "\x1b[5~": "[",
    "\x1b[6~": "]",
    "\x04": "q",
}
_KEY: Final = re.compile(r"\x1b\[[0-9;]*[A-Za-z~]|.", re.DOTALL)
_WAIT_S: Final = 0.1
OnTick = Callable[[int, list[Played]], None]


class Commands(Protocol):
    """Where commands come from: keys of a terminal, lines of a file, or a test."""

    def next(self, wait_s: float) -> str | None:
        """The next command; None where there is none within `wait_s`; "q" at the end of all."""


class Lines:
    """Commands from a pipe, one a line: `n 3`, `b`, `g 70`, `p`; its end is the end."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor, self._text, self._ended = descriptor, "", False

    def next(self, wait_s: float) -> str | None:
        """See `Commands`."""
        if "\n" not in self._text and not self._ended:
            if not select.select([self._descriptor], [], [], wait_s)[0]:
                return None
            read = os.read(self._descriptor, 4096).decode(errors="replace")
            self._ended = not read
            self._text += read
        line, end, self._text = self._text.partition("\n")
        if not end and not line and self._ended:
            return "q"
        return line.strip() or "n"


class Keys:
    """Commands from a terminal, a key each; `g` asks where to."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._waiting: list[str] = []
        self._asked: str | None = None

    def next(self, wait_s: float) -> str | None:
        """See `Commands`."""
        if not self._waiting:
            if not select.select([self._descriptor], [], [], wait_s)[0]:
                return None
            read = os.read(self._descriptor, 1024).decode(errors="replace")
            self._waiting = _KEY.findall(read) or ["\x04"]
        key = self._waiting.pop(0)
        if self._asked is not None:
            return self._typed(key)
        if key == "g":
            self._asked = ""
            self._echo("go to tick, date, or seconds from the beginning (90 s): ")
            return None
        return _TERMINAL.get(key, key)

    def _typed(self, key: str) -> str | None:
        """One key of the answer to `g`; the command once it is whole."""
        asked = self._asked or ""
        if key in ("\r", "\n"):
            self._asked = None
            self._echo("\n")
            return f"g {asked}" if asked.strip() else None
        if key == "\x7f":
            self._asked = asked[:-1]
            self._echo("\b \b" if asked else "")
        elif key.isprintable():
            self._asked = asked + key
            self._echo(key)
        return None

    def _echo(self, text: str) -> None:
        sys.stderr.write(text)
        sys.stderr.flush()


@contextmanager
def from_stdin() -> Iterator[Commands]:
    """Keys of the terminal that standard input is, else the lines that come from it."""
    descriptor = sys.stdin.fileno()
    if not sys.stdin.isatty():
        yield Lines(descriptor)
        return
    import termios
    import tty

    before = termios.tcgetattr(descriptor)
    try:
        tty.setcbreak(descriptor)
        yield Keys(descriptor)
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


class Player:
    """Plays a deck from `first` to `last`, at a pace and as far as commands do not say otherwise.

    With commands it begins paused, and pauses at the end, until `q`.
    """

    def __init__(
        self,
        deck: Deck,
        pace: Pace,
        on_tick: OnTick,
        stop: Stop | None = None,
        commands: Commands | None = None,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        self._deck, self._pace, self._on_tick = deck, pace, on_tick
        self._stop, self._commands, self._say = stop, commands, say
        self.last: int | None = None
        self.paused = commands is not None
        self.idle_s = 0.0  # for which it was paused
        self._shown: int | None = None
        self._target = deck.ticks[0]  # ticks before it are decided, and not shown
        self._steps = 0

    def seek(self, tick: int) -> None:
        """Goes to before `tick`: what it needs from before is decided without being shown."""
        self._deck.seek(tick)
        self._pace.again()
        self._target = tick

    def run(self) -> bool:
        """Plays; returns whether it came to the end."""
        while not (self._stop and self._stop.is_set()):
            tick = self._upcoming()
            if tick is not None and tick < self._target:
                self._deck.counts["lead"] += len(self._deck.play())
            elif self._commands is None:
                if tick is None:
                    return True
                self._pace.wait(self._time(tick), self._stop)
                self._play(tick)
            elif self._steps and tick is not None:
                self._play(tick)
            elif not self._listen(tick):
                return tick is None
        return False

    def _upcoming(self) -> int | None:
        tick = self._deck.upcoming
        return None if tick is None or (self.last is not None and tick > self.last) else tick

    def _time(self, tick: int) -> int:
        return tick_time(tick, self._deck.spec.epoch_us, self._deck.spec.period_us)

    def _play(self, tick: int) -> None:
        if self._stop and self._stop.is_set():  # while it waited
            return
        self._steps = max(0, self._steps - 1)
        self._shown = tick
        self._on_tick(tick, self._deck.play())

    def _listen(self, tick: int | None) -> bool:
        """Does the next command, or plays `tick` once it is due; false: it is to end."""
        assert self._commands is not None
        if tick is None and (self._steps or not self.paused):
            self.paused, self._steps = True, 0
            self._say("this is the end of the recording")
        left = 0.0 if self.paused or tick is None else self._pace.left_s(self._time(tick))
        began = time.monotonic()
        command = self._commands.next(_WAIT_S if self.paused else max(0.0, min(left, _WAIT_S)))
        if self.paused:
            self.idle_s += time.monotonic() - began
        if command == "q":
            return False
        if command is not None:
            try:
                self._do(*command.split(maxsplit=1))
            except ValueError as error:
                self._say(str(error))
        elif tick is not None and not self.paused and self._pace.left_s(self._time(tick)) <= 0:
            self._play(tick)
        return True

    def _do(self, name: str, argument: str = "1") -> None:
        """Does one command. Raises `ValueError` that says what can be done."""
        if name == "p":
            self.paused = not self.paused
            self._pace.again()
        elif name in ("+", "-"):
            self._hurry(name)
        elif name == "n":
            self.paused, self._steps = True, _count(argument)
        elif name in ("b", "[", "]"):
            far = _count(argument) * (1 if name == "b" else KEY_FRAME_EVERY)
            self._go(self._beside(far if name == "]" else -far))
        elif name == "g":
            self._go(self._where(argument))
        else:
            raise ValueError(KEYS)

    def _hurry(self, sign: str) -> None:
        rate = self._pace.rate
        if sign == "+":
            self._pace.rate = None if rate is None else rate * 2
        else:
            self._pace.rate = 1.0 if rate is None else rate / 2
        self._pace.again()
        rate = self._pace.rate
        self._say("full speed" if rate is None else f"{rate:g} times real time")

    def _go(self, tick: int) -> None:
        self.seek(tick)
        self.paused, self._steps = True, 1

    def _beside(self, ticks: int) -> int:
        """The tick that lies so many ticks of the recording behind or before the one shown."""
        known = self._deck.ticks
        here = 0 if self._shown is None else known.index(self._shown)
        return known[max(0, min(len(known) - 1, here + ticks))]

    def _where(self, text: str) -> int:
        spec, known = self._deck.spec, self._deck.ticks
        tick = tick_at(text, known[0], spec.epoch_us, spec.period_us)
        if not known[0] <= tick <= known[-1]:
            raise ValueError(f"tick {tick} is not in the recording: {known[0]} to {known[-1]}")
        return tick


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f"{text!r} is no count of ticks")
    return int(text)


def tick_at(text: str, first: int, epoch_us: int, period_us: int, last: bool = False) -> int:
    """The tick that a number, a date, or a duration from the first tick names.

    Between two ticks it is the next one, as for readings; with `last`, the one before.
    """
    early = period_us - 1 if last else 0
    text = text.strip()
    if text.lstrip("-").isdecimal():
        return int(text)
    try:
        return first + tick_of(parse_duration(text) - early, 0, period_us)
    except ValueError:
        pass
    try:
        date = datetime.fromisoformat(text)
    except ValueError as error:
        raise ValueError(
            f"{text!r}: give a tick, a date like 2026-05-01T12:00, or '90 s' from the beginning"
        ) from error
    aware = date if date.tzinfo else date.replace(tzinfo=UTC)
    return tick_of(round(aware.timestamp() * 1e6) - early, epoch_us, period_us)
