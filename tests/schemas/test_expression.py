"""The three back ends give the same numbers, and what is not in the language is refused."""

from __future__ import annotations

import contextlib
import pickle
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.expression import Expression, ExpressionError
from schemas.expression_tree import MAX_DEPTH, MAX_LENGTH

NAMES = ("a", "b", "position[0]")
AWKWARD = (0.0, -0.0, 1.0, -1.0, np.nan, np.inf, -np.inf, 1e-40, -5e-324, 3.4e38, 1e308, 0.1)

numbers = st.sampled_from(["0", "1", "2.5", "0.1", "1e-40", "1e39", "3", "1e308"])
leaves = st.one_of(st.sampled_from(NAMES), numbers)


def grow(functions: tuple[str, ...]) -> st.SearchStrategy[str]:
    """Random expressions that give a number."""

    def deeper(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
        pair = st.tuples(inner, inner)
        triple = st.tuples(inner, inner, inner)
        compared = st.builds(
            lambda p, op: f"({p[0]} {op} {p[1]})",
            pair,
            st.sampled_from(["<", "<=", ">", ">=", "==", "!="]),
        )
        condition = st.one_of(
            compared,
            compared.map(lambda c: f"(not {c})"),
            st.builds(
                lambda x, y, op: f"({x} {op} {y})",
                compared,
                compared,
                st.sampled_from(["and", "or"]),
            ),
        )
        return st.one_of(
            st.builds(lambda p, op: f"({p[0]} {op} {p[1]})", pair, st.sampled_from("+-*/")),
            inner.map(lambda x: f"(-{x})"),
            st.builds(lambda x, f: f"{f}({x})", inner, st.sampled_from(functions)),
            st.builds(lambda p, f: f"{f}({p[0]}, {p[1]})", pair, st.sampled_from(["min", "max"])),
            st.builds(
                lambda t, f: f"{f}({t[0]}, {t[1]}, {t[2]})",
                triple,
                st.sampled_from(["min", "max", "clip"]),
            ),
            st.builds(lambda c, p: f"where({c}, {p[0]}, {p[1]})", condition, pair),
            condition,
        )

    return st.recursive(leaves, deeper, max_leaves=12)


def values(dtype: str) -> st.SearchStrategy[npt.NDArray[Any]]:
    any_float = st.floats(width=32) if dtype == "float32" else st.floats()
    item = st.one_of(st.sampled_from(AWKWARD), any_float)

    def array(items: list[float]) -> npt.NDArray[Any]:
        with np.errstate(all="ignore"):
            return np.array(items, dtype="float64").astype(dtype)

    return st.lists(item, min_size=7, max_size=7).map(array)


def everywhere(
    text: str, columns: dict[str, npt.NDArray[Any]]
) -> tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]]:
    """The value from NumPy, Polars and torch, at full length."""
    expression = Expression.parse(text, NAMES)
    used = [columns[name].dtype for name in expression.names]
    narrow = bool(used) and all(dtype == np.float32 for dtype in used)
    by_numpy = expression.numpy(columns)
    frame = pl.DataFrame(columns).with_columns(
        result=expression.polars(pl.Float32 if narrow else pl.Float64)
    )
    by_torch = expression.torch({k: torch.from_numpy(v.copy()) for k, v in columns.items()})
    expected = bool if expression.is_condition else (np.float32 if narrow else np.float64)
    results = (by_numpy, frame["result"].to_numpy(), by_torch.numpy())
    assert [r.dtype for r in results] == [np.dtype(expected)] * 3
    full = [np.broadcast_to(r, (7,)) for r in results]
    return full[0], full[1], full[2]


columns_of = st.sampled_from(["float32", "float64"]).flatmap(
    lambda dtype: st.fixed_dictionaries({name: values(dtype) for name in NAMES})
)
columns_mixed = st.fixed_dictionaries(
    {"a": values("float32"), "b": values("float64"), "position[0]": values("float32")}
)


