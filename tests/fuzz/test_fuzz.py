"""A short run of every fuzzer, the same inputs each time; `make fuzz` goes on for an hour."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest

from tests.fuzz.run import attack
from tests.fuzz.targets import TARGETS

_FEW = 30
FOUND = sorted(Path(__file__).with_name("found").iterdir())


@pytest.mark.parametrize("name", TARGETS)
def test_damaged_input_has_an_answer(name: str) -> None:
    attack(TARGETS[name], _FEW)


@pytest.mark.parametrize("path", FOUND, ids=lambda path: path.name)
def test_what_was_found_has_an_answer_now(path: Path) -> None:
    """Inputs on which decoders did not give the answer that they promise; TARGET.NUMBER.bin."""
    target = TARGETS[path.name.removesuffix(".bin").rpartition(".")[0]]
    with suppress(*target.answers):
        target.run(path.read_bytes())
