"""Who is waited for goes first, at once, and work that nobody waits for makes room.

Priority is a share of the processors: whoever is running still goes on for a slice, 1 to 3 ms, when
someone more important wakes up. Since Linux 6.12 a process may ask for slices of its own length:
who wakes up with a shorter one interrupts who has a longer one (EEVDF, with PREEMPT_SHORT). That
needs no privilege, and elsewhere it does nothing.
"""

import ctypes
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

LONG_NS: Final = 100_000_000  # the longest slice that Linux grants
SHORT_NS: Final = 300_000  # of 100_000 at least
_CALLS: Final = {"x86_64": (314, 315), "aarch64": (274, 275)}  # sched_setattr, sched_getattr


class _Attributes(ctypes.Structure):
    """`struct sched_attr` of sched_setattr(2), as far as its first version goes."""

    _fields_ = (
        ("size", ctypes.c_uint32),
        ("policy", ctypes.c_uint32),
        ("flags", ctypes.c_uint64),
        ("nice", ctypes.c_int32),
        ("priority", ctypes.c_uint32),
        ("runtime", ctypes.c_uint64),
        ("deadline", ctypes.c_uint64),
        ("period", ctypes.c_uint64),
    )


def make_room(nice: int) -> None:
    """Lowers this process's priority by `nice`, and lets those who wake up interrupt it at once.

    Call it before there are other threads: they inherit both. Unlike under SCHED_IDLE, work goes on
    where the processors are never idle.
    """
    os.nice(nice)
    set_slice(LONG_NS)


def go_first() -> None:
    """Lets this process interrupt others when it wakes up. Call it before there are threads."""
    set_slice(SHORT_NS)


def real_time() -> bool:
    """Runs the calling thread ahead of all others (SCHED_FIFO); whether the system allowed it.

    For what stands for somebody elsewhere, who would not wait for a processor of this machine, such
    as the devices of a benchmark. Threads that are made later inherit it: librdkafka's, which polls
    while it waits for the broker, would then keep the broker from answering.
    """
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    except (AttributeError, OSError):  # not Linux; not root
        return False
    return True


@contextmanager
def children_first() -> Iterator[None]:
    """Lets the processes that this thread starts meanwhile interrupt others when they wake up."""
    before = slice_ns()
    set_slice(SHORT_NS)
    try:
        yield
    finally:
        set_slice(before or 0)


def set_slice(nanoseconds: int) -> bool:
    """Asks for slices of this length for the calling thread; whether the system took it."""
    wanted = _Attributes()
    if not _call(1, wanted):
        return False
    wanted.size, wanted.runtime = ctypes.sizeof(wanted), nanoseconds
    return _call(0, wanted)


def slice_ns() -> int | None:
    """The slice of the calling thread in ns; None where the system does not say."""
    found = _Attributes()
    return int(found.runtime) if _call(1, found) else None


def _call(which: int, attributes: _Attributes) -> bool:
    """sched_setattr (0) or sched_getattr (1), which Python has no names for; whether it worked."""
    calls = _CALLS.get(platform.machine()) if platform.system() == "Linux" else None
    if calls is None:
        return False
    size = [ctypes.sizeof(attributes)] if which else []
    system = ctypes.CDLL(None)
    return bool(system.syscall(calls[which], 0, ctypes.byref(attributes), *size, 0) == 0)
