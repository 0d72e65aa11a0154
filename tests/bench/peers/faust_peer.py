"""Plain Faust: an agent that keeps each key's window in a dictionary and sends what is over."""

import sys
from typing import Any

import faust
import msgspec


class Reading(msgspec.Struct):
    ts: int
    temperature: float
    pressure: float
    speed: float
    load: float


def make_app(broker: str, source: str, out: str) -> faust.App:
    app = faust.App(
        out,
        broker=f"kafka://{broker}",
        store="memory://",
        consumer_auto_offset_reset="earliest",
        topic_allow_declare=False,
        topic_disable_leader=True,
        web_enabled=False,
        value_serializer="raw",
        key_serializer="raw",
    )
    decoder = msgspec.json.Decoder(Reading)
    results = app.topic(out, key_type=bytes, value_type=bytes)
    open_windows: dict[bytes, Reading] = {}

    @app.agent(app.topic(source, key_type=bytes, value_type=bytes))
    async def window(stream: Any) -> None:
        async for key, value in stream.items():
            reading = decoder.decode(value)
            before = open_windows.get(key)
            open_windows[key] = reading
            if before is not None and before.ts // 100_000 != reading.ts // 100_000:
                await results.send(key=key, value=msgspec.json.encode(before))

    return app


if __name__ == "__main__":
    made = make_app(*sys.argv[1:4])
    sys.argv[1:] = []
    faust.Worker(made, loglevel="error").execute_from_commandline()