@settings(max_examples=400, deadline=None)
@given(text=grow(("abs",)), columns=st.one_of(columns_of, columns_mixed))
def test_back_ends_agree_bit_for_bit(text: str, columns: dict[str, npt.NDArray[Any]]) -> None:
    by_numpy, by_polars, by_torch = everywhere(text, columns)
    np.testing.assert_array_equal(by_polars, by_numpy, err_msg=f"Polars: {text}")
    np.testing.assert_array_equal(by_torch, by_numpy, err_msg=f"torch: {text}")
    if by_numpy.dtype.kind == "f":  # the sign of a zero decides what a division by it gives
        there = ~np.isnan(by_numpy)
        for other in (by_polars, by_torch):
            np.testing.assert_array_equal(np.signbit(other[there]), np.signbit(by_numpy[there]))


@pytest.mark.parametrize("function", ["exp", "log", "sqrt"])
@settings(max_examples=100, deadline=None)
@given(columns=columns_of)
def test_exp_log_and_sqrt_agree_to_the_last_digits(
    function: str, columns: dict[str, npt.NDArray[Any]]
) -> None:
    by_numpy, by_polars, by_torch = everywhere(f"{function}(a)", columns)
    info = np.finfo(by_numpy.dtype)
    np.testing.assert_array_equal(by_polars, by_numpy)
    np.testing.assert_allclose(
        by_torch, by_numpy, rtol=8 * float(info.eps), atol=8 * float(info.smallest_subnormal)
    )


@settings(max_examples=200, deadline=None)
@given(text=grow(("abs", "exp", "log", "sqrt")))
def test_canonical_text_parses_to_itself(text: str) -> None:
    once = Expression.parse(text).canonical
    assert Expression.parse(once).canonical == once


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1 / 2", 0.5),
        ("7 - 2 - 1", 4.0),
        ("2 + 3 * -a", -1.0),
        ("a / 0", np.inf),
        ("-a / 0", -np.inf),
        ("0 / 0", np.nan),
        ("log(0)", -np.inf),
        ("log(-a)", np.nan),
        ("sqrt(-a)", np.nan),
        ("exp(1000)", np.inf),
        ("sqrt(16) + exp(0) + log(1) + abs(-3)", 8.0),
        ("min(n, a)", np.nan),
        ("max(a, 2, n)", np.nan),
        ("min(4, a, 3)", 1.0),
        ("clip(n, 0, 1)", np.nan),
        ("clip(a, n, 1)", np.nan),
        ("clip(a, 0, n)", np.nan),
        ("clip(5, 0, a)", 1.0),
        ("clip(a, 3, 2)", 2.0),
        ("1 / min(0, -z)", np.inf),
        ("(n < a) + (n > a) + (n == n) + (n <= n)", 0.0),
        ("(n != n) + (a < 2 < 3) + (a < 2 < 1)", 2.0),
        ("2 * (a > 0) - (a < 0)", 2.0),
        ("where(a > 0, 10, 20)", 10.0),
        ("where(n > 0, 10, 20)", 20.0),
        ("where(a > 0, a, n)", 1.0),
        ("where(a > 0 and not a > 5 or n > 0, 3, 4)", 3.0),
        ("p[0] - p[1]", -1.0),
    ],
)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_meaning(text: str, expected: float, dtype: str) -> None:
    columns = {"a": 1.0, "n": np.nan, "z": 0.0, "p[0]": 2.0, "p[1]": 3.0}
    arrays = {name: np.array([value], dtype=dtype) for name, value in columns.items()}
    expression = Expression.parse(text, arrays)
    kind = pl.Float32 if dtype == "float32" else pl.Float64
    results = {
        "numpy": expression.numpy(arrays),
        "polars": pl.DataFrame(arrays).select(x=expression.polars(kind))["x"].to_numpy(),
        "torch": expression.torch({k: torch.from_numpy(v) for k, v in arrays.items()}).numpy(),
    }
    for name, result in results.items():
        np.testing.assert_array_equal(result.reshape(-1), [np.asarray(expected, dtype)], name)


