"""`make fuzz MINUTES=60`: every decoder in a process of its own, for an equal part of the time.

Time is the processor's, so it means as much on a machine that is busy.
What fails is shown with the smallest input that still fails; the last one tried is in the file
that is named, also where it ended the process. Exit status 1: something was found. What is mended
goes to `found/`, so that the suite tries it ever after.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time
from pathlib import Path

from tests.fuzz.run import attack
from tests.fuzz.targets import TARGETS

_ROUND = 500  # inputs between two looks at the clock
_MEMORY = 8 << 30  # bytes of address space, of which the libraries reserve much and use little


def main() -> int:
    """Runs every target, or one of them."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument(
        "--minutes", type=float, default=60.0, help="of CPU, of all targets together"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--target", choices=TARGETS, action="append")
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    names = given.target or list(TARGETS)
    seconds = 60.0 * given.minutes / len(names)
    if given.inside is not None:
        return _inside(names[0], seconds, given.seed, given.inside)
    return max(_outside(name, seconds, given.seed) for name in names)


def _outside(name: str, seconds: float, seed: int) -> int:
    """One target in a process of its own, which may die."""
    kept = Path(f"fuzz-{name}.bin").absolute()
    command = [sys.executable, "-m", "tests.fuzz", "--target", name, "--seed", str(seed)]
    command += ["--minutes", str(seconds / 60.0), "--inside", str(kept)]
    done = subprocess.run(command, check=False)
    if done.returncode < 0:
        print(f"{name}: the process ended by signal {-done.returncode}; input: {kept}")
        return 1
    if done.returncode:
        print(f"{name}: the last input: {kept}")
        return 1
    kept.unlink(missing_ok=True)
    return 0


def _inside(name: str, seconds: float, seed: int, kept: Path) -> int:
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    end, inputs = time.process_time() + seconds, 0  # an hour is one also on a machine that is busy
    with kept.open("wb", buffering=0) as file:

        def note(data: bytes) -> None:
            file.seek(0)
            file.truncate()
            file.write(data)

        try:
            while time.process_time() < end:
                attack(TARGETS[name], _ROUND, seed, note)
                seed, inputs = seed + 1, inputs + _ROUND
        except BaseException:
            print(f"{name}: FAILED after {inputs} inputs, seed {seed}", flush=True)
            raise
    print(f"{name}: {inputs} inputs in {seconds:.0f} s of CPU, nothing found", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
