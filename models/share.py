"""One training in several processes: which part of every batch is whose, and how parts add up.

Every process draws the same whole batch and the same noise, computes the losses of its own rows
over what all rows count, and adds up gradients with the others. So the sum is the gradient of the
whole batch, whatever the number of processes, but for the order in which floats are added.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

PATIENCE = timedelta(minutes=10)
"""How long one process is waited for: reading logs may take that much longer there than here."""


class ShareError(RuntimeError):
    """The processes of a training do not go on together; the message says why, and the remedy."""


@dataclass(frozen=True)
class Share:
    """What one of `count` processes does; alone, it is all, and nothing is sent.

    Attributes:
        rank: 0 is the one that writes and tells.
    """

    rank: int = 0
    count: int = 1

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes and tells."""
        return self.rank == 0

    def part(self, total: int, members: int = 1) -> Part:
        """This process's rows of `total`, which are ordered by member, as many of each member."""
        per = total // members
        own = slice(per * self.rank // self.count, per * (self.rank + 1) // self.count)
        if self.count == 1:
            return Part(total, None)
        return Part(total, torch.arange(total).view(members, per)[:, own].flatten())

    def check(self, rows: int, field: str, of: str) -> None:
        """Raises `ShareError` where some process would have none of `field`'s rows."""
        if rows < self.count > 1:
            raise ShareError(
                f"{field}: {rows} {of} are too few for {self.count} processes: raise it, or start "
                "fewer processes"
            )

    def total(self, value: Tensor) -> Tensor:
        """The sum over all processes; no gradient flows through it."""
        return value if self.count == 1 else _added(value.detach())

    def whole(self, parts: Sequence[Tensor], part: Part, dim: int) -> list[Tensor]:
        """Tensors of all rows, of tensors `[..., rows, ·]` of which each process has its part.

        Gradients flow back to whoever has the row. `dim` is where the rows are.
        """
        if part.mine is None:
            return list(parts)
        widths = [tensor.shape[-1] for tensor in parts]
        joined: Tensor = _Whole.apply(torch.cat(list(parts), -1), part, dim)
        return list(joined.split_with_sizes(widths, -1))

    def add_gradients(self, parameters: Sequence[Tensor]) -> None:
        """Makes every gradient the sum of those of all processes."""
        if self.count == 1:
            return
        gradients = [p.grad for p in parameters if p.grad is not None]
        flat = _added(torch.cat([gradient.flatten() for gradient in gradients]))
        sums = flat.split_with_sizes([gradient.numel() for gradient in gradients])
        for gradient, added in zip(gradients, sums, strict=True):
            gradient.copy_(added.view_as(gradient))

    def any(self, said: bool) -> bool:
        """Whether any process says so: all are to end after the same update."""
        return said if self.count == 1 else bool(_added(torch.tensor(float(said))) > 0)

    def of_first(self, data: bytes) -> bytes:
        """What the first process gives, for all."""
        if self.count == 1:
            return data
        size = torch.tensor(len(data))
        with _together():
            dist.broadcast(size, 0)
            held = torch.zeros(int(size), dtype=torch.uint8)
            if self.leads:
                held = torch.frombuffer(bytearray(data), dtype=torch.uint8)
            dist.broadcast(held, 0)
        return held.numpy().tobytes()

    def agree(self, value: str, about: str) -> None:
        """Raises `ShareError` where processes have different values."""
        if self.count == 1:
            return
        digest = hashlib.sha256(value.encode()).digest()
        own = torch.frombuffer(bytearray(digest), dtype=torch.uint8)
        found = [torch.zeros_like(own) for _ in range(self.count)]
        with _together():
            dist.all_gather(found, own)
        odd = [rank for rank, other in enumerate(found) if not torch.equal(other, found[0])]
        if odd:
            raise ShareError(
                f"processes 0 and {odd[0]} have different {about}: give all of them the same "
                "command and the same files"
            )


@dataclass(frozen=True)
class Part:
    """Rows of one process.

    Attributes:
        total: rows of all processes;  mine: `[n]` which are its own; None: all of them.
    """

    total: int
    mine: Tensor | None

    @property
    def share(self) -> float:
        """This process's rows as a share of all: what a mean over them counts."""
        return 1.0 if self.mine is None else len(self.mine) / self.total

    def of(self, tensor: Tensor, dim: int = 0) -> Tensor:
        """Its rows of a tensor of all rows."""
        if self.mine is None:
            return tensor
        return tensor.index_select(dim, self.mine.to(tensor.device))


ALONE = Share()
"""A training in one process."""


class _Whole(torch.autograd.Function):
    """Rows of all processes, each of which gets the gradient that all of them found."""

    @staticmethod
    def forward(context: Any, own: Tensor, part: Part, dim: int) -> Tensor:
        context.part, context.dim = part, dim
        shape = list(own.shape)
        shape[dim] = part.total
        assert part.mine is not None
        empty = own.new_zeros(shape)
        return _added(empty.index_copy_(dim, part.mine.to(own.device), own.detach()))

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> Any:
        return context.part.of(_added(gradients[0].clone()), context.dim), None, None


def _added(tensor: Tensor) -> Tensor:
    with _together():
        tensor = tensor.contiguous()
        dist.all_reduce(tensor)
    return tensor


@contextmanager
def _together() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise ShareError(
            "another process of this training has ended or cannot be reached; what it says is the "
            f"reason. Once that is mended, go on with --resume ({_first_line(error)})"
        ) from error


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


@contextmanager
def joined(device: str) -> Iterator[Share]:
    """This process's share, where `torchrun` started it beside others; else all.

    Raises:
        ShareError: the others cannot be reached.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1 or "RANK" not in os.environ:
        yield ALONE
        return
    if device == "cuda":
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    with _together():
        backend = "cpu:gloo,cuda:nccl" if device == "cuda" else "gloo"
        dist.init_process_group(backend, timeout=PATIENCE)
    try:
        yield Share(int(os.environ["RANK"]), count)
    finally:
        dist.destroy_process_group()