def test_conditions_are_boolean_and_nulls_are_nan() -> None:
    holds = Expression.parse("requests <= 0.95 * 30 * ready")
    frame = pl.DataFrame({"requests": [28.0, 29.0, None], "ready": [1, 1, 1]})
    assert holds.is_condition
    assert frame.select(x=holds.polars())["x"].to_list() == [True, False, False]
    total = frame.select(x=Expression.parse("requests + 1").polars())["x"]
    assert total.null_count() == 0
    assert total.is_nan().to_list() == [False, False, True]


def test_polars_lazily_streaming_in_groups_and_chunks() -> None:
    expression = Expression.parse("a / b + 1")
    frame = pl.DataFrame({"k": [0, 0, 1], "a": [5.0, -1.0, None], "b": [1, 2, 3]})
    frame = pl.concat([frame, frame], rechunk=False)
    expected = [6.0, 0.5, np.nan] * 2
    lazy = frame.lazy().select(x=expression.polars())
    assert lazy.collect_schema() == {"x": pl.Float64}
    np.testing.assert_array_equal(lazy.collect()["x"], expected)
    np.testing.assert_array_equal(lazy.collect(engine="streaming")["x"], expected)
    grouped = frame.group_by("k", maintain_order=True).agg(x=expression.polars())
    assert grouped["x"].to_list()[0] == [6.0, 0.5, 6.0, 0.5]
    assert frame.filter(Expression.parse("a / b < 1").polars()).height == 2
    assert frame.clear().select(x=expression.polars())["x"].dtype == pl.Float64
    constant = frame.with_columns(x=Expression.parse("1 / 2").polars(pl.Float32))["x"]
    assert constant.dtype == pl.Float32
    assert constant.to_list() == [0.5] * 6


def test_numpy_precision_and_broadcasting() -> None:
    expression = Expression.parse("a + 2 * b")
    wide = np.ones((4, 1), np.float32), np.arange(3, dtype=np.float32)
    result = expression.numpy({"a": wide[0], "b": wide[1], "unused": np.zeros(9)})
    assert (result.shape, result.dtype) == ((4, 3), np.dtype(np.float32))
    assert expression.numpy({"a": wide[0], "b": np.arange(3)}).dtype == np.float64
    assert expression.numpy({"a": np.ones(1, np.float16), "b": wide[1]}).dtype == np.float32
    assert Expression.parse("3").numpy({}) == 3.0
    halves = {"a": torch.ones(3, dtype=torch.float16), "b": torch.ones(3, dtype=torch.int64)}
    assert expression.torch(halves).dtype == torch.float64
    assert expression.torch({"a": halves["a"], "b": torch.ones(1)}).dtype == torch.float32


@pytest.mark.parametrize(
    ("text", "gradient"),
    [
        ("where(a > 0, log(a), 0)", [0.0, 0.0, 0.5]),
        ("where(a > 0, sqrt(a), -a)", [-1.0, -1.0, 0.5 / np.sqrt(2.0)]),
        ("where(a == 0, 1, a * a / a)", [1.0, 0.0, 1.0]),
        ("where(not a > 0, 0, where(a > 1, 1 / a, log(a)))", [0.0, 0.0, -0.25]),
        ("3 * a + max(a, 1) * 2", [3.0, 3.0, 5.0]),
    ],
)
def test_gradient_of_the_side_not_taken_does_no_harm(text: str, gradient: list[float]) -> None:
    column = torch.tensor([-1.0, 0.0, 2.0], requires_grad=True)
    Expression.parse(text).torch({"a": column}).sum().backward()  # type: ignore[no-untyped-call]
    assert column.grad is not None
    np.testing.assert_allclose(column.grad.numpy(), gradient, rtol=1e-6)


