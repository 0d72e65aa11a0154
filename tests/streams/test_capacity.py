"""The capacity model: its arithmetic, its limits, and that it says what was measured."""

from dataclasses import replace

import pytest
from typer.testing import CliRunner

from schemas.topics import MOST_COHORT_PARTITIONS
from streams.capacity import (
    FULL,
    MEASURED,
    Cost,
    Costs,
    Fleet,
    Size,
    capacity,
    fitted,
)
from streams.cli import app

ROUND = Costs(
    align=Cost(100.0, 2.0),
    worker=Cost(1_000.0, 50.0),
    sink=Cost(0.0, 5.0),
    broker=Cost(500.0, 10.0),
    broker_reading_us=1.0,
    imagine_us=0.5,
    reading_bytes=100.0,
    frame=Size(1_000, 10),
    action=Size(500, 0),
    trajectory=Size(2_000, 20),
    row=Size(0, 200),
)


def test_every_stage_is_added_up_by_hand() -> None:
    # 1,000 entities at 10 Hz in 10 cohorts.
    found = capacity(Fleet(1_000, 10.0, 3, 0.1, 200, 100), 2.0, ROUND)
    assert (found.frames_per_s, found.decisions_per_s, found.readings_per_s) == (
        100,
        10_000,
        30_000,
    )
    assert found.aligner_cores == pytest.approx(100e-6 * 100 + 2e-6 * 30_000)
    assert found.worker_cores == pytest.approx(1e-3 * 100 + 50e-6 * 10_000 + 0.5e-6 * 200_000)
    assert found.sink_cores == pytest.approx(0.05)
    assert found.broker_cores == pytest.approx(5e-4 * 100 + 1e-5 * 10_000 + 1e-6 * 30_000)
    assert found.changelog_bytes_per_s == 2_000_000
    written = 3_000_000 + 5_000_000 + 3_000 * 100 + 230 * 10_000
    assert found.broker_in_bytes_per_s == written
    total = found.aligner_cores + found.worker_cores + found.sink_cores + found.broker_cores
    assert found.core_hours_per_hour == pytest.approx(total / FULL)
    assert found.cost_per_hour == pytest.approx(2.0 * total / FULL)
    assert (found.cohorts, found.workers, found.systems, found.partitions) == (10, 2, 1, 10)


def test_a_system_has_no_more_workers_than_partitions() -> None:
    busy = Fleet(1_000_000, 1.0)
    found = capacity(busy, costs=replace(ROUND, worker=Cost(0.0, 60.0)))
    assert found.workers == 100
    assert found.systems == -(-100 // MOST_COHORT_PARTITIONS)
    assert found.partitions == found.systems * MOST_COHORT_PARTITIONS
    assert found.aligners >= found.systems


def test_larger_cohorts_cost_less_until_a_record_holds_no_more() -> None:
    small, large = (capacity(Fleet(100_000, 1.0, cohort=n)) for n in (50, 400))
    assert large.worker_cores < small.worker_cores
    with pytest.raises(ValueError, match="2250 are the most"):
        capacity(Fleet(100_000, 1.0, cohort=2_251), costs=ROUND)
    capacity(Fleet(100_000, 1.0, cohort=2_250), costs=ROUND)


def test_two_measurements_give_a_line_through_both() -> None:
    cost = fitted((200, 70.0), (50, 100.0))
    assert cost.unit_us + cost.frame_us / 200 == pytest.approx(70.0)
    assert cost.unit_us + cost.frame_us / 50 == pytest.approx(100.0)
    assert cost == fitted((50, 100.0), (200, 70.0))
    with pytest.raises(ValueError, match="different size"):
        fitted((50, 1.0), (50, 2.0))


@pytest.mark.parametrize(
    "wrong", [(0, 1.0), (1, 0.0), (1, 1.0, 0), (1, 1.0, 1, 1.1), (1, 1.0, 1, 0.0, 0, 0)]
)
def test_a_fleet_that_cannot_be_is_refused(wrong: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match=r"above 0|share"):
        Fleet(*wrong)  # type: ignore[arg-type]


def test_the_command_says_it_in_json() -> None:
    chosen = ["--entities", "10000", "--hz", "10", "--price", "0.05", "--json"]
    result = CliRunner().invoke(app, ["bench", "capacity", *chosen])
    assert result.exit_code == 0, result.output
    assert '"decisions_per_s":100000' in result.stdout.replace(" ", "")
    refused = CliRunner().invoke(app, ["bench", "capacity", "--cohort", "5000"])
    assert refused.exit_code == 2


def test_costs_are_positive() -> None:
    for cost in (MEASURED.align, MEASURED.worker, MEASURED.sink, MEASURED.broker):
        assert cost.frame_us >= 0
        assert cost.unit_us > 0
