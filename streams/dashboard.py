"""The Grafana dashboard of the metrics: panels as a table, written to `infra/grafana.json`.

`python -m streams.dashboard > infra/grafana.json` writes it anew.
"""

import json
import sys
from typing import Any, Final, NamedTuple

from streams.metrics import TABLE

WIDTH, HEIGHT, COLUMNS = 8, 8, 24
_HERE: Final = 'system=~"$system"'
_WINDOW: Final = "[$__rate_interval]"


class Query(NamedTuple):
    """One query of a panel, and what its lines are called."""

    expression: str
    legend: str


class Panel(NamedTuple):
    """One graph; `unit` is one of Grafana's, `least` where its axis begins (None: at the data)."""

    title: str
    unit: str
    queries: tuple[Query, ...]
    least: float | None = 0


def rate(name: str, label: str = "system") -> Query:
    """Events per second of a counter, by `label`."""
    return Query(f"sum by ({label}) (rate({name}_total{{{_HERE}}}{_WINDOW}))", f"{{{{{label}}}}}")


def value(name: str, label: str = "system") -> Query:
    """A gauge, the largest by `label`."""
    return Query(f"max by ({label}) ({name}{{{_HERE}}})", f"{{{{{label}}}}}")


def quantiles(name: str) -> tuple[Query, ...]:
    """The median, 99 % and 99.9 % of a histogram."""
    buckets = f"sum by (le) (rate({name}_bucket{{{_HERE}}}{_WINDOW}))"
    return tuple(Query(f"histogram_quantile({q}, {buckets})", f"q {q}") for q in (0.5, 0.99, 0.999))


ROWS: Final[dict[str, tuple[Panel, ...]]] = {
    "Worker": (
        Panel("Frames decided", "ops", (rate("rehearse_worker_frames"),)),
        Panel("Decisions by who made them", "ops", (rate("rehearse_worker_decisions", "mode"),)),
        Panel("Gate, by reason", "ops", (rate("rehearse_worker_reasons", "reason"),)),
        Panel("Encode, believe, plan, gate", "s", quantiles("rehearse_worker_step_seconds")),
        Panel("Until the broker has it all", "s", quantiles("rehearse_worker_confirm_seconds")),
        Panel(
            "Frames in flight, repeated /s, rejected /s, passed over /s",
            "short",
            (
                value("rehearse_worker_in_flight")._replace(legend="in flight"),
                rate("rehearse_worker_frames_repeated")._replace(legend="repeated"),
                rate("rehearse_worker_frames_rejected")._replace(legend="rejected"),
                rate("rehearse_worker_frames_shed")._replace(legend="passed over"),
            ),
        ),
    ),
    "Perceive": (
        Panel("Encoded", "ops", (rate("rehearse_perceive_encoded", "sensor"),)),
        Panel(
            "Refused, passed over, batches",
            "ops",
            tuple(
                rate(f"rehearse_perceive_{name}")._replace(legend=name)
                for name in ("refused", "stale", "batches")
            ),
        ),
        Panel("Until the broker has it", "s", quantiles("rehearse_perceive_seconds")),
    ),
    "Twin": (
        Panel("Answered by the first worker", "ops", (rate("rehearse_worker_frames_held"),)),
        Panel("Beliefs that are not alike", "ops", (rate("rehearse_sink_beliefs_unlike"),)),
    ),
    "Aligner": (
        Panel("Frames published", "ops", (rate("rehearse_align_frames"),)),
        Panel("Whether anybody makes them", "short", (value("rehearse_align_speaks"),)),
        Panel("What came in", "ops", (rate("rehearse_align_readings", "result"),)),
        Panel(
            "Device clocks corrected, set",
            "short",
            (
                value("rehearse_align_clocks_corrected")._replace(legend="corrected"),
                rate("rehearse_align_clock_jumps")._replace(legend="set /s"),
            ),
        ),
        Panel(
            "Device clocks ahead by",
            "s",
            (value("rehearse_align_clock_offset_seconds", "device"),),
            None,
        ),
        Panel(
            "Known to within",
            "s",
            (value("rehearse_align_clock_uncertainty_seconds", "device"),),
        ),
        Panel(
            "Device clocks too fast by",
            "percentunit",
            (value("rehearse_align_clock_drift_ratio", "device"),),
            None,
        ),
    ),
    "Sink": (
        Panel("Rows stored", "ops", (rate("rehearse_sink_rows"),)),
        Panel(
            "Frames, further attempts, rejected",
            "ops",
            tuple(
                rate(f"rehearse_sink_{name}")._replace(legend=name)
                for name in ("frames", "attempts", "rejected")
            ),
        ),
        Panel("Frames lost", "short", (value("rehearse_sink_frames_lost"),)),
    ),
    "Plant": (
        Panel("Reading to action", "s", (value("rehearse_plant_latency_seconds", "quantile"),)),
        Panel("What became of actions", "ops", (rate("rehearse_plant_statuses", "status"),)),
        Panel("No answer in time", "ops", (rate("rehearse_plant_missing"),)),
        Panel("Ticks", "ops", (rate("rehearse_plant_ticks"),)),
        Panel("Readings sent", "ops", (rate("rehearse_plant_readings"),)),
    ),
    "Processes": (
        Panel(
            "Cores used",
            "short",
            (Query(f'rate(process_cpu_seconds_total{{job="rehearse"}}{_WINDOW})', "{{part}}"),),
        ),
        Panel(
            "Memory",
            "bytes",
            (Query('process_resident_memory_bytes{job="rehearse"}', "{{part}}"),),
        ),
    ),
}
_SOURCE: Final = {"type": "prometheus", "uid": "${source}"}


