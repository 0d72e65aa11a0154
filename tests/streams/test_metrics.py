"""What Prometheus is shown: from a source, over HTTP, and from a real process."""

from __future__ import annotations

import math
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from prometheus_client import REGISTRY, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from infra.broker import Broker
from schemas.system import SHIPPED, load_spec
from streams import metrics
from streams.sink import run_sink
from tests.streams.specs import small_spec
from tests.support import unique
from tests.system.loop import make_topics

START_S = 60.0


def samples(text: str) -> dict[tuple[str, ...], float]:
    """(name, system, other label values…) → value."""
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = dict(sample.labels)
            system = [labels.pop("system")] if "system" in labels else []
            found[(sample.name, *system, *labels.values())] = sample.value
    return found


def scraped(url: str) -> dict[tuple[str, ...], float]:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return samples(answer.read().decode())


def test_a_source_is_shown_while_it_is_exposed() -> None:
    system = unique()
    numbers = {"rehearse_plant_ticks": 3.0, "rehearse_sink_frames_lost": 2.0}
    by_label = {"rehearse_plant_statuses": {"applied": 5.0, "expired": 1.0}}
    with metrics.exposed(system, lambda: {**numbers, **by_label}):
        numbers["rehearse_plant_ticks"] = 4.0
        found = samples(generate_latest(REGISTRY).decode())
    assert found["rehearse_plant_ticks_total", system] == 4
    assert found["rehearse_sink_frames_lost", system] == 2
    assert found["rehearse_plant_statuses_total", system, "applied"] == 5
    assert found["rehearse_plant_statuses_total", system, "expired"] == 1
    assert system not in generate_latest(REGISTRY).decode()


def test_a_name_that_is_not_in_the_table_fails() -> None:
    with metrics.exposed("s", lambda: {"rehearse_no_such": 1.0}), pytest.raises(KeyError):
        generate_latest(REGISTRY)


def test_serving_ends_with_the_block_and_a_taken_port_is_named() -> None:
    with metrics.serving(0) as port:
        url = f"http://127.0.0.1:{port}/metrics"
        assert "process_cpu_seconds_total" in {name for name, *_ in scraped(url)}
        with (
            pytest.raises(OSError, match=f"{port}.*give another --metrics-port"),
            metrics.serving(port),
        ):
            pass
    with pytest.raises(OSError, match="refused"):
        scraped(url)


def test_without_a_port_nothing_is_served() -> None:
    with metrics.serving(None) as port:
        assert port is None


def test_every_metric_of_the_table_can_be_made() -> None:
    system = unique()
    made = {"counter": metrics.counter, "gauge": metrics.gauge, "histogram": metrics.histogram}
    worker = {name: row for name, row in metrics.TABLE.items() if "_worker_" in name}
    for name, row in worker.items():
        made[row.kind](name).labels(system, *["x"] * (len(row.labels) - 1))
    found = {name for name, *labels in samples(generate_latest(REGISTRY).decode())}
    suffixes = {"counter": "_total", "gauge": "", "histogram": "_bucket"}
    assert {name + suffixes[row.kind] for name, row in worker.items()} <= found


@pytest.mark.broker
def test_a_sink_shows_what_it_stores(broker: Broker, tmp_path: Path) -> None:
    spec = small_spec(unique("metrics"))
    make_topics(spec, {"bootstrap.servers": broker.bootstrap})
    stop = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(run_sink, spec, broker.bootstrap, {}, stop, tmp_path)
        shown: set[str] = set()
        while not running.done() and not shown:
            found = samples(generate_latest(REGISTRY).decode())
            shown = {name for name, *labels in found if labels == [spec.system]}
            time.sleep(0.05)
        stop.set()
    assert running.result()["frames"] == 0
    wanted = {name for name in metrics.TABLE if "_sink_" in name}
    assert {name.removesuffix("_total") for name in shown} == wanted


@pytest.mark.broker
def test_a_plant_shows_what_it_does(broker: Broker, tmp_path: Path) -> None:
    system = unique("metrics")
    spec_file = tmp_path / "spec.yaml"
    text = (SHIPPED / "nav2d.yaml").read_text()
    spec_file.write_text(text.replace("system: nav2d", f"system: {system}"))
    make_topics(load_spec(spec_file), {"bootstrap.servers": broker.bootstrap})
    command = [sys.executable, "-m", "streams.cli", "plant", str(spec_file), "-o", "robots=2"]
    command += ["--metrics-port", "0", "--bootstrap-servers", broker.bootstrap, "--json"]
    with (tmp_path / "log").open("wb") as log:
        child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, env=dict(os.environ))
    try:
        found = _wait_for_ticks(child, tmp_path / "log", system)
    finally:
        child.send_signal(signal.SIGTERM)
        said, _ = child.communicate(timeout=30)
    assert child.returncode == 0, (tmp_path / "log").read_text()
    assert found["rehearse_plant_readings_total", system] >= 2
    assert found["rehearse_plant_missing_total", system] > 0
    assert not any(math.isnan(number) for number in found.values())
    assert system.encode() in said


def _wait_for_ticks(
    child: subprocess.Popen[bytes], log: Path, system: str
) -> dict[tuple[str, ...], float]:
    """The metrics of a plant that nobody answers, once it has counted what was missing."""
    limit = time.monotonic() + START_S
    while time.monotonic() < limit and child.poll() is None:
        address = re.search(r"http://127\.0\.0\.1:\d+/metrics", log.read_text())
        if address:
            found = scraped(address[0])
            if found.get(("rehearse_plant_missing_total", system), 0):
                return found
        time.sleep(0.1)
    pytest.fail(f"no tick was shown; the log says:\n{log.read_text()}")
