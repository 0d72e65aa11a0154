"""One worker process: Faust around the loop, its start, its watchdog, and its end."""

import asyncio
import fcntl
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import faust
import numpy as np
import onnxruntime
import structlog

from planner.session import Provider
from schemas.system import SystemSpec
from schemas.topics import topic, worker_group
from streams.app import WorkerApp, make_app
from streams.belief import Row
from streams.bundles import ReleaseWatch, Shelf
from streams.decide import decide, step
from streams.desk import Clock, Desk, Options
from streams.identity import FORGOTTEN_S, Displaced, client_id, other_holder
from streams.publish import Publisher
from streams.supervise import TryAgain
from streams.warm import collector_at_rest, warm_frames

_log = structlog.get_logger(__name__)
WATCHDOG_S = 15.0
CHECK_S = 0.05
STOP_S = 10.0


class WorkerError(RuntimeError):
    """The worker had to stop: what happened, and what helps."""


class WorkerStalled(WorkerError, TryAgain):
    """The worker cannot go on, but a new start would: it goes on from its beliefs."""


def run_worker(
    spec: SystemSpec,
    bootstrap: str,
    extra: Mapping[str, str],
    stop: threading.Event,
    *,
    bundles: Sequence[Path] = (),
    known: Sequence[Path] = (),
    worker_id: str = "worker-0",
    data_dir: Path = Path(".rehearse/worker-0"),
    group: str | None = None,
    shadow: bool = False,
    clock: Clock = "event",
    max_deadline_us: int | None = None,
    provider: Provider = "auto",
    threads: int = 1,
) -> dict[str, Any]:
    """Decides the frames of `spec` until `stop` is set; gives a summary as plain JSON values.

    Args:
        bundles: bundle folders, or folders of them; the first that fits acts until a release.
        known: further such folders, in which a released bundle is looked for.
        worker_id: names this worker for good: it keeps its partitions over a short restart.
        data_dir: its own folder; what is lost there is recovered from `S.beliefs`.
        group: consumer group; that of a shadow is its own, so that it sees every frame.
        shadow: decides and logs trajectories, and publishes no action.
        clock: under `wall`, frames that come too late are not planned on.
        max_deadline_us: plans for less than the spec's deadline.

    Raises:
        WorkerStalled: Kafka did not confirm, Faust crashed, or commits stopped.
        WorkerError: the folder or the id is taken; says what helps.
        KafkaSetupError: no broker answers.
    """
    # Threads wait for the interpreter's lock for this long: 5 ms would be a third of a round trip.
    sys.setswitchinterval(0.0005)
    group = group or worker_group(spec, shadow)
    with _alone_in(data_dir):
        _refuse_a_second(bootstrap, extra, group, worker_id, data_dir)
        options = Options(
            worker=worker_id,
            attempt=_next_attempt(data_dir),
            clock=clock,
            shadow=shadow,
            max_deadline_us=max_deadline_us,
            provenance=_provenance(provider, threads, shadow),
        )
        shelf = Shelf(spec, bundles, provider, threads, known=known)
        watch = ReleaseWatch(spec, bootstrap, extra, shelf.preload)
        try:
            parts = (spec, bootstrap, extra, stop, shelf, options, data_dir, group)
            return asyncio.run(_serve(*parts))
        finally:
            watch.close()
            shelf.close()


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Holds a worker's folder; the system lets go of it when the process ends, however it ends."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise WorkerError(
                f"{folder}: another worker uses this folder; give each worker its own id"
            ) from error
        yield


def _refuse_a_second(
    bootstrap: str, extra: Mapping[str, str], group: str, worker: str, data_dir: Path
) -> None:
    own = client_id(worker, data_dir)
    place = other_holder(bootstrap, extra, group, worker, own, FORGOTTEN_S)
    if place is not None:
        raise WorkerError(
            f"{worker} is already running with another data folder ({place}): stop it, or give "
            "this worker an id of its own with --id"
        )


async def _serve(
    spec: SystemSpec,
    bootstrap: str,
    extra: Mapping[str, str],
    stop: threading.Event,
    shelf: Shelf,
    options: Options,
    data_dir: Path,
    group: str,
) -> dict[str, Any]:
    began = time.monotonic()
    worker = make_app(spec, bootstrap, extra, group=group, worker=options.worker, data_dir=data_dir)
    publisher = Publisher(bootstrap, extra)
    desk = Desk(spec, worker.beliefs, publisher, shelf, options)
    _wire(worker, desk)
    _warm_up(desk)
    publisher.connect(topic(spec, kind) for kind in ("actions", "trajectories", "beliefs"))
    await worker.app.start()
    ready_s = time.monotonic() - began
    _log.info("worker ready", worker=options.worker, seconds=round(ready_s, 2))
    try:
        with collector_at_rest():  # a full pass would stop the loop for a tenth of a second
            await _until(worker, desk, stop)
    finally:
        await _end(worker, desk, publisher)
    return {**desk.tally.summary(), "worker": options.worker, "ready_s": round(ready_s, 3)}


