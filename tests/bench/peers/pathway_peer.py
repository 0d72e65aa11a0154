"""Pathway: windows by key that stay open, so that nothing is late, and are given out as they come.

One reading per window makes that one result per window. With a cutoff, partitions of which one is
read a second before another lose what the other holds.
"""

import sys

import pathway as pw


def main(broker: str, source: str, out: str) -> None:
    settings = {
        "bootstrap.servers": broker,
        "group.id": out,
        "auto.offset.reset": "earliest",
        "fetch.queue.backoff.ms": "5",
    }
    raw = pw.io.kafka.read(
        settings,
        topic=source,
        format="plaintext",
        autocommit_duration_ms=100,
        autogenerate_key=True,
        max_backlog_size=50_000,
    )
    parsed = raw.select(pw.this.key, value=pw.apply_with_type(pw.Json.parse, pw.Json, pw.this.data))
    readings = parsed.select(
        pw.this.key,
        ts=pw.this.value["ts"].as_int(unwrap=True),
        temperature=pw.this.value["temperature"].as_float(unwrap=True),
        pressure=pw.this.value["pressure"].as_float(unwrap=True),
        speed=pw.this.value["speed"].as_float(unwrap=True),
        load=pw.this.value["load"].as_float(unwrap=True),
    )
    windows = readings.windowby(
        pw.this.ts,
        window=pw.temporal.tumbling(duration=100_000),
        instance=pw.this.key,
    )
    result = windows.reduce(
        key=pw.this._pw_instance,
        start=pw.this._pw_window_start,
        temperature=pw.reducers.latest(pw.this.temperature),
        pressure=pw.reducers.latest(pw.this.pressure),
        speed=pw.reducers.latest(pw.this.speed),
        load=pw.reducers.latest(pw.this.load),
    )
    pw.io.kafka.write(result, {"bootstrap.servers": broker}, topic_name=out, format="json")
    pw.run(monitoring_level=pw.MonitoringLevel.NONE)


if __name__ == "__main__":
    main(*sys.argv[1:4])
