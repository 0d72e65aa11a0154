"""The jars: fetched over HTTP from a repository on this machine that may cut or alter them."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from infra import jars
from infra.jars import JarsError, Pin


class Mirror(ThreadingHTTPServer):
    """A Maven repository; the first `cut` answers with a jar break off half-way."""

    cut = 0
    asked: list[str]


class Handler(SimpleHTTPRequestHandler):
    server: Mirror

    def do_GET(self) -> None:
        file = Path(self.translate_path(self.path))
        if file.suffix == ".jar" and file.is_file():
            self.server.asked.append(self.path.lstrip("/"))
            if self.server.cut > 0:
                self.server.cut -= 1
                self.send_response(200)
                self.send_header("Content-Length", str(file.stat().st_size))
                self.end_headers()
                self.wfile.write(file.read_bytes()[: file.stat().st_size // 2])
                return
        super().do_GET()

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture(scope="module")
def whole() -> Path:
    """A folder with all jars, checked."""
    folder = jars.cache_folder()
    jars.classpath(folder, progress=print)
    return folder


@pytest.fixture
def mirror(whole: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Mirror]:
    server = Mirror(("127.0.0.1", 0), partial(Handler, directory=str(whole)))
    server.asked = []
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    monkeypatch.setenv("REHEARSE_MAVEN", f"http://127.0.0.1:{server.server_port}/")
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def cache(whole: Path, tmp_path: Path) -> Path:
    """A copy of the cache that a test may damage (by replacing files: they are hard links)."""
    try:
        shutil.copytree(whole, tmp_path / "jars", copy_function=os.link)
    except (OSError, shutil.Error):  # another file system
        shutil.rmtree(tmp_path / "jars", ignore_errors=True)
        shutil.copytree(whole, tmp_path / "jars")
    return tmp_path / "jars"


def replace(file: Path, data: bytes) -> None:
    file.unlink()
    file.write_bytes(data)


def test_the_pins_name_the_whole_broker() -> None:
    found = jars.pins()
    coordinates = {":".join(pin.coordinate) for pin in found}
    assert set(jars.COORDINATES) <= coordinates
    assert len({pin.path for pin in found}) == len(found) > 40


def test_a_damaged_pin_names_its_line(tmp_path: Path) -> None:
    file = tmp_path / "pins"
    file.write_text(f"# head\n{'0' * 64}  a/b/1/b-1.jar\nshort  a/b/1/b-1.jar\n")
    with pytest.raises(JarsError, match=r"pins:3: expected 'SHA256  PATH.jar'"):
        jars.pins(file)


def test_a_complete_cache_asks_nobody(cache: Path, mirror: Mirror) -> None:
    found = jars.classpath(cache)
    assert mirror.asked == []
    assert all(file.is_file() for file in found)


def test_a_corrupted_and_a_missing_jar_are_fetched_again(cache: Path, mirror: Mirror) -> None:
    corrupted, missing = jars.pins()[3], jars.pins()[7]
    replace(cache / corrupted.path, (cache / corrupted.path).read_bytes()[:-1] + b"x")
    (cache / missing.path).unlink()
    jars.classpath(cache)
    assert sorted(mirror.asked) == sorted([corrupted.path, missing.path])
    assert jars._wrong(jars.pins(), cache) == []


def test_a_truncated_download_is_repeated(cache: Path, mirror: Mirror) -> None:
    pin = jars.pins()[0]
    (cache / pin.path).unlink()
    mirror.cut = 1
    lines: list[str] = []
    jars.classpath(cache, progress=lines.append)
    assert mirror.asked == [pin.path, pin.path]
    assert jars._sha256(cache / pin.path) == pin.sha256
    assert lines[-1] == "fetched 1 of 1 jars"


def test_what_never_comes_whole_is_not_left_behind(cache: Path, mirror: Mirror) -> None:
    pin = jars.pins()[0]
    (cache / pin.path).unlink()
    mirror.cut = 99
    with pytest.raises(JarsError, match=f"cannot fetch {pin.path}"):
        jars.classpath(cache)
    assert not (cache / pin.path).exists()
    assert not (cache / ".unfinished").exists()


def test_the_rest_of_a_killed_download_is_thrown_away(cache: Path, mirror: Mirror) -> None:
    pin = jars.pins()[0]
    half = cache / ".unfinished" / "1" / pin.path
    half.parent.mkdir(parents=True)
    half.write_bytes((cache / pin.path).read_bytes()[:100])
    (cache / pin.path).unlink()
    jars.classpath(cache)
    assert jars._sha256(cache / pin.path) == pin.sha256
    assert not (cache / ".unfinished").exists()


def test_other_bytes_under_the_right_name_are_refused(
    cache: Path, mirror: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = jars.pins()[0].path
    altered = Pin(path, "0" * 64)
    monkeypatch.setattr(jars, "pins", lambda: (altered,))
    with pytest.raises(JarsError, match=r"kafka-jars.sha256 says 0000"):
        jars.classpath(cache)
    assert mirror.asked == [path]


def test_an_unreachable_repository_is_said_with_remedies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REHEARSE_MAVEN", "http://127.0.0.1:9")
    with pytest.raises(JarsError) as caught:
        jars.classpath(tmp_path / "empty")
    for word in ("HTTPS_PROXY", "REHEARSE_MAVEN", str(tmp_path / "empty"), "--bootstrap-servers"):
        assert word in str(caught.value)


def test_a_cache_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(JarsError, match="REHEARSE_CACHE"):
        jars.classpath(tmp_path / "file" / "jars")


def test_the_folder_is_chosen_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REHEARSE_CACHE", "/a")
    assert jars.cache_folder() == Path("/a/jars")
    monkeypatch.delenv("REHEARSE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/b")
    assert jars.cache_folder() == Path("/b/rehearse/jars")
