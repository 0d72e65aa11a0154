"""What an ONNX graph may be: whole in itself, of ONNX's own operators, of versions that are known.

A graph is somebody else's bytes until it is looked at: it could name files of this machine as its
weights, or operators that a library brings along. It is looked at with Google's protobuf, and with
just as much of ONNX's schema (onnx.proto3) as this takes; the package `onnx` is not needed, and
protobuf is loaded with the first graph.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, Final

MOST_BYTES: Final = 256 << 20
MOST_NODES: Final = 100_000
OPSETS: Final = range(17, 25)
"""Versions of ONNX's operators: those that the runtimes in use know, and our export writes."""

_IR_VERSIONS: Final = range(8, 13)
_OWN: Final = ("", "ai.onnx")  # two names of ONNX's own operators
_EXTERNAL: Final = 1  # TensorProto.DataLocation
_INT: Final = 2  # AttributeProto.Type
_INT64: Final = 7  # TensorProto.DataType

# Message → field → (number, type). Fields that are not here are passed over.
_SCHEMA: Final[dict[str, dict[str, tuple[int, str]]]] = {
    "Model": {
        "ir_version": (1, "int64"),
        "graph": (7, "Graph"),
        "opset_import": (8, "Opset*"),
        "functions": (25, "Function*"),
    },
    "Opset": {"domain": (1, "bytes"), "version": (2, "int64")},
    "Function": {"name": (1, "bytes")},
    "Graph": {
        "node": (1, "Node*"),
        "initializer": (5, "Tensor*"),
        "input": (11, "Value*"),
        "output": (12, "Value*"),
        "value_info": (13, "Value*"),
        "sparse_initializer": (15, "Sparse*"),
    },
    "Value": {"name": (1, "bytes"), "type": (2, "Type")},
    "Type": {"tensor_type": (1, "TensorType")},
    "TensorType": {"elem_type": (1, "int32"), "shape": (2, "Shape")},
    "Shape": {"dim": (1, "Dim*")},
    "Dim": {"dim_value": (1, "int64")},
    "Node": {
        "input": (1, "bytes*"),
        "output": (2, "bytes*"),
        "op_type": (4, "bytes"),
        "attribute": (5, "Attribute*"),
        "domain": (7, "bytes"),
    },
    "Attribute": {
        "name": (1, "bytes"),
        "i": (3, "int64"),
        "t": (5, "Tensor"),
        "g": (6, "Graph"),
        "tensors": (10, "Tensor*"),
        "graphs": (11, "Graph*"),
        "type": (20, "int32"),
        "sparse_tensor": (22, "Sparse"),
        "sparse_tensors": (23, "Sparse*"),
    },
    "Tensor": {
        "dims": (1, "int64*"),
        "data_type": (2, "int32"),
        "name": (8, "bytes"),
        "raw_data": (9, "bytes"),
        "external_data": (13, "Entry*"),
        "data_location": (14, "int32"),
    },
    "Sparse": {"values": (1, "Tensor"), "indices": (2, "Tensor")},
    "Entry": {"key": (1, "bytes")},
}


class GraphError(ValueError):
    """A graph that is not taken; the message says why."""


def check_graph(data: bytes) -> None:
    """Raises `GraphError` unless `data` is an ONNX model that may be given to the runtime."""
    if len(data) > MOST_BYTES:
        raise GraphError(f"{len(data)} bytes; {MOST_BYTES} are the most")
    model = read_graph(data)
    if not model.HasField("graph") or not model.graph.node:
        raise GraphError("not an ONNX model: there is no graph in it")
    if model.ir_version not in _IR_VERSIONS:
        raise GraphError(f"its format (IR) is of version {model.ir_version}; {_span(_IR_VERSIONS)}")
    for opset in model.opset_import:
        _check_domain(opset.domain)
        if opset.version not in OPSETS:
            raise GraphError(f"its operators are of version {opset.version}; {_span(OPSETS)}")
    if not model.opset_import:
        raise GraphError("it does not say the version of its operators")
    if model.functions:
        raise GraphError("it has functions of its own; inline them")
    _check_nodes(model.graph)


