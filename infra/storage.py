"""Files by URL, on object storage: the one place that tells what is local from what is remote.

A place is a `Path`, or a URL as text: `s3://bucket/mine`, `gs://…`, all that fsspec knows.
Credentials and endpoints are those of each storage's own client, as in `AWS_PROFILE` or
`AWS_ENDPOINT_URL`. fsspec is imported where a URL is met, so that who has none needs none.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Final, overload

from infra.home import home_folder

Place = Path | str
"""A `Path`, or the text of a URL."""
_URL: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
EXTRA: Final = {"gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs", "abfs": "adlfs", "abfss": "adlfs"}
"""What fsspec needs beside itself, by the scheme; S3 comes with `rehearse[cloud]`."""


class StorageError(OSError):
    """A URL that cannot be read or written; the message names it, and the remedy."""


def is_url(place: Place) -> bool:
    """Whether this is the text of a URL, `file://` ones included."""
    return isinstance(place, str) and _URL.match(place) is not None


def placed(place: Place) -> Place:
    """A place as a person writes it: a URL as its text, what is on this machine as a path."""
    if not is_url(place):
        return Path(place)
    text = str(place).rstrip("/")
    return Path(text.removeprefix("file://")) if text.startswith("file://") else text


@overload
def child(folder: str, *names: str) -> str: ...
@overload
def child(folder: Place, *names: str) -> Place: ...
def child(folder: Place, *names: str) -> Place:
    """What lies below a place."""
    return folder.joinpath(*names) if isinstance(folder, Path) else "/".join([folder, *names])


def name_of(place: Place) -> str:
    """The last part of a place."""
    return place.name if isinstance(place, Path) else place.rsplit("/", 1)[-1]


def local_side(place: Place) -> Path:
    """Where that is made which belongs at a place: there, or for a URL in the home folder.

    The same for the same URL, so that what was interrupted can be gone on with.
    """
    if isinstance(place, Path):
        return place
    digest = hashlib.sha256(place.encode()).hexdigest()[:12]
    return home_folder() / "outgoing" / f"{name_of(place)}-{digest}"


@contextmanager
def reached(url: str) -> Iterator[tuple[Any, str]]:
    """The file system of a URL, and the path there; what goes wrong within is told with a remedy.

    Raises:
        StorageError: what reads it is not installed, nothing is there, or nobody answers or may.
    """
    scheme = url.split("://", 1)[0]
    try:
        import fsspec

        yield fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as error:
        if isinstance(error, ValueError) and "Protocol not known" not in str(error):
            raise
        need = EXTRA.get(scheme, "'rehearse[cloud]'")
        raise StorageError(f"{url}: {error}; pip install {need}") from error
    except StorageError:
        raise
    except FileNotFoundError as error:
        raise StorageError(f"{url}: there is no such object or bucket ({error})") from error
    except PermissionError as error:
        raise StorageError(
            f"{url}: not allowed ({error}); check the credentials and their rights"
        ) from error
    except Exception as error:  # each storage has errors of its own
        raise StorageError(f"{url}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    name = type(error).__name__
    if "Credential" in name:
        return (
            f"no credentials ({error}); set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
            "AWS_PROFILE, or what this storage's client asks for"
        )
    if "Connection" in name or "Timeout" in name:
        return f"nobody answers ({error}); check the network, and AWS_ENDPOINT_URL where it is set"
    return f"{name}: {error}"


def read(url: str, most: int) -> bytes:
    """An object, of which no more than `most` + 1 bytes are read. Raises `StorageError`."""
    with reached(url) as (system, path), system.open(path, "rb") as stream:
        return bytes(stream.read(most + 1))


def write(url: str, data: bytes) -> None:
    """Puts an object, which is there whole or not at all. Raises `StorageError`."""
    with reached(url) as (system, path):
        system.pipe_file(path, data)


def found(url: str, suffixes: tuple[str, ...], below: bool = True) -> list[str]:
    """URLs of all objects in or `below` a folder that end so, in order; none where there are none.

    Raises:
        StorageError: with the remedy.
    """
    with reached(url) as (system, path):
        system.invalidate_cache()
        names = system.find(path, maxdepth=None if below else 1)
        # Not what the file system would make of them: `memory://x` would be `memory:///x`.
        return sorted(f"{url}{n.removeprefix(path)}" for n in names if n.endswith(suffixes))


def facts(url: str) -> tuple[int, str]:
    """Bytes of an object, and what storage says of its version: other content, another text."""
    with reached(url) as (system, path):
        about = system.info(path)
        version = about.get("ETag") or about.get("etag") or about.get("md5Hash")
        return int(about["size"]), str(version or system.ukey(path)).strip('"')


def put_folder(folder: Path, url: str, own: str, last: Sequence[str]) -> None:
    """Puts the files of a folder; those named `last` are taken away first, and put in that order.

    So whoever reads them finds what they speak of whole, or finds none of them. Of what was there,
    what is named as `own` says (`*.onnx`) and not in the folder is taken away as well.

    Raises:
        StorageError: with the remedy; none of `last` is there then.
    """
    files = sorted(file for file in folder.iterdir() if file.is_file() and file.name[0] != ".")
    with reached(url) as (system, path):
        system.invalidate_cache()
        for old in system.find(path, maxdepth=1):
            name = old.rsplit("/", 1)[-1]
            if name in last or (fnmatch(name, own) and not (folder / name).exists()):
                system.rm_file(old)
        for file in sorted(files, key=lambda file: (file.name in last, _order(file.name, last))):
            system.pipe_file(f"{path}/{file.name}", file.read_bytes())


def _order(name: str, last: Sequence[str]) -> int:
    return list(last).index(name) if name in last else 0
