"""Latency from the scheduled send time to the actuator, beside the least that two hops take.

Runs of the loop and of an echo alternate, under the same load from the same generator, until enough
of each count: a run whose generator was itself late does not. A run is short enough to keep every
sample, so percentiles are exact, which a histogram's are not.
"""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, Final, NamedTuple
from uuid import uuid4

import msgspec
import numpy as np

from infra.kafka import client_config, delete_topics, ensure_topics
from schemas.codes import Mode
from schemas.messages import Action
from schemas.system import SystemSpec
from schemas.topics import entity_partitions, topic
from streams.bench_load import (
    Echo,
    Generator,
    Order,
    Pattern,
    Reading,
    Receiver,
    Stamp,
    due_us,
    offsets,
    readings_of,
)
from streams.bench_systems import CASES, Case, make_system
from streams.demo_scene import DemoOptions, Scene
from streams.demo_stage import Stage

LATE_MS: Final = 1.0
"""A run whose generator was later than this at p99 says nothing about the loop."""
_WARM_S: Final = 1.0  # of each run, not counted: who else may join is not known at a first tick
_LEAD_US: Final = 300_000  # for the generator to begin,
_EACH_US: Final = 10  # and to make each of its messages
_PATIENCE_US: Final = 3_000_000  # after the last tick
_ROUNDS: Final = 8  # as many as are wanted of each side, at most
_LEVELS: Final = (50.0, 90.0, 99.0, 99.9)


class _Payload(msgspec.Struct):
    """What an echoed reading says: when it was to be sent, in us."""

    ts: int


class _Run(NamedTuple):
    """One run of one side: its samples in ms, how late the generator was, and who decided."""

    samples: Sequence[float]
    late_ms: float
    missing: int
    modes: Mapping[str, int]

    @property
    def counts(self) -> bool:
        """Whether what it says is about the loop or the echo, not about its generator."""
        return self.late_ms <= LATE_MS and len(self.samples) > 0


