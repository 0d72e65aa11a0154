"""Writes `planner/reference.onnx` and `product.onnx`, the graphs that `rehearse bench plan` times.

    python -m models.reference

The first holds no weights: the planner makes them from a seed when it loads the graph.
"""

from __future__ import annotations

import onnx
from onnx import TensorProto, helper

from planner import reference
from planner.reference import ACTION, LAYERS, MEMBERS, STATE


def _info(name: str, *shape: int | str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape))


def _external(name: str, shape: tuple[int, ...]) -> onnx.TensorProto:
    """An initialiser whose data is given at load time."""
    tensor = onnx.TensorProto(name=name, data_type=TensorProto.FLOAT, dims=shape)
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="given-at-load-time")
    return tensor


def _member(m: int) -> onnx.GraphProto:
    """One step of member `m`: x' = x + mean + exp(log std) × noise, everything two-dimensional."""
    nodes = [helper.make_node("Concat", ["x", "a"], ["in0"], axis=1)]
    for layer in range(LAYERS):
        weights = [f"w{m}_{layer}", f"b{m}_{layer}"]
        nodes.append(helper.make_node("Gemm", [f"in{layer}", *weights], [f"out{layer}"]))
        if layer < LAYERS - 1:
            nodes.append(helper.make_node("Relu", [f"out{layer}"], [f"in{layer + 1}"]))
    nodes += [
        helper.make_node("Split", [f"out{LAYERS - 1}"], ["mean", "log_std"], axis=1, num_outputs=2),
        helper.make_node("Exp", ["log_std"], ["std"]),
        helper.make_node("Mul", ["std", "e"], ["random"]),
        helper.make_node("Add", ["mean", "random"], ["change"]),
        helper.make_node("Add", ["x", "change"], ["next"]),
        helper.make_node("Identity", ["next"], ["seen"]),
    ]
    inputs = [_info("x", "N", STATE), _info("a", "N", ACTION), _info("e", "N", STATE)]
    outputs = [_info("next", "N", STATE), _info("seen", "N", STATE)]
    return helper.make_graph(nodes, f"member{m}", inputs, outputs)


def _split(name: str, axis: int) -> list[onnx.NodeProto]:
    """`name` cut along its member axis into `name0`, `name1`, …, without that axis."""
    pieces = [f"{name}_{m}" for m in range(MEMBERS)]
    nodes = [helper.make_node("Split", [name], pieces, axis=axis, num_outputs=MEMBERS)]
    for m, piece in enumerate(pieces):
        nodes.append(helper.make_node("Squeeze", [piece, f"axis{axis}"], [f"{name}{m}"]))
    return nodes


def build() -> onnx.ModelProto:
    """The graph: inputs and `channels` as an imagine graph of a bundle has them."""
    nodes = [*_split("h", 0), *_split("actions", 1), *_split("noise", 1)]
    for m in range(MEMBERS):
        # One Scan per member: its weights stay in the cache for the whole horizon.
        inputs, outputs = [f"h{m}", f"actions{m}", f"noise{m}"], [f"last{m}", f"seen{m}"]
        nodes.append(helper.make_node("Scan", inputs, outputs, body=_member(m), num_scan_inputs=2))
        nodes.append(helper.make_node("Unsqueeze", [f"seen{m}", "axis1"], [f"wide{m}"]))
    wide = [f"wide{m}" for m in range(MEMBERS)]
    nodes.append(helper.make_node("Concat", wide, ["channels"], axis=1))
    weights = [_external(name, shape) for name, shape in reference.weight_shapes().items()]
    axes = [helper.make_tensor(f"axis{i}", TensorProto.INT64, [1], [i]) for i in (0, 1)]
    graph = helper.make_graph(
        nodes,
        "reference",
        [
            _info("h", MEMBERS, "N", STATE),
            _info("actions", "T", MEMBERS, "N", ACTION),
            _info("noise", "T", MEMBERS, "N", STATE),
        ],
        [_info("channels", "T", MEMBERS, "N", STATE)],
        initializer=[*weights, *axes],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def product() -> onnx.ModelProto:
    """A bare matrix product of any size: what the arithmetic could reach."""
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "y"], ["z"])],
        "product",
        [_info("x", "A", "B"), _info("y", "B", "C")],
        [_info("z", "A", "C")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def main() -> None:
    """Writes both graphs into the planner's package."""
    for path, model in ((reference.GRAPH, build()), (reference.PRODUCT, product())):
        path.write_bytes(model.SerializeToString(deterministic=True))


if __name__ == "__main__":
    main()
