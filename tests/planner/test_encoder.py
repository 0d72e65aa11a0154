"""Encoders: the same bits whatever the batch; files that do not fit are refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import streams
from infra.plants.views import RANGE_M, clouds, pictures
from planner.encoder import Encoder, Rows
from planner.library import SHIPPED
from planner.manifest import BundleError
from schemas.perceive import JpegInput, RawInput
from schemas.system import load_spec

EXAMPLES = Path(streams.__file__).parent / "examples"
SPEC = load_spec(EXAMPLES / "sight.yaml")
COUNT = 24
CAMERA, LIDAR = (raw for _, raw in SPEC.perceived)
ENCODERS: dict[tuple[str, bool], Encoder] = {
    (raw.kind, padded): Encoder(raw.model_copy(update={"batch": 7}), 2, "cpu", padded=padded)
    for raw in (CAMERA, LIDAR)
    for padded in (False, True)
}


def views() -> tuple[npt.NDArray[np.float64], dict[str, Rows]]:
    rng = np.random.default_rng(6)
    offsets = rng.uniform(-0.9 * RANGE_M, 0.9 * RANGE_M, (COUNT, 2))
    return offsets, {
        "jpeg": pictures(offsets, rng),
        "points": np.stack(clouds(offsets, rng, LIDAR.shape[0])),
    }


OFFSETS, VIEWS = views()
ALONE = {
    key: [e.encode(VIEWS[key[0]][i : i + 1]) for i in range(COUNT)] for key, e in ENCODERS.items()
}

DEPENDS = any(Encoder(raw, 2, "cpu").padded for raw in (CAMERA, LIDAR))


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("kind", ["jpeg", "points"])
@settings(max_examples=40)
@given(who=st.lists(st.integers(0, COUNT - 1), max_size=20))
def test_an_embedding_does_not_depend_on_its_batch(kind: str, padded: bool, who: list[int]) -> None:
    if not padded and DEPENDS:
        return  # here ONNX Runtime's bits depend on the size of a call: so all are padded
    found = ENCODERS[kind, padded].encode(VIEWS[kind][who])
    assert found.shape == (len(who), 2)
    for place, row in zip(who, found, strict=True):
        assert row.tobytes() == ALONE[kind, padded][place].tobytes()


def test_the_examples_find_what_is_there() -> None:
    for kind, limit in (("jpeg", 0.3), ("points", 0.8)):
        found = ENCODERS[kind, True].encode(VIEWS[kind])
        assert np.abs(found - OFFSETS).max() < limit


def test_files_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    other = {"encoder": LIDAR.encoder, "sha256": LIDAR.sha256}
    for raw, columns, said in (
        (CAMERA.model_copy(update=other), 2, "takes tensor"),
        (LIDAR.model_copy(update={"size": (64,)}), 2, "takes tensor"),
        (CAMERA, 3, "channels are float32"),
        (CAMERA.model_copy(update={"sha256": "0" * 64}), 2, "SHA-256"),
        (CAMERA.model_copy(update={"encoder": "gone.onnx"}), 2, "cannot be read"),
        (_in(tmp_path, b"no graph"), 2, "not a usable ONNX graph"),
        (_in(tmp_path, (SHIPPED / "nav2d" / "actor.onnx").read_bytes()), 2, "one of each"),
    ):
        with pytest.raises(BundleError, match=said):
            Encoder(raw, columns, "cpu")


def _in(folder: Path, graph: bytes) -> RawInput:
    name = f"{len(graph)}.onnx"
    (folder / name).write_bytes(graph)
    content = {"kind": "jpeg", "size": [64, 64], "encoder": name}
    return JpegInput.model_validate(content, context={"folder": folder})
