"""A short run of every fuzzer, the same inputs each time; `make fuzz` goes on for an hour."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from tests.fuzz import run
from tests.fuzz.run import attack
from tests.fuzz.targets import TARGETS, Target

_FEW = 30
FOUND = sorted(Path(__file__).with_name("found").iterdir())


@pytest.mark.parametrize("name", TARGETS)
def test_damaged_input_has_an_answer(name: str) -> None:
    tried: list[bytes] = []
    attack(TARGETS[name], _FEW, note=tried.append)
    assert set(tried) - set(TARGETS[name].seeds()), "nothing was damaged"


@pytest.mark.parametrize("path", FOUND, ids=lambda path: path.name)
def test_what_was_found_has_an_answer_now(path: Path) -> None:
    """Inputs on which decoders did not give the answer that they promise; TARGET.NUMBER.bin."""
    target = TARGETS[path.name.removesuffix(".bin").rpartition(".")[0]]
    with suppress(*target.answers):
        target.run(path.read_bytes())


def _damaged_only(decode: Callable[[], object]) -> Target:
    """One whose seed is valid, and all else is decoded by `decode`."""
    return Target(lambda: [b"valid"], lambda data: None if data == b"valid" else decode())


def test_an_input_that_computes_without_end_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "LONGEST_S", 0.1)
    with pytest.raises(AssertionError, match=r"more than 0\.1 s"):
        attack(_damaged_only(lambda: next(n for n in itertools.count() if n < 0)), _FEW)


def test_an_input_that_waits_without_end_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "_STUCK_S", 0.1)
    with pytest.raises(AssertionError, match="waits"):
        attack(_damaged_only(lambda: time.sleep(60)), _FEW)


def test_time_in_which_others_compute_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "LONGEST_S", 0.1)
    began = time.monotonic()
    attack(_damaged_only(lambda: time.sleep(0.2)), 5)
    assert time.monotonic() - began > run.LONGEST_S  # it was there to be noticed
