"""An encoder becomes an ONNX file that `perceive` takes, held against torch before it may leave."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnxruntime as ort
import torch
from torch import Tensor, nn

from models.export import OPSET, TOLERANCE, ParityError, quiet, strip


def export_encoder(
    encoder: nn.Module, example: Tensor, path: Path, free: Mapping[int, str] | None = None
) -> float:
    """Writes `encoder` to `path`: one input, one output, any number of rows in a call.

    Args:
        encoder: takes what `example` is, gives [rows, outputs].
        example: [rows, …] with at least two rows.
        free: other axes of any size, and what they are called; two or more in `example`.

    Returns:
        The largest difference to torch over several numbers of rows, relative to `1 + |torch|`.

    Raises:
        ParityError: the difference is above `models.export.TOLERANCE`.
    """
    encoder, axes = encoder.eval().cpu(), {0: "rows", **(free or {})}
    with torch.no_grad(), quiet():
        program = torch.onnx.export(
            encoder,
            (example,),
            dynamo=True,
            dynamic_shapes=({axis: torch.export.Dim(name, min=1) for axis, name in axes.items()},),
            input_names=["raw"],
            output_names=["embedding"],
            opset_version=OPSET,
            verbose=False,
        )
        assert program is not None
        program.save(str(path))
    strip(path)
    worst = max(difference(encoder, example[:rows], path) for rows in (1, len(example)))
    if not worst <= TOLERANCE:
        raise ParityError(f"{path}: differs from torch by {worst:.2g}; do not ship this file")
    return worst


def difference(encoder: nn.Module, rows: Tensor, path: Path) -> float:
    """The largest difference between `encoder` and its file, relative to `1 + |torch|`."""
    with torch.no_grad():
        wanted = encoder(rows).numpy()
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"raw": rows.numpy()})
    if found.shape != wanted.shape:
        return float("inf")
    return float((np.abs(found - wanted) / (1.0 + np.abs(wanted))).max())
