"""Messages that nobody should send: garbage of many kinds, for each kind of topic."""

import json
import random
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

from schemas.messages import WATERMARK_HEADER
from schemas.system import SystemSpec
from schemas.topics import Kind, topics_of

Make = Callable[[random.Random], bytes | None]
DOSES: Final = 12


class Dose(NamedTuple):
    """One bad record. `partition` -1: by its key."""

    topic: str
    key: bytes | None
    value: bytes | None
    partition: int = -1
    headers: tuple[tuple[str, bytes], ...] = ()


def doses(spec: SystemSpec, kind: Kind, entity: str, seed: int) -> Iterator[Dose]:
    """Bad records for the topics of a kind; none of them names a time that could be true."""
    rng = random.Random(seed)
    places = [found for found in topics_of(spec) if found.kind == kind]
    makers = [*_ANYWHERE, *_MORE.get(kind, ())]
    for _ in range(DOSES):
        place = rng.choice(places)
        partition = rng.randrange(place.partitions)
        key: bytes | None = entity.encode()
        headers: tuple[tuple[str, bytes], ...] = ()
        if kind in ("sensors", "applied") and rng.random() < 0.3:
            key = rng.choice((None, b"", b"\xff\xfe", b"k" * 2_000))
            headers = ((WATERMARK_HEADER, b"1"),) if rng.random() < 0.5 else ()
        elif kind in ("frames", "trajectories"):
            key = str(partition).encode()
        elif kind == "control":
            key = f"poison/{rng.randrange(3)}".encode()
        yield Dose(place.name, key, rng.choice(makers)(rng), partition, headers)


def _noise(rng: random.Random) -> bytes:
    return rng.randbytes(rng.choice((1, 7, 300, 20_000)))


def _cut(rng: random.Random) -> bytes:
    text = json.dumps({"ts": 1, "position": [0.0, 0.0], "tick": 1, "kind": "hold"}).encode()
    return text[: rng.randrange(1, len(text))]


def _nested(_: random.Random) -> bytes:
    return b'{"ts":' + b"[" * 10_000 + b"]" * 10_000 + b"}"


def _other_json(rng: random.Random) -> bytes:
    values: list[Any] = [None, 3, "text", [], {}, [1, 2], {"ts": None}, {"ts": "now"}, True]
    return json.dumps(rng.choice(values)).encode()


def _reading(rng: random.Random) -> bytes:
    """A reading of a robot whose time or numbers cannot be used."""
    whole: dict[str, Any] = {"position": [0.0, 0.0], "velocity": [0.0, 0.0], "goal": [0.0, 0.0]}
    wrong: list[dict[str, Any]] = [
        {"ts": float("nan")},
        {"ts": 1e300},
        {"ts": -1e15},
        {"ts": 9e18},
        {"ts": 5, "position": [1.0], "goal": [1.0, 2.0, 3.0]},
        {"ts": 5, "position": "here", "goal": {"x": 1}},
        {"ts": 5, "position": [1e400, -1e400], "goal": [float("inf"), 0.0]},
        {"ts": [5]},
    ]
    return json.dumps({**whole, **rng.choice(wrong)}).encode()


def _control(rng: random.Random) -> bytes:
    """Control records that are none, or that concern nobody."""
    said: list[Any] = [
        {"kind": "explode", "time": 0},
        {"kind": "hold"},
        {"kind": "hold", "time": "soon"},
        {"kind": "hold", "time": 0, "entity": "nobody-at-all"},
        {"kind": "override", "time": 0, "entity": "nobody-at-all", "values": {"wings": 1.0}},
        {"kind": "budget", "time": 0, "entity": "nobody-at-all", "tier": 7},
    ]
    return json.dumps(rng.choice(said)).encode()


def _outcome(rng: random.Random) -> bytes:
    said: list[Any] = [{"kind": "end"}, {"kind": "end", "entity": 3, "tick": "x", "time": None}]
    return json.dumps(rng.choice(said)).encode()


def _nothing(_: random.Random) -> None:
    return None


def _empty(_: random.Random) -> bytes:
    return b""


def _arrow_like(rng: random.Random) -> bytes:
    """Begins like an Arrow IPC stream, and is none."""
    return b"\xff\xff\xff\xff" + rng.randrange(1, 2**31).to_bytes(4, "little") + rng.randbytes(200)


_ANYWHERE: Final[tuple[Make, ...]] = (_noise, _cut, _nested, _other_json, _nothing, _empty)
_MORE: Final[dict[Kind, tuple[Make, ...]]] = {
    "sensors": (_reading, _reading, _reading, _reading),
    "control": (_control, _control, _control),
    "outcomes": (_outcome, _outcome),
    "frames": (_arrow_like, _arrow_like),
    "trajectories": (_arrow_like, _arrow_like),
}
