"""What the machine has: disk, memory, cores, open files, and how fine its clocks are."""

import os
import resource
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

from streams.checks.finding import Finding, Level, Place

GB = 1_000_000_000
DISK = (1 * GB, 5 * GB)  # problem below the first, warning below the second
MEMORY = (1 * GB, 3 * GB)  # broker 0.9 GB, then align, worker, sink, plant of some 0.2 GB each
FILES = (256, 1024)  # Kafka and RocksDB keep many open
CLOCK_NS = 1_000_000
CGROUP = Path("/sys/fs/cgroup/memory.max")


def grade(value: float, limits: tuple[float, float]) -> Level:
    """A problem below the first limit, a warning below the second."""
    if value < limits[0]:
        return "problem"
    return "warning" if value < limits[1] else "ok"


def disk(place: Place) -> Iterator[Finding]:
    """Free space where Rehearse writes, and whether it may."""
    there = next(path for path in (place.home, *place.home.parents) if path.exists())
    free = shutil.disk_usage(there).free
    remedy = "free some, or name another folder in REHEARSE_HOME"
    level = grade(free, DISK)
    what = f"{free / GB:.1f} GB free for {place.home}"
    yield Finding("disk", level, what, "" if level == "ok" else remedy)
    if not there.is_dir():
        yield Finding("disk", "problem", f"{there} is no folder", remedy)
    elif not os.access(there, os.W_OK):
        yield Finding("disk", "problem", f"{there} cannot be written", remedy)


def memory(_: Place) -> Iterator[Finding]:
    """Memory that can be had, container limits included."""
    available = psutil.virtual_memory().available
    limit = container_limit(CGROUP)
    note = ""
    if limit is not None and limit < psutil.virtual_memory().total:
        available, note = min(available, limit), f" (this container may have {limit / GB:.1f} GB)"
    level = grade(available, MEMORY)
    remedy = "the loop with the embedded broker needs 2 GB; use a broker elsewhere, or stop others"
    what = f"{available / GB:.1f} GB available{note}"
    yield Finding("memory", level, what, "" if level == "ok" else remedy)


def container_limit(file: Path) -> int | None:
    """Bytes that cgroup v2 grants; None where it sets no limit."""
    try:
        text = file.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None


def cores(_: Place) -> Iterator[Finding]:
    """Cores that this process may use."""
    count = len(psutil.Process().cpu_affinity()) if hasattr(psutil.Process, "cpu_affinity") else 0
    count = count or os.cpu_count() or 1
    level = grade(count, (1, 2))
    remedy = "" if level == "ok" else "give it two: broker and loop share one now, and answer late"
    yield Finding("cores", level, f"{count} to use", remedy)


def open_files(_: Place) -> Iterator[Finding]:
    """The limit of open files per process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    count = float("inf") if soft == resource.RLIM_INFINITY else soft
    level = grade(count, FILES)
    remedy = "" if level == "ok" else f"ulimit -n {min(hard, 65_536) if hard > 0 else 65_536}"
    yield Finding("files", level, f"{count:g} open at once", remedy)


def clocks(_: Place) -> Iterator[Finding]:
    """The smallest step that each clock takes; the loop counts microseconds."""
    steps = {"wall": smallest_step(time.time_ns), "monotonic": smallest_step(time.monotonic_ns)}
    level: Level = "ok" if max(steps.values()) < CLOCK_NS else "warning"
    what = ", ".join(f"{name} clock steps {step / 1_000:.2f} µs" for name, step in steps.items())
    remedy = "" if level == "ok" else "latencies below a millisecond mean nothing on this machine"
    yield Finding("clocks", level, what, remedy)


def smallest_step(clock: Callable[[], int], looks: int = 2_000) -> int:
    """Nanoseconds between two readings of `clock` that differ."""
    smallest, before = 10**12, clock()
    for _ in range(looks):
        now = clock()
        if now > before:
            smallest = min(smallest, now - before)
        before = now
    return smallest


CHECKS = (cores, memory, disk, open_files, clocks)
