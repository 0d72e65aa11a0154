"""What a manifest says of each graph: operators' version, sizes of its ends, precision, files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx


def facts(path: Path, precision: str = "fp32") -> dict[str, Any]:
    """Of an ONNX file: opset, precision, and the sizes of inputs and outputs.

    A size is a number where it is fixed, and a name (`rows`, `ticks`) where each call may choose.
    """
    model = onnx.load(str(path))
    opset = next(o.version for o in model.opset_import if o.domain in ("", "ai.onnx"))
    return {
        "opset": opset,
        "ir_version": model.ir_version,
        "precision": precision,
        "inputs": _sizes(model.graph.input),
        "outputs": _sizes(model.graph.output),
    }


def _sizes(values: Any) -> dict[str, list[int | str]]:
    return {
        value.name: [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in values
    }
