"""One arithmetic expression, evaluated alike on Polars columns, NumPy arrays and torch tensors.

The same text of a system spec labels logged data (Polars), scores imagined futures (NumPy) and
trains (torch). The tree is compiled once into closures. On Polars the closures over NumPy run too,
because Polars' own operators differ: they order NaN above infinity, keep the sign of `-0 + 0`, and
divide by a constant by multiplying with its reciprocal (a third of all `x / 3` come out different).

The language: numbers, names, components of vectors with a constant index (`position[0]`),
`+ - * /`, unary minus, parentheses, comparisons `< <= > >= == !=`, which may be chained,
`and or not` on conditions, and `min max` (two or more arguments, element by element), `abs`,
`clip(x, low, high)`, `where(condition, a, b)`, `exp log sqrt`. A condition used as a number is
0 or 1.

Meaning, the same in all three back ends:

- Everything is computed in one precision. NumPy and torch: float32 when every column read is
  float32 or narrower, else float64 (integers and booleans count as float64). Polars: the `dtype`
  asked for, to which every column is cast. Literals are rounded to that precision; there are no
  integers, so `1 / 2` is 0.5.
- IEEE 754 as in NumPy, and never an exception: `x / 0` is an infinity, `0 / 0` NaN, `log(0)` is
  -inf, `log` and `sqrt` of negatives are NaN, overflow is an infinity.
- A comparison with NaN is false, except `!=`, which is true.
- `min`, `max` and `clip` give NaN when any argument is NaN; a zero out of them is +0. `clip(x, low,
  high)` is `min(max(x, low), high)`, hence `high` where `low > high`.
- `where` takes only what it selects: NaN on the other side does no harm, and neither does that
  side's gradient in torch.
- A Polars null is NaN.
- Polars and NumPy agree bit for bit. So does torch in all but `exp log sqrt`, which agree to the
  last digits, because each library brings its own.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt

from schemas.expression_backends import Step, compile_numpy, compile_torch
from schemas.expression_tree import FUNCTIONS, ExpressionError, Node, parse_tree

if TYPE_CHECKING:
    import polars as pl

__all__ = ["FUNCTIONS", "Expression", "ExpressionError"]

T = TypeVar("T")
Tensor = TypeVar("Tensor")  # torch.Tensor, which this package does not know


@dataclass(frozen=True, repr=False)
class Expression:
    """A checked expression; make it with `Expression.parse`. Equal when the sources are equal.

    Attributes:
        source: the text as it was given.
    """

    source: str
    tree: Node = field(compare=False)

    @classmethod
    def parse(cls, text: str, known: Collection[str] | None = None) -> Expression:
        """Checks `text`; `known` are the flat names it may use, such as `requests`, `position[0]`.

        Raises:
            ExpressionError: not in the language, too long, too deep, or an unknown name.
        """
        return cls(text, parse_tree(text, known))

    @cached_property
    def canonical(self) -> str:
        """The text with spacing, parentheses and numbers normalised: what a hash should see."""
        return self.tree.text()

    @cached_property
    def names(self) -> frozenset[str]:
        """Flat names of the columns it reads."""
        return self.tree.names()

    @property
    def is_condition(self) -> bool:
        """Whether it is true or false, as a constraint must be, instead of a number."""
        return self.tree.is_condition

    def polars(self, dtype: type[pl.Float64 | pl.Float32] | None = None) -> pl.Expr:
        """An element-wise Polars expression, computed in `dtype`; eager, lazy, or in groups.

        The default is Float64. Polars is loaded here and not before: the loop does without it.
        """
        import polars as pl

        dtype = dtype or pl.Float64
        result = pl.Boolean if self.is_condition else dtype
        if not self.names:
            return pl.lit(self.numpy({}).item(), dtype=result)
        names = sorted(self.names)

        def evaluate(columns: Sequence[pl.Series]) -> pl.Series:
            arrays = {name: column.to_numpy() for name, column in zip(names, columns, strict=True)}
            return pl.Series(self.numpy(arrays))

        columns = [pl.col(name).cast(dtype).fill_null(math.nan) for name in names]
        return pl.map_batches(columns, evaluate, return_dtype=result, is_elementwise=True)

    def numpy(self, columns: Mapping[str, npt.NDArray[Any]]) -> npt.NDArray[Any]:
        """The value for arrays that broadcast against each other: float32, float64 or bool.

        Raises:
            ExpressionError: a column is missing.
        """
        used = {name: np.asarray(column) for name, column in self._pick(columns).items()}
        narrow = used and all(a.dtype.kind == "f" and a.dtype.itemsize <= 4 for a in used.values())
        dtype = np.dtype(np.float32 if narrow else np.float64)
        same = {name: column.astype(dtype, copy=False) for name, column in used.items()}
        with np.errstate(all="ignore"):
            return np.asarray(self._numpy(same, dtype.type))

    def torch(self, columns: Mapping[str, Tensor]) -> Tensor:
        """The value for tensors that broadcast: float32, float64 or bool, differentiable.

        Torch is loaded here and not before. Constants go to the device of the columns.

        Raises:
            ExpressionError: a column is missing.
        """
        torch = importlib.import_module("torch")
        used: dict[str, Any] = self._pick(columns)
        narrow = used and all(t.is_floating_point() and t.itemsize <= 4 for t in used.values())
        dtype = torch.float32 if narrow else torch.float64
        same = {name: column.to(dtype) for name, column in used.items()}
        device = next((column.device for column in same.values()), None)
        value: Tensor = self._torch(same, lambda x: torch.tensor(x, dtype=dtype, device=device))
        return value

    @cached_property
    def _numpy(self) -> Step:
        return compile_numpy(self.tree)

    @cached_property
    def _torch(self) -> Step:
        return compile_torch(self.tree)

    def _pick(self, columns: Mapping[str, T]) -> dict[str, T]:
        missing = sorted(self.names - columns.keys())
        if missing:
            have = ", ".join(sorted(columns)) or "none"
            reason = f"no column {missing[0]!r} to evaluate with; there are: {have}"
            raise ExpressionError(self.source, max(0, self.source.find(missing[0])), reason)
        return {name: columns[name] for name in sorted(self.names)}

    def __repr__(self) -> str:
        return self.source

    def __reduce__(self) -> tuple[Callable[[str], Expression], tuple[str]]:
        return Expression.parse, (self.source,)  # compiled closures cannot be pickled
