"""Bytewax: event-time windows that wait ten seconds, else some are lost."""

import sys
from datetime import UTC, datetime, timedelta

import msgspec
from bytewax import operators as op
from bytewax.connectors.kafka import KafkaSink, KafkaSinkMessage, KafkaSource
from bytewax.dataflow import Dataflow
from bytewax.operators import windowing
from bytewax.testing import run_main


class Reading(msgspec.Struct):
    ts: int
    temperature: float
    pressure: float
    speed: float
    load: float


def time_of(reading: Reading) -> datetime:
    return datetime.fromtimestamp(reading.ts / 1e6, UTC)


def latest(before: Reading, after: Reading) -> Reading:
    return after if after.ts >= before.ts else before


def message(keyed: tuple[str, tuple[int, Reading]]) -> KafkaSinkMessage:
    key, (_, reading) = keyed
    return KafkaSinkMessage(key.encode(), msgspec.json.encode(reading))


def flow(broker: str, source: str, out: str) -> Dataflow:
    dataflow = Dataflow("peer")
    read = op.input(
        "in",
        dataflow,
        KafkaSource(
            [broker],
            [source],
            tail=False,
            add_config={"fetch.queue.backoff.ms": "5"},
            batch_size=10_000,
        ),
    )
    decoder = msgspec.json.Decoder(Reading)
    keyed = op.map("decode", read, lambda m: (m.key.decode(), decoder.decode(m.value)))
    windows = windowing.reduce_window(
        "window",
        keyed,
        windowing.EventClock(time_of, timedelta(seconds=10)),
        windowing.TumblingWindower(timedelta(milliseconds=100), datetime(2020, 1, 1, tzinfo=UTC)),
        latest,
    )
    op.output("out", op.map("encode", windows.down, message), KafkaSink([broker], out))
    return dataflow


if __name__ == "__main__":
    run_main(flow(*sys.argv[1:4]))
