"""Writers' schemas by id: looked up in the spec, else asked of the registry by a thread.

Nobody waits for an answer here. What is asked for is on its way, and then here, or refused; where
the registry has not answered for `patience_s`, what is on its way is refused until it does.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Thread
from typing import Final

from infra.log import Log
from infra.registry import VARIABLE, Registry, RegistryDown, Schema, UnknownSchema
from streams.codecs.base import Refused

NO_REGISTRY: Final = (
    f"no registry is named: give -X schema.registry.url=…, set {VARIABLE}, or name the schema in "
    "the spec"
)
_FORGET_S: Final = 10.0  # after which an id that nobody knew may be asked for again
_ATTEMPTS: Final = 64  # unknown ids in that time, beyond which no others are asked for
_RETRY_S: Final = 1.0
_REMIND_S: Final = 30.0

_log = Log("schemas")


@dataclass
class _Entry:
    """What is known of an id: it is on its way until one of the others is there."""

    schema: Schema | None = None
    refused: Refused | None = None
    until: float = float("inf")  # when a refusal is forgotten
    failing_since: float | None = None  # when the registry first had no answer for it


class Schemas:
    """The schemas of a registry, as far as they were asked for.

    Args:
        registry: where unknown ids are asked for; None: nowhere.
        patience_s: for how long the registry may be silent before what it should say is refused.
        clock: seconds, for tests.
    """

    def __init__(
        self,
        registry: Registry | None = None,
        patience_s: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.registry, self._patience, self._clock = registry, patience_s, clock
        self._entries: dict[int, _Entry] = {}
        self._wanted: SimpleQueue[int | str] = SimpleQueue()
        self._down_since: float | None = None
        self._why = ""
        self._reminded = -_REMIND_S
        self._thread: Thread | None = None

    def find(self, number: int) -> Schema | None:
        """The schema of an id; None while it is on its way. Raises `Refused`."""
        if self.registry is None:
            raise Refused("unknown_schema", f"schema {number}: {NO_REGISTRY}")
        entry = self._entries.get(number)
        if entry is None or (entry.refused is not None and self._clock() > entry.until):
            entry = self._ask(number)
        if entry.schema is not None:
            return entry.schema
        if entry.refused is not None:
            raise entry.refused
        since = [t for t in (self._down_since, entry.failing_since) if t is not None]
        if since and self._clock() - min(since) > self._patience:
            raise Refused("no_registry", f"schema {number}: {self._why}")
        return None

    def prepare(self, subjects: Iterable[str]) -> None:
        """Asks for the newest schemas of subjects before a message needs them."""
        if self.registry is not None:
            for subject in subjects:
                self._put(subject)

    def _ask(self, number: int) -> _Entry:
        now = self._clock()
        unknown = sum(e.refused is not None and e.until > now for e in self._entries.values())
        if unknown >= _ATTEMPTS:
            detail = f"schema {number}: not asked for, after {unknown} that nobody knew"
            return _Entry(refused=Refused("unknown_schema", detail))
        for old in [n for n, e in self._entries.items() if e.refused is not None and now > e.until]:
            del self._entries[old]
        entry = self._entries[number] = _Entry()
        self._put(number)
        return entry

    def _put(self, wanted: int | str) -> None:
        self._wanted.put(wanted)
        if self._thread is None:
            self._thread = Thread(target=self._work, name="schemas", daemon=True)
            self._thread.start()

    # the thread

    def _work(self) -> None:
        while True:
            wanted = self._wanted.get()
            if isinstance(wanted, str):
                self._subject(wanted)
            else:
                self._number(wanted)

    def _subject(self, subject: str) -> None:
        assert self.registry is not None
        try:
            number, schema = self.registry.latest(subject)
        except (UnknownSchema, RegistryDown) as error:  # what its messages need is asked for again
            _log.info("schema not there yet", subject=subject, reason=str(error))
            return
        self._down_since = None
        self._entries[number] = _Entry(schema)

    def _number(self, number: int) -> None:
        assert self.registry is not None
        try:
            found = _Entry(self.registry.schema(number))
        except UnknownSchema as error:
            until = self._clock() + _FORGET_S
            found = _Entry(refused=Refused("unknown_schema", str(error)), until=until)
        except RegistryDown as error:
            self._failed(number, str(error))
            return
        if self._down_since is not None:
            _log.info("schema registry answers again", schema=number)
        self._down_since = None
        self._entries[number] = found

    def _failed(self, number: int, why: str) -> None:
        """Asks again a little later, after what else is wanted."""
        now = self._clock()
        entry = self._entries[number]
        self._why = why
        entry.failing_since = entry.failing_since or now
        self._down_since = self._down_since or now
        if time.monotonic() > self._reminded + _REMIND_S:
            self._reminded = time.monotonic()
            _log.warning("schema registry", reason=why, schema=number, retrying=True)
        time.sleep(_RETRY_S)
        self._wanted.put(number)
