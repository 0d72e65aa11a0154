"""Other stream processors beside the aligner: the same keyed work of 100 ms, on the same broker.

One reading per key and window: a time and four fields in, the latest of each out. A peer is a
process of its own; its results are counted at the broker, and its rate is that from a tenth of them
to nine tenths, so that neither its start counts nor what it lets go at the end. CPU time is that of
the process and its children. The aligner's own figures are those of `rehearse bench align`, and
come in turn with the peers'.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from statistics import median
from tempfile import TemporaryFile
from typing import Any, Final, NamedTuple
from uuid import uuid4

import psutil

from infra.broker import start
from infra.kafka import client_config, delete_topics, ensure_topics
from schemas.frames import decode_frame
from schemas.system import SystemSpec
from schemas.topics import topic, topics_of
from streams import bench_align
from streams.topic_io import bounds, make_consumer, read_to_end

HERE: Final = Path(__file__).parent
JAVA: Final = HERE / "kafka-streams"
PARTITIONS: Final = 4
KEYS: Final = 200
MORE: Final = 40  # readings of each key behind those that count, so that windows of these close
_FIRST, _LAST = 0.1, 0.9  # of the results, between which is timed
_START_S: Final = 60.0  # for the first result
_STILL_S: Final = 10.0  # without a new result, no more will come
_DONE_S: Final = 1.0  # after the last that counts: something could come twice
_LOOK_S: Final = 0.02


class Peer(NamedTuple):
    """A program, and how much of the readings it is given: the slow ones would take all day."""

    command: Sequence[str]
    share: float


class Seen(NamedTuple):
    """Results at a moment, and CPU seconds of the peer by then."""

    at: float
    results: int
    cpu_s: float


class Timed(NamedTuple):
    """What one run came to; `results` of `wanted`."""

    per_s: float
    cpu_s_per_million: float
    results: int
    wanted: int

    @property
    def complete(self) -> bool:
        """Whether every window that counts came out, and nothing twice."""
        return self.wanted <= self.results <= self.wanted + MORE * KEYS


def peers(python: Path) -> dict[str, Peer]:
    """Those that can run here."""
    program = HERE / "peers"
    shares = {"bytewax": 0.5, "pathway": 0.5, "quix": 0.15, "faust": 0.05}
    found = {
        name: Peer((str(python), str(program / f"{name}_peer.py")), share)
        for name, share in shares.items()
    }
    if (JAVA / "target" / "lib").is_dir():
        classpath = os.pathsep.join((str(JAVA / "target" / "classes"), f"{JAVA}/target/lib/*"))
        found["kafka-streams"] = Peer(("java", "-Xmx512m", "-cp", classpath, "Peer"), 1.0)
    return found


def build_java() -> str | None:
    """Builds the Maven project; why not, where that cannot be done."""
    if not (shutil.which("java") and shutil.which("mvn")):
        return "no java and mvn here"
    done = subprocess.run(
        ["mvn", "-q", "-B", "package"], cwd=JAVA, capture_output=True, text=True, check=False
    )
    return None if done.returncode == 0 else f"mvn package failed:\n{done.stdout[-2_000:]}"


def run_peer(bootstrap: str, peer: Peer, source: str, readings: int) -> Timed:
    """Runs a peer over a topic of `readings` until it has given all results, or no more of them."""
    out = f"{source}.{uuid4().hex[:6]}"
    config = client_config(bootstrap)
    ensure_topics(config, [(out, PARTITIONS, {})])
    try:
        with _running([*peer.command, bootstrap, source, out, str(readings)]) as process:
            first, last, results = _watch(process, bootstrap, out, readings)
    finally:
        delete_topics(config, [out])
    counted = max(1, last.results - first.results)
    return Timed(
        counted / max(last.at - first.at, _LOOK_S),
        (last.cpu_s - first.cpu_s) / counted * 1e6,
        results,
        readings,
    )


@contextmanager
def _running(command: Sequence[str]) -> Iterator[psutil.Popen]:
    """A process group that is gone afterwards; its output is shown where it ends badly."""
    with TemporaryFile("w+") as log:
        process = psutil.Popen(command, stdout=log, stderr=log, start_new_session=True)
        try:
            yield process
        except RuntimeError as error:
            log.seek(0)
            raise RuntimeError(f"{error}\n{log.read()[-3_000:]}") from error
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _watch(
    process: psutil.Popen, bootstrap: str, out: str, readings: int
) -> tuple[Seen, Seen, int]:
    """The first look with a tenth of the results, that with nine tenths, and all that came."""
    consumer = make_consumer(bootstrap)
    first: Seen | None = None
    last: Seen | None = None
    before, new = 0, time.perf_counter() + _START_S
    try:
        while True:
            ended = process.poll() is not None
            count = sum(high for _, high in bounds(consumer, out).values())
            now = Seen(time.perf_counter(), count, 0.0 if ended else _cpu_s(process))
            if first is None and count >= _FIRST * readings:
                first = now
            if last is None and count >= _LAST * readings:
                last = now
            if count > before:
                before, new = count, now.at
            still = _DONE_S if count >= readings else _STILL_S
            if count >= readings + MORE * KEYS or ended or now.at - new > still:
                break
            time.sleep(_LOOK_S)
    finally:
        consumer.close()
    if first is None or last is None or last.results <= first.results or not last.cpu_s:
        raise RuntimeError(f"{before} results of {readings}: {' '.join(process.args)}")
    return first, last, before


def _cpu_s(process: psutil.Popen) -> float:
    try:
        parts = [process, *process.children(recursive=True)]
        return float(sum(t.user + t.system for t in (part.cpu_times() for part in parts)))
    except psutil.NoSuchProcess:
        return 0.0


def bench_peers(
    bootstrap: str, chosen: Mapping[str, Peer], readings: int, repeat: int
) -> dict[str, Any]:
    """Readings/s and CPU of ours and of each peer, in turn; ratios of the medians.

    A peer that fails or is incomplete is said to be so, and has no ratio.
    """
    config, name = client_config(bootstrap), f"peers{uuid4().hex[:8]}"
    sizes = {peer: max(20 * KEYS, round(readings * chosen[peer].share)) for peer in chosen}
    sources = {count: f"{name}.{count}" for count in {*sizes.values(), readings}}
    specs = [
        bench_align.spec_of(f"{name}-{turn}", sources[readings], PARTITIONS, "json")
        for turn in range(repeat)
    ]
    own = {t.name: (t.name, t.partitions, t.config) for s in specs for t in topics_of(s)}
    own |= {source: (source, PARTITIONS, {}) for source in sources.values()}
    ours: list[Timed] = []
    limits: list[float] = []
    theirs: dict[str, list[Timed]] = {peer: [] for peer in chosen}
    failed: dict[str, str] = {}
    try:
        ensure_topics(config, own.values())
        for count, source in sources.items():
            bench_align.fill(config, specs[0], count + MORE * KEYS, KEYS, PARTITIONS, source)
        for spec in specs:
            limits.append(
                bench_align.limit(config, sources[readings], readings + MORE * KEYS).per_s
            )
            ours.append(_ours(config, spec, readings))
            for peer in chosen:
                try:
                    count = sizes[peer]
                    theirs[peer].append(run_peer(bootstrap, chosen[peer], sources[count], count))
                except RuntimeError as error:
                    failed[peer] = str(error)
    finally:
        delete_topics(config, own)
    return table(ours, median(limits), theirs, failed)


def _ours(config: Mapping[str, str], spec: SystemSpec, readings: int) -> Timed:
    """The aligner over the same readings; its results are the rows of its frames that are new."""
    spent, _ = bench_align.align(config, spec, readings + MORE * KEYS)
    found = read_to_end(config["bootstrap.servers"], config, topic(spec, "frames"))
    frames = (decode_frame(spec, message.value() or b"") for message in found)
    period_s = spec.period_us / 1e6
    rows = sum(int((frame.ages.min(axis=1) < period_s).sum()) for frame in frames)
    return Timed(spent.per_s, spent.cpu_s_per_million, rows, readings)


def table(
    ours: Sequence[Timed],
    limit: float,
    theirs: Mapping[str, Sequence[Timed]],
    failed: Mapping[str, str],
) -> dict[str, Any]:
    """One row per system: medians, completeness, and how many times as fast ours is."""
    rows = {"rehearse": _row(ours)}
    for name, runs in theirs.items():
        if not runs:
            rows[name] = {"failed": failed.get(name, "")}
            continue
        row = rows[name] = _row(runs)
        if row["complete"]:
            row["ours_is_times"] = round(
                rows["rehearse"]["readings_per_s"] / row["readings_per_s"], 1
            )
            row["cpu_times"] = round(
                row["cpu_s_per_million"] / rows["rehearse"]["cpu_s_per_million"], 1
            )
    return {"keys": KEYS, "window_ms": 100, "raw_per_s": round(limit), "systems": rows}


def _row(runs: Sequence[Timed]) -> dict[str, Any]:
    return {
        "readings_per_s": round(median(run.per_s for run in runs)),
        "cpu_s_per_million": round(median(run.cpu_s_per_million for run in runs), 2),
        "results": runs[-1].results,
        "wanted": runs[-1].wanted,
        "complete": all(run.complete for run in runs),
        "runs": [round(run.per_s) for run in runs],
    }


def main() -> None:
    """Command line of `make bench-peers`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--python", type=Path, required=True, help="Of the peers' environment.")
    parser.add_argument("--bootstrap-servers", help="Default: the embedded broker.")
    parser.add_argument("--readings", type=int, default=400_000)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--peer", action="append", help="Only these.")
    asked = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # through the clean-up
    bootstrap = asked.bootstrap_servers or start(progress=_say).bootstrap
    if asked.peer is None or "kafka-streams" in asked.peer:
        reason = build_java()
        if reason:
            _say(f"Kafka Streams is left out: {reason}")
    chosen = peers(asked.python)
    if asked.peer:
        chosen = {name: chosen[name] for name in asked.peer}
    result = bench_peers(bootstrap, chosen, asked.readings, asked.repeat)
    sys.stdout.write(json.dumps(result, indent=1) + "\n")


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")


if __name__ == "__main__":
    main()
