"""The loop that faults strike: a small nav2d in real time, on a broker of its own."""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

import yaml
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition

from infra import broker as embedded
from infra.broker import Broker
from infra.kafka import client_config, delete_topics, ensure_topics
from schemas.system import SystemSpec, load_spec, spec_path
from schemas.topics import Kind, topics_of
from streams.chaos.proxy import Proxy
from streams.chaos.schedule import Clock
from streams.supervise import Process, Supervisor

ROBOTS: Final = 8
PERIOD_S: Final = 0.1
DISK_MB: Final = 96
# Small plans, so that two cores are enough for the loop and its broker; a rate, so that the gate
# has one to keep; lateness as of a machine that others use. A shipped bundle fits all of it.
CHANGES: Final[dict[str, Any]] = {
    "lateness": "200 ms",
    "cohorts": 2,
    "budget": {
        "deadline": "10 ms",
        "tiers": {
            "shallow": {"candidates": 10, "horizon": 5, "iterations": 1},
            "deep": {"candidates": 20, "horizon": 5, "iterations": 2},
        },
    },
}
RATE: Final = {"up": 0.5, "down": 0.5}


def write_spec(folder: Path, name: str, **changes: Any) -> Path:
    """The run's own spec: topics under its own name, and times as the devices say them.

    A device whose clock is put right is in other ticks than its readings say, and the checker goes
    by what they say. `changes` are of its top fields.
    """
    content = yaml.safe_load(spec_path("nav2d").read_text()) | CHANGES | changes
    content["system"] = name
    content["actions"]["acceleration"]["rate"] = RATE
    for sensor in content["sensors"].values():
        sensor["time"]["discipline"] = False
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "spec.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True))
    return path


