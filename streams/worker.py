"""One worker process: Faust around the loop, its start, its watchdog, and its end."""

import asyncio
import fcntl
import os
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import faust
import numpy as np
import onnxruntime
from aiokafka.errors import KafkaConnectionError

from infra.kafka import BrokerAwayError
from infra.log import Log
from planner.runtime import Provider
from schemas.system import SystemSpec
from schemas.topics import WorkerRole, changelog_of, topic, worker_group
from streams.app import SESSION_S, WorkerApp, make_app
from streams.belief import Row
from streams.bundles import ReleaseWatch, Shelf
from streams.decide import decide, step
from streams.desk import Clock, Desk, Options
from streams.identity import client_id, has_others, other_holder
from streams.publish import Publisher
from streams.relief import Relief
from streams.twin import Ears, Twin
from streams.twin_start import begin_with_beliefs
from streams.warm import collector_at_rest, warm_frames
from streams.watchdog import PATIENCE_S, Guard, WorkerError, WorkerStalled

_log = Log("worker")
CHECK_S = 0.05
STOP_S = 10.0


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
    role: WorkerRole = "first",
    clock: Clock = "event",
    max_deadline_us: int | None = None,
    provider: Provider = "auto",
    threads: int = 1,
    patience_s: float = PATIENCE_S,
) -> dict[str, Any]:
    """Decides the frames of `spec` until `stop` is set; gives a summary as plain JSON values.

    Args:
        bundles: bundle folders, or folders of them; the first that fits acts until a release.
        known: further such folders, in which a released bundle is looked for.
        worker_id: names this worker for good: it keeps its partitions over a short restart.
        data_dir: its own folder; what is lost there is recovered from the changelog.
        group: consumer group; that of a twin or a shadow is its own, so that it sees every frame.
        role: a `twin` keeps a belief of its own, and answers where no first worker does within its
            deadline; a `shadow` decides and logs trajectories, and publishes no action.
        clock: under `wall`, frames that come too late are not planned on.
        max_deadline_us: plans for less than the spec's deadline.
        patience_s: how long frames may arrive while nothing is committed.

    Raises:
        WorkerStalled: Kafka did not confirm, Faust crashed, or commits stopped.
        BrokerAwayError: no broker answers.
        WorkerError: the folder or the id is taken; says what helps.
    """
    # Threads wait for the interpreter's lock for this long: 5 ms would be a third of a round trip.
    sys.setswitchinterval(0.0005)
    group = group or worker_group(spec, role)
    with alone_in(data_dir):
        refuse_a_second(bootstrap, extra, group, worker_id, data_dir)
        if role == "twin":
            begin_with_beliefs(spec, bootstrap, extra, group)
        options = Options(
            worker=worker_id,
            attempt=_next_attempt(data_dir),
            clock=clock,
            role=role,
            max_deadline_us=max_deadline_us,
            provenance=_provenance(provider, threads, role),
        )
        shelf = Shelf(spec, bundles, provider, threads, known=known)
        watch = ReleaseWatch(spec, bootstrap, extra, shelf.preload)
        try:
            parts = (spec, bootstrap, extra, stop, shelf, options, data_dir, group, patience_s)
            return asyncio.run(_serve(*parts))
        finally:
            watch.close()
            shelf.close()


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
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


def refuse_a_second(
    bootstrap: str, extra: Mapping[str, str], group: str, worker: str, data_dir: Path
) -> None:
    """Raises `WorkerError` where another folder's worker has this id, and lives."""
    own = client_id(worker, data_dir)
    # A little longer than the session: what was killed in another folder is forgotten by then.
    place = other_holder(bootstrap, extra, group, worker, own, SESSION_S + 4)
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
    patience_s: float,
) -> dict[str, Any]:
    began = time.monotonic()
    name, changelog = options.worker, changelog_of(options.role)
    worker = make_app(
        spec, bootstrap, extra, group=group, worker=name, data_dir=data_dir, changelog=changelog
    )
    publisher = Publisher(bootstrap, extra)
    twin = Twin(spec.system, name) if options.role == "twin" else None
    desk = Desk(spec, worker.beliefs, publisher, shelf, options, twin)
    own = _wire(worker, desk)
    _warm_up(desk)
    publisher.connect(topic(spec, kind) for kind in ("actions", "trajectories", changelog))
    guard = Guard(spec, bootstrap, extra, group, lambda: _owned(worker.app, own), patience_s)
    with _hearing(spec, bootstrap, extra, twin) as ears, closing(guard):
        try:
            await worker.app.start()
        except KafkaConnectionError as error:
            raise BrokerAwayError(
                f"no broker answers at {bootstrap}: check the address, and the settings given "
                "with -X"
            ) from error
        ready_s = time.monotonic() - began
        _log.info("worker ready", worker=options.worker, seconds=round(ready_s, 2))
        try:
            with collector_at_rest():  # a full pass would stop the loop for a tenth of a second
                await _until(worker, desk, stop, ears, guard)
            # Alone it stays a member: where a new one would wait for others to join, it need not.
            if await asyncio.to_thread(has_others, bootstrap, extra, group, name):
                worker.app.consumer.leave()
        finally:
            await asyncio.to_thread(guard.close)  # to end takes as long as it takes
            await _end(worker, desk, publisher)
    return {**desk.tally.summary(), "worker": options.worker, "ready_s": round(ready_s, 3)}


