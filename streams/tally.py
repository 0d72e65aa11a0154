"""What a worker did: counted once, for its summary and for Prometheus."""

from collections import Counter, deque
from collections.abc import Sequence
from typing import Any

import numpy as np

from schemas.codes import Mode, Reason
from schemas.trajectories import Decisions
from streams.metrics import counter, gauge, histogram

_LOGGED = 20  # failures
_KEPT = 100_000  # newest durations, for percentiles


class Tally:
    """Counts of one worker of `system`; durations in seconds."""

    def __init__(self, system: str) -> None:
        self.frames = self.repeated = self.rejected = 0
        self.gaps = 0  # cohorts' ticks that did not follow the last one
        self.passed_over = 0  # frames for which there was no time
        self.failures = 0  # frames that could not be used, or on which the model failed
        self.unreadable = 0  # stored rows that could not be used
        self.held = 0  # frames of a twin that the first worker answered
        self.modes: Counter[int] = Counter()
        self.reasons: Counter[int] = Counter()
        self.bundles: set[str] = set()
        self.steps: deque[float] = deque(maxlen=_KEPT)
        self.confirms: deque[float] = deque(maxlen=_KEPT)
        self._system = system
        self._flying = gauge("rehearse_worker_in_flight").labels(system)
        self._step = histogram("rehearse_worker_step_seconds").labels(system)
        self._confirm = histogram("rehearse_worker_confirm_seconds").labels(system)

    def decided(self, decisions: Decisions, seconds: float, held: bool = False) -> None:
        """A frame's actions were sent, or held back, so long after the frame was taken up."""
        self._flying.inc()
        if held:
            self.held += 1
            counter("rehearse_worker_frames_held").labels(self._system).inc()
            return
        modes = Counter(decisions.mode.tolist())
        reasons: Counter[int] = Counter()
        for bits, times in Counter(decisions.reasons.tolist()).items():
            for reason in Reason(bits):
                reasons[int(reason)] += times
        self.modes.update(modes)
        self.reasons.update(reasons)
        self.bundles.add(decisions.bundle)
        self.steps.append(seconds)
        self._step.observe(seconds)
        for mode, times in modes.items():
            counter("rehearse_worker_decisions").labels(self._system, mode_name(mode)).inc(times)
        for bit, times in reasons.items():
            counter("rehearse_worker_reasons").labels(self._system, reason_name(bit)).inc(times)

    def confirmed(self, seconds: float) -> None:
        """All that a frame caused is with the broker; it is acknowledged."""
        self.frames += 1
        self.confirms.append(seconds)
        self._confirm.observe(seconds)
        self._flying.dec()
        counter("rehearse_worker_frames").labels(self._system).inc()

    def skipped(self) -> None:
        """A frame was there before."""
        self.repeated += 1
        counter("rehearse_worker_frames_repeated").labels(self._system).inc()

    def shed(self) -> None:
        """A frame was passed over unread."""
        self.passed_over += 1
        counter("rehearse_worker_frames_shed").labels(self._system).inc()

    def refused(self) -> None:
        """A frame went to the dead letters."""
        self.rejected += 1
        counter("rehearse_worker_frames_rejected").labels(self._system).inc()

    def failed(self) -> bool:
        """A frame failed; whether to log it: the dead letters hold all, a log only some."""
        self.failures += 1
        return self.failures <= _LOGGED or self.failures % 1_000 == 0

    def summary(self) -> dict[str, Any]:
        """Plain JSON values; durations in milliseconds."""
        return {
            "frames": self.frames,
            "frames_repeated": self.repeated,
            "frames_rejected": self.rejected,
            "frames_shed": self.passed_over,
            "frames_held": self.held,
            "gaps": self.gaps,
            "rows_unreadable": self.unreadable,
            "decisions": sum(self.modes.values()),
            "modes": {mode_name(mode): n for mode, n in sorted(self.modes.items())},
            "gate": {reason_name(bit): n for bit, n in sorted(self.reasons.items())},
            "bundles": sorted(self.bundles - {""}),
            "step_ms": percentiles(self.steps, 1e3),
            "confirm_ms": percentiles(self.confirms, 1e3),
        }


def mode_name(mode: int) -> str:
    """As in summaries: `plan`, `follow`, …"""
    return Mode(mode).name.lower()


def reason_name(bit: int) -> str:
    """As in summaries: `range`, `rate`, …"""
    return (Reason(bit).name or str(bit)).lower()


def percentiles(values: Sequence[float], scale: float = 1.0) -> dict[str, float]:
    """p50, p99, p999 and the largest of `values` × `scale`; empty without any."""
    if not values:
        return {}
    levels = np.percentile(np.fromiter(values, float), [50, 99, 99.9, 100]) * scale
    return dict(zip(("p50", "p99", "p999", "max"), levels.round(3).tolist(), strict=True))