def read_graph(data: bytes) -> Any:
    """The protobuf message of an ONNX model; what the table above lacks is kept for writing it.

    Raises `GraphError` where it is none.
    """
    from google.protobuf.message import DecodeError

    try:
        return _message("Model").FromString(data)
    except (DecodeError, RecursionError) as error:
        raise GraphError(f"not an ONNX model: {error}") from error


def ends_of(data: bytes) -> tuple[set[str], int]:
    """The names of an ONNX model's inputs, and how many outputs it has."""
    graph = read_graph(data).graph
    return {value.name.decode(errors="replace") for value in graph.input}, len(graph.output)


def new_node(kind: bytes, inputs: Sequence[bytes], output: bytes, **whole: int) -> Any:
    """An operator for `Graph.node`; `whole`: its attributes, which are whole numbers."""
    made = _message("Node")(input=inputs, output=[output], op_type=kind)
    for name, value in whole.items():
        made.attribute.add(name=name.encode(), i=value, type=_INT)
    return made


def new_constant(name: bytes, values: Sequence[int]) -> Any:
    """A vector of whole numbers, for `Graph.initializer`."""
    raw = struct.pack(f"<{len(values)}q", *values)
    return _message("Tensor")(name=name, dims=[len(values)], data_type=_INT64, raw_data=raw)


def whole_numbers(tensor: Any) -> tuple[int, ...] | None:
    """What stands in a vector of int64; None where it is another tensor, or stored otherwise."""
    if tensor.data_type != _INT64 or len(tensor.dims) != 1 or not tensor.raw_data:
        return None
    return struct.unpack(f"<{len(tensor.raw_data) // 8}q", tensor.raw_data)


def inner_graphs(node: Any) -> list[Any]:
    """The graphs inside an operator, such as the body of a `Scan`."""
    found = []
    for attribute in node.attribute:
        found += [*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])]
    return found


def _check_nodes(graph: Any) -> None:
    left, nodes = [graph], 0
    while left:
        part = left.pop()
        _check_tensors([*part.initializer, *_halves(part.sparse_initializer)])
        nodes += len(part.node)
        if nodes > MOST_NODES:
            raise GraphError(f"more than {MOST_NODES} operators")
        for node in part.node:
            _check_domain(node.domain)
            for attribute in node.attribute:
                sparse = [attribute.sparse_tensor, *attribute.sparse_tensors]
                _check_tensors([attribute.t, *attribute.tensors, *_halves(sparse)])
            left += inner_graphs(node)


def _check_domain(domain: bytes) -> None:
    name = domain.decode(errors="replace")
    if name not in _OWN:
        raise GraphError(f"it has operators of {name!r}; ONNX's own alone are taken")


def _halves(sparse: Any) -> Iterator[Any]:
    for tensor in sparse:
        yield from (tensor.values, tensor.indices)


def _check_tensors(tensors: list[Any]) -> None:
    for tensor in tensors:
        if tensor.data_location == _EXTERNAL or tensor.external_data:
            raise GraphError("its weights are in other files; save them in the graph itself")


def _span(allowed: range) -> str:
    return f"{allowed.start} to {allowed.stop - 1} are taken"


@lru_cache(maxsize=1)
def _pool() -> Any:
    """The table above as protobuf takes it."""
    from google.protobuf import descriptor_pb2, descriptor_pool

    kinds = descriptor_pb2.FieldDescriptorProto
    plain = {"int64": kinds.TYPE_INT64, "int32": kinds.TYPE_INT32, "bytes": kinds.TYPE_BYTES}
    file = descriptor_pb2.FileDescriptorProto(name="graphs.proto", package="graphs")
    for name, fields in _SCHEMA.items():
        message = file.message_type.add(name=name)
        for field, (number, kind) in fields.items():
            many, kind = kind.endswith("*"), kind.removesuffix("*")
            label = kinds.LABEL_REPEATED if many else kinds.LABEL_OPTIONAL
            made = message.field.add(name=field, number=number, label=label)
            made.type = plain.get(kind, kinds.TYPE_MESSAGE)
            if kind not in plain:
                made.type_name = f".graphs.{kind}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return pool


def _message(name: str) -> Any:
    from google.protobuf import message_factory

    return message_factory.GetMessageClass(_pool().FindMessageTypeByName(f"graphs.{name}"))
