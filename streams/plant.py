"""Puts a simulated plant on topics: readings out on time, actions in, one tick after the other."""

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np

from infra.log import Log
from infra.plants.base import Floats, Plant, Sample
from infra.registry import Registry, registry_settings
from schemas.clock import tick_of, tick_time
from schemas.messages import encode
from schemas.system import SystemSpec
from schemas.topics import topic
from streams.actuator import Actuator, wall_us
from streams.actuator_state import Report
from streams.metrics import Values, exposed
from streams.plant_log import Latencies, RewardMeter, TickTable, outcomes_of, summary_ms
from streams.readings import Outgoing, ReadingEncoder, send_readings, send_watermark
from streams.topic_io import HURRY_S, TIMEOUT_S, bounds, make_consumer, make_producer, send
from streams.warm import collector_at_rest

OnTick = Callable[[int, dict[str, float]], None]
_POLL_S: Final = 0.05
_FINE_NS: Final = 1_500_000  # below this, librdkafka's whole milliseconds are too coarse a wait
_NEWEST: Final = 10_000  # actions whose latency Prometheus is shown
_QUANTILES: Final = {"p50": "0.5", "p99": "0.99", "p999": "0.999", "max": "1"}
_LEAD_US: Final = 1_500_000  # how far ahead of now a plant under the wall clock begins

_log = Log("plant")


class Stop(Protocol):
    """A `threading.Event` or an `asyncio.Event`."""

    def is_set(self) -> bool:
        """Whether the plant is to stop."""


def run_plant(
    spec: SystemSpec,
    plant: Plant,
    bootstrap: str,
    extra: Mapping[str, str] | None,
    stop: Stop,
    *,
    ticks: int | None = None,
    lockstep: bool = True,
    speed: float | None = None,
    pace_file: Path | None = None,
    seed: int = 0,
    patience_s: float = 10.0,
    first_patience_s: float = 120.0,
    log: Path | None = None,
    outcomes: bool = True,
    on_tick: OnTick | None = None,
) -> dict[str, Any]:
    """Runs `plant` for `ticks` (None: its own length) or until `stop`; returns the summary.

    Three ways to keep time:

    - `lockstep`: event clock. A tick is sent, with watermarks, and the plant waits for every
      entity's action before it goes on: `patience_s` of real time (`first_patience_s` for the first
      tick), then the local fallback. With `speed=N`, no faster than N times real time, so that
      others on the machine get their share; `pace_file` holds an N that may change meanwhile.
    - `speed=N`: event clock, N times real time, whether or not actions arrive.
    - neither: wall clock. Event times are real microseconds, on whole ticks.

    Latency is open-loop: readings at a tick's time close it, so it counts from when those were due.
    In lockstep nothing is due; there it counts from when the tick's first reading was sent.
    Off lockstep an action takes effect at the beginning of its interval when it arrives before the
    next readings are due, else with the next tick (`late`).

    Summary: `ticks`, `entities`, `seconds`, `ticks_per_s`, `readings`, `score` (of the plant),
    `statuses` (counts of the actuator), `modes`, `missing` (entity ticks without an answer in
    time), `latency_ms` (closing readings due → action at the actuator), `tick_to_action_ms` (from
    the tick's time), `send_lateness_ms` (of the last reading of each moment), `stolen_ms`
    (processor time, over all processors, that a virtual machine's host gave to others meanwhile:
    no software here can be quicker than that; None where the system does not say).

    Raises:
        KafkaSetupError: the topics are not there, or no broker answers.
        RegistryDown: the schema that readings are to be written under cannot be had.
    """
    run = _Run(spec, plant, bootstrap, extra, stop, lockstep=lockstep, speed=speed, seed=seed)
    run.patience, run.first_patience = patience_s, first_patience_s
    run.pace = Pace(spec.period_us, speed, pace_file) if lockstep else None
    run.sends_outcomes, run.on_tick = outcomes, on_tick
    run.table = TickTable(spec, plant.entities) if log else None
    try:
        with exposed(spec.system, run.metrics), collector_at_rest():
            run.go(ticks if plant.ticks is None else min(ticks or plant.ticks, plant.ticks))
    finally:
        run.close()
    if log and run.table:
        run.table.write(log)
    return run.summary()


class Pace:
    """Keeps a plant in lockstep to a multiple of real time that may change while it runs."""

    def __init__(self, period_us: int, speed: float | None, file: Path | None = None) -> None:
        self.period_us, self.speed, self.file = period_us, speed, file
        self._last_ns = 0

    def due_ns(self, now_ns: int) -> int:
        """When the next tick may begin, on the clock of `now_ns`. Lost time is not made up for."""
        speed = self._wanted()
        gap = int(self.period_us * 1_000 / speed) if speed else 0
        self._last_ns = max(self._last_ns + gap, now_ns)
        return self._last_ns

    def _wanted(self) -> float | None:
        """The number in the file; `speed` where there is no file, or no positive number in it."""
        if self.file is None:
            return self.speed
        try:
            found = float(self.file.read_text())
        except (OSError, ValueError):  # not there, or being written
            return self.speed
        return found if found > 0 else self.speed


