"""A graph as a CPU runs it: the same numbers, bit for bit, in less time.

A bundle's graphs are made for every provider. ONNX Runtime on a CPU adds a vector to the rows of a
matrix row by row, and for rows of eight numbers spends far more on beginning a row than on adding:
in nav2d's world model that was half of an imagined tick. So short constants are spread over all
rows first, which costs one copy. And what nobody asks for is left out: the loop reads no value
of the actor's, and no prediction of a belief's.

Nothing else is changed, and no sum is taken in another order. What is read here was checked by
`planner.graphs`, and its digest by `planner.manifest`: the file on disk stays as it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from planner.graphs import inner_graphs, new_node, read_graph

SHORT: Final = range(2, 33)
"""Entries of a constant that is spread; with more, a row is long enough by itself."""

_PAIRWISE: Final = frozenset((b"Add", b"Sub", b"Mul", b"Div", b"Max", b"Min"))
# The result has the shape of what goes in, where all else are constants.
_ALIKE: Final = _PAIRWISE | {b"Relu", b"Sigmoid", b"Tanh", b"Exp", b"Sqrt", b"Clip"}
# ONNX Runtime makes one product of these and what is added to them or multiplied with them.
_FUSED: Final = frozenset((b"MatMul", b"Gemm", b"Conv", b"ConvTranspose"))


def spread_constants(graph: bytes) -> bytes:
    """The ONNX model with its short constants spread over the rows that they meet."""
    model = read_graph(graph)
    _spread(model.graph, {}, iter(range(1 << 30)))
    spread: bytes = model.SerializeToString()
    return spread


def outputs_only(graph: bytes, places: Sequence[int]) -> bytes:
    """The ONNX model with these of its outputs, in their order, and what they need."""
    model = read_graph(graph)
    outputs = [model.graph.output[place] for place in places]
    needed, kept = {value.name for value in outputs}, []
    for node in reversed(model.graph.node):
        if not needed.isdisjoint(node.output):
            kept.append(node)
            needed |= _read_by(node)
    used = [tensor for tensor in model.graph.initializer if tensor.name in needed]
    _replace(model.graph.output, outputs)
    _replace(model.graph.node, kept[::-1])
    _replace(model.graph.initializer, used)
    pruned: bytes = model.SerializeToString()
    return pruned


def _spread(graph: Any, outer: Mapping[bytes, int], numbers: Iterator[int]) -> None:
    """`op(x, c)` becomes `op(x, Expand(c, Shape(x)))`, which is the same for all shapes."""
    # Constants with one axis, by name: how long they are.
    lengths = {t.name: t.dims[0] if len(t.dims) == 1 else 0 for t in graph.initializer}
    known = {**outer, **lengths}
    makers = {name: node.op_type for node in graph.node for name in node.output}
    shapes = _Shapes(known, numbers)
    nodes = []
    for node in graph.node:
        for inner in inner_graphs(node):
            _spread(inner, known, numbers)
        if node.op_type in _PAIRWISE and len(node.input) == 2:
            for place, other in ((0, 1), (1, 0)):
                constant, rows = node.input[place], node.input[other]
                short = known.get(constant, 0) in SHORT and rows not in known
                if short and makers.get(rows) not in _FUSED:
                    made, node.input[place] = shapes.full(constant, rows)
                    nodes += made
        shapes.follow(node)
        nodes.append(node)
    _replace(graph.node, nodes)


class _Shapes:
    """Which values of a graph have the shape of an earlier one, and what was spread over it.

    Where a shape is not quite that of the earlier value, it is what that broadcasts to with a
    constant, and so does everything that is spread over it.
    """

    def __init__(self, known: Mapping[bytes, int], numbers: Iterator[int]) -> None:
        self._known, self._numbers = known, numbers
        self._like: dict[bytes, bytes] = {}
        self._shape: dict[bytes, bytes] = {}
        self._full: dict[tuple[bytes, bytes], bytes] = {}

    def full(self, constant: bytes, rows: bytes) -> tuple[list[Any], bytes]:
        """The operators that are still needed to spread `constant` over `rows`, and the result."""
        rows, nodes = self._like.get(rows, rows), []
        if rows not in self._shape:
            self._shape[rows] = b"quick:shape:%d" % next(self._numbers)
            nodes.append(new_node(b"Shape", [rows], self._shape[rows]))
        if (constant, rows) not in self._full:
            full = self._full[constant, rows] = b"quick:full:%d" % next(self._numbers)
            nodes.append(new_node(b"Expand", [constant, self._shape[rows]], full))
        return nodes, self._full[constant, rows]

    def follow(self, node: Any) -> None:
        """Takes in an operator, with its constants spread."""
        given = [name for name in node.input if name not in self._known]
        given = [name for name in given if not name.startswith(b"quick:full:")]
        if node.op_type in _ALIKE and len(given) == 1 and len(node.output) == 1:
            self._like[node.output[0]] = self._like.get(given[0], given[0])


def _read_by(node: Any) -> set[bytes]:
    """The names that an operator reads; its inner graphs may read names from outside."""
    names = set(node.input)
    for graph in inner_graphs(node):
        names |= {value.name for value in graph.output}
        for inner in graph.node:
            names |= _read_by(inner)
    return names


def _replace(field: Any, items: list[Any]) -> None:
    copies = [type(item).FromString(item.SerializeToString()) for item in items]
    del field[:]
    field.extend(copies)
