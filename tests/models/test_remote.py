"""Logs and bundles on S3, as moto's server keeps it: the same checks, and no half bundles."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from moto.moto_server.threaded_moto_server import ThreadedMotoServer
from moto.moto_server.werkzeug_app import DomainDispatcherApplication
from s3fs import S3FileSystem
from typer.testing import CliRunner

from models.cli import app
from models.logs import read_run
from planner.manifest import BundleError, read_manifest
from planner.naming import find_bundle
from streams.cli import app as rehearse
from tests.models.synthetic import SPEC, mass_spec, simulate


@dataclass
class S3:
    """A bucket, and how many bytes of which objects were served."""

    system: Any
    served: dict[str, int] = field(default_factory=dict)

    def put(self, folder: Path, to: str) -> str:
        """Uploads the files of a folder, with no help of ours."""
        self.system.put(f"{folder}/", f"bucket/{to}/", recursive=True)
        return f"s3://bucket/{to}"


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[str, dict[str, int]]]:
    served: dict[str, int] = {}
    answer = DomainDispatcherApplication.__call__

    def counted(self: Any, environ: Any, start_response: Any) -> Any:
        for part in answer(self, environ, start_response):
            if environ["REQUEST_METHOD"] == "GET":
                path = environ["PATH_INFO"]
                served[path] = served.get(path, 0) + len(part)
            yield part

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DomainDispatcherApplication, "__call__", counted)
        running = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
        running.start()
        host, port = running.get_host_and_port()
        yield f"http://{host}:{port}", served
        running.stop()


@pytest.fixture
def s3(server: tuple[str, dict[str, int]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> S3:
    url, served = server
    settings = {"ENDPOINT_URL": url, "ACCESS_KEY_ID": "a", "SECRET_ACCESS_KEY": "b"}
    settings |= {"DEFAULT_REGION": "us-east-1", "REGION": "us-east-1"}
    for name, value in settings.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setenv("REHEARSE_HOME", str(tmp_path / "home"))
    S3FileSystem.clear_instance_cache()
    system = S3FileSystem()
    if system.exists("bucket"):
        system.rm("bucket", recursive=True)
    system.mkdir("bucket")
    served.clear()
    return S3(system, served)


def test_a_training_from_one_url_to_another(s3: S3, run_folder: Path, tmp_path: Path) -> None:
    runner, spec = CliRunner(), tmp_path / "mass.yaml"
    spec.write_text(SPEC)
    data = s3.put(run_folder, "logs")
    words = ["train", str(spec), "--data", data, "--out", "s3://bucket/mine", "--json"]
    done = runner.invoke(app, [*words, "--steps", "4", "--no-actor", "--memory", "4"])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert told["bundle"] == "s3://bucket/mine"
    manifest = json.loads(s3.system.cat("bucket/mine/manifest.json"))
    assert manifest["digest"] == told["digest"]
    assert manifest["lineage"]["datasets"][0]["name"] == "logs"
    assert "versions" in manifest["lineage"]["datasets"][0]
    judge = ["evaluate", "s3://bucket/mine", "--data", data, "--spec", str(spec)]
    judge += ["--windows", "200", "--json", "--recalibrate", "s3://bucket/again"]
    judged = runner.invoke(app, judge)
    assert judged.exit_code in (0, 1), judged.output
    again = json.loads(judged.stdout)["recalibrated"]
    assert again["bundle"] == "s3://bucket/again"
    assert find_bundle("s3://bucket/again")[1].digest == again["digest"]


def test_a_bundle_is_fetched_once_and_checked_as_any(s3: S3, bundle_folder: Path) -> None:
    url = s3.put(bundle_folder, "mass")
    folder, manifest = find_bundle(url)
    assert manifest == read_manifest(bundle_folder)
    s3.served.clear()
    assert find_bundle(f"{url}/")[0] == folder
    assert not [path for path in s3.served if path.endswith(".onnx")]
    s3.system.pipe("bucket/mass/believe.onnx", b"other")
    (folder / "believe.onnx").write_bytes(b"other")
    with pytest.raises(BundleError, match=r"believe.onnx: 5 bytes instead of"):
        find_bundle(url)


def test_one_that_was_changed_on_the_way_is_not_loaded(s3: S3, bundle_folder: Path) -> None:
    url = s3.put(bundle_folder, "mass")
    data = s3.system.cat("bucket/mass/imagine.onnx")
    s3.system.pipe("bucket/mass/imagine.onnx", data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(BundleError, match=r"imagine.onnx: its SHA-256 is not the manifest's"):
        find_bundle(url)
    s3.system.rm_file("bucket/mass/manifest.json")
    with pytest.raises(BundleError, match=r"s3://bucket/mass: there is no manifest.json"):
        find_bundle(url)
    with pytest.raises(BundleError, match=r"s3://elsewhere/mass: .*(no such|no manifest)"):
        find_bundle("s3://elsewhere/mass")


def test_a_bundle_is_signed_and_released_by_url(
    s3: S3, bundle_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, key, runner = s3.put(bundle_folder, "mass"), tmp_path / "me.key", CliRunner()
    assert not s3.system.exists("bucket/mass/manifest.sig")
    for trusted in (False, True):
        words = ["bundle", "verify", url, "--json"]
        if trusted:
            monkeypatch.setenv("REHEARSE_TRUST", str(key.with_suffix(".pub")))
            refused = runner.invoke(rehearse, words)
            assert refused.exit_code == 1, refused.output
            monkeypatch.delenv("REHEARSE_TRUST")
            signed = runner.invoke(rehearse, ["bundle", "sign", url, "--key", str(key)])
            assert signed.exit_code == 0, signed.output
            monkeypatch.setenv("REHEARSE_TRUST", str(key.with_suffix(".pub")))
        else:
            from planner.signature import make_key

            make_key(key)
        checked = runner.invoke(rehearse, words)
        assert checked.exit_code == 0, checked.output
    added = runner.invoke(rehearse, ["bundle", "add", url, "--json"])
    assert added.exit_code == 0, added.output
    kept = Path(json.loads(added.stdout)["folder"])
    assert (kept / "manifest.sig").is_file()


def test_columns_that_nobody_asks_for_are_not_fetched(s3: S3, tmp_path: Path) -> None:
    frame = simulate(8, 400, seed=1)
    blob = np.random.default_rng(0).bytes(400)
    wide = frame.with_columns(
        belief=pl.Series([blob + i.to_bytes(4) + blob for i in range(frame.height)])
    )
    folder = tmp_path / "log/day=2026-11-02"
    folder.mkdir(parents=True)
    wide.write_parquet(folder / "part.parquet", compression="uncompressed")
    s3.put(tmp_path / "log", "log")
    s3.system.pipe("bucket/log/day=2026-11-01/part.parquet", b"garbage")
    s3.served.clear()
    from datetime import date

    spec = mass_spec().model_copy(update={"epoch_us": 1_793_577_600_000_000})  # 2026-11-02
    rows, about = read_run(spec, "s3://bucket/log", (date(2026, 11, 2), date(2026, 11, 2)))
    size = (folder / "part.parquet").stat().st_size
    assert rows.height == frame.height
    assert about["bytes"] == size > 2_000_000
    served = sum(n for path, n in s3.served.items() if path.endswith("part.parquet"))
    assert 0 < served < size / 5
    assert not [path for path in s3.served if "2026-11-01" in path and "parquet" in path]


def test_no_credentials_is_said_with_the_remedy(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY"):
        monkeypatch.delenv(f"AWS_{name}")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    S3FileSystem.clear_instance_cache()
    with pytest.raises(BundleError, match=r"no credentials .*AWS_ACCESS_KEY_ID"):
        find_bundle("s3://bucket/mass")
