"""What a training is computed with: the device, the precision of its products, compiled or not."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

DeviceName = Literal["cpu", "cuda"]
Precision = Literal["float32", "bfloat16"]


@dataclass(frozen=True)
class Compute:
    """How an update is computed; what it computes is the same but for rounding.

    Attributes:
        device: where weights and batches are.
        precision: of matrix products. bfloat16 is mixed precision (torch.autocast): weights,
            sums, losses and optimizer stay float32, and no loss has to be scaled, as bfloat16
            reaches as far as float32 does.
        compiled: whether torch.compile fuses what is done at every tick. The first updates then
            take a minute or more.
    """

    device: DeviceName = "cpu"
    precision: Precision = "float32"
    compiled: bool = False

    def missing(self) -> str:
        """What this machine lacks for it, with the remedy; nothing where all is there."""
        if self.device == "cuda" and not torch.cuda.is_available():
            return "cuda: torch finds no usable GPU here; choose --device cpu"
        compiler = os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++")
        if self.compiled and shutil.which(compiler) is None:
            return f"compile: there is no {compiler} here; install it, or leave --compile out"
        return ""

    def products(self) -> AbstractContextManager[Any]:
        """Within it, matrix products have the precision that is asked for."""
        if self.precision == "float32":
            return nullcontext()
        return torch.autocast(self.device, dtype=torch.bfloat16)


class Swift:
    """Functions of modules that may be replaced by their compiled forms, and back.

    Modules are exported, copied and judged as they were written: only within `instead` do they
    answer by what was compiled, which is kept from one time to the next.
    """

    def __init__(self, *functions: tuple[nn.Module, str]) -> None:
        """`functions`: modules, and the names of their methods."""
        self._compiled: list[tuple[nn.Module, str, Callable[..., Any]]] = [
            (module, name, torch.compile(getattr(module, name), dynamic=False))
            for module, name in functions
        ]

    @contextmanager
    def instead(self) -> Iterator[None]:
        """Within it, the modules' methods are the compiled ones."""
        with ExitStack() as after:
            for module, name, function in self._compiled:
                setattr(module, name, function)
                after.callback(delattr, module, name)
            yield
