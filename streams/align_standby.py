"""Standing by: what an aligner would say, kept until the active one has said it, or falls silent.

A standby reads what the active one reads and makes the same frames. So it needs nobody to tell it
that something is due: a frame that closed here and does not come there is what it waits for.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Final

from schemas.frames import Frame, FrameHeader
from schemas.messages import DeadLetter

SILENT_S: Final = 1.5
"""For how long the active aligner may leave out what is due."""
_AT_ONCE_S: Final = 0.25
"""Of a time in which nobody looked no more counts: the machine may have stood still for both."""
_FULL: Final = 20_000


class Kept:
    """Frames and dead letters that were not published here.

    Args:
        last: the last frame that counts of each cohort, as of now.
        margin: ticks by which cohorts may be apart.
    """

    def __init__(self, last: Iterable[Frame] = (), margin: int = 64) -> None:
        self._said = {frame.cohort: (frame.tick, frame.header.epoch) for frame in last}
        self._newest = max((tick for tick, _ in self._said.values()), default=None)
        self._margin = margin
        self._frames: list[Frame] = []  # in the order in which they closed
        self._letters: list[DeadLetter] = []
        self._silent_s = 0.0

    def __bool__(self) -> bool:
        return bool(self._frames or self._letters)

    @property
    def full(self) -> bool:
        """Whether the active one is far behind: reading on would only fill memory."""
        return len(self._frames) + len(self._letters) > _FULL

    def closed(self, frames: Sequence[Frame], letters: Sequence[DeadLetter]) -> None:
        """Keeps what closed here, but for what was said already."""
        self._frames.extend(self.unsaid(frames))
        self._letters.extend(letters)

    def unsaid(self, frames: Sequence[Frame]) -> list[Frame]:
        """Those of `frames` that nobody published yet."""
        return [frame for frame in frames if not self._is_said(frame)]

    def heard(self, headers: Sequence[FrameHeader]) -> None:
        """Lets go of what others said. Repeated ticks and lower epochs are passed over."""
        counted = [header for header in headers if self._counts(header)]
        if not counted:
            return
        self._silent_s = 0.0
        self._frames = self.unsaid(self._frames)
        # What had been read when a frame closed was complained of by then.
        read = counted[-1].positions
        self._letters = [
            letter
            for letter in self._letters
            if letter.offset >= read.get(letter.topic, {}).get(letter.partition, 0)
        ]

    def _counts(self, header: FrameHeader) -> bool:
        before = self._said.get(header.cohort)
        if before is not None and (header.tick <= before[0] or header.epoch < before[1]):
            return False
        self._said[header.cohort] = (header.tick, header.epoch)
        self._newest = header.tick if self._newest is None else max(self._newest, header.tick)
        return True

    def _is_said(self, frame: Frame) -> bool:
        """Whether a frame came from others, or they went on without it long ago."""
        said = self._said.get(frame.cohort)
        if said is not None and frame.tick <= said[0]:
            return True
        return self._newest is not None and frame.tick < self._newest - self._margin

    def silent(self, passed_s: float) -> bool:
        """Whether something is due, and nothing came for too long; `passed_s` since the last call.

        Time counts from when the first frame was due: before, the others had nothing to say.
        """
        self._silent_s += min(passed_s, _AT_ONCE_S) if self._frames else -self._silent_s
        return self._silent_s >= SILENT_S

    def wait_anew(self) -> None:
        """Gives the active one all its time again."""
        self._silent_s = 0.0

    def take(self) -> tuple[list[Frame], list[DeadLetter]]:
        """What is kept, to be published from here; nothing is kept any more."""
        frames, letters = self._frames, self._letters
        self._frames, self._letters = [], []
        return frames, letters


def at_epoch(frame: Frame, epoch: int) -> Frame:
    """A frame that was made before its aligner's epoch was known."""
    if frame.header.epoch == epoch:
        return frame
    return replace(frame, header=replace(frame.header, epoch=epoch))
