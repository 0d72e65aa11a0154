"""A graph as a CPU runs it: the same numbers, bit for bit, in less time.

A bundle's graphs are made for every provider. ONNX Runtime on a CPU adds a vector to the rows of a
matrix row by row, and for rows of eight numbers spends far more on beginning a row than on adding:
in nav2d's world model that was half of an imagined tick. So short constants are spread over all
rows first, which costs one copy.

Nothing else is changed, and no sum is taken in another order. What is read here was checked by
`planner.graphs`, and its digest by `planner.manifest`: the file on disk stays as it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from planner.graphs import inner_graphs, new_node, read_graph

SHORT: Final = range(2, 33)
"""Entries of a constant that is spread; with more, a row is long enough by itself."""

_PAIRWISE: Final = frozenset((b"Add", b"Sub", b"Mul", b"Div", b"Max", b"Min"))
# ONNX Runtime makes one product of these and what is added to them or multiplied with them.
_FUSED: Final = frozenset((b"MatMul", b"Gemm", b"Conv", b"ConvTranspose"))


def spread_constants(graph: bytes) -> bytes:
    """The ONNX model with its short constants spread over the rows that they meet."""
    model = read_graph(graph)
    _spread(model.graph, {}, iter(range(1 << 30)))
    spread: bytes = model.SerializeToString()
    return spread


def _spread(graph: Any, outer: Mapping[bytes, int], numbers: Iterator[int]) -> None:
    """`op(x, c)` becomes `op(x, Expand(c, Shape(x)))`, which is the same for all shapes."""
    # Constants with one axis, by name: how long they are.
    lengths = {t.name: t.dims[0] if len(t.dims) == 1 else 0 for t in graph.initializer}
    known = {**outer, **lengths}
    makers = {name: node.op_type for node in graph.node for name in node.output}
    nodes = []
    for node in graph.node:
        for inner in inner_graphs(node):
            _spread(inner, known, numbers)
        if node.op_type in _PAIRWISE and len(node.input) == 2:
            for place, other in ((0, 1), (1, 0)):
                constant, rows = node.input[place], node.input[other]
                short = known.get(constant, 0) in SHORT and rows not in known
                if short and makers.get(rows) not in _FUSED:
                    number = next(numbers)
                    shape, full = b"quick:shape:%d" % number, b"quick:full:%d" % number
                    nodes.append(new_node(b"Shape", [rows], shape))
                    nodes.append(new_node(b"Expand", [constant, shape], full))
                    node.input[place] = full
        nodes.append(node)
    _replace(graph.node, nodes)


def _replace(field: Any, items: list[Any]) -> None:
    copies = [type(item).FromString(item.SerializeToString()) for item in items]
    del field[:]
    field.extend(copies)
