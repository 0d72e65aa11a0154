"""Belief rows: what the worker believes about a whole cohort, and what its planner remembers."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from planner.session import Bundle, Posterior
from schemas.codes import Flag
from schemas.frames import Frame
from schemas.system import SystemSpec

FORMAT = 1
# An innovation beyond the calibrated band may be one bad reading; this many ticks in a row are not.
STRIKES = 3
F32 = npt.NDArray[np.float32]
Memory = Mapping[str, npt.NDArray[Any]]


class RowError(ValueError):
    """Bytes that are not a belief row; the message says why."""


@dataclass(frozen=True)
class Row:
    """The belief of a cohort of E entities after the frame of `tick`, and its planner's memory.

    The first part is a function of frames and bundle alone, whoever computed it, and is digested.
    `offset` (of the frame in its partition) and `memory` belong to one worker: never compared.

    hidden [E, H], mean and std [E, Z] float32: the posterior;  bundle: digest, "" without a model
    innovation [E] float32: normalised squared error of the prediction, NaN right after an anchor
    strikes [E] uint8: ticks in a row with an innovation beyond the calibrated band
    """

    cohort: int
    tick: int
    epoch: int  # of the aligner
    bundle: str
    entities: tuple[str, ...]
    hidden: F32
    mean: F32
    std: F32
    innovation: F32
    strikes: npt.NDArray[np.uint8]
    memory: Memory = field(default_factory=dict)
    offset: int = -1

    @classmethod
    def empty(cls, frame: Frame, bundle: str, hidden: int, latent: int) -> "Row":
        """Beliefs without content for the entities of `frame`: zeros, as before an anchor."""
        n = len(frame.entities)
        zeros = np.zeros((n, latent), np.float32)
        return cls(
            cohort=frame.cohort,
            tick=frame.tick,
            epoch=frame.header.epoch,
            bundle=bundle,
            entities=frame.entities,
            hidden=np.zeros((n, hidden), np.float32),
            mean=zeros,
            std=zeros,
            innovation=np.full(n, np.nan, np.float32),
            strikes=np.zeros(n, np.uint8),
        )

    @cached_property
    def digest(self) -> str:
        """32 hex digits over the first part; equal in every replay of the same frames."""
        parts = (self.cohort, self.tick, self.epoch, self.bundle, self.entities)
        content = hashlib.blake2b(msgspec.msgpack.encode(parts), digest_size=16)
        for array in (self.hidden, self.mean, self.std, self.innovation, self.strikes):
            content.update(np.ascontiguousarray(array).data)
        return content.hexdigest()

    @property
    def nbytes(self) -> int:
        """About as many bytes as `encode_row` makes of it."""
        floats = (self.hidden, self.mean, self.std, self.innovation)
        parts = sum(array.nbytes for array in (*floats, *self.memory.values()))
        return parts + sum(map(len, self.entities)) + 5 * len(self.entities)

    def carry(self, entities: tuple[str, ...]) -> tuple["Row", npt.NDArray[np.bool_]]:
        """The row for other `entities`, in their order, and which of them [E] it knows.

        Those that it does not know get zeros; those that left are forgotten. The memory is carried
        by the planner, which alone knows what stands in it.
        """
        if entities == self.entities:
            return self, np.ones(len(entities), bool)
        index = index_of(self.entities, entities)
        known = index >= 0
        moved: dict[str, Any] = {
            name: _gather(getattr(self, name), index, known)
            for name in ("hidden", "mean", "std", "innovation", "strikes")
        }
        return replace(self, entities=entities, **moved), known


def index_of(have: tuple[str, ...], want: tuple[str, ...]) -> npt.NDArray[np.intp]:
    """[len(want)] where each wanted entity stands in `have`; -1 where it does not."""
    places = {entity: i for i, entity in enumerate(have)}
    return np.array([places.get(entity, -1) for entity in want], dtype=np.intp)


def _gather(
    array: npt.NDArray[Any], index: npt.NDArray[np.intp], known: npt.NDArray[np.bool_]
) -> npt.NDArray[Any]:
    moved = np.zeros((len(index), *array.shape[1:]), array.dtype)
    moved[known] = array[index[known]]
    return moved


def update(
    spec: SystemSpec, bundle: Bundle, row: Row | None, frame: Frame
) -> tuple[Row, Posterior, npt.NDArray[np.bool_]]:
    """One tick of belief: the row after `frame`, the posterior, and who was anchored [E].

    Anchored is who is new, was reset, missed a tick, comes from another bundle, or whose
    predictions were beyond the calibrated band for `STRIKES` ticks: a belief from zeros and this
    frame's observation alone.
    """
    blank = Row.empty(frame, bundle.digest, bundle.hidden, bundle.latent)
    prior, known = blank, np.zeros(len(frame.entities), bool)
    if row is not None and row.bundle == bundle.digest and frame.tick == row.tick + 1:
        prior, known = row.carry(frame.entities)
    fresh = ~known | ((frame.flags & (Flag.JOINED | Flag.RESET)) != 0) | ~_finite(prior)
    posterior = _believe(spec, bundle, prior, frame, fresh)
    beyond = ~fresh & (posterior.innovation > bundle.innovation_band)
    strikes = np.where(beyond, prior.strikes + 1, 0).astype(np.uint8)
    lost = strikes >= STRIKES
    if lost.any():
        fresh = fresh | lost
        posterior = _believe(spec, bundle, prior, frame, fresh)
    after = replace(
        blank,
        hidden=posterior.h,
        mean=posterior.mean,
        std=posterior.std,
        innovation=np.where(fresh, np.float32(np.nan), posterior.innovation).astype(np.float32),
        strikes=np.where(fresh, 0, strikes).astype(np.uint8),
    )
    return after, posterior, fresh


def _finite(row: Row) -> npt.NDArray[np.bool_]:
    return np.asarray(np.isfinite(row.hidden).all(1) & np.isfinite(row.mean).all(1))


def _believe(
    spec: SystemSpec, bundle: Bundle, prior: Row, frame: Frame, fresh: npt.NDArray[np.bool_]
) -> Posterior:
    # As in training: an action that nobody knows is the safe one; no column is masked unseen.
    applied = np.where(np.isfinite(frame.applied), frame.applied, spec.action_safe)
    mask = np.isfinite(frame.values)
    hidden, mean = prior.hidden, prior.mean
    if fresh.any():
        hidden, mean = (np.where(fresh[:, None], np.float32(0), array) for array in (hidden, mean))
    return bundle.believe(
        hidden,
        mean,
        applied.astype(np.float32),
        np.where(mask, frame.values, 0.0).astype(np.float32),
        mask.astype(np.float32),
    )


class _Packed(msgspec.Struct, array_like=True, frozen=True):
    format: int
    cohort: int
    tick: int
    epoch: int
    bundle: str
    offset: int
    entities: tuple[str, ...]
    sizes: tuple[int, int]
    hidden: bytes
    mean: bytes
    std: bytes
    innovation: bytes
    strikes: bytes
    memory: dict[str, tuple[str, tuple[int, ...], bytes]]


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Packed)


def encode_row(row: Row) -> bytes:
    """The bytes of a row: MessagePack around the raw little-endian arrays."""
    return _encoder.encode(
        _Packed(
            FORMAT,
            row.cohort,
            row.tick,
            row.epoch,
            row.bundle,
            row.offset,
            row.entities,
            (row.hidden.shape[1], row.mean.shape[1]),
            row.hidden.tobytes(),
            row.mean.tobytes(),
            row.std.tobytes(),
            row.innovation.tobytes(),
            row.strikes.tobytes(),
            {name: (a.dtype.str, a.shape, a.tobytes()) for name, a in row.memory.items()},
        )
    )


def decode_row(data: bytes) -> Row:
    """The row in `data`, its arrays read-only. Raises `RowError`."""
    try:
        packed = _decoder.decode(data)
        if packed.format != FORMAT:
            raise RowError(f"a belief row of format {packed.format}; this version reads {FORMAT}")
        return _unpack(packed)
    except (msgspec.MsgspecError, ValueError, TypeError) as error:
        if isinstance(error, RowError):
            raise
        raise RowError(f"not a belief row: {error}") from error


def _unpack(packed: _Packed) -> Row:
    n, (hidden, latent) = len(packed.entities), packed.sizes

    def floats(data: bytes, *shape: int) -> F32:
        return np.frombuffer(data, "<f4").reshape(shape)

    return Row(
        cohort=packed.cohort,
        tick=packed.tick,
        epoch=packed.epoch,
        bundle=packed.bundle,
        entities=packed.entities,
        hidden=floats(packed.hidden, n, hidden),
        mean=floats(packed.mean, n, latent),
        std=floats(packed.std, n, latent),
        innovation=floats(packed.innovation, n),
        strikes=np.frombuffer(packed.strikes, np.uint8).reshape(n),
        memory={
            name: np.frombuffer(raw, dtype).reshape(shape)
            for name, (dtype, shape, raw) in packed.memory.items()
        },
        offset=packed.offset,
    )