def bench_latency(
    bootstrap: str,
    extra: Mapping[str, str] | None = None,
    *,
    cases: Sequence[str] = ("200x5x10",),
    patterns: Sequence[Pattern] = ("burst",),
    runs: int = 5,
    seconds: float = 2.0,
    say: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Times each case under each pattern; topics of its own, deleted afterwards.

    Args:
        cases: of `bench_systems.CASES`: entities × sensors × Hz.
        patterns: `burst`, which is what is quoted: from the tick's time on 100 readings each ms,
            all of that tick; counted from when the last of them was to be sent. `spread`: over the
            period before; counted from the tick's time.
        runs: of the loop and of the echo each that are to count; eight times as many are made at
            most.
        seconds: counted of each run.
        say: is told how far it is.

    Returns, by case and pattern, what `summary` says.
    """
    if unknown := [name for name in cases if name not in CASES]:
        raise ValueError(f"{unknown[0]!r}: there are the cases {', '.join(CASES)}")
    found: dict[str, Any] = {}
    for name in cases:
        say(f"{name}: starting the loop")
        told = _prefixed(say, name)
        both = _bench(bootstrap, extra or {}, CASES[name], patterns, runs, seconds, told)
        for pattern, (loops, echoes) in both.items():
            found[f"{name} {pattern}"] = summary(CASES[name], pattern, loops, echoes)
    return found


def _bench(
    bootstrap: str,
    extra: Mapping[str, str],
    case: Case,
    patterns: Sequence[Pattern],
    runs: int,
    seconds: float,
    say: Callable[[str], None],
) -> "dict[Pattern, tuple[list[_Run], list[_Run]]]":
    """By pattern the runs of the loop, and those of the echo."""
    name = f"bench{uuid4().hex[:10]}"
    config = client_config(bootstrap, extra)
    with TemporaryDirectory(prefix="rehearse-bench-") as temporary:
        folder = Path(temporary)
        spec, file, bundle = make_system(case, name, folder)
        echoed = {sensor: f"{name}.echo.{sensor}" for sensor in spec.sensors}
        out = f"{name}.echoed"
        own = [*echoed.values(), out]
        scene = Scene(spec, file, folder, None, {}, None, {})
        try:
            ensure_topics(config, [(topic, entity_partitions(spec), {}) for topic in own])
            with Stage(scene, DemoOptions(), bootstrap, extra) as stage:
                _start_loop(stage, bundle)
                pair = _Pair(stage, case, seconds, echoed, out)
                with pair.generator, pair.echo:
                    return {p: _in_turn(pair, p, runs, say) for p in patterns}
        finally:
            delete_topics(config, own)


def _in_turn(
    pair: "_Pair", pattern: Pattern, runs: int, say: Callable[[str], None] = lambda _: None
) -> tuple[list[_Run], list[_Run]]:
    """Runs of the loop and of the echo, until `runs` of each count."""
    loops: list[_Run] = []
    echoes: list[_Run] = []
    while min(_counting(loops), _counting(echoes)) < runs and len(loops) < _ROUNDS * runs:
        loops.append(pair.loop(pattern))
        echoes.append(pair.floor(pattern))
        counts = f"{_counting(loops)} and {_counting(echoes)} count of the {runs} that are wanted"
        say(f"{pattern}: {len(loops)} runs of loop and echo each, {counts}")
    return loops, echoes


def _prefixed(say: Callable[[str], None], name: str) -> Callable[[str], None]:
    return lambda text: say(f"{name} {text}")


def _counting(runs: Sequence[_Run]) -> int:
    return sum(run.counts for run in runs)


def _start_loop(stage: Stage, bundle: Path) -> None:
    """Aligner, worker and sink as a demo has them, with a catalog of their own."""
    spec, folder, connection = str(stage.scene.spec_file), stage.scene.folder, stage.connection()
    start = stage.supervisor.start
    catalog = f"sqlite:///{folder}/catalog.sqlite"
    start("sink", "sink", spec, "--out", str(folder / "log"), "--catalog", catalog, *connection)
    data = ("--data-dir", str(folder / "worker-0"))
    start("worker", "worker", spec, "--clock", "wall", *data, "--bundle", str(bundle), *connection)
    start("align", "align", spec, "--clock", "wall", *connection)
    stage.wait_for_worker()


class _Pair:
    """The loop and the echo, under the same load in turn."""

    def __init__(
        self,
        stage: Stage,
        case: Case,
        seconds: float,
        echoed: Mapping[str, str],
        out: str,
    ) -> None:
        self.stage, self.case = stage, case
        self.spec: SystemSpec = stage.scene.spec
        self.warm = max(2, round(_WARM_S * case.hz))
        self.ticks = self.warm + max(1, round(seconds * case.hz))
        topics = {name: sensor.topic for name, sensor in self.spec.sensors.items()}
        self.readings = readings_of(case, self.spec, topics)
        self.copies = readings_of(case, self.spec, echoed)
        self.out, place = out, (stage.bootstrap, stage.extra)
        self.generator = Generator(*place, [*topics.values(), *echoed.values()])
        self.echo = Echo(*place, list(echoed.values()), out)

    def loop(self, pattern: Pattern) -> _Run:
        """Readings in, actions out; then waits until the entities are forgotten."""
        case, spec = self.case, self.spec
        # All of a burst is of its tick; who sends at any time says that time.
        stamp: Stamp = "tick" if pattern == "burst" else "send"
        order = self._order(pattern, self.readings, stamp)
        source, count = topic(spec, "actions"), case.entities * self.ticks
        begin, records, late = self._drive(order, source, count)
        first = begin + self.warm * case.period_us
        due = due_us(case, pattern)
        actions = [(at, msgspec.json.decode(value, type=Action)) for at, value in records]
        taken = {(a.entity, a.tick): (at, a) for at, a in reversed(actions) if a.time >= first}
        end = begin + self.ticks * case.period_us
        counted = [(at, a) for at, a in taken.values() if a.time < end]
        samples = [at / 1e6 - (a.time + due) / 1e3 for at, a in counted]
        self._rest(end)
        self.stage.supervisor.check()
        modes = Counter(Mode(a.mode).name.lower() for _, a in counted)
        missing = case.entities * (self.ticks - self.warm) - len(samples)
        return _Run(samples, late, missing, modes)

    def floor(self, pattern: Pattern) -> _Run:
        """The same readings through the echo."""
        case = self.case
        count = len(self.copies) * self.ticks
        order = self._order(pattern, self.copies, "send")
        begin, records, late = self._drive(order, self.out, count)
        first = begin + self.warm * case.period_us + int(order.offsets_us[0])
        found = [(at, msgspec.json.decode(value, type=_Payload).ts) for at, value in records]
        samples = [at / 1e6 - ts / 1e3 for at, ts in found if ts >= first]
        missing = len(self.copies) * (self.ticks - self.warm) - len(samples)
        return _Run(samples, late, missing, {})

    def _order(self, pattern: Pattern, readings: Sequence[Reading], stamp: Stamp) -> Order:
        """What is to be sent, from a tick on before which the generator can make all of it."""
        period, epoch = self.case.period_us, self.spec.epoch_us
        lead = _LEAD_US + _EACH_US * len(readings) * self.ticks + period
        begin = epoch - (epoch - time.time_ns() // 1_000 - lead) // period * period
        return Order(readings, offsets(self.case, pattern), begin, period, self.ticks, stamp)

    def _drive(
        self, order: Order, source: str, count: int
    ) -> tuple[int, list[tuple[int, bytes]], float]:
        """Sends the load; the time of its first tick, what came of it, and lateness p99 in ms."""
        receiver = Receiver(self.stage.bootstrap, self.stage.extra, source)
        try:
            self.generator.start(order)
            end = order.begin_us + order.ticks * order.period_us
            records = receiver.until(count, end + self.spec.lateness_us + _PATIENCE_US)
        finally:
            receiver.close()
        late = self.generator.lateness_ns()
        counted = late[len(late) * self.warm // self.ticks :]
        return order.begin_us, records, float(np.percentile(counted, 99)) / 1e6

    def _rest(self, end_us: int) -> None:
        """Until the aligner has forgotten the entities: it makes frames of them until then."""
        over = end_us + self.spec.forget_us + self.spec.lateness_us + 2 * self.spec.period_us
        time.sleep(max(0.0, over / 1e6 - time.time()))


def summary(
    case: Case, pattern: Pattern, loops: Sequence[_Run], echoes: Sequence[_Run]
) -> dict[str, Any]:
    """Medians over the runs that count, and all of the runs.

    `loop_ms`: percentiles over actions, from when the tick's readings were all to be sent;
    `echo_ms`: over readings, each from when it was to be sent; `ratio` of the medians;
    `runs` of each side, of which `counted` and `echo_counted` had a generator that was in time;
    `decided_by`: decisions by mode; `missing` actions.
    """
    counted, echo_counted = [[r for r in runs if r.counts] for runs in (loops, echoes)]
    loop, echo = _medians(counted), _medians(echo_counted)
    return {
        "entities": case.entities,
        "sensors": case.sensors,
        "hz": case.hz,
        "pattern": pattern,
        "readings_per_s": case.readings_per_s,
        "decided_by": dict(sum((Counter(run.modes) for run in loops), Counter())),
        "missing": sum(run.missing for run in loops),
        "echo_missing": sum(run.missing for run in echoes),
        "runs": len(loops),
        "counted": len(counted),
        "echo_counted": len(echo_counted),
        "loop_ms": loop,
        "echo_ms": echo,
        "ratio": {name: round(loop[name] / echo[name], 2) for name in loop if name in echo},
        "all_loop_ms": [{**percentiles(run.samples), **_late(run)} for run in loops],
        "all_echo_ms": [{**percentiles(run.samples), **_late(run)} for run in echoes],
    }


def percentiles(samples: Sequence[float]) -> dict[str, float]:
    """`p50`, `p90`, `p99`, `p999` and `max` of samples; empty without any."""
    if not len(samples):
        return {}
    found = [*np.percentile(samples, _LEVELS).tolist(), max(samples)]
    names = [f"p{level:g}".replace(".", "") for level in _LEVELS]
    return {name: round(v, 3) for name, v in zip([*names, "max"], found, strict=True)}


def _medians(runs: Sequence[_Run]) -> dict[str, float]:
    found = [percentiles(run.samples) for run in runs]
    return {name: round(median(f[name] for f in found), 3) for name in found[0]} if found else {}


def _late(run: _Run) -> dict[str, float]:
    return {"send_late_p99": round(run.late_ms, 3)}
