"""The system is asked, in a process of its own: what was lowered cannot be raised again."""

import platform
import re
import subprocess
import sys

import pytest

from infra.priority import LONG_NS

_LINUX = tuple(int(part) for part in re.findall(r"\d+", platform.release())[:2])
_NEW = platform.system() == "Linux" and _LINUX >= (6, 12)


def _ask(code: str) -> list[str]:
    program = f"import os, threading; from infra.priority import *; {code}"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    return done.stdout.decode().split()


def test_the_share_is_smaller_afterwards() -> None:
    before, after = _ask("print(os.nice(0)); make_room(3); print(os.nice(0))")
    assert int(after) == min(int(before) + 3, 19)


@pytest.mark.skipif(not _NEW, reason="slices of one's own came with Linux 6.12")
def test_slices_are_long_afterwards_also_in_threads() -> None:
    thread = "threading.Thread(target=lambda: print(slice_ns()))"
    found = _ask(f"print(slice_ns()); make_room(1); print(slice_ns()); {thread}.start()")
    usual, own, inherited = map(int, found)
    assert usual < LONG_NS
    assert own == inherited == LONG_NS
