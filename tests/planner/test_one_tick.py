"""One tick under all members: the bits of `imagine`, from a graph that does less."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import numpy_helper

from planner import session
from planner.library import SHIPPED
from planner.one_tick import one_tick
from planner.session import Bundle, load_bundle, next_by_imagine
from schemas.system import load_spec
from tests.planner.worlds import double_integrator, make_bundle

F32 = npt.NDArray[np.float32]
BUNDLES = ("nav2d", "autoscale")


def graph_of(name: str) -> bytes:
    return (SHIPPED / name / "imagine.onnx").read_bytes()


def rows_for(bundle: Bundle, rows: int, seed: int = 0, scale: float = 1.0) -> list[F32]:
    """h, z, action and noise of as many rows."""
    rng = np.random.default_rng(seed)
    sizes = (bundle.hidden, bundle.latent, len(bundle.manifest.action_columns), bundle.latent)
    return [(scale * rng.standard_normal((rows, size))).astype(np.float32) for size in sizes]


def operators(graph: bytes) -> Counter[str]:
    return Counter(node.op_type for node in onnx.load_model_from_string(graph).graph.node)


@pytest.mark.parametrize("name", BUNDLES)
def test_shipped_bundles_give_the_bits_of_imagine(name: str) -> None:
    bundle = load_bundle(SHIPPED / name, "cpu")
    assert bundle._next is not None
    for seed, rows in enumerate([*range(1, 18), 63, 64, 65, 200, 401]):
        given = rows_for(bundle, rows, seed)
        found = bundle.next(*given)
        assert found.shape == (bundle.members, rows, len(bundle.manifest.columns))
        assert found.tobytes() == next_by_imagine(bundle, *given).tobytes()


@pytest.mark.parametrize("name", BUNDLES)
@pytest.mark.parametrize("scale", [0.0, 1e-6, 30.0, 1e4, 1e30])
def test_bits_at_the_edges(name: str, scale: float) -> None:
    """Fresh beliefs are zeros; what is far off is clipped; no noise is asked for by `doubt`."""
    bundle = load_bundle(SHIPPED / name, "cpu")
    h, z, action, noise = rows_for(bundle, 33, seed=7, scale=scale)
    for drawn in (noise, np.zeros_like(noise)):
        given = (h, z, action, drawn)
        assert bundle.next(*given).tobytes() == next_by_imagine(bundle, *given).tobytes()


def test_what_is_no_number_stays_in_its_row() -> None:
    bundle = load_bundle(SHIPPED / "nav2d", "cpu")
    h, z, action, noise = rows_for(bundle, 9)
    h[3], z[5], action[7] = np.nan, np.inf, np.nan
    given = (h, z, action, noise)
    np.testing.assert_array_equal(bundle.next(*given), next_by_imagine(bundle, *given))
    sound = np.asarray(np.isfinite(bundle.next(*given)).all(axis=(0, 2)))
    assert sound[[0, 1, 2, 4, 6, 8]].all()


@pytest.mark.parametrize("name", BUNDLES)
def test_less_is_computed(name: str) -> None:
    made = one_tick(graph_of(name), 5)
    assert made is not None
    before = onnx.load_model_from_string(graph_of(name)).graph
    (scan,) = (node for node in before.node if node.op_type == "Scan")
    (body,) = (attribute.g for attribute in scan.attribute if attribute.name == "body")
    found = operators(made)
    assert not found["Scan"]
    assert found["Gemm"] < sum(node.op_type == "Gemm" for node in body.node) + 3
    assert found["Slice"] == sum(node.op_type == "Slice" for node in body.node) - 5
    names = {tensor.name for tensor in onnx.load_model_from_string(made).graph.initializer}
    assert not any("critic" in name for name in names)
    heads = any("heads" in name for name in names)
    assert heads == (name == "autoscale"), "its shares are read off there"


def changed(change: Any) -> bytes:
    model = onnx.load_model_from_string(graph_of("nav2d"))
    change(model.graph)
    data: bytes = model.SerializeToString()
    return data


def rename_input(graph: Any) -> None:
    graph.input[0].name = "state"


def two_scans(graph: Any) -> None:
    graph.node.extend([node for node in graph.node if node.op_type == "Scan"])


def no_scan(graph: Any) -> None:
    graph.node.remove(next(node for node in graph.node if node.op_type == "Scan"))


def other_axis(graph: Any) -> None:
    (scan,) = (node for node in graph.node if node.op_type == "Scan")
    scan.attribute.append(onnx.helper.make_attribute("scan_input_axes", [0, 0]))


def no_join(graph: Any) -> None:
    (scan,) = (node for node in graph.node if node.op_type == "Scan")
    (body,) = (attribute.g for attribute in scan.attribute if attribute.name == "body")
    for node in body.node:
        if node.op_type == "Concat" and len(node.input) == 5:
            node.attribute[0].i = 1


@pytest.mark.parametrize("change", [rename_input, two_scans, no_scan, other_axis, no_join])
def test_another_form_is_left_as_it_is(change: Any) -> None:
    assert one_tick(changed(change), 5) is None


def test_another_number_of_members_is_left_as_it_is() -> None:
    assert one_tick(graph_of("nav2d"), 4) is None


def test_of_another_maker_imagine_itself_is_asked(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path, load_spec("nav2d"), double_integrator(noise=0.5))
    assert bundle._next is None
    given = rows_for(bundle, 6)
    assert bundle.next(*given).tobytes() == next_by_imagine(bundle, *given).tobytes()


def nearly(tensor: F32) -> F32:
    return np.nextafter(tensor, np.float32(9))


def misshapen(tensor: F32) -> F32:
    return np.ones((3, 3), np.float32)


@pytest.mark.parametrize("change", [nearly, misshapen])
def test_what_gives_other_bits_or_none_is_not_taken(
    change: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(graph: bytes, members: int) -> bytes | None:
        made = one_tick(graph, members)
        assert made is not None
        model = onnx.load_model_from_string(made)
        for tensor in model.graph.initializer:
            if tensor.name == "model.direct_scaler.mean":
                value = change(numpy_helper.to_array(tensor))
                tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
        data: bytes = model.SerializeToString()
        return data

    monkeypatch.setattr(session, "one_tick", wrong)
    bundle = load_bundle(SHIPPED / "nav2d", "cpu")
    assert bundle._next is None
    given = rows_for(bundle, 5)
    assert bundle.next(*given).tobytes() == next_by_imagine(bundle, *given).tobytes()
