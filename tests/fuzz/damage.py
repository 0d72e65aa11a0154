"""How valid bytes are damaged: cuts, copies and numbers, so that what is deep inside is met."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import strategies as st

_NUMBERS = [0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 2**63 - 1]
_WORDS = [b"null", b"1e999", b"-0", b"NaN", b"[", b"{", b'"', b"\n", b"&a ", b"*a", b"<<: ", b"\0"]


@st.composite
def damaged(draw: st.DrawFn, seeds: Sequence[bytes]) -> bytes:
    """One of `seeds` after up to eight changes, or now and then anything at all."""
    if draw(st.integers(0, 30)) == 0:
        return draw(st.binary(max_size=200))
    data = bytearray(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(0, 8))):
        _change(draw, data)
    return bytes(data)


def _change(draw: st.DrawFn, data: bytearray) -> None:
    at, kind = draw(st.integers(0, len(data))), draw(st.integers(0, 6))
    if kind == 0 and at < len(data):
        data[at] ^= 1 << draw(st.integers(0, 7))
    elif kind == 1 and at < len(data):
        data[at] = draw(st.integers(0, 255))
    elif kind == 2:
        data[at : at + draw(st.integers(1, 16))] = b""
    elif kind == 3:
        data[at:at] = draw(st.sampled_from(_WORDS) | st.binary(min_size=1, max_size=8))
    elif kind == 4:
        width = draw(st.sampled_from([1, 2, 4, 8]))
        number = draw(st.sampled_from(_NUMBERS)) & ((1 << 8 * width) - 1)
        data[at : at + width] = number.to_bytes(width, draw(st.sampled_from(["little", "big"])))
    elif kind == 5:
        source = draw(st.integers(0, len(data)))
        data[at:at] = data[source : source + draw(st.integers(1, 64))]
    else:
        del data[at:]
