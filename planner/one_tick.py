"""One imagined tick under all members, from a bundle's `imagine`: the same channels, less work.

What is expected next is asked twice for every frame: one tick, and the same rows for each member.
`imagine` is made for many ticks and rows that differ. So of its graph another one is made:

- the `Scan` over ticks is replaced by its body, and what gives no channel is left out;
- what comes before the members' own layers is computed once, not once for each member.

No sum is taken in another order. The graphs that our export writes are known here; any other is
left as it is (`None`), and whoever opens the result compares it with the original first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from planner.graphs import new_constant, new_node, read_graph, whole_numbers

INPUTS: Final = (b"h", b"z", b"actions", b"noise")
_AXES: Final = (b"scan_input_axes", b"scan_output_axes")


class _UnlikeOurs(Exception):
    """The graph has another form than those that are known here."""


def one_tick(graph: bytes, members: int) -> bytes | None:
    """`imagine` for one tick, rows shared by all members; None where it is of an unknown form.

    The graph that is made takes h [1,N,H], z [1,N,Z], actions [1,1,N,A] and noise [1,1,N,Z], and
    gives the channels [1,M,N,O].
    """
    model = read_graph(graph)
    try:
        _Maker(model.graph, members).make()
    except (_UnlikeOurs, LookupError):  # a name, an attribute, an input that is not there
        return None
    made: bytes = model.SerializeToString()
    return made


class _Maker:
    """The steps from one graph to the other; each replaces `nodes`."""

    def __init__(self, graph: Any, members: int) -> None:
        self.graph, self.members = graph, members
        self.nodes: list[Any] = []
        self.constants = {tensor.name: tensor for tensor in graph.initializer}
        self.added: list[Any] = []

    def make(self) -> None:
        """Changes the graph; raises `_UnlikeOurs`."""
        if {value.name for value in self.graph.input} != set(INPUTS):
            raise _UnlikeOurs
        self._end(self._inline())
        self._keep_needed()
        self._share()
        self._keep_needed()
        graph = self.graph
        for value in graph.input:
            value.type.tensor_type.ClearField("shape")  # one row of members, where there were M
        needed = {name for node in self.nodes for name in node.input}
        kept = [tensor for tensor in [*graph.initializer, *self.added] if tensor.name in needed]
        del graph.output[1:], graph.value_info[:]
        _put(graph.node, self.nodes)
        _put(graph.initializer, kept)

    def _inline(self) -> dict[bytes, bytes]:
        """The body takes the place of the `Scan`; what the names of its outputs have become."""
        scans = [node for node in self.graph.node if node.op_type == b"Scan"]
        if len(scans) != 1:
            raise _UnlikeOurs
        (scan,) = scans
        attributes = {attribute.name: attribute for attribute in scan.attribute}
        body, ticking = attributes[b"body"].g, attributes[b"num_scan_inputs"].i
        strange = not attributes.keys().isdisjoint(_AXES) or body.initializer
        if strange or len(body.input) != len(scan.input):
            raise _UnlikeOurs
        steady = len(scan.input) - ticking
        names, ticks = {}, []
        for place, (inner, outer) in enumerate(zip(body.input, scan.input, strict=True)):
            names[inner.name] = outer
            if place >= steady:
                ticks.append(self._tick(outer))
                names[inner.name] = ticks[-1].output[0]
        for node in body.node:
            _rename(node, names)
        nodes = list(self.graph.node)
        place = nodes.index(scan)
        self.nodes = [*nodes[:place], *ticks, *body.node, *nodes[place + 1 :]]
        made = (names.get(value.name, value.name) for value in body.output)
        return dict(zip(scan.output, made, strict=True))

    def _tick(self, series: bytes) -> Any:
        """What gives [rows, columns] of the only tick of `series`, which is [1, rows, columns]."""
        reshape = self._maker(series)
        if reshape.op_type != b"Reshape":
            raise _UnlikeOurs
        begun = reshape.input[0]
        while begun not in INPUTS:
            begun = self._maker(begun).input[0]
        (value,) = (value for value in self.graph.input if value.name == begun)
        shape = self._constant((-1, value.type.tensor_type.shape.dim[-1].dim_value))
        return new_node(b"Reshape", [reshape.input[0], shape], b"one:" + series)

    def _end(self, scanned: dict[bytes, bytes]) -> None:
        """The channels come straight from what the body makes of them."""
        last = self._maker(self.graph.output[0].name)
        if last.op_type != b"Split":
            raise _UnlikeOurs
        reshape = self._maker(last.input[0])
        sizes = self._whole(last.input[1])
        made = scanned.get(reshape.input[0]) if reshape.op_type == b"Reshape" else None
        if made is None or not sizes:
            raise _UnlikeOurs
        concat = self._maker(made)
        others = len(sizes) - 1  # behind the channels, one column each
        rest = [self._maker(name).op_type for name in concat.input[len(concat.input) - others :]]
        if concat.op_type != b"Concat" or rest != [b"Unsqueeze"] * others:
            raise _UnlikeOurs
        channels = list(concat.input[: len(concat.input) - others])
        self.nodes.remove(last)
        if len(channels) > 1:
            self.nodes.append(new_node(b"Concat", channels, b"one:channels", axis=-1))
            channels = [b"one:channels"]
        shape = self._constant((1, self.members, -1, sizes[0]))
        self.nodes.append(new_node(b"Reshape", [*channels, shape], self.graph.output[0].name))

    def _share(self) -> None:
        """Rows that all members share are computed once, up to the members' own layers."""
        joins = [node for node in self.nodes if self._is_join(node)]
        if len(joins) != 1:
            raise _UnlikeOurs
        (join,) = joins
        slices = [self._slice_before(name) for name in join.input]
        if len({node.input[0] for node in slices}) != 1:
            raise _UnlikeOurs
        shared = {node.output[0]: node.input[0] for node in slices}
        wide: set[bytes] = set()  # names of what has a row for each member
        fixed = set(self.constants) | {tensor.name for tensor in self.added}
        tiled: dict[bytes, bytes] = {}
        nodes: list[Any] = []
        for node in self.nodes:
            if any(node is known for known in slices):
                continue
            _rename(node, shared)
            if not wide.isdisjoint(node.input):
                for place, name in enumerate(node.input):
                    if name not in wide and name not in fixed:
                        if name not in tiled:
                            tiled[name] = b"one:all:" + name
                            copies = [name] * self.members
                            nodes.append(new_node(b"Concat", copies, tiled[name], axis=0))
                        node.input[place] = tiled[name]
                wide |= set(node.output)
            elif node is join:
                wide |= set(node.output)
            elif fixed.issuperset(node.input):
                fixed |= set(node.output)
            nodes.append(node)
        self.nodes = nodes

    def _is_join(self, node: Any) -> bool:
        axis = [attribute.i for attribute in node.attribute if attribute.name == b"axis"]
        return node.op_type == b"Concat" and axis == [0] and len(node.input) == self.members

    def _slice_before(self, name: bytes) -> Any:
        node = self._maker(name)
        while node.op_type in (b"Gemm", b"Relu"):
            node = self._maker(node.input[0])
        if node.op_type != b"Slice" or self._whole(node.input[3]) != (0,):
            raise _UnlikeOurs
        return node

    def _maker(self, name: bytes) -> Any:
        for node in self.nodes or self.graph.node:
            if name in node.output:
                return node
        raise _UnlikeOurs

    def _whole(self, name: bytes) -> tuple[int, ...] | None:
        return whole_numbers(self.constants[name]) if name in self.constants else None

    def _constant(self, values: Sequence[int]) -> bytes:
        name = b"one:shape:%d" % len(self.added)
        self.added.append(new_constant(name, values))
        return name

    def _keep_needed(self) -> None:
        needed, kept = {self.graph.output[0].name}, []
        for node in reversed(self.nodes):
            if not needed.isdisjoint(node.output):
                kept.append(node)
                needed |= set(node.input)
        self.nodes = kept[::-1]


def _rename(node: Any, names: dict[bytes, bytes]) -> None:
    for place, name in enumerate(node.input):
        node.input[place] = names.get(name, name)


def _put(field: Any, items: Sequence[Any]) -> None:
    copies = [type(item).FromString(item.SerializeToString()) for item in items]
    del field[:]
    field.extend(copies)
