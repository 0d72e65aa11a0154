"""One target under damaged inputs: anything but a result or one of its answers is a defect."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as with_seed

from tests.fuzz.damage import damaged
from tests.fuzz.targets import Target

LONGEST_S = 20  # of processor time that one input may take: a machine may be busy with other work
_STUCK_S = 300  # by the clock: it waits for something that does not come
Noting = Callable[[bytes], object]


def attack(
    target: Target, examples: int, seed: int | None = None, note: Noting = lambda _: None
) -> None:
    """Tries `examples` inputs, without a seed the same ones each time. Raises what is a defect.

    `note` is told each input before the decoder is, which may end the process.
    """
    inputs = list(target.seeds())
    for whole in inputs:
        target.run(whole)  # what is valid is no answer

    def one(data: bytes) -> None:
        note(data)
        with _in_time():
            try:
                target.run(data)
            except target.answers:
                return

    test = given(damaged(inputs))(one)
    test = settings(
        max_examples=examples,
        database=None,
        deadline=None,
        derandomize=seed is None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink],
    )(test)
    (test if seed is None else with_seed(seed)(test))()


@contextmanager
def _in_time() -> Iterator[None]:
    def late(number: int, _: FrameType | None) -> None:
        if number == signal.SIGPROF:
            raise AssertionError(f"one input took more than {LONGEST_S} s of processor time")
        raise AssertionError(f"one input waits, for {_STUCK_S} s so far")

    limits = {
        signal.SIGPROF: (signal.ITIMER_PROF, LONGEST_S),
        signal.SIGALRM: (signal.ITIMER_REAL, _STUCK_S),
    }
    before = {number: signal.signal(number, late) for number in limits}
    for timer, seconds in limits.values():
        signal.setitimer(timer, seconds)
    try:
        yield
    finally:
        for number, (timer, _) in limits.items():
            signal.setitimer(timer, 0)
            signal.signal(number, before[number])
