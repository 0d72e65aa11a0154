"""Bundles by digest: found in folders, loaded before the first frame that names them comes."""

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import msgspec
from confluent_kafka import OFFSET_BEGINNING, Message, TopicPartition

from infra.log import Log
from planner.library import folders_of
from planner.manifest import BundleError, peek
from planner.runtime import Provider
from planner.session import Bundle, load_bundle
from schemas.messages import Control, decode
from schemas.system import SystemSpec
from schemas.topics import topic
from streams.topic_io import make_consumer

_log = Log("bundles")


class Shelf:
    """The bundles of one worker. `get` waits for a bundle that is not loaded yet.

    Until a release, the first of `roots` that fits acts; a released one is looked for in `known`
    folders as well, whose bundles never act by themselves.
    """

    def __init__(
        self,
        spec: SystemSpec,
        roots: Sequence[Path],
        provider: Provider = "auto",
        threads: int = 1,
        *,
        known: Sequence[Path] = (),
    ) -> None:
        self._spec, self._defaults = spec, tuple(roots)
        self._roots = tuple(dict.fromkeys((*roots, *known)))
        self._provider, self._threads = provider, threads
        self._lock = threading.Lock()
        self._loads: dict[str, Future[Bundle | None]] = {}
        self._missing: set[str] = set()  # named, but in no folder so far
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="bundles")
        self.default = self._first()

    def get(self, digest: str | None) -> Bundle | None:
        """The bundle of `digest`, without one the first that fits; None where there is none."""
        digest = digest or self.default
        return None if digest is None else self.preload(digest).result()

    def preload(self, digest: str) -> "Future[Bundle | None]":
        """Starts to load the bundle of `digest`, unless that was done before."""
        with self._lock:
            arrived = digest in self._missing and self._find(digest) is not None
            if digest not in self._loads or arrived:
                self._missing.discard(digest)
                self._loads[digest] = self._pool.submit(self._load, digest)
            return self._loads[digest]

    def _first(self) -> str | None:
        for folder in folders_of(self._defaults):
            # Folders of other systems' bundles are no fault: they are not even opened.
            fits = peek(folder, "interface_hash") == self._spec.interface_hash
            bundle = self._open(folder) if fits else None
            if bundle is not None:
                ready: Future[Bundle | None] = Future()
                ready.set_result(bundle)
                self._loads[bundle.digest] = ready
                return bundle.digest
        return None

    def _load(self, digest: str) -> Bundle | None:
        folder = self._find(digest)
        if folder is None:
            self._missing.add(digest)
            places = ", ".join(map(str, self._roots)) or "no folder"
            _log.error("bundle not found; the fallback acts", digest=digest, looked_in=places)
            return None
        return self._open(folder)

    def _find(self, digest: str) -> Path | None:
        return next(
            (path for path in folders_of(self._roots) if peek(path, "digest") == digest), None
        )

    def _open(self, folder: Path) -> Bundle | None:
        try:
            bundle = load_bundle(folder, self._provider, self._threads)
            bundle.check(self._spec)
        except BundleError as error:
            _log.error("bundle cannot be used", folder=str(folder), error=str(error))
            return None
        _log.info("bundle loaded", folder=str(folder), digest=bundle.digest[:12])
        return bundle

    def close(self) -> None:
        """Ends the loading thread."""
        self._pool.shutdown(wait=True, cancel_futures=True)


class ReleaseWatch:
    """A thread that reads `S.control` and calls `load` with the digest of each release."""

    def __init__(
        self,
        spec: SystemSpec,
        bootstrap: str,
        extra: Mapping[str, str],
        load: Callable[[str], object],
    ) -> None:
        self._consumer = make_consumer(bootstrap, extra)
        self._consumer.assign([TopicPartition(topic(spec, "control"), 0, OFFSET_BEGINNING)])
        self._load = load
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="releases", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._closing.is_set():
            for message in self._consumer.consume(100, 0.2):
                self._read(message)
        self._consumer.close()

    def _read(self, message: Message) -> None:
        value = message.value()
        if message.error() is not None or value is None:
            return
        try:
            control = decode(Control, value)
        except msgspec.MsgspecError as error:
            _log.warning("control record ignored", offset=message.offset(), error=str(error))
            return
        if control.kind == "release" and control.bundle:
            self._load(control.bundle)

    def close(self) -> None:
        """Ends the thread and its consumer."""
        self._closing.set()
        self._thread.join()
