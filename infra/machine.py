"""What a figure was measured on, in a few words."""

from __future__ import annotations

import os
import platform
from contextlib import suppress
from pathlib import Path


def machine() -> str:
    """Cores and processor, such as `2 × Intel(R) Xeon(R) Processor (x86_64)`."""
    name = platform.processor() or "processor"
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                name = line.partition(":")[2].strip()
                break
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{cores} × {name} ({platform.machine()})"