class _Run:
    """One run of a plant: its clock, its messages, and what was measured."""

    patience: float
    first_patience: float
    pace: Pace | None
    sends_outcomes: bool
    on_tick: OnTick | None
    table: TickTable | None

    def __init__(
        self,
        spec: SystemSpec,
        plant: Plant,
        bootstrap: str,
        extra: Mapping[str, str] | None,
        stop: Stop,
        *,
        lockstep: bool,
        speed: float | None,
        seed: int,
    ) -> None:
        self.spec, self.plant, self.stop = spec, plant, stop
        self.lockstep, self.speed, self.seed = lockstep, None if lockstep else speed, seed
        self.wall = not lockstep and speed is None
        self.sample = plant.reset(seed)
        self.shift = self._shift()
        self.tick = self.sample.tick + self.shift // spec.period_us
        self.started_ns = time.time_ns()
        self.begun_us = self._time(self.tick)
        self.producer = make_producer(bootstrap, extra)
        self.actuator = Actuator(
            spec,
            bootstrap,
            extra=extra,
            entities=plant.entities,
            clock=None if self.wall else self._event_us,
            silence=not lockstep,
            start_us=self.begun_us,
            producer=self.producer,
        )
        self.places = self._places(bootstrap, extra)
        settings = registry_settings(extra)
        registry = Registry(settings) if settings else None
        self.encoder = ReadingEncoder(spec, plant.entities, self.shift, registry, raw=True)
        self.meter = RewardMeter(spec, len(plant.entities))
        self.meter.reward(self.sample, None)
        self.latencies = Latencies()
        self.done = np.zeros(len(plant.entities), dtype=bool)
        self.steps = self.readings = self.missing = self.late = 0
        self.spent_s = 0.0
        self.stolen_ms: int | None = None

    def _shift(self) -> int:
        """Whole ticks between the plant's time and real time; 0 under the event clock."""
        if not self.wall:
            return 0
        period = self.spec.period_us
        first = tick_of(wall_us() + _LEAD_US, self.spec.epoch_us, period)
        return (first - self.sample.tick) * period

    def _places(self, bootstrap: str, extra: Mapping[str, str] | None) -> list[tuple[str, int]]:
        """Every partition that watermarks go to."""
        consumer = make_consumer(bootstrap, extra)
        try:
            sensors = self.spec.sensors.values()
            names = dict.fromkeys(s.perceive.topic if s.perceive else s.topic for s in sensors)
            names[topic(self.spec, "applied")] = None
            for name in (*names, topic(self.spec, "outcomes")):
                # So that the first readings find their way at once.
                self.producer.list_topics(name, timeout=TIMEOUT_S)
            return [(name, number) for name in names for number in bounds(consumer, name)]
        finally:
            consumer.close()

    # clocks

    def _time(self, tick: int) -> int:
        return tick_time(tick, self.spec.epoch_us, self.spec.period_us)

    def _event_us(self) -> int:
        """The event clock: the present tick in lockstep, else `speed` times real time."""
        if self.lockstep:
            return self._time(self.tick)
        passed = (time.time_ns() - self.started_ns) / 1_000
        return self.begun_us + int(passed * (self.speed or 1.0))

    def _due_ns(self, time_us: int) -> int:
        """When something of event time `time_us` is due on the machine's clock."""
        if self.wall:
            return time_us * 1_000
        return self.started_ns + int((time_us - self.begun_us) * 1_000 / (self.speed or 1.0))

    # the run

    def go(self, ticks: int | None) -> None:
        """Tick after tick: send, wait for actions, step. The last tick is sent, not waited for."""
        begun, stolen = time.monotonic(), stolen_s()
        if self.speed is not None:  # the first readings are due from now on
            self.started_ns = time.time_ns() + int(self.spec.period_us * 1_000 / self.speed)
        self._send_tick()
        while not self.stop.is_set() and (ticks is None or self.steps < ticks):
            if not (self._await_lockstep() if self.lockstep else self._await_schedule()):
                break
            self._step()
            self._send_tick()
        self.spent_s = time.monotonic() - begun
        if stolen is not None:
            self.stolen_ms = round(1e3 * ((stolen_s() or stolen) - stolen))

    def _step(self) -> None:
        action = self.actuator.state.values
        tick = self.tick
        self.sample = self.plant.step(action)
        self.tick += 1
        self.steps += 1
        reward = self.meter.reward(self.sample, action)
        if self.table is not None:
            self.table.add(tick, action, reward, self.sample)
        if self.sends_outcomes:
            self._send_outcomes(reward)
        if self.on_tick is not None:
            self.on_tick(self.steps, self.plant.score())

    def _send_outcomes(self, reward: Floats) -> None:
        ended = self.sample.done & ~self.done
        self.done = self.sample.done
        found = outcomes_of(
            self.plant.entities, self.sample, reward, ended, self.tick, self._time(self.tick)
        )
        name = topic(self.spec, "outcomes")
        for outcome in found:
            send(self.producer, name, encode(outcome), outcome.entity)

    def _send_tick(self) -> None:
        """Sends what the present sample holds, each reading when it is due, then the watermarks."""
        groups = self.encoder.encode(self.sample, self._time(self.tick - 1))
        due_ns = None if self.lockstep else self._due_ns(self._time(self.tick))
        self.latencies.closing(self.tick, due_ns or time.time_ns())
        for group in groups:
            if not self.lockstep and not self._wait_until(self._due_ns(group.send_us)):
                return
            self._send_group(group)
        if not self.wall:
            send_watermark(self.producer, self.places, self._time(self.tick))
        self.producer.flush(HURRY_S)

    def _send_group(self, group: Outgoing) -> None:
        send_readings(self.producer, group)
        self.readings += len(group.keys)
        if not self.lockstep:  # as of the last reading of the moment: the worst of them
            late = time.time_ns() - self._due_ns(group.send_us)
            self.latencies.lateness.append(late)

    # waiting

    def _await_lockstep(self) -> bool:
        """Waits for every entity's answer to the present tick; False: told to stop."""
        state, tick = self.actuator.state, self.tick
        patience = self.patience if self.steps else self.first_patience
        limit = time.monotonic() + patience
        while state.waiting(tick):
            if self.stop.is_set():
                return False
            if time.monotonic() > limit:
                given_up = self.actuator.give_up(tick)
                self.missing += len(given_up)
                _log.warning("no action", tick=tick, entities=len(given_up), waited_s=patience)
                self._heard(given_up)
                break
            self._heard(self.actuator.poll(_POLL_S))
        return self.pace is None or self._wait_until(self.pace.due_ns(time.time_ns()))

    def _await_schedule(self) -> bool:
        """Waits for actions until the next readings must be made; False: told to stop."""
        state, tick = self.actuator.state, self.tick
        first = min(self.spec.period_us, *(s.every_us for s in self.spec.sensors.values()))
        span = first * 1_000 / (self.speed or 1.0)
        limit = self._due_ns(self._time(tick)) + int(0.75 * span)
        while state.waiting(tick) and time.time_ns() < limit:
            if not self._wait_until(min(limit, time.time_ns() + int(_POLL_S * 1e9)), once=True):
                return False
        self.missing += state.waiting(tick)
        return not self.stop.is_set()

    def _wait_until(self, due_ns: int, once: bool = False) -> bool:
        """Polls the actuator until `due_ns` (`once`: or until it heard something)."""
        while (left := due_ns - time.time_ns()) > 0:
            if self.stop.is_set():
                return False
            if left < _FINE_NS:
                time.sleep(left / 1e9)
            elif self._heard(self.actuator.poll(min((left - 500_000) / 1e9, _POLL_S))) and once:
                break
        return True

    def _heard(self, reports: list[Report]) -> list[Report]:
        for report in reports:
            self.latencies.heard(report)
            self.late += report.mode >= 0 and report.applied.tick < self.tick
            if self.table is not None:
                self.table.heard(report)
        return reports

    # the end

    def close(self) -> None:
        """Sends what is unsent and leaves."""
        self.actuator.close()
        self.producer.flush(TIMEOUT_S)

    def metrics(self) -> Values:
        """What Prometheus is shown; called from another thread, so each part is copied first."""
        newest = summary_ms(self.latencies.to_action[-_NEWEST:]) or {}
        return {
            "rehearse_plant_ticks": self.steps,
            "rehearse_plant_readings": self.readings,
            "rehearse_plant_statuses": dict(self.actuator.state.counts),
            "rehearse_plant_missing": self.missing,
            "rehearse_plant_latency_seconds": {
                share: newest[name] / 1e3 for name, share in _QUANTILES.items() if name in newest
            },
        }

    def summary(self) -> dict[str, Any]:
        """What happened, as plain JSON values."""
        score = {k: v if np.isfinite(v) else None for k, v in self.plant.score().items()}
        counts = self.actuator.state.counts
        latency = summary_ms(self.latencies.to_action)
        return {
            "system": self.spec.system,
            "plant": self.plant.version,
            "clock": "wall" if self.wall else "event",
            "lockstep": self.lockstep,
            "speed": self.speed,
            "seed": self.seed,
            "entities": len(self.plant.entities),
            "ticks": self.steps,
            "seconds": self.spent_s,
            "ticks_per_s": self.steps / self.spent_s if self.spent_s else 0.0,
            "readings": self.readings,
            "score": score,
            "statuses": {name: count for name, count in counts.items() if count},
            "modes": dict(sorted(self.latencies.modes.items())),
            "missing": self.missing,
            "late": self.late,
            "latency_ms": latency,
            "tick_to_action_ms": None if self.lockstep else latency,
            "send_lateness_ms": summary_ms(self.latencies.lateness),
            "stolen_ms": self.stolen_ms,
        }


_PROCESSORS: Final = Path("/proc/stat")  # first line: cpu, user, nice, system, …, steal


def stolen_s() -> float | None:
    """Seconds of processor time that the host of this virtual machine gave to others so far."""
    try:
        return int(_PROCESSORS.read_text().split()[8]) / os.sysconf("SC_CLK_TCK")
    except (OSError, IndexError, ValueError):
        return None


__all__ = ["Pace", "Sample", "Stop", "run_plant"]
