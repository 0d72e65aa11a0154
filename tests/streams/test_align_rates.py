"""Sensors of very different rates in one frame, delayed and with gaps: as seen offline."""

import numpy as np

from schemas.system import parse_spec
from streams.align import Aligner
from streams.align_state import Floats, Ints
from tests.streams.offline import offline

HERTZ = {"beacon": 0.5, "map": 1, "fix": 5, "track": 20, "wheel": 100, "inertia": 250}
ALIGN = {
    "beacon": "latest",
    "map": "linear",
    "fix": "linear",
    "track": "latest",
    "wheel": "mean",
    "inertia": "mean",
}
SENSORS = "".join(
    f"""
  {name}:
    every: {1_000 / hertz:g} ms
    max_age: {max(3_000 / hertz, 100):g} ms
    channels:
      {name}_x: {{unit: m, range: [-1e9, 1e9], align: {ALIGN[name]}}}
      {name}_y: {{unit: m, range: [-1e9, 1e9], align: latest}}"""
    for name, hertz in HERTZ.items()
)
SPEC = parse_spec(f"""
system: rates
entity: robot
tick: 50 ms
lateness: 2500 ms
cohorts: 1
sensors:{SENSORS}
actions: {{u: {{unit: m, low: -1, high: 1}}}}
fallback: {{kind: value}}
budget: {{tiers: {{one: {{candidates: 5, horizon: 2, iterations: 1}}}}}}
""")
BEGIN = 1_700_000_000_000_000
SECONDS = 12
WINDOW = 100_000


def readings(name: str, lost: float, seed: int) -> tuple[Ints, Floats]:
    """Times with a jitter of a tenth of the period, and values; a share is lost."""
    rng = np.random.default_rng([seed, list(HERTZ).index(name)])
    period = 1e6 / HERTZ[name]
    count = round(SECONDS * HERTZ[name])
    times = BEGIN + (np.arange(count) + rng.uniform(0.0, 0.1, count)) * period
    kept = rng.random(count) >= lost
    kept[0] = True
    return np.rint(times).astype(np.int64)[kept], rng.normal(size=(count, 2))[kept]


def assert_as_offline(lost: str, seed: int) -> None:
    log = {name: readings(name, 0.4 if name == lost else 0.0, seed) for name in HERTZ}
    delay = dict(zip(HERTZ, np.random.default_rng(seed).integers(0, 500_000, 6), strict=True))
    aligner = Aligner(SPEC, start_tick=(BEGIN - SPEC.epoch_us) // SPEC.period_us)
    topics = [(sensor.topic, 0) for sensor in SPEC.sensors.values()]
    end = BEGIN + SECONDS * 1_000_000
    frames = []
    for now in range(BEGIN, end + 500_000 + WINDOW, WINDOW):
        aligner.lagging(dict.fromkeys(topics, True))
        for name, (times, values) in log.items():
            first, last = np.searchsorted(times + delay[name], [now, now + WINDOW])
            part = slice(int(first), int(last))
            rows = aligner.intern(["ada"] * (part.stop - part.start))
            aligner.readings(name, rows, times[part], values[part])
        aligner.lagging(dict.fromkeys(topics, False))
        frames += aligner.close()
    frames += aligner.close(end + SPEC.lateness_us)
    assert not {"late", "future", "out_of_range", "duplicate"} & aligner.counters.keys()
    compared = 0
    for frame in frames:
        now = SPEC.epoch_us + frame.tick * SPEC.period_us
        wanted = [
            offline(log[name][0], log[name][1][:, column], now, SPEC, align, sensor.max_age_us)
            for name, sensor in SPEC.sensors.items()
            for column, align in enumerate((ALIGN[name], "latest"))
        ]
        for made, right in zip(frame.values[0], wanted, strict=True):
            if right is not None:
                np.testing.assert_allclose(made, right, rtol=1e-9, atol=1e-12)
                compared += bool(np.isfinite(right))
    assert len(frames) >= SECONDS * 20
    assert compared > len(frames) * 10


def test_half_a_hertz_to_250_in_one_frame() -> None:
    assert_as_offline("", 0)


def test_a_sensor_that_loses_40_percent() -> None:
    assert_as_offline("wheel", 1)
    assert_as_offline("fix", 2)
