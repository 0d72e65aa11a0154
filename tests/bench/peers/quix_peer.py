"""Quix Streams: a tumbling window, its latest message as the final result; state in RocksDB."""

import sys
import tempfile

from quixstreams import Application
from quixstreams.dataframe.windows.aggregations import Latest


def main(broker: str, source: str, out: str) -> None:
    with tempfile.TemporaryDirectory() as state:
        app = Application(
            broker_address=broker,
            consumer_group=out,
            auto_offset_reset="earliest",
            state_dir=state,
            use_changelog_topics=False,
            auto_create_topics=False,
            consumer_extra_config={"fetch.queue.backoff.ms": 5},
            loglevel="WARNING",
        )
        readings = app.topic(
            source,
            value_deserializer="json",
            timestamp_extractor=lambda value, *_: value["ts"] // 1_000,
        )
        windows = app.dataframe(readings).tumbling_window(100).agg(value=Latest()).final()
        windows.to_topic(app.topic(out, value_serializer="json"))
        app.run()


if __name__ == "__main__":
    main(*sys.argv[1:4])
