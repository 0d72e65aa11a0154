"""A loop of real processes for tests: a spec and a bundle of its own, commands, what they said."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path

from schemas.system import SystemSpec, load_spec
from schemas.trajectories import decode_trajectory
from streams.recording import spec_text
from streams.supervise import Process, Supervisor
from tests.planner.worlds import double_integrator, write_bundle
from tests.streams.runs import RUN_SPEC
from tests.support import unique
from tests.system.loop import records


class Loop:
    """Sink, worker and aligner of a small nav2d under a name of its own, all supervised."""

    def __init__(
        self, folder: Path, bootstrap: str, clock: str, extra: Mapping[str, str] | None = None
    ) -> None:
        name = unique()
        text = spec_text(RUN_SPEC).replace("nav2d.sensors", f"{name}.sensors")
        self.spec_file = folder / "spec.yaml"
        self.spec_file.write_text(text.replace("system: nav2d", f"system: {name}"))
        self.spec: SystemSpec = load_spec(self.spec_file)
        calibration = {"innovation_band": 1e6, "channel_scale": [1.0] * len(self.spec.columns)}
        world = double_integrator(noise=0.05)
        self.bundle = write_bundle(folder / "bundle", self.spec, world, calibration=calibration)
        pairs = [part for key, value in (extra or {}).items() for part in ("-X", f"{key}={value}")]
        self.broker = ("--bootstrap-servers", bootstrap, *pairs)
        self._folder, self._clock = folder, clock

    def start(self, supervisor: Supervisor) -> None:
        """Starts the three; the topics must be there."""
        where, clock = (str(self.spec_file), *self.broker), ("--clock", self._clock)
        catalog = f"sqlite:///{self._folder}/catalog.sqlite"
        out = ("--out", str(self._folder / "out"), "--catalog", catalog)
        self.sink = supervisor.start("sink", "sink", *where, *out)
        data = ("--data-dir", str(self._folder / "w0"), "--bundle", str(self.bundle))
        self.worker = supervisor.start("worker", "worker", *where, *clock, *data)
        self.align = supervisor.start("align", "align", *where, *clock)

    def processes(self) -> tuple[Process, ...]:
        """All that were started."""
        return self.sink, self.worker, self.align


def until_decided(spec: SystemSpec, kafka: Mapping[str, str], ticks: int) -> int:
    """Waits until every cohort's frames of `ticks` ticks, and of the one after, are decided.

    The plant sends that one as well, and ends without waiting for it. Returns how many they are. A
    frame that was decided twice, as after a kill, counts once.
    """
    frames = spec.cohorts * (ticks + 1)

    def decided() -> int:
        found = (
            decode_trajectory(spec, m.value() or b"") for m in records(spec, kafka, "trajectories")
        )
        return len({(t.frame.cohort, t.frame.tick) for t in found})

    until(lambda: decided() >= frames, "the last decision")
    return frames


def until(condition: Callable[[], bool], what: str, seconds: float = 150.0) -> None:
    """Waits for something that must come; how long it takes is not judged."""
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, f"{what} did not happen within {seconds:g} s"
        time.sleep(0.05)
