"""Watches a running system from its topics alone and draws it: decisions, gate, outcomes."""

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec
import numpy as np
import pyarrow.compute  # noqa: F401  decoding would load it at the first message
from confluent_kafka import OFFSET_BEGINNING, Message, TopicPartition
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from schemas.arrow_io import FrameError
from schemas.codes import Mode, Reason, names
from schemas.messages import Outcome, decode
from schemas.system import SystemSpec
from schemas.topics import topic
from schemas.trajectories import Decisions, decode_trajectory
from streams.topic_io import make_consumer, partitions

BATCH = 2_000


@dataclass
class Statistics:
    """What was seen so far; plain sums, so that adding a frame costs microseconds."""

    entities: set[str] = field(default_factory=set)
    first_tick: int | None = None
    last_tick: int = 0
    frames: int = 0
    decisions: int = 0
    modes: Counter[str] = field(default_factory=Counter)
    gate: Counter[str] = field(default_factory=Counter)
    step_ms: list[float] = field(default_factory=list)
    outcomes: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    bundles: Counter[str] = field(default_factory=Counter)

    @property
    def ticks(self) -> int:
        """Ticks from the first to the last one seen."""
        return 0 if self.first_tick is None else self.last_tick - self.first_tick + 1

    def add_decisions(self, tick: int, entities: tuple[str, ...], decisions: Decisions) -> None:
        """Count one trajectory frame."""
        self.first_tick = tick if self.first_tick is None else min(tick, self.first_tick)
        self.last_tick = max(tick, self.last_tick)
        self.frames += 1
        self.decisions += len(entities)
        self.entities.update(entities)
        for code, count in zip(*np.unique(decisions.mode, return_counts=True), strict=True):
            self.modes[Mode(int(code)).name.lower()] += int(count)
        for bits, count in zip(*np.unique(decisions.reasons, return_counts=True), strict=True):
            for name in names(Reason(int(bits))):
                self.gate[name.lower()] += int(count)
        self.bundles[decisions.bundle[:12] or "none"] += len(entities)
        if "step_ms" in decisions.spent:
            self.step_ms.append(float(decisions.spent["step_ms"]))

    def add_outcome(self, outcome: Outcome) -> None:
        """Sum up one label."""
        self.outcomes[f"kind:{outcome.kind}"] += 1
        for name, value in outcome.values.items():
            self.outcomes[name] += value

    def share(self, mode: Mode) -> float:
        """Share of decisions made in `mode`; 0 where there is none."""
        return self.modes[mode.name.lower()] / max(self.decisions, 1)


class Monitor:
    """Reads `S.trajectories` and `S.outcomes` from their beginning and keeps `statistics`."""

    def __init__(self, spec: SystemSpec, bootstrap: str, extra: Mapping[str, str]) -> None:
        self.spec = spec
        self.statistics = Statistics()
        self.consumer = make_consumer(bootstrap, extra)
        self._trajectories = topic(spec, "trajectories")
        self.consumer.assign(
            [
                TopicPartition(name, number, OFFSET_BEGINNING)
                for name in (self._trajectories, topic(spec, "outcomes"))
                for number in partitions(self.consumer, name)
            ]
        )

    def poll(self, seconds: float) -> int:
        """Take what has come, waiting up to `seconds` for something; returns the record count."""
        messages = self.consumer.consume(BATCH, seconds)
        for message in messages:
            self._read(message)
        return len(messages)

    def _read(self, message: Message) -> None:
        value = message.value()
        if message.error() is not None or value is None:
            return
        if message.topic() != self._trajectories:
            try:
                self.statistics.add_outcome(decode(Outcome, value))
            except msgspec.MsgspecError:
                self.statistics.outcomes["unreadable"] += 1
            return
        try:
            found = decode_trajectory(self.spec, value)
        except FrameError:
            self.statistics.outcomes["unreadable"] += 1
            return
        if found.decisions.spent.get("held") and not found.decisions.spent.get("shadow"):
            return  # the first worker's counts
        self.statistics.add_decisions(found.frame.tick, found.frame.entities, found.decisions)

    def close(self) -> None:
        """Leave the broker."""
        self.consumer.close()


def live_table(
    spec: SystemSpec,
    seen: Statistics,
    total_ticks: int | None,
    seconds: float,
    note: str = "",
) -> Panel:
    """What a person watches while the loop runs."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", justify="right")
    grid.add_column()
    simulated = seen.ticks * spec.period_us / 1e6
    rate = seen.decisions / seconds if seconds else 0.0
    grid.add_row("entities", f"{len(seen.entities)} ({spec.entity})")
    grid.add_row("ticks", f"{seen.ticks:,} · {_span(simulated)} of the system's time")
    grid.add_row("decisions", f"{seen.decisions:,} · {rate:,.0f}/s · {seen.frames:,} frames")
    grid.add_row("modes", _shares(seen.modes, seen.decisions))
    grid.add_row("gate", _shares(seen.gate, seen.decisions) if seen.gate else Text("–"))
    grid.add_row("step", _percentiles(seen.step_ms))
    for name, text in _outcome_rows(seen.outcomes):
        grid.add_row(name, text)
    done = seen.ticks / total_ticks if total_ticks else 0.0
    bar = ProgressBar(total=1.0, completed=min(done, 1.0), width=60)
    parts: list[RenderableType] = [grid, bar] if total_ticks else [grid]
    if note:
        parts.append(Text(note, style="italic"))
    return Panel(
        Group(*parts),
        title=f"[bold]{spec.system.split('-')[0]}[/] · {seconds:,.0f} s",
        title_align="left",
    )


def _outcome_rows(outcomes: Mapping[str, float]) -> list[tuple[str, str]]:
    """Cost and SLO where the plant reports them, else the mean reward."""
    rows = []
    if outcomes.get("requests"):
        hours = outcomes.get("cost", 0.0) / 3_600
        slo = 1 - outcomes.get("late", 0.0) / outcomes["requests"]
        rows += [("cost", f"{hours:,.1f} replica-hours"), ("SLO", f"{100 * slo:.4f} % in time")]
    ticks = outcomes.get("kind:tick", 0)
    if ticks and "reward" in outcomes:
        rows.append(("reward", f"{outcomes['reward'] / ticks:.4f} per decision"))
    if outcomes.get("kind:end"):
        rows.append(("ended", f"{outcomes['kind:end']:.0f} entities"))
    return rows


def _shares(counts: Mapping[str, int], total: int) -> Text:
    text = Text()
    for name, count in sorted(counts.items(), key=lambda item: -item[1]):
        text.append(f"{name} ", style="bold")
        text.append(f"{100 * count / max(total, 1):.1f} %   ")
    return text


def _percentiles(values: list[float]) -> str:
    if not values:
        return "–"
    p50, p99, worst = np.percentile(values, (50, 99, 100))
    return f"p50 {p50:.1f} · p99 {p99:.1f} · max {worst:.1f} ms"


def _span(seconds: float) -> str:
    if seconds >= 7_200:
        return f"{seconds / 3_600:.1f} h"
    return f"{seconds / 60:.1f} min" if seconds >= 120 else f"{seconds:.1f} s"
