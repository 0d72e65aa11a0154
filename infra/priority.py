"""Work that nobody waits for makes room, at once, for work that somebody waits for."""

import ctypes
import os
import platform
from typing import Final

LONG_NS: Final = 100_000_000  # the longest slice that Linux grants
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

    Call it before there are other threads: they inherit both. A lower priority alone is a smaller
    share of the processors: whoever is running still goes on for a slice, 1 to 3 ms, when someone
    of a higher one wakes up. Since Linux 6.12, whose slices are shorter goes first (EEVDF's
    PREEMPT_SHORT), so this asks for long ones. Unlike under SCHED_IDLE, work goes on where the
    processors are never idle. Elsewhere than on Linux only the share is smaller.
    """
    os.nice(nice)
    set_slice(LONG_NS)


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