@contextmanager
def _hearing(
    spec: SystemSpec, bootstrap: str, extra: Mapping[str, str], twin: Twin | None
) -> Iterator[Ears | None]:
    """While the block runs, a twin hears what other workers answer."""
    if twin is None:
        yield None
        return
    loop = asyncio.get_running_loop()
    ears = Ears(spec, bootstrap, extra, lambda said: loop.call_soon_threadsafe(twin.hear, said))
    try:
        yield ears
    finally:
        ears.close()


def _warm_up(desk: Desk) -> None:
    """Decides made-up frames into the void; what planning costs here is known after it."""
    row: Row | None = None
    for frame in warm_frames(desk.spec):
        bundle, budget = desk.bundle(frame), desk.trial_budget()
        row, decisions = step(desk.spec, bundle, row, frame, budget, desk.trial_budget())
        desk.rehearse(frame, row, decisions)


def _wire(worker: WorkerApp, desk: Desk) -> set[int]:
    """Ties app and desk together; gives the partitions whose frames are the worker's, as of now."""
    own: set[int] = set()

    async def agent(stream: Any) -> None:
        await decide(stream, desk)

    async def assigned(app: Any, assigned: Any, **_: Any) -> None:
        frames = topic(desk.spec, "frames")
        own.update(place.partition for place in assigned if place.topic == frames)

    async def revoked(app: Any, revoked: Any, **_: Any) -> None:
        own.clear()
        await desk.drain()  # its rows belong to another worker from now on

    worker.app.agent(worker.frames, name="decide")(agent)
    worker.app.on_partitions_assigned.connect(assigned)
    worker.app.on_partitions_revoked.connect(revoked)
    return own


def _owned(app: Any, own: set[int]) -> set[int]:
    """The partitions whose frames are to be decided now: none while partitions change hands."""
    return set() if app.rebalancing else own.copy()


async def _until(
    worker: WorkerApp, desk: Desk, stop: threading.Event, ears: Ears | None, guard: Guard
) -> None:
    """Returns when asked to stop. Raises `WorkerError` when the worker cannot go on."""
    with closing(Relief(worker.app, desk)) as relief:
        while not stop.is_set():
            await asyncio.sleep(CHECK_S)
            _check(worker, desk, ears, guard)
            await relief.look()


def _check(worker: WorkerApp, desk: Desk, ears: Ears | None, guard: Guard) -> None:
    """Raises `WorkerError` when the worker cannot go on."""
    if desk.failure is not None:
        raise WorkerStalled(
            f"{desk.failure}: the frames in flight are not acknowledged and will be read "
            "again; check the broker, then start the worker again"
        ) from desk.failure
    if ears is not None and ears.failure is not None:
        raise WorkerStalled(f"the twin hears nothing: {ears.failure}") from ears.failure
    if worker.app.crashed:
        raise crash_of(worker.app) from worker.app._crash_reason
    if guard.failure is not None:
        guard.noticed.set()
        worker.app.conf.stream_wait_empty = False  # what it waits for does not come
        raise guard.failure


def crash_of(app: Any) -> WorkerError:
    """Why a Faust app stopped, and what helps."""
    reason = app._crash_reason
    if isinstance(reason, faust.exceptions.ConsistencyError):
        return WorkerError(
            f"{app.conf.datadir} holds beliefs that the broker's changelog does not know: it was "
            "made with another broker, or the topic was deleted. Remove that folder; what the "
            "changelog holds is recovered from it"
        )
    return WorkerStalled(f"Faust stopped: {reason!r}; start the worker again")


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


def _provenance(provider: str, threads: int, role: WorkerRole) -> dict[str, Any]:
    return {
        "shadow": role == "shadow",
        "twin": role == "twin",
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
