"""Other stream processors beside the aligner: the same keyed work of 100 ms, on the same broker.

One reading per key and window: a time and four fields in, the latest of each out. A peer is a
process of its own; its results are counted at the broker, and its rate is that from a tenth of them
to nine tenths, so that neither its start counts nor what it lets go at the end. CPU time is that of
the process and its children. The aligner's own figures are those of `rehearse bench align`, and
come in turn with the peers'. Of every run, ours included, all results are read afterwards: one per
key and window, with the values of its reading.
"""

import argparse
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from statistics import median
from tempfile import TemporaryFile
from typing import Any, Final, NamedTuple
from uuid import uuid4

import psutil

from infra.broker import start
from infra.kafka import client_config, delete_topics, ensure_topics
from schemas.system import SystemSpec
from schemas.topics import topics_of
from streams import bench_align
from streams.topic_io import bounds, make_consumer
from tests.bench import kafka_streams, peer_output
from tests.bench.peer_output import KEYS, Output

HERE: Final = Path(__file__).parent
PARTITIONS: Final = 4
MORE: Final = 200  # readings of each key behind those that count, so that windows of these close
_KEPT: Final = {"retention.ms": "-1"}  # results may be stamped with the time of their readings
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
    """What one run came to, over `wanted` windows."""

    per_s: float
    cpu_s_per_million: float
    wanted: int
    output: Output


def peers(python: Path) -> dict[str, Peer]:
    """Those that are asked for by name; Kafka Streams has to be built."""
    program = HERE / "peers"
    shares = {"bytewax": 0.2, "pathway": 0.2, "quix": 0.06, "faust": 0.02}
    found = {"kafka-streams": Peer(kafka_streams.command(), 1.0)}
    for name, share in shares.items():
        found[name] = Peer((str(python), str(program / f"{name}_peer.py")), share)
    return found


def run_peer(bootstrap: str, peer: Peer, source: str, readings: int) -> Timed:
    """Runs a peer over a topic of `readings` until it has given all results, or no more of them."""
    out = f"{source}.{uuid4().hex[:6]}"
    config = client_config(bootstrap)
    ensure_topics(config, [(out, PARTITIONS, _KEPT)])
    try:
        with _running([*peer.command, bootstrap, source, out, str(readings)]) as process:
            first, last = _watch(process, bootstrap, out, readings)
        output = peer_output.of_peer(config, out, readings, readings + MORE * KEYS)
    finally:
        delete_topics(config, [out])
    counted = last.results - first.results
    seconds, cpu_s = last.at - first.at, last.cpu_s - first.cpu_s
    return Timed(counted / max(seconds, _LOOK_S), cpu_s / counted * 1e6, readings, output)


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


def _watch(process: psutil.Popen, bootstrap: str, out: str, readings: int) -> tuple[Seen, Seen]:
    """The first look with a tenth of the results, and that with nine tenths."""
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
    return first, last


def _cpu_s(process: psutil.Popen) -> float:
    try:
        parts = [process, *process.children(recursive=True)]
        return float(sum(t.user + t.system for t in (part.cpu_times() for part in parts)))
    except psutil.NoSuchProcess:
        return 0.0


