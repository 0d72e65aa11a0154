"""No other days and columns are read than are wanted, here and on object storage."""

import json
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from infra.storage import write
from models.cli import app
from models.data import load_dataset, load_whole
from models.logs import DataError, of_days, read_run, ticks_of
from models.recipe import parse_recipe
from schemas.system import parse_spec
from tests.models.synthetic import SPEC, mass_spec, simulate
from tests.support import unique

FIRST, SECOND, THIRD = date(2026, 11, 1), date(2026, 11, 2), date(2026, 11, 3)
DAY = 8_640  # ticks of 10 s
SLOW = SPEC.replace("tick: 100 ms", "tick: 10 s\nepoch: 1793491200000000")  # 2026-11-01


@pytest.fixture
def three_days(tmp_path: Path) -> Path:
    """A log whose second day alone can be read, with 200 ticks before midnight and 50 after."""
    frame = simulate(4, 250, seed=1).with_columns(tick=pl.col("tick") + 2 * DAY - 200)
    for day in (FIRST, SECOND, THIRD):
        (tmp_path / "log/system=mass" / f"day={day}").mkdir(parents=True)
        (tmp_path / "log/system=mass" / f"day={day}" / "part.parquet").write_bytes(b"garbage")
    frame.write_parquet(tmp_path / f"log/system=mass/day={SECOND}/part.parquet")
    return tmp_path / "log"


def test_files_of_other_days_are_not_opened(three_days: Path) -> None:
    spec = parse_spec(SLOW)
    data = load_whole(spec, [three_days], days=(SECOND, SECOND))
    assert len(data) == 4 * 200, "up to midnight"
    assert data.tick.max() == 2 * DAY - 1
    with pytest.raises(DataError, match=r"day=2026-11-01/part.parquet: no Parquet file"):
        load_whole(spec, [three_days])
    with pytest.raises(DataError, match="no Parquet files of 2026-10-01 to 2026-10-02 there"):
        load_whole(spec, [three_days], days=(date(2026, 10, 1), date(2026, 10, 2)))


def test_lineage_speaks_of_what_was_read(three_days: Path) -> None:
    files = load_dataset(parse_spec(SLOW), [three_days], days=(SECOND, SECOND)).files[0]
    part = three_days / f"system=mass/day={SECOND}/part.parquet"
    assert (files["files"], files["bytes"]) == (1, part.stat().st_size)
    assert files["days"] == ["2026-11-02", "2026-11-02"]


def test_rows_say_their_day_where_no_folder_does(tmp_path: Path) -> None:
    frame = simulate(2, 100, seed=1).with_columns(tick=pl.col("tick") + 2 * DAY - 50)
    (tmp_path / "day=off").mkdir()
    frame.write_parquet(tmp_path / "day=off" / "all.parquet")
    spec = parse_spec(SLOW)
    rows, _ = read_run(spec, tmp_path, (THIRD, THIRD))
    assert (rows["tick"].min(), rows["tick"].max(), rows.height) == (2 * DAY, 2 * DAY + 49, 100)
    with pytest.raises(DataError, match="no rows from 2026-11-01 to 2026-11-01"):
        read_run(spec, tmp_path, (FIRST, FIRST))


days = st.dates(date(1990, 1, 1), date(2100, 1, 1))


@given(days, st.integers(0, 5), st.sampled_from(["100 ms", "7 s", "15 s", "1 h"]), days)
def test_a_tick_is_of_one_day(first: date, more: int, tick: str, epoch: date) -> None:
    begun = (epoch - date(1970, 1, 1)).days * 86_400_000_000
    spec = parse_spec(SPEC.replace("tick: 100 ms", f"tick: {tick}\nepoch: {begun}"))
    last = first + timedelta(days=more)

    def day(of: int) -> date:
        us = spec.epoch_us + of * spec.period_us
        return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=us)).date()

    begin, end = ticks_of(spec, (first, last))
    assert [day(begin - 1) < first, day(begin) >= first] == [True, True]
    assert [day(end) <= last, day(end + 1) > last] == [True, True]


def test_days_are_told_by_the_folder_next_to_the_file() -> None:
    names = ["day=2026-11-01/a", "x/day=2026-11-02/b", "day=2026-11-02/day=2026-11-03/c", "d"]
    assert of_days(names, (SECOND, SECOND)) == [names[1], names[3]]
    assert of_days(names, None) == names


def test_a_log_at_a_url_is_the_log(tmp_path: Path, run_folder: Path) -> None:
    url = f"memory://{unique()}"
    for file in run_folder.rglob("*.parquet"):
        write(f"{url}/{file.relative_to(run_folder).as_posix()}", file.read_bytes())
    here, there = (load_dataset(mass_spec(), [place]) for place in (run_folder, url))
    assert (here.train.obs == there.train.obs)[here.train.obs == here.train.obs].all()
    assert here.columns == there.columns
    assert there.files[0]["bytes"] == here.files[0]["bytes"]
    assert "versions" in there.files[0]


def test_the_command_takes_days_and_the_file_too(three_days: Path, tmp_path: Path) -> None:
    (tmp_path / "mass.yaml").write_text(SLOW)
    common = ["train", "--data", str(three_days), "--out", str(tmp_path / "mine"), "--json"]
    common += ["--steps", "2", "--no-actor", "--memory", "4", "--units", "4"]
    words = [*common, str(tmp_path / "mass.yaml"), "--days", "2026-11-02", "2026-11-02"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    lineage = json.loads((tmp_path / "mine/manifest.json").read_text())["lineage"]
    assert lineage["datasets"][0]["days"] == ["2026-11-02", "2026-11-02"]
    workflow = tmp_path / "flow.yaml"
    head = f"workflow: w\nsystem: {tmp_path / 'mass.yaml'}\ndata:\n  days: "
    workflow.write_text(f"{head}[2026-11-03, 2026-11-02]\n")
    wrong = CliRunner().invoke(app, [*common, str(workflow)])
    assert "flow.yaml:3: data: days: 2026-11-03 is after 2026-11-02" in wrong.output
    text = f"{head}[2026-11-02, 2026-11-02]\n"
    assert parse_recipe(text).data.days == (SECOND, SECOND)
