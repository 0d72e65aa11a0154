"""The demo: a whole system on real topics, watched live, set beside others, written to a report."""

import os
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any, Final

import polars as pl
from confluent_kafka import ConsumerGroupState, KafkaException
from confluent_kafka.admin import AdminClient
from rich.console import Console
from rich.live import Live

from infra.kafka import client_config
from infra.priority import make_room
from infra.secure import as_role
from infra.traces import Trace, generate_trace, read_trace
from schemas.system import SystemSpec, load_spec, parse_spec, spec_path
from schemas.topics import worker_group
from schemas.yaml_lines import read_text
from streams.baselines import Split, baselines, gap_closed, split
from streams.bundles import Shelf
from streams.comparison import compare_policies
from streams.make_topics import make_topics, remove_topics
from streams.monitor import Monitor, Statistics, live_table
from streams.supervise import Process, ProcessFailed, Supervisor, end_with_parent

DATA_FILE: Final = "worldcup98_requests_per_minute.parquet"
READY_S: Final = 60.0
QUIET_S: Final = 1.0  # without a new record, the stream has run dry
NAV2D_TICKS: Final = 300  # half a minute at 10 Hz
REFRESH_S: Final = 0.25


@dataclass(frozen=True)
class DemoOptions:
    """What `rehearse demo` was asked for."""

    system: str = "autoscale"
    trace: Path | None = None
    time_column: str | None = None
    value_column: str | None = None
    day: int | None = None
    ticks: int | None = None
    seed: int = 0
    bundles: tuple[Path, ...] = ()
    plant_options: Mapping[str, Any] = field(default_factory=dict)
    keep_topics: bool = False


@dataclass(frozen=True)
class Scene:
    """Everything a run needs, before anything is started."""

    spec: SystemSpec
    spec_file: Path
    folder: Path
    ticks: int | None
    plant: dict[str, Any]
    window: Split | None
    facts: dict[str, Any]


@dataclass(frozen=True)
class Take:
    """What one run of a scene gave."""

    statistics: Statistics
    summaries: dict[str, dict[str, Any]]
    seconds: float
    restarts: int


def set_scene(options: DemoOptions, home: Path) -> Scene:
    """A run folder with its own spec (topics of its own), and the load where the plant has one.

    Raises `ValueError` where an option says something of a load that there is not.
    """
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    template = load_spec(options.system)
    _check(options, template)
    name = f"{template.system}-{stamp}-{os.getpid()}"
    folder = home / "runs" / name
    folder.mkdir(parents=True, exist_ok=True)
    text = read_text(spec_path(options.system))
    text = "\n".join(
        f"system: {name}" if line.startswith("system:") else line for line in text.splitlines()
    )
    spec_file = folder / "spec.yaml"
    spec_file.write_text(text + "\n")
    spec = parse_spec(text, str(spec_file))
    facts: dict[str, Any] = {"system": template.system, "spec": spec.spec_hash}
    plant = dict(options.plant_options)
    window = None
    ticks = options.ticks
    if spec.plant is not None and spec.plant.kind == "cluster":
        trace, facts["load"] = choose_trace(options)
        window = split(trace, options.day)
        plant["trace"] = write_trace(window.scored, folder / "load.parquet")
    elif ticks is None:
        ticks = NAV2D_TICKS
    return Scene(spec, spec_file, folder, ticks, plant, window, facts)


def _check(options: DemoOptions, spec: SystemSpec) -> None:
    if "trace" in options.plant_options:
        raise ValueError(
            f"-o trace={options.plant_options['trace']}: name the load with --trace FILE"
        )
    load = ("trace", "day", "time_column", "value_column")
    given = [f"--{name.replace('_', '-')}" for name in load if getattr(options, name) is not None]
    if given and (spec.plant is None or spec.plant.kind != "cluster"):
        raise ValueError(
            f"{given[0]} is of a load, and {spec.system} has none: leave it out, or choose "
            "--system autoscale"
        )
    if options.trace is None and given and given[-1] != "--day":
        raise ValueError(f"{given[-1]} is of a file: name it with --trace FILE")


def choose_trace(options: DemoOptions) -> tuple[Trace, str]:
    """The load, and where it comes from: --trace, the recorded data at hand, or the generator."""
    path = options.trace
    data = os.environ.get("REHEARSE_DATA")
    if path is None and data and (Path(data) / DATA_FILE).is_file():
        path = Path(data) / DATA_FILE
    if path is None:
        days, seed = 14, options.seed
        return generate_trace(days=days, seed=seed), f"generated traffic, {days} days, seed {seed}"
    return read_trace(path, options.time_column, options.value_column), path.name


def write_trace(trace: Trace, path: Path) -> Path:
    """A trace as the plant reads it: time and requests per bin."""
    rates = trace.rates
    times = trace.start_us + (
        pl.arange(0, rates.shape[-1], eager=True) * round(trace.bin_seconds * 1e6)
    )
    table = pl.DataFrame(
        {"time": times.cast(pl.Datetime("us")), "requests": rates * trace.bin_seconds}
    )
    table.write_parquet(path)
    return path


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


