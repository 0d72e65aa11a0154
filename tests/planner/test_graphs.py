"""Graphs and bundles that are refused: before the runtime sees them, each with its reason."""

from __future__ import annotations

import hashlib
import json
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from typer.testing import CliRunner

from planner import manifest, runtime, session
from planner.graphs import GraphError, check_graph
from planner.library import SHIPPED
from planner.manifest import MANIFEST, SIGNATURE, TRUST, BundleError, read_bundle, seal
from planner.quick import outputs_only, spread_constants
from planner.session import load_bundle
from planner.signature import make_key, sign_bundle
from schemas.system import load_spec
from streams.cli import app
from tests.planner.worlds import double_integrator, write_bundle

SPEC = load_spec("nav2d")


def model(*nodes: Any, opset: int = 20, **more: Any) -> Any:
    """y = x + w, or of other nodes."""
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [2]) for n in "xy"]
    weights = numpy_helper.from_array(np.ones(2, np.float32), "w")
    add = helper.make_node("Add", ["x", "w"], ["y"])
    graph = helper.make_graph(list(nodes) or [add], "g", ends[:1], ends[1:], [weights])
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10, **more
    )


def changed(change: Callable[[Any], object]) -> bytes:
    made = model()
    change(made)
    return bytes(made.SerializeToString())


def external(tensor: Any) -> None:
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")
    tensor.ClearField("raw_data")


def inside_a_branch(change: Callable[[Any], object]) -> bytes:
    """A change two graphs deep."""
    inner = model()
    change(inner)
    branch = helper.make_node("If", ["c"], ["y"], then_branch=inner.graph)
    outer = helper.make_node("If", ["c"], ["y"], then_branch=model(branch).graph)
    return bytes(model(outer).SerializeToString())


def constant(tensor: Any) -> Any:
    return helper.make_node("Constant", [], ["y"], value=tensor)


def outside() -> Any:
    tensor = numpy_helper.from_array(np.ones(2, np.float32), "v")
    external(tensor)
    return tensor


def test_the_shipped_graphs_and_a_small_one_are_taken() -> None:
    check_graph(changed(lambda m: None))
    for path in SHIPPED.glob("*/*.onnx"):
        check_graph(path.read_bytes())
        assert path.stat().st_size


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (changed(lambda m: external(m.graph.initializer[0])), "other files"),
        (inside_a_branch(lambda m: external(m.graph.initializer[0])), "other files"),
        (model(constant(outside())).SerializeToString(), "other files"),
        (changed(lambda m: m.opset_import.add(domain="com.microsoft", version=1)), "com.microsoft"),
        (changed(lambda m: setattr(m.graph.node[0], "domain", "mine")), "'mine'"),
        (inside_a_branch(lambda m: setattr(m.graph.node[0], "domain", "mine")), "'mine'"),
        (model(opset=12).SerializeToString(), "version 12; 17 to 24"),
        (model(opset=99).SerializeToString(), "version 99"),
        (changed(lambda m: m.ClearField("opset_import")), "does not say"),
        (changed(lambda m: setattr(m, "ir_version", 3)), "version 3"),
        (changed(lambda m: m.functions.add(name="f", domain="")), "functions"),
        (changed(lambda m: m.graph.ClearField("node")), "no graph"),
        (b"", "no graph"),
        (b"ORTM" * 8, "not an ONNX model"),
        (b"\x80\x04]\x94.", "not an ONNX model"),  # a pickle
        (changed(lambda m: None)[:-3], "not an ONNX model"),
    ],
)
def test_a_graph_that_is_not_whole_or_not_plain_is_refused(data: bytes, words: str) -> None:
    with pytest.raises(GraphError, match=words):
        check_graph(data)


def test_the_runtime_would_have_read_the_other_file(tmp_path: Path) -> None:
    """What external data would do: that they are refused is no empty rule."""
    secret = tmp_path / "secret"
    secret.write_bytes(np.array([7.0, 8.0], np.float32).tobytes())
    made = model()
    tensor = made.graph.initializer[0]
    onnx.external_data_helper.set_external_data(tensor, str(secret), length=8)
    tensor.ClearField("raw_data")
    with pytest.raises(GraphError, match="other files"):
        check_graph(made.SerializeToString())


