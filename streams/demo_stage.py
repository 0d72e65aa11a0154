"""A demo's stage: its topics and processes, and the show that is watched on it."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from confluent_kafka import ConsumerGroupState, KafkaException
from confluent_kafka.admin import AdminClient
from rich.console import Console
from rich.live import Live

from infra.kafka import client_config
from infra.secure import as_role
from schemas.topics import worker_group
from streams.demo_scene import DemoOptions, Scene
from streams.make_topics import make_topics, remove_topics
from streams.monitor import Monitor, Statistics, live_table
from streams.supervise import Process, ProcessFailed, Supervisor

READY_S: Final = 60.0
QUIET_S: Final = 1.0  # without a new record, the stream has run dry
REFRESH_S: Final = 0.25


@dataclass(frozen=True)
class Take:
    """What one run of a scene gave."""

    statistics: Statistics
    summaries: dict[str, dict[str, Any]]
    seconds: float
    restarts: int


class Stage:
    """Topics and processes of one scene; a context manager that leaves nothing behind."""

    def __init__(
        self, scene: Scene, options: DemoOptions, bootstrap: str, extra: Mapping[str, str]
    ) -> None:
        self.scene, self.options = scene, options
        self.bootstrap, self.extra = bootstrap, dict(extra)
        self.clock = "event"
        self.supervisor = Supervisor(scene.folder, self.extra)

    def __enter__(self) -> "Stage":
        make_topics(self.scene.spec, self.bootstrap, self.extra)
        return self

    def __exit__(self, *_: object) -> None:
        self.supervisor.stop()
        if not self.options.keep_topics:
            remove_topics(self.scene.spec, self.bootstrap, self.extra)

    def connection(self) -> list[str]:
        """Command-line options that lead a process to the broker; settings go another way."""
        return ["--bootstrap-servers", self.bootstrap]

    def start_loop(self, clock: str, bundles: tuple[Path, ...], *worker: str) -> None:
        """Sink, worker and aligner, under the clock `event` or `wall`."""
        self.clock = clock
        spec, connection = str(self.scene.spec_file), self.connection()
        folder = self.scene.folder
        chosen = [part for path in bundles for part in ("--bundle", str(path))]
        start = self.supervisor.start
        out = str(folder / "trajectories")
        start("sink", "sink", spec, "--out", out, *connection)
        data = ("--data-dir", str(folder / "worker-0"))
        start("worker", "worker", spec, "--clock", clock, *data, *chosen, *worker, *connection)
        start("align", "align", spec, "--clock", clock, *connection)

    def wait_for_worker(self) -> None:
        """Until the worker has its partitions: a plant in real time waits for nobody."""
        admin = AdminClient({**client_config(self.bootstrap, self.extra)})
        group = worker_group(self.scene.spec)
        limit = time.monotonic() + READY_S
        while time.monotonic() < limit:
            self.supervisor.check()
            if _is_stable(admin, group):
                return
            time.sleep(0.1)
        raise ProcessFailed(f"the worker has no partitions after {READY_S:g} s; see its log")

    def start_plant(self, lockstep: bool, pace_file: Path | None = None) -> Process:
        """The plant, with its own log of every tick; `pace_file` may slow it down meanwhile."""
        scene = self.scene
        arguments = ["plant", str(scene.spec_file), "--seed", str(self.options.seed)]
        arguments += ["--log", str(scene.folder / "ticks.parquet")]
        arguments += ["--lockstep"] if lockstep else []
        arguments += [] if pace_file is None else ["--pace-file", str(pace_file)]
        arguments += [] if scene.ticks is None else ["--ticks", str(scene.ticks)]
        for name, value in scene.plant.items():
            arguments += ["--option", f"{name}={value}"]
        return self.supervisor.start("plant", *arguments, *self.connection())

    def plant_has_ended(self) -> bool:
        """Whether no plant is running."""
        plants = [p for p in self.supervisor.processes if p.name == "plant"]
        return all(process.poll() is not None for process in plants)


def _is_stable(admin: AdminClient, group: str) -> bool:
    """Whether a consumer group has its partitions; a new broker may not know of groups yet."""
    found = admin.describe_consumer_groups([group], request_timeout=1.0)[group]
    try:
        state = found.result(2.0).state
    except (KafkaException, TimeoutError):
        return False
    return bool(state == ConsumerGroupState.STABLE)


class Show:
    """A stage with its loop running, watched live until something is the case."""

    def __init__(self, stage: Stage, console: Console, total: int | None) -> None:
        self.stage, self.console, self.total = stage, console, total
        self.begun = time.monotonic()
        self.monitor = Monitor(stage.scene.spec, stage.bootstrap, as_role(stage.extra, "replay"))

    @property
    def seen(self) -> Statistics:
        """What the topics have shown so far."""
        return self.monitor.statistics

    @property
    def seconds(self) -> float:
        """Since the loop was started."""
        return time.monotonic() - self.begun

    def say(self, text: str) -> None:
        """A line that stays on the terminal."""
        line = f"[dim]{self.seconds:5.0f} s[/]  {text}"
        self.console.print(line, highlight=False, soft_wrap=True)

    def until(
        self, done: Callable[[Statistics], bool], note: Callable[[], str] = lambda: ""
    ) -> None:
        """Watch, and restart what crashes, until `done` says so; `note` is what it waits for."""
        spec = self.stage.scene.spec
        with Live(console=self.console, refresh_per_second=4, transient=True) as live:
            while not done(self.seen):
                self.monitor.poll(REFRESH_S)
                self.stage.supervisor.check()
                live.update(live_table(spec, self.seen, self.total, self.seconds, note()))

    def finish(self) -> Take:
        """Stop the loop in the order in which data flows, and gather what each part says."""
        seconds = self.seconds
        if self.stage.clock == "wall":  # ticks go on without a plant, and would be counted as its
            self.stage.supervisor.stop("align")
            self.until(lambda _: self.stage.plant_has_ended())
        self.stage.supervisor.stop("plant")
        quiet = QuietTime(QUIET_S)  # what the plant caused is still on its way
        self.until(lambda seen: quiet.since(seen.frames))
        self.monitor.close()
        for name in ("align", "worker", "sink"):
            self.stage.supervisor.stop(name)
        processes = self.stage.supervisor.processes
        for process in processes:
            if process.poll() != 0:
                raise ProcessFailed(
                    f"{process.name} ended with status {process.poll()}; the end of "
                    f"{process.log}:\n{process.tail()}"
                )
        summaries = {process.name: process.summary() for process in processes}
        restarts = sum(process.restarts for process in processes)
        return Take(self.seen, summaries, seconds, restarts)


class QuietTime:
    """Whether a count has stood still for a while."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.count, self.at = -1, time.monotonic()

    def since(self, count: int) -> bool:
        """True once `count` has not changed for the given time."""
        if count != self.count:
            self.count, self.at = count, time.monotonic()
        return time.monotonic() - self.at >= self.seconds
