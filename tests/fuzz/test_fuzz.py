"""A short run of every fuzzer, the same inputs each time; `make fuzz` goes on for an hour."""

from __future__ import annotations

import pytest

from tests.fuzz.run import attack
from tests.fuzz.targets import TARGETS

_FEW = 30


@pytest.mark.parametrize("name", TARGETS)
def test_damaged_input_has_an_answer(name: str) -> None:
    attack(TARGETS[name], _FEW)
