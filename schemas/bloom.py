"""A Bloom filter (Bloom 1970): which keys a file may hold, in ten bits a key.

An action id is a digest already, so its own bits are the hash: the two halves of its 64 bits give
the first place and the stride of all others (Kirsch and Mitzenmacher 2006).
"""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

Keys = npt.NDArray[np.uint64]
BITS: Final = 10  # a key; with `HASHES` places each, 0.8 % of other keys seem to be there
HASHES: Final = 7
_DIGITS: Final = 16  # of an action id
_AT_ONCE: Final = 16_384  # keys: some 5 ms
_SMALLEST: Final = 1_024  # bits: in a tiny filter places with one stride fall on each other


def keys_of(action_ids: Sequence[str]) -> Keys:
    """[ids] their keys: the numbers that the hexadecimal digits are.

    Raises:
        ValueError: names the first id that is not 16 hexadecimal digits.
    """
    try:
        data = bytes.fromhex("".join(action_ids))
    except ValueError:
        data = b""
    if 2 * len(data) != _DIGITS * len(action_ids) or {*map(len, action_ids)} - {_DIGITS}:
        wrong = next(one for one in action_ids if not _is_id(one))
        raise ValueError(f"{wrong!r} is no action id: those have 16 hexadecimal digits")
    return np.frombuffer(data, ">u8").astype(np.uint64)


def keys_of_entities(names: Sequence[str]) -> Keys:
    """[names] the keys under which entities stand in the same filter as their actions."""
    digests = (hashlib.blake2b(name.encode(), digest_size=8).digest() for name in names)
    return np.frombuffer(b"".join(digests), ">u8").astype(np.uint64)


def filter_of(keys: Keys) -> bytes:
    """A filter that holds these keys; its length says its size."""
    work = filling(keys)
    while True:
        try:
            next(work)
        except StopIteration as done:
            return done.value  # type: ignore[no-any-return]


def filling(keys: Keys) -> Generator[None, None, bytes]:
    """As `filter_of`, with a pause for whoever calls after each few thousand keys."""
    size = max(_SMALLEST, -(-BITS * len(keys) // 8) * 8)
    marks = np.zeros(size, bool)
    for begin in range(0, len(keys), _AT_ONCE):
        for number in range(HASHES):
            marks[_places(keys[begin : begin + _AT_ONCE], number, size)] = True
        yield
    return np.packbits(marks).tobytes()


def may_hold(bits: bytes, keys: Keys) -> npt.NDArray[np.bool_]:
    """[keys] whether the filter may hold each; where False, it does not."""
    found = np.ones(len(keys), bool)
    marks = np.frombuffer(bits, np.uint8)
    for number in range(HASHES):
        at = _places(keys, number, 8 * len(bits))
        found &= (marks[at >> 3] & (0x80 >> (at & 7))) > 0
    return found


def _places(keys: Keys, number: int, size: int) -> npt.NDArray[np.intp]:
    stride = (keys & np.uint64(0xFFFF_FFFF)) | np.uint64(1)
    places = ((keys >> np.uint64(32)) + np.uint64(number) * stride) % np.uint64(size)
    return places.astype(np.intp)


def _is_id(text: str) -> bool:
    return len(text) == _DIGITS and not set(text.lower()) - set("0123456789abcdef")


__all__ = [
    "BITS",
    "HASHES",
    "Keys",
    "filling",
    "filter_of",
    "keys_of",
    "keys_of_entities",
    "may_hold",
]