def test_a_bundle_with_such_a_graph_is_refused_whole(tmp_path: Path) -> None:
    write_bundle(tmp_path, SPEC, double_integrator())
    found = onnx.load(tmp_path / "actor.onnx")
    found.graph.node[0].domain = "mine"
    onnx.save(found, tmp_path / "actor.onnx")
    content = json.loads((tmp_path / MANIFEST).read_text())
    seal(tmp_path, {k: v for k, v in content.items() if k not in ("files", "format", "digest")})
    with pytest.raises(BundleError, match=r"actor\.onnx: it has operators of 'mine'"):
        load_bundle(tmp_path, provider="cpu")


def test_what_is_run_is_what_was_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each file is read once: what is put in its place afterwards does not count."""
    write_bundle(tmp_path, SPEC, double_integrator())
    checked = {path.stem: path.read_bytes() for path in tmp_path.glob("*.onnx")}
    digest = read_bundle(tmp_path)[0].digest
    given: list[str] = []
    real = runtime.open_session

    def watched(graph: bytes, provider: str, threads: int, name: str) -> Any:
        given.append(hashlib.sha256(graph).hexdigest())
        for path in tmp_path.glob("*.onnx"):
            path.write_bytes(b"something else")
        return real(graph, provider, threads, name)

    monkeypatch.setattr(session, "open_session", watched)
    bundle = load_bundle(tmp_path, provider="cpu")
    assert bundle.manifest.digest == digest
    read = {"believe": (0, 1, 2, 5), "actor": (0,)}
    wanted = [spread_constants(outputs_only(checked[n], places)) for n, places in read.items()]
    wanted.insert(1, spread_constants(checked["imagine"]))
    assert given == [hashlib.sha256(graph).hexdigest() for graph in wanted]


def test_sizes_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_bundle(tmp_path, SPEC, double_integrator())
    monkeypatch.setattr(manifest, "MOST_BYTES", 100)
    with pytest.raises(BundleError, match="larger than 100 bytes"):
        read_bundle(tmp_path)
    monkeypatch.setattr(manifest, "MOST_MANIFEST", 99)
    with pytest.raises(BundleError, match=r"manifest\.json: larger than 99 bytes"):
        read_bundle(tmp_path)


def test_only_bundles_of_whom_one_trusts_are_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_bundle(tmp_path / "b", SPEC, double_integrator())
    mine, other = tmp_path / "my.key", tmp_path / "other.key"
    run = CliRunner().invoke
    signed = run(app, ["bundle", "sign", str(folder), "--key", str(mine), "--new-key", "--json"])
    assert signed.exit_code == 0, signed.output
    trusted = json.loads(signed.stdout)["public_key"]
    assert stat.S_IMODE(mine.stat().st_mode) == 0o600
    verify = ["bundle", "verify", str(folder), "--json", "--key"]
    assert run(app, [*verify, trusted]).exit_code == 0
    refused = run(app, [*verify, str(make_key(other))])
    assert refused.exit_code == 1
    assert "signed it" in json.loads(refused.stdout)["why"]
    monkeypatch.setenv(TRUST, trusted)
    assert load_bundle(folder, provider="cpu").digest
    with pytest.raises(BundleError, match="not signed"):
        load_bundle(SHIPPED / "nav2d", provider="cpu")
    text = (folder / MANIFEST).read_text()
    (folder / MANIFEST).write_text(text + " ")  # the same digest, other bytes
    with pytest.raises(BundleError, match="signed it"):
        load_bundle(folder, provider="cpu")
    (folder / MANIFEST).write_text(text)
    sign_bundle(folder / MANIFEST, other)
    with pytest.raises(BundleError, match="signed it"):
        load_bundle(folder, provider="cpu")
    (folder / SIGNATURE).write_bytes(b"short")
    with pytest.raises(BundleError, match="signed it"):
        load_bundle(folder, provider="cpu")


def test_a_signature_goes_with_what_was_signed(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "b", SPEC, double_integrator())
    make_key(tmp_path / "k.key")
    assert sign_bundle(folder / MANIFEST, tmp_path / "k.key").is_file()
    write_bundle(folder, SPEC, double_integrator(noise=0.1))
    assert not (folder / SIGNATURE).exists()


@pytest.mark.parametrize(
    "content", [b"", b"-----BEGIN PUBLIC KEY-----\n?\n-----END PUBLIC KEY-----"]
)
def test_a_file_of_keys_that_is_none_is_said(tmp_path: Path, content: bytes) -> None:
    folder = write_bundle(tmp_path / "b", SPEC, double_integrator())
    (tmp_path / "keys").write_bytes(content)
    for name, words in (("keys", "public key"), ("gone", "cannot be read")):
        with pytest.raises(BundleError, match=words):
            load_bundle(folder, provider="cpu", trusted=tmp_path / name)