def dashboard() -> dict[str, Any]:
    """The dashboard as Grafana imports it."""
    return {
        "uid": "rehearse",
        "title": "Rehearse",
        "schemaVersion": 39,
        "version": 1,
        "timezone": "browser",
        "refresh": "5s",
        "time": {"from": "now-15m", "to": "now"},
        "templating": {"list": _variables()},
        "panels": _panels(),
    }


def _variables() -> list[dict[str, Any]]:
    query = 'label_values({__name__=~"rehearse_.*"}, system)'
    return [
        {"name": "source", "label": "Data", "type": "datasource", "query": "prometheus"},
        {
            "name": "system",
            "label": "System",
            "type": "query",
            "datasource": _SOURCE,
            "query": {"query": query, "refId": "system"},
            "refresh": 2,
            "includeAll": True,
            "multi": True,
            "current": {"text": "All", "value": "$__all"},
        },
    ]


def _panels() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    top = 0
    for title, panels in ROWS.items():
        place = {"x": 0, "y": top, "w": COLUMNS, "h": 1}
        row = {"type": "row", "title": title, "collapsed": False, "panels": []}
        found.append({**row, "id": len(found) + 1, "gridPos": place})
        top += 1
        for i, panel in enumerate(panels):
            line, column = divmod(i * WIDTH, COLUMNS)
            place = {"x": column, "y": top + line * HEIGHT, "w": WIDTH, "h": HEIGHT}
            found.append({**_graph(panel), "id": len(found) + 1, "gridPos": place})
        top += -(-len(panels) * WIDTH // COLUMNS) * HEIGHT
    return found


def _defaults(panel: Panel) -> dict[str, Any]:
    return {"unit": panel.unit} | ({} if panel.least is None else {"min": panel.least})


def _graph(panel: Panel) -> dict[str, Any]:
    targets = [
        {
            "refId": chr(ord("A") + i),
            "expr": query.expression,
            "legendFormat": query.legend,
            "datasource": _SOURCE,
        }
        for i, query in enumerate(panel.queries)
    ]
    names = [name for name in TABLE if any(name in q.expression for q in panel.queries)]
    return {
        "type": "timeseries",
        "title": panel.title,
        "description": "; ".join(TABLE[name].what for name in names),
        "datasource": _SOURCE,
        "fieldConfig": {"defaults": _defaults(panel), "overrides": []},
        "targets": targets,
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(dashboard(), indent=1, ensure_ascii=False) + "\n")