@pytest.mark.parametrize(
    ("text", "column", "reason"),
    [
        ("redy + 1", 0, "did you mean 'ready'"),
        ("1 + redy", 4, "did you mean 'ready'"),
        ("  1\n + redy", 7, "did you mean 'ready'"),
        ("1 + position", 4, "position[0]"),
        ("ready[0]", 0, "scalar"),
        ("position[7]", 0, "position[0], position[1]"),
        ("position[ready]", 0, "whole number"),
        ("position[True]", 0, "whole number"),
        ("position[-1]", 0, "whole number"),
        ("1 + ready ** 2", 4, "powers"),
        ("ready ^ 2", 0, "powers"),
        ("ready // 2", 0, "floor division"),
        ("ready.real", 0, "attributes"),
        ("(ready > 1) & (ready < 3)", 0, "`and`"),
        ("1 if ready else 2", 0, "where("),
        ("where(ready, 1, 2)", 6, "condition"),
        ("ready and ready > 1", 0, "condition"),
        ("not ready", 4, "condition"),
        ("clip(ready, 1)", 0, "takes 3 arguments, not 2"),
        ("min(ready)", 0, "at least 2"),
        ("maxx(ready, 1)", 0, "did you mean 'max'"),
        ("__import__('os')", 0, "unknown function"),
        ("(lambda: 1)()", 0, "can be called"),
        ("min(*ready)", 0, "plain arguments"),
        ("min(ready, key=1)", 0, "plain arguments"),
        ("min + 1", 0, "is a function"),
        ("'text'", 0, "not a number"),
        ("True", 0, "not a number"),
        ("2j", 0, "not a number"),
        ("1e999", 0, "too large"),
        ("9" * 400, 0, "too large"),
        ("ready in ready", 0, "compare"),
        ("[1]", 0, "not part of the language"),
        ("ready # note\n + 1", 6, "not allowed"),
        ("ready +", 6, "cannot be read"),
        ("(ready", 0, "never closed"),
        ("", 0, "empty"),
        (" \n", 2, "empty"),
    ],
)
def test_refusals_point_at_the_place(text: str, column: int, reason: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        Expression.parse(text, ["ready", "position[0]", "position[1]"])
    assert reason in caught.value.reason
    assert caught.value.column == column
    shown, caret = str(caught.value).splitlines()[-2:]
    assert len(caret) <= len(shown) + 1
    assert caret.endswith("^")


@pytest.mark.parametrize(
    "text",
    [
        "a" * (MAX_LENGTH + 1),
        "+".join("a" * (MAX_DEPTH + 1)),
        "-" * 3000 + "a",
        "(" * 300 + "a" + ")" * 300,
        "not " * 900 + "a > 1",
        "abs(" * 150 + "a" + ")" * 150,
    ],
)
def test_length_and_depth_are_bounded(text: str) -> None:
    with pytest.raises(ExpressionError):
        Expression.parse(text)
    assert Expression.parse("+".join("a" * MAX_DEPTH)).numpy({"a": np.ones(1)}) == MAX_DEPTH


@settings(max_examples=300, deadline=None)
@given(
    text=st.text(
        st.sampled_from("ab01.+-*/()<>=!, []{}\"'#\\:\n\0éminwhereadot&|~^%@"), max_size=30
    )
)
def test_any_text_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(ExpressionError):  # any other error fails the test
        assert Expression.parse(text).names <= Expression.parse(text, NAMES).names


def test_missing_columns_are_named() -> None:
    with pytest.raises(ExpressionError, match=r"no column 'b'.*there are: a, c"):
        Expression.parse("a + b").numpy({"a": np.ones(1), "c": np.ones(1)})


def test_is_a_value() -> None:
    one, two = Expression.parse("a+1"), Expression.parse("a + 1.0")
    assert one != two
    assert one.canonical == two.canonical == "(a + 1.0)"
    assert one == Expression.parse("a+1")
    assert len({one, two, Expression.parse("a+1")}) == 2
    one.numpy({"a": np.ones(1)})
    again = pickle.loads(pickle.dumps(one))
    assert (again, repr(again), again.names) == (one, "a+1", frozenset("a"))
