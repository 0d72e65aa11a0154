"""When a run is over: all that came has been read, decided, or refused. Pure, but for its clock."""

import time
from collections.abc import Callable, Mapping
from typing import Final

from schemas.frames import Frame, Offsets

STILL_S: Final = 5.0
"""After which a loop that says nothing new has dealt with all that it will."""

Ends = Mapping[tuple[str, int], int]
"""Topic and partition → the offset after its last record."""


class Settling:
    """Looks at the newest frames until the aligner has read what there is.

    That all frames are decided is not enough: after an outage at its end a stream's last readings
    come when the frames before them were decided long ago. Where their entities are forgotten by
    then, no frame will say that they were read; so a loop that is still has settled as well.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._said, self._since = clock, dict[tuple[str, int], int](), clock()

    def look(self, newest: Mapping[int, Frame], sensors: Ends, said: Ends) -> bool:
        """Whether all has been dealt with.

        Args:
            newest: the last frame of each cohort, all decided.
            sensors: the ends of what the aligner reads.
            said: the ends of what it writes, frames and dead letters.
        """
        if dict(said) != self._said:
            self._said, self._since = dict(said), self._clock()
        last = max(newest.values(), key=lambda frame: frame.header.seen_us, default=None)
        read = last is not None and _covers(last.header.positions, sensors)
        return read or self._clock() - self._since >= STILL_S

    def interrupted(self) -> None:
        """No broker answered: nobody can say anything meanwhile."""
        self._said = {}


def _covers(positions: Offsets, ends: Ends) -> bool:
    return all(positions.get(name, {}).get(part, 0) >= end for (name, part), end in ends.items())


__all__ = ["STILL_S", "Ends", "Settling"]
