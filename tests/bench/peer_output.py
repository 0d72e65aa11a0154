"""What a stream processor put out: whether it is each key and window once, and the right values."""

from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from schemas.frames import decode_frame
from schemas.system import SystemSpec
from schemas.topics import topic
from streams import bench_align
from streams.topic_io import read_to_end

KEYS: Final = 200
WINDOW_US: Final = 100_000
_CHANNELS: Final = ("temperature", "pressure", "speed", "load")
_FIRST: Final = bench_align.BEGIN_US // WINDOW_US
Row = tuple[int, str, Any]
"""A window, a key, and the values."""


class Output(NamedTuple):
    """Results in all; of those that count, how many are absent; and how many are none or twice."""

    results: int
    missing: int
    twice: int
    wrong: int

    @property
    def complete(self) -> bool:
        """Whether every window that counts came out, and nothing twice or otherwise."""
        return not (self.missing or self.twice or self.wrong)


def of_peer(config: Mapping[str, str], out: str, wanted: int, there: int) -> Output:
    """The results on a topic, of `there` readings the first `wanted` of which count."""
    found = read_to_end(config["bootstrap.servers"], config, out)
    return check((row_of(m.key(), m.value() or b"") for m in found), wanted, there)


def of_frames(config: Mapping[str, str], spec: SystemSpec, wanted: int, there: int) -> Output:
    """The aligner's results: the rows of its frames that are new at their tick."""
    found = read_to_end(config["bootstrap.servers"], config, topic(spec, "frames"))
    return check(_rows(spec, (m.value() or b"" for m in found)), wanted, there)


def _rows(spec: SystemSpec, values: Iterable[bytes]) -> Iterable[Row]:
    for value in values:
        frame = decode_frame(spec, value)
        window = frame.header.time_us // WINDOW_US - 1  # the one that ends at the tick
        new = np.flatnonzero((frame.ages < WINDOW_US / 1e6).all(axis=1))
        for row in new.tolist():
            yield window, frame.entities[row], frame.values[row]


def row_of(key: bytes | None, value: bytes) -> Row:
    """One result in JSON: a reading, or that in `value`, or the start of a window and its key."""
    found = msgspec.json.decode(value)
    reading = found["value"] if isinstance(found.get("value"), dict) else found
    time_us = reading["ts"] if "ts" in reading else reading["start"]
    name = (key or b"").decode() if "key" not in found else str(found["key"])
    return time_us // WINDOW_US, name, [reading[channel] for channel in _CHANNELS]


def check(rows: Iterable[Row], wanted: int, there: int) -> Output:
    """Compares results with the readings from which they come, one per key and window."""
    numbers: list[int] = []
    values: list[Any] = []
    for window, name, row in rows:
        numbers.append((window - _FIRST) * KEYS + int(name.removeprefix("device-")))
        values.append(row)
    number = np.array(numbers, dtype=np.int64)
    found: npt.NDArray[np.float64] = np.array(values, dtype=np.float64).reshape(-1, 4)
    inside = (number >= 0) & (number < there)
    counts = np.bincount(number[inside], minlength=there)
    wrong = ~inside | (found != bench_align.values_of(number)).any(axis=1)
    missing, twice = (counts[:wanted] == 0).sum(), np.maximum(counts - 1, 0).sum()
    return Output(len(number), int(missing), int(twice), int(wrong.sum()))
