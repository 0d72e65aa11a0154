"""What is local and what is remote; what an upload leaves that is cut off; errors with a remedy."""

from pathlib import Path
from typing import Any

import fsspec
import pytest

from infra.storage import (
    StorageError,
    child,
    facts,
    found,
    is_url,
    local_side,
    name_of,
    placed,
    put_folder,
    read,
    write,
)
from tests.support import unique

LAST = ("list.sig", "list.json")


@pytest.fixture
def url() -> str:
    return f"memory://{unique()}/there"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.onnx", "b.onnx", "list.json", "notes.yaml", ".hidden"):
        (tmp_path / name).write_text(f"new {name}")
    return tmp_path


def test_a_url_is_told_from_a_path(tmp_path: Path) -> None:
    assert [is_url(x) for x in ("s3://b/k", "memory://k", "a/b", "c:/x", Path("s3://b"))] == [
        True,
        True,
        False,
        False,
        False,
    ]
    assert placed("s3://b/k/") == "s3://b/k"
    assert placed(f"file://{tmp_path}/log") == tmp_path / "log"
    assert placed("log/") == Path("log")
    assert (name_of("s3://b/mine"), name_of(Path("x/mine"))) == ("mine", "mine")
    assert (child("s3://b", "x"), child(Path("b"), "x")) == ("s3://b/x", Path("b/x"))


def test_a_url_has_one_place_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REHEARSE_HOME", str(tmp_path))
    one = local_side("s3://b/mine")
    assert one == local_side("s3://b/mine") != local_side("s3://c/mine")
    assert one.is_relative_to(tmp_path)
    assert local_side(Path("x")) == Path("x")


def test_objects_are_written_found_and_read(url: str) -> None:
    write(child(url, "x/1.parquet"), b"12345")
    write(child(url, "2.txt"), b"2")
    assert found(url, (".parquet",)) == [child(url, "x/1.parquet")]
    assert found(url, ("",), below=False) == [child(url, "2.txt")]
    assert read(child(url, "x/1.parquet"), 2) == b"123", "one more than allowed, to be noticed"
    size, version = facts(child(url, "x/1.parquet"))
    write(child(url, "x/1.parquet"), b"54321")
    assert (size, facts(child(url, "x/1.parquet"))[1] != version) == (5, True)


def test_a_folder_takes_the_place_of_another(url: str, folder: Path) -> None:
    for name in ("old.onnx", "list.sig", "list.json", "not-ours.txt", "below/old.onnx"):
        write(child(url, name), b"old")
    put_folder(folder, url, "*.onnx", LAST)
    names = {one.removeprefix(f"{url}/") for one in found(url, ("",))}
    assert names == {
        "a.onnx",
        "b.onnx",
        "list.json",
        "notes.yaml",
        "not-ours.txt",
        "below/old.onnx",
    }
    assert read(child(url, "list.json"), 100) == b"new list.json"


@pytest.mark.parametrize("kept", [0, 1, 2, 3])
def test_what_is_cut_off_has_no_list(
    url: str, folder: Path, kept: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(child(url, "list.json"), b"old")
    system, left = fsspec.filesystem("memory"), kept
    put = system.pipe_file

    def cut(path: str, *rest: Any, **named: Any) -> None:
        nonlocal left
        if left == 0:
            raise ConnectionResetError("cut")
        left -= 1
        put(path, *rest, **named)

    with monkeypatch.context() as patch:
        patch.setattr(type(system), "pipe_file", staticmethod(cut))
        with pytest.raises(StorageError, match="nobody answers"):
            put_folder(folder, url, "*.onnx", LAST)
    assert not found(url, ("list.json",))
    put_folder(folder, url, "*.onnx", LAST)
    assert found(url, ("list.json",))


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("nowhere://b/k", "nowhere://b/k: Protocol not known: nowhere; pip install"),
        ("gs://b/k", "gs://b/k: .*pip install gcsfs"),
        ("memory://never/there", "memory://never/there: there is no such object"),
    ],
)
def test_what_is_missing_is_named_with_a_remedy(place: str, said: str) -> None:
    with pytest.raises(StorageError, match=said):
        read(place, 10)
