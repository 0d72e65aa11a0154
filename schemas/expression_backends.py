"""A checked expression tree becomes closures over NumPy arrays or over torch tensors.

Each back end is one table from operator to function; the meaning they share is written in
`schemas.expression`. Torch is never imported: its tensors bring their own methods.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from functools import reduce
from typing import Any

import numpy as np

from schemas.expression_tree import Node

Columns = Mapping[str, Any]
Constant = Callable[[float], Any]
"""Makes a number of the precision in which everything is computed."""
Step = Callable[[Columns, Constant], Any]
"""What a tree compiles to: columns, all of that precision, to a value."""

_Table = Mapping[str, Callable[..., Any]]

_ARITHMETIC: _Table = {
    "neg": operator.neg,
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
    "and": lambda *conditions: reduce(operator.and_, conditions),
    "or": lambda *conditions: reduce(operator.or_, conditions),
    "not": operator.invert,
}


# Libraries differ in which zero min(-0, +0) gives; adding +0 makes it +0 in all of them.
def _numpy_min(*args: Any) -> Any:
    return reduce(np.minimum, args) + args[0].dtype.type(0)


def _numpy_max(*args: Any) -> Any:
    return reduce(np.maximum, args) + args[0].dtype.type(0)


def _torch_min(*args: Any) -> Any:
    return reduce(lambda a, b: a.minimum(b), args) + 0.0


def _torch_max(*args: Any) -> Any:
    return reduce(lambda a, b: a.maximum(b), args) + 0.0


_NUMPY: _Table = {
    **_ARITHMETIC,
    "not": np.logical_not,
    "min": _numpy_min,
    "max": _numpy_max,
    "clip": lambda x, low, high: _numpy_min(np.maximum(x, low), high),
    "abs": np.absolute,
    "exp": np.exp,
    "log": np.log,
    "sqrt": np.sqrt,
    "where": np.where,
}
_TORCH: _Table = {
    **_ARITHMETIC,
    "not": lambda a: a.logical_not(),
    "min": _torch_min,
    "max": _torch_max,
    "clip": lambda x, low, high: _torch_min(x.maximum(low), high),
    "abs": lambda a: a.abs(),
    "exp": lambda a: a.exp(),
    "log": lambda a: a.log(),
    "sqrt": lambda a: a.sqrt(),
    "where": lambda condition, a, b: a.where(condition, b),
}


def compile_numpy(node: Node) -> Step:
    """Closures over arrays; `Constant` is the scalar type, `np.float32` or `np.float64`."""
    if node.op == "float":
        condition = compile_numpy(node.args[0])
        return lambda columns, constant: condition(columns, constant).astype(constant)
    steps = [compile_numpy(arg) for arg in node.args]
    return _leaf(node) or _apply(_NUMPY[node.op], steps)


def compile_torch(node: Node) -> Step:
    """Closures over tensors; `Constant` makes a tensor without dimensions."""
    if node.op == "float":
        condition = compile_torch(node.args[0])
        return lambda columns, constant: condition(columns, constant).to(constant(0.0).dtype)
    steps = [compile_torch(arg) for arg in node.args]
    if node.op == "where":
        return _torch_where(*steps)
    return _leaf(node) or _apply(_TORCH[node.op], steps)


def _leaf(node: Node) -> Step | None:
    if node.op == "name":
        name = node.name
        return lambda columns, constant: columns[name]
    if node.op == "number":
        value = node.value
        return lambda columns, constant: constant(value)
    return None


def _apply(function: Callable[..., Any], steps: list[Step]) -> Step:
    if len(steps) == 1:
        (only,) = steps
        return lambda columns, constant: function(only(columns, constant))
    if len(steps) == 2:
        left, right = steps
        return lambda columns, constant: function(left(columns, constant), right(columns, constant))
    return lambda columns, constant: function(*(step(columns, constant) for step in steps))


def _torch_where(condition: Step, yes: Step, no: Step) -> Step:
    def step(columns: Columns, constant: Constant) -> Any:
        chosen = condition(columns, constant)
        a = yes(_cut(columns, chosen), constant)
        b = no(_cut(columns, ~chosen), constant)
        return a.where(chosen, b)

    return step


def _cut(columns: Columns, chosen: Any) -> Columns:
    """The same values, but no gradient flows where `chosen` is false.

    Without this, a side that is not selected still sends back 0 x infinity = NaN, as in
    `where(x > 0, log(x), 0)` at x = 0.
    """
    return {
        name: column.where(chosen, column.detach()) if column.requires_grad else column
        for name, column in columns.items()
    }