def run_demo(
    options: DemoOptions, home: Path, bootstrap: str, extra: Mapping[str, str], console: Console
) -> dict[str, Any]:
    """The whole demo of a system; the result is what `rehearse demo --json` prints."""
    scene = set_scene(options, home)
    judging = _Judging(scene, options, home)
    try:
        with Stage(scene, options, bootstrap, extra) as stage:
            if scene.window is not None:
                total, clock = _ticks(scene), "event"
            else:
                total, clock = scene.ticks or NAV2D_TICKS, "wall"
            stage.start_loop(clock, options.bundles)
            with console.status("waiting for the worker"):
                stage.wait_for_worker()
            plant = stage.start_plant(lockstep=clock == "event")
            show = Show(stage, console, total)
            # The last tick is sent, and not waited for; what the plant does then takes a while.
            show.until(
                lambda seen: plant.poll() is not None or (clock == "wall" and seen.ticks > total)
            )
            take = show.finish()
        with console.status("comparing with others on the same arrivals"):
            verdict = judging.verdict(take)
    finally:
        judging.close()
    result = summary(scene, options, take, verdict)
    from streams.demo_report import write_report

    report = write_report(scene, take, result, home / "reports")
    return {**_without_courses(result), "report": str(report)}


def _without_courses(result: Mapping[str, Any]) -> dict[str, Any]:
    """The result without the baselines' course over the day, which only the report shows."""
    others = {
        name: {key: value for key, value in score.items() if not isinstance(value, list)}
        for name, score in result.get("baselines", {}).items()
    }
    return {**result, **({"baselines": others} if others else {})}


def _ticks(scene: Scene) -> int:
    assert scene.window is not None
    whole = int(scene.window.scored.seconds * 1e6 / scene.spec.period_us)
    return min(whole, scene.ticks or whole)


class _Judging:
    """Baselines, computed at low priority in a process of their own while the stream runs."""

    def __init__(self, scene: Scene, options: DemoOptions, home: Path) -> None:
        self.scene, self.options = scene, options
        self.child: SpawnProcess | None = None
        if scene.window is not None and scene.ticks is None:
            given = {k: v for k, v in scene.plant.items() if k != "trace"}
            arguments = (scene.spec, given, scene.window, options.seed, home / "cache")
            context = get_context("spawn")
            self.answer, sender = context.Pipe(duplex=False)
            self.child = context.Process(target=_judge, args=(sender, *arguments), daemon=True)
            self.child.start()
            sender.close()

    def verdict(self, take: Take) -> dict[str, Any]:
        """What the result says of others: baselines and the gap, or other policies' returns."""
        score = take.summaries["plant"]["score"]
        if self.scene.window is None:
            others = compare_policies(
                self.scene.spec,
                Shelf(self.scene.spec, self.options.bundles).get(None),
                self.options.seed,
                self.scene.ticks or NAV2D_TICKS,
                self.scene.plant,
            )
            return {"reached": score["reached"], "returns": others}
        verdict = {name: score[name] for name in ("cost", "cost_ratio", "slo", "flips")}
        if self.child is None:
            return verdict
        try:
            others = self.answer.recv()
        except EOFError:
            raise RuntimeError("the baselines' process ended early; see above") from None
        return {**verdict, "baselines": others, "gap_closed": gap_closed(score, others)}

    def close(self) -> None:
        """Stop what is still computing."""
        if self.child is not None:
            self.child.terminate()
            self.child.join()


def _judge(sender: "Connection[Any, Any]", *arguments: Any) -> None:
    """Compute the baselines with the time that the stream leaves over, and send them."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the demo's; it ends this process
    end_with_parent(os.getppid(), lambda: os._exit(1))
    make_room(5)
    sender.send(baselines(*arguments))


def summary(
    scene: Scene, options: DemoOptions, take: Take, verdict: Mapping[str, Any]
) -> dict[str, Any]:
    """The figures of a run as plain JSON values."""
    seen, plant = take.statistics, take.summaries["plant"]
    sink = take.summaries["sink"]
    return {
        **scene.facts,
        "run": scene.folder.name,
        "folder": str(scene.folder),
        "seed": options.seed,
        "seconds": round(take.seconds, 1),
        "entities": len(seen.entities),
        "ticks": plant["ticks"],
        "frames": seen.frames,
        "frames_lost": sink["frames_lost"],
        "decisions": seen.decisions,
        "modes": dict(seen.modes),
        "gate": dict(seen.gate),
        "bundles": dict(seen.bundles),
        "latency_ms": plant["latency_ms"],
        "tick_to_action_ms": plant["tick_to_action_ms"],
        "send_lateness_ms": plant["send_lateness_ms"],
        "stolen_ms": plant["stolen_ms"],
        "statuses": plant["statuses"],
        "missing": plant["missing"],
        "restarts": take.restarts,
        **verdict,
    }
