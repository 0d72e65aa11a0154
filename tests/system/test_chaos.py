"""A short campaign: a loop of real processes on a broker of its own, four faults, no violation."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra import broker as embedded
from planner.library import SHIPPED
from streams.chaos.campaign import RESULTS, run_campaign
from streams.chaos.schedule import Kind

pytestmark = [pytest.mark.broker, pytest.mark.system]
KINDS: tuple[Kind, ...] = ("kill", "pause", "broker_refuses")
SEED, SECONDS, FAULTS = 109, 30.0, 4


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "chaos"
    embedded.stop(tmp_path / "chaos")


@pytest.mark.timeout(280)
def test_a_short_campaign_finds_nothing_and_goes_on_where_it_was(home: Path) -> None:
    told: list[str] = []

    def campaign() -> dict[str, object]:
        return run_campaign(
            home, SHIPPED / "nav2d", [SEED], SECONDS, count=FAULTS, kinds=KINDS, say=told.append
        )

    result = campaign()
    assert (result["violations"], result["by_invariant"]) == (0, {}), told
    assert result["runs"] == 1
    (outcome,) = [json.loads(line) for line in (home / RESULTS).read_text().splitlines()]
    assert outcome["outcome"] == "held"
    assert {fault["target"] for fault in outcome["faults"]} == {
        "align", "worker", "sink", "broker",
    }  # fmt: skip
    assert len(outcome["faults"]) == FAULTS
    assert outcome["applied"] == outcome["counted"] + outcome["unlogged"] > 0
    assert outcome["longest_gap_ms"] > 0
    assert campaign()["outcomes"] == [outcome], "it was run before"
    assert told[-1] == f"seed {SEED} was run before: held"