def _warm_up(desk: Desk) -> None:
    """Decides made-up frames into the void; what planning costs here is known after it."""
    row: Row | None = None
    for frame in warm_frames(desk.spec):
        bundle, budget = desk.bundle(frame), desk.trial_budget()
        row, decisions = step(desk.spec, bundle, row, frame, budget, desk.trial_budget())
        desk.rehearse(frame, row, decisions)


def _wire(worker: WorkerApp, desk: Desk) -> None:
    async def agent(stream: Any) -> None:
        await decide(stream, desk)

    async def revoked(app: Any, revoked: Any, **_: Any) -> None:
        await desk.drain()  # its rows belong to another worker from now on

    worker.app.agent(worker.frames, name="decide")(agent)
    worker.app.on_partitions_revoked.connect(revoked)


async def _until(worker: WorkerApp, desk: Desk, stop: threading.Event) -> None:
    """Returns when asked to stop. Raises `WorkerError` when the worker cannot go on."""
    dog = Watchdog()
    while not stop.is_set():
        await asyncio.sleep(CHECK_S)
        if desk.failure is not None:
            raise WorkerStalled(
                f"{desk.failure}: the frames in flight are not acknowledged and will be read "
                "again; check the broker, then start the worker again"
            ) from desk.failure
        if worker.app.crashed:
            raise _crash(worker.app) from worker.app._crash_reason
        dog.look(desk.tally.frames, _committed(worker.app))


def _crash(app: Any) -> WorkerError:
    reason = app._crash_reason
    if isinstance(reason, faust.exceptions.ConsistencyError):
        return WorkerError(
            f"{app.conf.datadir} holds beliefs that the broker's changelog does not know: it was "
            "made with another broker, or the topic was deleted. Remove that folder; what the "
            "changelog holds is recovered from it"
        )
    if isinstance(reason, Displaced):
        return WorkerError(str(reason))
    return WorkerStalled(f"Faust stopped: {reason!r}; start the worker again")


class Watchdog:
    """Committed offsets must advance while frames are acknowledged.

    After a rebalance Faust may hold a gap in its acknowledgements, and then never commits again.
    Only time in which frames are acknowledged counts: while the broker is away, nothing can be.
    """

    def __init__(
        self, patience_s: float = WATCHDOG_S, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._patience_s, self._clock = patience_s, clock
        self._frames = self._committed = self._before = 0
        self._looked = clock()
        self.stalled_s = 0.0

    def look(self, frames: int, committed: int) -> None:
        """Raises `WorkerStalled` when frames went by for long, and nothing was committed."""
        now = self._clock()
        passed, self._looked = min(now - self._looked, 1.0), now
        if committed != self._committed:
            self._committed, self._before, self.stalled_s = committed, frames, 0.0
        elif frames != self._frames:
            self.stalled_s += passed
        self._frames = frames
        if self.stalled_s > self._patience_s:
            raise WorkerStalled(
                f"{frames - self._before} frames were acknowledged in {self._patience_s:g} s, but "
                "no offset was committed; start the worker again, it goes on from its beliefs"
            )


def _committed(app: Any) -> int:
    return sum(offset or 0 for offset in app.consumer._committed_offset.values())


async def _end(worker: WorkerApp, desk: Desk, publisher: Publisher) -> None:
    """Stops reading, lets what is in flight arrive, commits it, and leaves."""
    if desk.failure is not None:
        # Otherwise Faust waits for acknowledgements that do not come.
        worker.app.conf.stream_wait_empty = False
    try:
        async with asyncio.timeout(STOP_S):
            await worker.app.stop()
    except TimeoutError:
        _log.error("Faust does not stop; leaving it behind", seconds=STOP_S)
    await desk.drain()
    left = await asyncio.to_thread(publisher.close)
    if left:
        _log.error("records not delivered", count=left)


def _next_attempt(data_dir: Path) -> int:
    """How often this worker was started before: tells its attempts at a tick apart."""
    file = data_dir / "attempt"
    attempt = int(file.read_text()) + 1 if file.exists() else 0
    fresh = file.with_suffix(".new")
    fresh.write_text(str(attempt))
    fresh.replace(file)
    return attempt


def _provenance(provider: str, threads: int, shadow: bool) -> dict[str, Any]:
    return {
        "shadow": shadow,
        "provider": provider,
        "threads": threads,
        "versions": {
            "python": ".".join(map(str, sys.version_info[:3])),
            "numpy": np.__version__,
            "onnxruntime": onnxruntime.__version__,
            "faust": faust.__version__,
        },
        "machine": f"{os.uname().sysname} {os.uname().machine}",
    }
