"""How many raw messages a core encodes: the whole way through Kafka, beside its parts alone."""

import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import yaml

from infra.kafka import client_config, delete_topics, ensure_topics
from infra.plants.views import RANGE_M, clouds, jpeg, pictures
from planner.encoder import Encoder
from schemas.perceive import RawInput
from schemas.spec_parts import SensorSpec
from schemas.system import SystemSpec, parse_spec
from schemas.topics import topics_of
from streams.perceive_worker import run_perceive
from streams.raw_inputs import RawReader
from streams.topic_io import bounds, make_consumer, make_producer

EXAMPLE: Final = Path(__file__).parent / "examples" / "sight.yaml"
_KEYS: Final = 64
_PATIENCE_S: Final = 120.0
_VIEWS: Final = 256  # different messages; they are sent over and over


def bench_perceive(
    bootstrap: str, extra: Mapping[str, str], messages: int = 4_000, hertz: float = 200.0
) -> dict[str, Any]:
    """Of each sensor of the example: messages/s of one process on a backlog, and of its parts.

    Args:
        messages: of each sensor, on the topic before the process starts.
        hertz: of each sensor, at which the latency is measured.
    """
    found: dict[str, Any] = {}
    spec = parse_spec(EXAMPLE.read_text(), str(EXAMPLE))
    rng = np.random.default_rng(0)
    for sensor, raw in spec.perceived:
        seen = _views(raw, rng)
        alone = _spec_of(sensor.name)
        try:
            parts = _parts(sensor, raw, seen)
            backlog = _backlog(alone, sensor.name, seen, bootstrap, extra, messages)
            paced = _paced(alone, sensor.name, seen, bootstrap, extra, hertz)
            found[sensor.name] = {"batch": raw.batch, **backlog, **paced, "alone_per_s": parts}
        finally:
            shutil.rmtree(Path(tempfile.gettempdir()) / f"rehearse-{alone.system}", True)
            names = [t.name for t in topics_of(alone)]
            delete_topics(client_config(bootstrap, extra), names)
    return found


def _spec_of(sensor: str) -> SystemSpec:
    """The example with one sensor, under a name that no other run has."""
    document = yaml.safe_load(EXAMPLE.read_text())
    document["system"] = f"bench-{sensor}-{time.time_ns()}"
    document["sensors"] = {sensor: document["sensors"][sensor]}
    document["reward"] = "0"
    return parse_spec(yaml.safe_dump(document), str(EXAMPLE))


def _views(raw: RawInput, rng: np.random.Generator) -> list[bytes]:
    offsets = rng.uniform(-0.9 * RANGE_M, 0.9 * RANGE_M, (_VIEWS, 2))
    if raw.kind == "jpeg":
        return [jpeg(picture) for picture in pictures(offsets, rng)]
    return [cloud.tobytes() for cloud in clouds(offsets, rng, raw.shape[0])]


def _parts(sensor: SensorSpec, raw: RawInput, seen: list[bytes]) -> dict[str, float]:
    """Messages/s of reading them, and of the encoder, each alone in this process."""
    reader = RawReader(sensor, raw)
    encoder = Encoder(raw, sum(c.size for c in sensor.channels.values()), "cpu")
    rows = np.stack([reader.read(b"k", value, {"ts": b"0"}).row for value in seen])

    def read() -> None:
        for value in seen:
            reader.read(b"k", value, {"ts": b"0"})

    return {
        "read": _rate(read),
        "onnxruntime": _rate(lambda: encoder.encode(rows)),
    }


def _rate(work: Callable[[], object], times: int = 15) -> float:
    """Views per second of CPU, the median of several passes."""
    spent = []
    for _ in range(times):
        began = time.process_time()
        work()
        spent.append(time.process_time() - began)
    return round(_VIEWS / float(np.median(spent)), 1)


class _Running:
    """A perceiving process' work in a thread, until the block ends; its summary after that."""

    def __init__(self, spec: SystemSpec, bootstrap: str, extra: Mapping[str, str]) -> None:
        self._stop = threading.Event()
        # One of each system, so that its second life is known for the first's.
        self._folder = Path(tempfile.gettempdir()) / f"rehearse-{spec.system}"
        self.summary: dict[str, Any] = {}
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(spec, bootstrap, extra))

    def _run(self, spec: SystemSpec, bootstrap: str, extra: Mapping[str, str]) -> None:
        try:
            where = (spec, bootstrap, extra, self._stop)
            self.summary = run_perceive(*where, data_dir=self._folder, provider="cpu")
        except BaseException as error:
            self.error = error

    def __enter__(self) -> "_Running":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        if self.error is not None:
            raise self.error


def _ends(consumer: Any, name: str) -> int:
    return sum(high for _, high in bounds(consumer, name).values())


def _send(spec: SystemSpec, seen: list[bytes], producer: Any, number: int) -> None:
    name = spec.perceived[0][1].topic
    stamp = str(time.time_ns() // 1_000)
    key = f"robot-{number % _KEYS:02d}"
    producer.produce(name, seen[number % len(seen)], key, headers={"ts": stamp})


def _backlog(
    spec: SystemSpec,
    sensor: str,
    seen: list[bytes],
    bootstrap: str,
    extra: Mapping[str, str],
    messages: int,
) -> dict[str, float]:
    """Messages/s from the first embedding on the topic to the last, and CPU seconds a million."""
    wanted = [(t.name, t.partitions, t.config) for t in topics_of(spec)]
    ensure_topics(client_config(bootstrap, extra), wanted)
    producer = make_producer(bootstrap, extra)
    for number in range(messages):
        _send(spec, seen, producer, number)
        producer.poll(0)
    producer.flush()
    consumer = make_consumer(bootstrap, extra)
    name, limit = spec.sensors[sensor].topic, time.monotonic() + _PATIENCE_S
    try:
        with _Running(spec, bootstrap, extra) as running:
            while not (first := _ends(consumer, name)) and running.error is None:
                time.sleep(0.002)
            began, cpu = time.monotonic(), time.process_time()
            while _ends(consumer, name) < messages and running.error is None:
                if time.monotonic() > limit:
                    raise RuntimeError(f"{name}: not encoded within {_PATIENCE_S:g} s")
                time.sleep(0.005)
            seconds, cpu = time.monotonic() - began, time.process_time() - cpu
    finally:
        consumer.close()
    done = messages - first
    said = running.summary["sensors"][sensor]
    return {
        "per_s": round(done / seconds, 1),
        "per_core_s": round(done / cpu, 1),
        "messages_per_batch": round(said["encoded"] / said["batches"], 1),
    }


def _paced(
    spec: SystemSpec,
    sensor: str,
    seen: list[bytes],
    bootstrap: str,
    extra: Mapping[str, str],
    hertz: float,
) -> dict[str, Any]:
    """From when the agent has a message until the broker has its embedding, at a fixed rate."""
    producer = make_producer(bootstrap, extra)
    with _Running(spec, bootstrap, extra) as running:
        began = time.monotonic()
        for number in range(round(5 * hertz)):
            wait = began + 1.0 + number / hertz - time.monotonic()
            if wait > 0:
                time.sleep(wait)
            _send(spec, seen, producer, number)
            producer.poll(0)
        producer.flush()
        time.sleep(0.5)
    return {"hertz": hertz, "confirm_ms": running.summary["sensors"][sensor]["confirm_ms"]}
