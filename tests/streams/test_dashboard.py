"""Dashboard and scrape example name what there really is."""

from __future__ import annotations

import json
import re
from pathlib import Path

import yaml

from infra import kraft
from streams.commands import processes
from streams.dashboard import COLUMNS, dashboard
from streams.metrics import TABLE

INFRA = Path(kraft.__file__).parent
SUFFIX = {"counter": {"_total"}, "gauge": {""}, "histogram": {"_bucket", "_sum", "_count"}}


def expressions() -> list[str]:
    return [t["expr"] for p in dashboard()["panels"] for t in p.get("targets", ())]


def exposed_names() -> dict[str, str]:
    """Name as it is scraped → name in the table."""
    return {name + end: name for name, row in TABLE.items() for end in SUFFIX[row.kind]}


def test_committed_file_is_not_stale() -> None:
    assert json.loads((INFRA / "grafana.json").read_text()) == dashboard(), (
        "infra/grafana.json is stale; run: python -m streams.dashboard > infra/grafana.json"
    )


def test_every_name_in_the_dashboard_is_in_the_table_and_the_other_way_round() -> None:
    used = {name for text in expressions() for name in re.findall(r"\brehearse_\w+", text)}
    names = exposed_names()
    assert used <= set(names)
    assert {names[name] for name in used} == set(TABLE)


def test_lines_are_told_apart_by_labels_that_the_metric_has() -> None:
    for text in expressions():
        for label, name in re.findall(r"by \((\w+)\) \((?:rate\()?(rehearse_\w+)", text):
            row = TABLE[exposed_names()[name]]
            assert label in row.labels or (label == "le" and row.kind == "histogram"), text
        assert text.count("(") == text.count(")")


def test_panels_do_not_overlap_and_have_ids_of_their_own() -> None:
    panels = dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken
        assert place["x"] + place["w"] <= COLUMNS
        taken |= cells


def test_the_scrape_example_names_each_part_once() -> None:
    content = yaml.safe_load((INFRA / "prometheus.yaml").read_text())
    (job,) = content["scrape_configs"]
    assert job["job_name"] == "rehearse"
    parts = [group["labels"]["part"] for group in job["static_configs"]]
    assert all(callable(getattr(processes, part)) for part in parts)
    assert sorted(parts) == ["align", "perceive", "plant", "sink", "worker"]
    targets = [target for group in job["static_configs"] for target in group["targets"]]
    assert len(set(targets)) == len(parts)