class Stage:
    """Topics and processes of one run; a context manager that leaves no process behind.

    `broker` may be restarted by faults; its address stays. `lock` is held while faults have a
    process dead on purpose, so that the supervisor does not start it meanwhile. `proxied`: the loop
    reaches its broker through `proxy`; whoever strikes and looks does not.
    """

    def __init__(
        self,
        broker: Broker,
        folder: Path,
        name: str,
        clock: Clock,
        seconds: float,
        seed: int,
        bundle: Path,
        small_disks: tuple[str, ...] = (),
        twin: bool = False,
        proxied: bool = False,
    ) -> None:
        self.broker, self.folder, self.clock = broker, folder, clock
        self.spec_file = write_spec(folder, name)
        self.spec: SystemSpec = load_spec(self.spec_file)
        self.seconds, self.ticks = seconds, round(seconds / PERIOD_S)
        self.seed, self.bundle = seed, bundle
        self.supervisor = Supervisor(folder)
        self.lock = threading.RLock()
        self.out, self.data = folder / "trajectories", folder / "worker-0"
        self.disks: dict[str, Path] = {}
        self._wanted, self.twin = small_disks, twin
        self.proxy = Proxy(*broker.proxy) if proxied and broker.proxy else None
        self.guests: list[Process] = []

    @property
    def kafka(self) -> dict[str, str]:
        """librdkafka settings; the first reconnection comes soon."""
        return client_config(self.broker.bootstrap, {"reconnect.backoff.max.ms": "500"})

    def __enter__(self) -> "Stage":
        wanted = [(t.name, t.partitions, t.config) for t in topics_of(self.spec)]
        ensure_topics(client_config(self.broker.bootstrap), wanted)
        for name in self._wanted:
            place = {"sink": self.out, "worker": self.data}[name]
            if mount_small(place):
                self.disks[name] = place
        if self.proxy is not None:
            self.proxy.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop_all()
        if self.proxy is not None:
            self.proxy.close()
        for place in self.disks.values():
            subprocess.run(["umount", str(place)], check=False)

    def stop_all(self) -> None:
        """Ends every process of the run, also those that sleep."""
        for guest in self.guests:
            _wake(guest)
            guest.ask_to_stop()
        for process in self.supervisor.processes:
            _wake(process)
        self.supervisor.stop()
        for guest in self.guests:
            guest.wait()

    def forget(self) -> None:
        """Removes the run's topics."""
        delete_topics(client_config(self.broker.bootstrap), [t.name for t in topics_of(self.spec)])

    # processes

    def connection(self) -> list[str]:
        """Command-line options that lead a process to the broker."""
        proxy = self.proxy
        return ["--bootstrap-servers", proxy.address if proxy else self.broker.bootstrap]

    def worker_arguments(self, name: str, data: Path, *more: str) -> list[str]:
        """The command line of a worker."""
        own = ["--id", name, "--data-dir", str(data), "--bundle", str(self.bundle)]
        where = [*self.connection(), "--device", "cpu"]
        return ["worker", str(self.spec_file), "--clock", self.clock, *own, *where, *more]

    @property
    def workers(self) -> tuple[str, ...]:
        """Names of the processes that decide."""
        return ("worker", "twin") if self.twin else ("worker",)

    def start_loop(self) -> None:
        """Sink, worker and where wanted its twin, aligner."""
        start, spec = self.supervisor.start, str(self.spec_file)
        catalog = f"sqlite:///{self.folder}/catalog.sqlite"
        start(
            "sink", "sink", spec, "--out", str(self.out), "--catalog", catalog, *self.connection()
        )
        start("worker", *self.worker_arguments("worker-0", self.data), spared=not self.twin)
        if self.twin:
            start("twin", *self.worker_arguments("twin-0", self.folder / "twin-0", "--twin"))
        start("align", "align", spec, "--clock", self.clock, *self.connection())

    def start_plant(self) -> Process:
        """The robots, in real time: on the wall, or in lockstep and never faster."""
        options = [f"robots={ROBOTS}", f"ticks={self.ticks}"]
        chosen = [part for option in options for part in ("-o", option)]
        pace = ["--lockstep", "--speed", "1"] if self.clock == "event" else []
        ends = ["--ticks", str(self.ticks), "--seed", str(self.seed)]
        plant = ["plant", str(self.spec_file), *ends, *chosen, *pace, *self.connection()]
        return self.supervisor.start("plant", *plant)

    def start_guest(self, name: str, *arguments: str) -> Process:
        """A process that the supervisor does not know, and does not start again."""
        guest = Process(name, arguments, self.folder)
        self.guests.append(guest)
        guest.start()
        return guest

    def process(self, name: str) -> Process:
        """A process of the loop by its name."""
        return next(p for p in self.supervisor.processes if p.name == name)

    def ready(self, names: Iterable[str]) -> bool:
        """Whether these processes say so in their logs."""
        logs = [self.process(name).log for name in names]
        return all(log.exists() and " ready" in log.read_text(errors="replace") for log in logs)

    def watch(self) -> None:
        """Starts again what crashed. Raises `ProcessFailed` where something crashes for ever."""
        with self.lock:
            self.supervisor.check()

    # the broker

    def restart_broker(self, seconds: float, kill: bool) -> None:
        """Ends the broker, in order or by SIGKILL, and starts it `seconds` later."""
        if kill:
            os.kill(self.broker.pid, signal.SIGKILL)
        else:
            embedded.stop(self.broker.home)
        threading.Event().wait(seconds)
        self.broker = embedded.start(self.broker.home)

    # what is on the topics

    def ends(self, kind: Kind) -> int:
        """Records on the topics of a kind so far; raises `KafkaException` without a broker."""
        return sum(self.ends_of(kind).values())

    def ends_of(self, kind: Kind) -> dict[tuple[str, int], int]:
        """Topic and partition → the offset after its last record, as `ends`."""
        consumer = Consumer({"group.id": "rehearse-chaos", "log_level": "0", **self.kafka})
        try:
            topics = [t for t in topics_of(self.spec) if t.kind == kind]
            places = [(t.name, number) for t in topics for number in range(t.partitions)]
            return {
                place: consumer.get_watermark_offsets(TopicPartition(*place), timeout=5)[1]
                for place in places
            }
        finally:
            consumer.close()

    def producer(self) -> Producer:
        """Sends what faults send."""
        return Producer({"partitioner": "murmur2_random", "log_level": "0", **self.kafka})


def wait_until(
    condition: Callable[[], bool], seconds: float, meanwhile: Callable[[], None]
) -> bool:
    """Whether something came to be within `seconds`; without a broker it has not yet."""
    limit = time.monotonic() + seconds
    while time.monotonic() < limit:
        meanwhile()
        try:
            if condition():
                return True
        except KafkaException:
            pass
        threading.Event().wait(0.25)
    return False


def mount_small(place: Path) -> bool:
    """Puts a disk of `DISK_MB` in memory at a folder; False where that is not allowed here."""
    place.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "tmpfs", str(place)]
    try:
        return subprocess.run(command, check=False, capture_output=True).returncode == 0
    except OSError:
        return False


def _wake(process: Process) -> None:
    if process.child is not None and process.child.poll() is None:
        process.child.send_signal(signal.SIGCONT)
