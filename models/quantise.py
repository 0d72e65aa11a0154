"""`imagine` in int8: weights per channel, activations as they come, beside the graph in fp32.

Dynamic quantisation (Jacob et al. 2018) of the matrix products inside the `Scan`: weights are
rounded once, symmetric, one scale for each output; activations at each call, one scale for all.
Everything else stays in float32: what adds up over ticks, and the noise.
"""

from __future__ import annotations

import contextlib
import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic

from models.export import strip


def quantise(source: Path, target: Path) -> None:
    """Writes the int8 variant of the graph `source` to `target`.

    Raises:
        ValueError: there is no matrix product with fixed weights in it.
    """
    model = onnx.load(str(source))
    graphs = list(_graphs(model.graph))
    weights = {t.name: t for graph in graphs for t in graph.initializer}
    found = sum(_plain_products(graph, weights) for graph in graphs)
    if not found:
        raise ValueError(f"{source}: no product with fixed weights: there is nothing to quantise")
    with tempfile.TemporaryDirectory() as folder, _quiet():
        plain = Path(folder) / source.name
        onnx.save(model, str(plain))
        quantize_dynamic(
            plain,
            target,
            op_types_to_quantize=["MatMul"],
            per_channel=True,
            weight_type=QuantType.QInt8,
            extra_options={
                "EnableSubgraph": True,
                "MatMulConstBOnly": True,
                "DisableShapeInference": True,
            },
        )
    _only_onnx(target)
    strip(target)


def _graphs(graph: Any) -> Iterator[Any]:
    """A graph and those inside its operators."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _graphs(attribute.g)


def _plain_products(graph: Any, weights: dict[str, Any]) -> int:
    """Each `Gemm` becomes a product and a sum, with its weight in the same graph; how many."""
    del graph.value_info[:]  # they tell of the shapes before
    nodes: list[Any] = []
    count = 0
    for node in graph.node:
        if node.op_type != "Gemm" or node.input[1] not in weights or not _is_plain(node):
            nodes.append(node)
            continue
        count += 1
        matrix = numpy_helper.to_array(weights[node.input[1]])
        turned = any(a.name == "transB" and a.i for a in node.attribute)
        name = f"{node.output[0]}_weight"
        fixed = np.ascontiguousarray(matrix.T if turned else matrix)
        graph.initializer.append(numpy_helper.from_array(fixed, name))
        product = f"{node.output[0]}_product"
        nodes.append(onnx.helper.make_node("MatMul", [node.input[0], name], [product]))
        nodes.append(onnx.helper.make_node("Add", [product, node.input[2]], [node.output[0]]))
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)
    return count


def _is_plain(node: Any) -> bool:
    """Whether it is x W + b, and nothing more."""
    factors = [a.f for a in node.attribute if a.name in ("alpha", "beta")]
    turned = any(a.name == "transA" and a.i for a in node.attribute)
    return len(node.input) == 3 and not turned and all(factor == 1.0 for factor in factors)


def _only_onnx(path: Path) -> None:
    """Takes out what nobody reads any more, and the domain that the quantiser names for nothing."""
    model = onnx.load(str(path))
    kept = [opset for opset in model.opset_import if opset.domain in ("", "ai.onnx")]
    del model.opset_import[:]
    model.opset_import.extend(kept)
    graphs = list(_graphs(model.graph))
    read = {name for graph in graphs for node in graph.node for name in node.input}
    read |= {value.name for graph in graphs for value in graph.output}
    for graph in graphs:
        used = [tensor for tensor in graph.initializer if tensor.name in read]
        del graph.initializer[:]
        graph.initializer.extend(used)
    onnx.save(model, str(path))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The quantiser advises by the root logger to prepare models in a way that ours need not."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
