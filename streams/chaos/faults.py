"""Faults, done: each one begins, and ends again, at the times that the schedule names."""

import json
import os
import random
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from confluent_kafka import KafkaException, Producer

from streams.chaos.poison import doses
from streams.chaos.proxy import Proxy
from streams.chaos.schedule import Fault, Kind, Schedule
from streams.chaos.stage import Stage

Step = tuple[float, Callable[[], None]]
"""Seconds since the stream began, and what is done then."""
Undo = Callable[[], object]
"""Ends a fault."""
POLL_S: Final = 0.05
FILLER: Final = "filler"
FLIPPED: Final = 64  # bytes of each file of a store
JOINED_S: Final = 7.0  # for a second member to have its partitions
LATE_S: Final = (0.03, 0.3)  # of each piece on its way, in both directions
NARROW: Final = (20_000.0, 100_000.0)  # bytes a second of each connection, in both directions


class Injector:
    """Carries a schedule out on a stage. `notes` says what became of faults that could not be."""

    def __init__(
        self, stage: Stage, schedule: Schedule, say: Callable[[str], None] = lambda _: None
    ) -> None:
        self.stage, self.schedule, self.say = stage, schedule, say
        self.notes: list[str] = []
        self._threads: list[threading.Thread] = []

    def run(self, began: float, on: Callable[[], bool]) -> None:
        """Until the last fault is over, or `on` says no; watches the loop meanwhile."""
        steps = sorted(
            (step for fault in self.schedule.faults for step in self._steps(fault)),
            key=lambda step: step[0],
        )
        for at_s, act in steps:
            while (left := began + at_s - time.monotonic()) > 0 and on():
                self.stage.watch()
                threading.Event().wait(min(left, POLL_S))
            if not on():
                break
            act()
        for thread in self._threads:
            while thread.is_alive():
                self.stage.watch()
                thread.join(POLL_S)

    def _steps(self, fault: Fault) -> Iterator[Step]:
        """What a fault does, and when; how it ends is known once it has begun."""
        if fault.kind == "zombie":
            yield from self._steps(replace(fault, kind="rebalance"))
            asleep = (fault.at_s + JOINED_S, fault.lasts_s - JOINED_S - 1.0)
            yield from self._steps(Fault("pause", "worker", *asleep))
            return
        ends: list[Undo] = []

        def begin() -> None:
            self.say(f"{fault.at_s:6.2f} s  {fault.kind} {fault.target} {fault.how}".rstrip())
            if (undo := _BEGIN[fault.kind](self, fault)) is not None:
                ends.append(undo)

        def end() -> None:
            for undo in ends:
                undo()

        yield fault.at_s, begin
        yield fault.ends_s, end

    def _in_thread(self, work: Callable[[], None]) -> None:
        thread = threading.Thread(target=work, name="fault", daemon=True)
        self._threads.append(thread)
        thread.start()

    # processes

    def _kill(self, fault: Fault) -> None:
        self._end_now(fault.target)

    def _end_now(self, name: str) -> None:
        child = self.stage.process(name).child
        if child is not None and child.poll() is None:
            child.send_signal(signal.SIGKILL)
            child.wait()

    def _pause(self, fault: Fault) -> Undo:
        child = self.stage.process(fault.target).child
        if child is None or child.poll() is not None:
            self.notes.append(f"{fault.target} was already away when it was to be paused")
            return lambda: None
        child.send_signal(signal.SIGSTOP)
        return lambda: _signal(child, signal.SIGCONT)

    def _join(self, fault: Fault) -> Undo:
        """A second member of the group, and its end."""
        name = f"guest-{round(fault.at_s * 100)}"
        arguments = self.stage.worker_arguments(name, self.stage.folder / name)
        guest = self.stage.start_guest(name, *arguments)
        number = signal.SIGKILL if fault.how == "kill" else signal.SIGTERM
        return lambda: _signal(guest.child, number)

    def _twin_of_one_id(self, fault: Fault) -> Undo:
        """The worker once more under its own id: it must be refused.

        It is killed where it has not come so far: on a machine that is busy it would take the place
        of a worker that another fault has killed, rightly, and keep it.
        """
        same = fault.how == "same folder"
        data = self.stage.data if same else self.stage.folder / "elsewhere"
        guest = self.stage.start_guest("twice", *self.stage.worker_arguments("worker-0", data))

        def end() -> None:
            if guest.poll() is None:
                self.notes.append("the second of one id had not been refused when it was killed")
                _signal(guest.child, signal.SIGKILL)

        return end

    def _damage(self, fault: Fault) -> None:
        """The worker's store is not what it was when the worker comes back."""
        with self.stage.lock:
            self._end_now("worker")
            if fault.how == "delete":
                self.notes.append(_delete(self.stage.data))
            else:
                self.notes.append(_flip(self.stage.data, random.Random(fault.seed)))

    # the broker

    def _restart(self, fault: Fault) -> None:
        kill = fault.kind == "broker_kill"
        self._in_thread(lambda: self.stage.restart_broker(fault.lasts_s, kill))

    def _pause_broker(self, _: Fault) -> Undo:
        self._signal_broker(signal.SIGSTOP)
        return lambda: self._signal_broker(signal.SIGCONT)

    def _signal_broker(self, number: signal.Signals) -> None:
        try:
            os.kill(self.stage.broker.pid, number)
        except ProcessLookupError:
            self.notes.append("the broker was already away when it was to be paused")

    # the way to the broker

    def _slow(self, fault: Fault) -> Undo:
        proxy, rng = self._proxy(), random.Random(fault.seed)
        late, narrow = rng.uniform(*LATE_S), rng.uniform(*NARROW)
        proxy.slow(*((late, 0.0) if fault.how == "late" else (0.0, narrow)))
        return lambda: proxy.slow(0.0, 0.0)

    def _refuse(self, fault: Fault) -> Undo:
        proxy = self._proxy()
        begin = {"cut": proxy.cut, "held": proxy.hold, "half-open": proxy.forget}[fault.how]
        begin()
        return proxy.mend

    def _proxy(self) -> Proxy:
        if self.stage.proxy is None:
            raise ValueError("faults of the network need a stage with a proxy")
        return self.stage.proxy

    # messages

    def _poison(self, fault: Fault) -> None:
        producer, sent = self.stage.producer(), 0
        for dose in doses(self.stage.spec, fault.target, "robot-03", fault.seed):  # type: ignore[arg-type]
            headers: Any = list(dose.headers)
            try:
                producer.produce(dose.topic, dose.value, dose.key, dose.partition, headers=headers)
                sent += 1
            except (BufferError, KafkaException) as error:
                self.notes.append(f"poison not sent: {error}")
        self._in_thread(lambda: _flush(producer))

    def _jump(self, fault: Fault) -> None:
        self._in_thread(lambda: self._drift(fault))

    def _drift(self, fault: Fault) -> None:
        """A device of its own joins, whose clock is off."""
        spec, producer = self.stage.spec, self.stage.producer()
        steps = max(1, int(fault.lasts_s * 10))
        for step in range(steps):
            now = time.time_ns() // 1_000 if self.stage.clock == "wall" else step * 100_000
            for sensor in spec.sensors.values():
                values = {channel.field: [0.0, 0.0] for channel in sensor.channels.values()}
                said = {sensor.time.field: now + fault.jump_us, **values}
                producer.produce(sensor.topic, json.dumps(said).encode(), b"drifter-00")
            producer.poll(0)
            threading.Event().wait(0.1)
        _flush(producer)

    # disks

    def _fill(self, fault: Fault) -> Undo | None:
        place = self.stage.disks.get(fault.target)
        if place is None:
            self.notes.append("full_disk skipped: only root may mount a small disk")
            return None
        try:
            with (place / FILLER).open("wb") as file:
                while True:
                    file.write(bytes(1 << 16))
                    file.flush()
        except OSError:
            pass
        return lambda: (place / FILLER).unlink(missing_ok=True)


