"""A Bloom filter (Bloom 1970) in blocks: which keys a file may hold, in ten bits a key.

All bits of a key are in one block (Putze, Sanders and Singler 2007), so that whoever looks for it
reads that block, however many keys there are. An action id is a digest already, so its own bits are
the hash: the upper 31 choose the block, others give the first place in it and the stride of all
further ones (Kirsch and Mitzenmacher 2006).
"""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

Keys = npt.NDArray[np.uint64]
BITS: Final = 10  # a key at most; with `HASHES` places each, 0.9 % of others seem to be there
HASHES: Final = 7
BLOCK_BYTES: Final = 4_096  # a power of two, so that an odd stride comes to every place
_DIGITS: Final = 16  # of an action id
_AT_ONCE: Final = 16_384  # keys: some 5 ms
_PLACES: Final = 8 * BLOCK_BYTES


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


def block_number(keys: Keys) -> npt.NDArray[np.int64]:
    """[keys] a number of 31 bits each; the key's block is that modulo the number of blocks."""
    return (keys >> np.uint64(33)).astype(np.int64)


def filter_of(keys: Keys) -> list[bytes]:
    """The blocks of a filter that holds these keys: one at least."""
    work = filling(keys)
    while True:
        try:
            next(work)
        except StopIteration as done:
            return done.value  # type: ignore[no-any-return]


def filling(keys: Keys) -> Generator[None, None, list[bytes]]:
    """As `filter_of`, with a pause for whoever calls after each few thousand keys."""
    blocks = max(1, -(-BITS * len(keys) // _PLACES))
    marks = np.zeros((blocks, _PLACES), bool)
    for begin in range(0, len(keys), _AT_ONCE):
        some = keys[begin : begin + _AT_ONCE]
        at = block_number(some) % blocks
        for number in range(HASHES):
            marks[at, _places(some, number)] = True
        yield
    return [bits.tobytes() for bits in np.packbits(marks, axis=1)]


def may_hold(block: bytes, keys: Keys) -> npt.NDArray[np.bool_]:
    """[keys] whether a filter may hold each whose block this is; where False, it does not."""
    found = np.ones(len(keys), bool)
    marks = np.frombuffer(block, np.uint8)
    for number in range(HASHES):
        at = _places(keys, number)
        found &= (marks[at >> 3] & (0x80 >> (at & 7))) > 0
    return found


def _places(keys: Keys, number: int) -> npt.NDArray[np.intp]:
    first = keys >> np.uint64(18)
    stride = (keys & np.uint64(0x3_FFFF)) | np.uint64(1)
    places = (first + np.uint64(number) * stride) & np.uint64(_PLACES - 1)
    return places.astype(np.intp)


def _is_id(text: str) -> bool:
    return len(text) == _DIGITS and not set(text.lower()) - set("0123456789abcdef")


__all__ = [
    "BITS",
    "BLOCK_BYTES",
    "HASHES",
    "Keys",
    "block_number",
    "filling",
    "filter_of",
    "keys_of",
    "keys_of_entities",
    "may_hold",
]
