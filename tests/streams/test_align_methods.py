"""Each alignment against values worked out by hand; ticks at 10, 20, … ms, maximum age 35 ms."""

from math import nan

import numpy as np
import pytest

from streams.align import Aligner
from tests.streams.align_line import MS, column, mark, read, spec_of

PAIRS = [(3.0, 2.0), (10.0, 6.0), (12.0, 1.0), (15.0, 4.0)]  # two readings in each of two ticks


@pytest.mark.parametrize(
    ("align", "expected"),
    [
        ("latest", [6, 4, 4, 4, 4, nan]),
        ("mean", [4, 2.5, 2.5, 2.5, 2.5, nan]),
        ("max", [6, 4, 4, 4, 4, nan]),
        ("sum", [8, 5, 0, 0, 0, nan]),
        ("count", [2, 2, 0, 0, 0, nan]),
        ("linear", [6, 4, 4, 4, 4, nan]),  # no later neighbour came
    ],
)
def test_windows_and_what_is_held_over_empty_ones(align: str, expected: list[float]) -> None:
    np.testing.assert_array_equal(column(align, PAIRS, 60), expected)


def test_linear_lies_between_the_neighbours_of_the_tick() -> None:
    found = column("linear", [(5, 0.0), (15, 10.0), (25, 30.0), (40, 30.0), (45, 7.0)], 40)
    np.testing.assert_allclose(found, [5.0, 20.0, 30.0, 30.0])


def test_linear_holds_where_the_neighbours_are_further_apart_than_the_maximum_age() -> None:
    np.testing.assert_array_equal(column("linear", [(5, 1.0), (45, 9.0)], 40), [1.0] * 4)


def test_a_reading_on_the_tick_belongs_to_it() -> None:
    np.testing.assert_array_equal(column("count", [(10, 1.0), (10.001, 1.0)], 20), [1, 1])


def test_the_same_readings_in_another_order_give_the_same() -> None:
    for align in ("latest", "linear", "mean", "sum", "max", "count"):
        expected = column(align, PAIRS, 50)
        mixed = [PAIRS[1], PAIRS[0], PAIRS[3], PAIRS[2]]
        np.testing.assert_array_equal(column(align, mixed, 50), expected)


def test_of_equal_times_the_first_counts() -> None:
    aligner = Aligner(spec_of("sum"))
    read(aligner, [(5, 1.0), (5, 50.0)])
    read(aligner, [(5, 70.0)])
    mark(aligner, 10)
    assert aligner.close()[0].values[0, 0] == 1.0
    assert aligner.counters["duplicate"] == 2
    assert aligner.dead_letters() == []


def test_ages_count_from_the_newest_reading_used() -> None:
    aligner = Aligner(spec_of("mean"))
    read(aligner, [(3, 1.0), (8, 1.0)])
    mark(aligner, 60)
    ages = [float(frame.ages[0, 0]) for frame in aligner.close()]
    np.testing.assert_allclose(ages, [0.002, 0.012, 0.022, 0.032, 0.042, 0.052], rtol=1e-6)


def test_a_vector_is_missing_as_a_whole() -> None:
    aligner = Aligner(spec_of(shape=", shape: [2]"))
    rows = aligner.intern(["ant"] * 3)
    times = np.array([4, 5, 6]) * MS
    values = np.array([[1.0, 2.0], [3.0, nan], [5.0, 500.0]])
    aligner.readings("one", rows, times, {"x": values})
    mark(aligner, 10)
    frame = aligner.close()[0]
    np.testing.assert_array_equal(frame.values[0, :2], [1.0, 2.0])
    assert frame.ages[0, 0] == np.float32(0.006)
    assert (aligner.counters["missing"], aligner.counters["out_of_range"]) == (1, 1)
    letter = aligner.dead_letters()[0]
    assert (letter.reason, letter.offset, letter.time_us) == ("out_of_range", 2, 6 * MS)


def test_infinity_is_out_of_range_and_nan_is_missing() -> None:
    aligner = Aligner(spec_of())
    read(aligner, [(5, 1.0), (6, np.inf), (7, -np.inf), (8, nan)])
    mark(aligner, 10)
    assert aligner.close()[0].values[0, 0] == 1.0
    assert aligner.counters == {"readings": 4, "out_of_range": 2, "missing": 1, "blind": 3}
