"""Graphs as a CPU runs them: the same bits as the files give."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from planner.library import SHIPPED
from planner.quick import outputs_only, spread_constants
from planner.runtime import session_options


def opened(graph: bytes) -> ort.InferenceSession:
    return ort.InferenceSession(graph, session_options(1), providers=["CPUExecutionProvider"])


def inputs(session: ort.InferenceSession, rows: int, ticks: int) -> dict[str, np.ndarray]:
    """Normal numbers of the shapes that a graph takes; a mask of zeros and ones."""
    rng, made = np.random.default_rng(rows), {}
    sizes = {"rows": rows, "ticks": ticks}
    for item in session.get_inputs():
        shape = [sizes.get(size, size) for size in item.shape]
        made[item.name] = rng.standard_normal(shape).astype(np.float32)
    if "mask" in made:
        made["mask"] = (made["mask"] > -0.5).astype(np.float32)
    return made


@pytest.mark.parametrize("bundle", ["nav2d", "autoscale"])
@pytest.mark.parametrize("graph", ["believe", "imagine", "actor", "drive"])
def test_a_shipped_graph_gives_the_same_bits(bundle: str, graph: str) -> None:
    data = (SHIPPED / bundle / f"{graph}.onnx").read_bytes()
    plain, spread = opened(data), opened(spread_constants(data))
    last = len(plain.get_outputs()) - 1
    small = opened(spread_constants(outputs_only(data, (last, 0) if last else (0,))))
    for rows, ticks in ((1, 1), (2, 3), (7, 1), (200, 2)):
        given = inputs(plain, rows, ticks)
        wanted = [array.tobytes() for array in plain.run(None, given)]
        assert [array.tobytes() for array in spread.run(None, given)] == wanted
        parts = [wanted[last], wanted[0]] if last else wanted
        assert [array.tobytes() for array in small.run(None, given)] == parts


def test_what_nobody_asks_for_is_left_out() -> None:
    data = (SHIPPED / "nav2d" / "imagine.onnx").read_bytes()
    whole, small = (onnx.load_model_from_string(d) for d in (data, outputs_only(data, (0,))))
    assert [output.name for output in small.graph.output] == ["channels"]
    assert len(small.graph.node) < len(whole.graph.node)
    names = {tensor.name for tensor in small.graph.initializer}
    assert any("critic" in tensor.name for tensor in whole.graph.initializer)
    assert not any("critic" in name for name in names)


def tiny(*nodes: onnx.NodeProto, constant: tuple[int, ...]) -> bytes:
    """A graph from x [rows, 4] to y, with a constant c."""
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["rows", 4]) for n in "xy"]
    values = [np.arange(1.0, 1.0 + np.prod(constant)).reshape(constant), np.eye(4)]
    tensors = [
        numpy_helper.from_array(value.astype(np.float32), name)
        for value, name in zip(values, ("c", "eye"), strict=True)
    ]
    graph = helper.make_graph(list(nodes), "g", ends[:1], ends[1:], tensors)
    opsets = [helper.make_opsetid("", 20)]
    made: bytes = helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString()
    return made


def kinds(graph: bytes) -> Counter[str]:
    return Counter(node.op_type for node in onnx.load_model_from_string(graph).graph.node)


@pytest.mark.parametrize("kind", ["Add", "Sub", "Mul", "Div", "Max", "Min"])
@pytest.mark.parametrize("order", [["x", "c"], ["c", "x"]])
def test_a_short_constant_is_spread_on_either_side(kind: str, order: list[str]) -> None:
    plain = tiny(helper.make_node(kind, order, ["y"]), constant=(4,))
    spread = spread_constants(plain)
    assert kinds(spread) == {"Shape": 1, "Expand": 1, kind: 1}
    given = {"x": np.random.default_rng(0).standard_normal((5, 4)).astype(np.float32)}
    one, two = (opened(graph).run(None, given)[0] for graph in (plain, spread))
    assert one.tobytes() == two.tobytes()


@pytest.mark.parametrize("constant", [(), (1,), (1, 4)])
def test_other_constants_stay(constant: tuple[int, ...]) -> None:
    plain = tiny(helper.make_node("Add", ["x", "c"], ["y"]), constant=constant)
    assert kinds(spread_constants(plain)) == {"Add": 1}


def test_what_the_runtime_fuses_with_a_product_stays() -> None:
    product = helper.make_node("MatMul", ["x", "eye"], ["z"])
    plain = tiny(product, helper.make_node("Add", ["z", "c"], ["y"]), constant=(4,))
    assert kinds(spread_constants(plain)) == {"MatMul": 1, "Add": 1}