Begin = Callable[[Injector, Fault], Undo | None]
_BEGIN: Final[dict[Kind, Begin]] = {
    "kill": Injector._kill,
    "pause": Injector._pause,
    "rebalance": Injector._join,
    "twice": Injector._twin_of_one_id,
    "broker_restart": Injector._restart,
    "broker_kill": Injector._restart,
    "broker_pause": Injector._pause_broker,
    "poison": Injector._poison,
    "store": Injector._damage,
    "clock_jump": Injector._jump,
    "full_disk": Injector._fill,
    "broker_slow": Injector._slow,
    "broker_refuses": Injector._refuse,
}


def _signal(child: subprocess.Popen[bytes] | None, number: signal.Signals) -> None:
    if child is not None and child.poll() is None:
        child.send_signal(number)


def _flush(producer: Producer) -> None:
    producer.flush(60)


def _delete(folder: Path) -> str:
    """Everything in a folder but the folder, which may be a disk of its own."""
    count = 0
    for path in list(folder.iterdir()):
        count += 1
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    return f"store deleted: {count} entries"


def _flip(folder: Path, rng: random.Random) -> str:
    """Turns bytes of a third of a store's files round, one at least."""
    files = sorted(p for p in folder.rglob("*") if p.is_file() and _is_store(p, folder))
    chosen = rng.sample(files, max(1, len(files) // 3)) if files else []
    for path in chosen:
        content = bytearray(path.read_bytes())
        for _ in range(min(FLIPPED, len(content))):
            content[rng.randrange(len(content))] ^= 0xFF
        path.write_bytes(content)
    return f"bytes turned round in {[str(path.relative_to(folder)) for path in chosen]}"


def _is_store(path: Path, folder: Path) -> bool:
    """Whether a file is the database's: not its log for people, and not the worker's own few."""
    inside = len(path.relative_to(folder).parts) > 1
    return inside and path.stat().st_size > 0 and not path.name.startswith(("LOG", "LOCK"))
