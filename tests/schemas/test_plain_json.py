"""What commands print with --json can be read by every JSON reader."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from schemas.plain_json import json_line


def strictly(text: str) -> Any:
    """As a reader does that knows JSON and nothing else."""

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    return json.loads(text, parse_constant=refuse)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, np.float32("nan")])
def test_what_is_no_number_is_null_at_any_depth(bad: float) -> None:
    found = strictly(json_line({"a": bad, "b": [1.5, (bad, {"c": np.array([bad, 2.0])})]}))
    assert found == {"a": None, "b": [1.5, [None, {"c": [None, 2.0]}]]}


def test_other_kinds_become_plain() -> None:
    given = {1: np.int64(3), "p": Path("a/b"), "t": (True, None), "n": np.arange(2), "s": {"x"}}
    expected = {"1": 3, "p": "a/b", "t": [True, None], "n": [0, 1], "s": ["x"]}
    assert strictly(json_line(given)) == expected