def bench_peers(
    bootstrap: str,
    chosen: Mapping[str, Peer],
    readings: int,
    repeat: int,
    say: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Readings/s and CPU of ours and of each peer, in turn; ratios of the medians.

    A peer that fails or is incomplete is said to be so, and has no ratio; none has where ours is.
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
        for turn, spec in enumerate(specs, 1):
            raw = bench_align.limit(config, sources[readings], readings + MORE * KEYS)
            limits.append(raw.per_s)
            say(f"run {turn} of {repeat}: raw consumption {raw.per_s:,.0f} readings/s")
            ours.append(_ours(config, spec, readings))
            say(f"run {turn} of {repeat}: rehearse {_line(ours[-1])}")
            for peer in chosen:
                try:
                    count = sizes[peer]
                    theirs[peer].append(run_peer(bootstrap, chosen[peer], sources[count], count))
                    say(f"run {turn} of {repeat}: {peer} {_line(theirs[peer][-1])}")
                except RuntimeError as error:
                    failed[peer] = str(error)
                    say(f"run {turn} of {repeat}: {peer} failed: {error}")
    finally:
        delete_topics(config, own)
    return table(ours, median(limits), theirs, failed)


def _ours(config: Mapping[str, str], spec: SystemSpec, readings: int) -> Timed:
    """The aligner over the same readings."""
    total = readings + MORE * KEYS
    spent, _ = bench_align.align(config, spec, total)
    output = peer_output.of_frames(config, spec, readings, total)
    return Timed(spent.per_s, spent.cpu_s_per_million, readings, output)


def _line(run: Timed) -> str:
    found = run.output
    much = f"{run.per_s:,.0f} readings/s, {run.cpu_s_per_million:.1f} CPU s per million"
    if found.complete:
        return f"{much}, {found.results} results, all of {run.wanted} right"
    return (
        f"{much}; of {run.wanted} results {found.missing} are missing, {found.twice} came twice, "
        f"{found.wrong} are wrong"
    )


def table(
    ours: Sequence[Timed],
    limit: float,
    theirs: Mapping[str, Sequence[Timed]],
    failed: Mapping[str, str],
) -> dict[str, Any]:
    """One row per system: medians, completeness, and how many times as fast ours is."""
    own = _row(ours)
    rows: dict[str, dict[str, Any]] = {"rehearse": own}
    for name, runs in theirs.items():
        if name in failed or not runs:
            rows[name] = {"failed": failed.get(name, "")}
            continue
        row = rows[name] = _row(runs)
        if row["complete"] and own["complete"]:
            row["ours_is_times"] = round(own["readings_per_s"] / row["readings_per_s"], 1)
            row["cpu_times"] = round(row["cpu_s_per_million"] / own["cpu_s_per_million"], 1)
    return {
        "keys": KEYS,
        "window_ms": peer_output.WINDOW_US // 1_000,
        "raw_per_s": round(limit),
        "share_of_raw": round(own["readings_per_s"] / limit, 3),
        "systems": rows,
    }


def _row(runs: Sequence[Timed]) -> dict[str, Any]:
    return {
        "readings_per_s": round(median(run.per_s for run in runs)),
        "cpu_s_per_million": round(median(run.cpu_s_per_million for run in runs), 2),
        "wanted": runs[-1].wanted,
        "outputs": [run.output._asdict() for run in runs],
        "complete": all(run.output.complete for run in runs),
        "runs": [round(run.per_s) for run in runs],
    }


def text(result: Mapping[str, Any]) -> str:
    """The result for people: one line per system."""
    share = f"{result['share_of_raw']:.2f}"
    lines = [
        f"raw consumption: {result['raw_per_s']:,} readings/s, of which ours is {share}",
        f"{'system':<14}{'readings/s':>12}{'CPU s/M':>9}{'ours is':>9}{'CPU':>7}  output",
    ]
    for name, row in result["systems"].items():
        if "failed" in row:
            lines.append(f"{name:<14}failed: {row['failed'].splitlines()[0]}")
            continue
        times = f"{row['ours_is_times']} x" if "ours_is_times" in row else "-"
        cpu = f"{row['cpu_times']} x" if "cpu_times" in row else "-"
        rates = f"{row['readings_per_s']:>12,}{row['cpu_s_per_million']:>9}"
        output = "complete" if row["complete"] else "incomplete"
        lines.append(f"{name:<14}{rates}{times:>9}{cpu:>7}  {output}")
    return "\n".join(lines)


def main() -> None:
    """Command line of `make bench-peers`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--python", type=Path, required=True, help="Of the peers' environment.")
    parser.add_argument("--bootstrap-servers", help="Default: the embedded broker.")
    parser.add_argument("--readings", type=int, default=1_000_000, help="For ours; slow ones less.")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--peer", action="append", help="Only these.")
    parser.add_argument("--json", action="store_true", help="The result as JSON.")
    asked = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # through the clean-up
    chosen = peers(asked.python)
    if unknown := set(asked.peer or ()) - chosen.keys():
        parser.error(f"--peer {min(unknown)}: there are {', '.join(chosen)}")
    chosen = {name: chosen[name] for name in asked.peer or chosen}
    if "kafka-streams" in chosen and (reason := kafka_streams.build()):
        del chosen["kafka-streams"]
        _say(f"Kafka Streams is left out: {reason}")
    bootstrap = asked.bootstrap_servers or start(progress=_say).bootstrap
    result = bench_peers(bootstrap, chosen, asked.readings, asked.repeat, _say)
    sys.stdout.write((json.dumps(result, indent=1) if asked.json else text(result)) + "\n")


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")


if __name__ == "__main__":
    main()
