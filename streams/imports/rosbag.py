"""ROS 1 and ROS 2 bags, by rosbags (pure Python, no ROS needed)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from streams.imports.log import Content, OnRead, Table, Want, missing_topic
from streams.imports.messages import Collection, field_names
from streams.imports.units import library


class RosbagReader:
    """Reads the messages of a bag; the time without a field is when they were recorded."""

    def read(self, path: Path, wants: list[Want], shown: OnRead) -> list[list[Table]]:
        """See `log.Reader`."""
        collection = Collection(wants)
        with _open(path) as bag:
            topics = {connection.topic for connection in bag.connections}
            for want in wants:
                if not any(want.names_in(topic) is not None for topic in topics):
                    raise missing_topic(want, path, list(topics))
            chosen = [c for c in bag.connections if collection.of(c.topic)]
            total = sum(connection.msgcount for connection in chosen)
            for done, (connection, logged_ns, data) in enumerate(bag.messages(chosen)):
                message = bag.deserialize(data, connection.msgtype)
                for taker in collection.of(connection.topic):
                    taker.add(logged_ns, message)
                shown(done + 1, total)
        return collection.tables()

    def contents(self, path: Path) -> list[Content]:
        """See `log.Reader`."""
        found = []
        with _open(path) as bag:
            for connection in sorted(bag.connections, key=lambda c: c.topic):
                first = next(iter(bag.messages([connection])), None)
                fields: tuple[str, ...] = ()
                if first is not None:
                    fields = field_names(bag.deserialize(first[2], connection.msgtype))
                found.append(Content(connection.topic, connection.msgcount, fields))
        return found


def _open(path: Path) -> Any:
    highlevel = library("rosbags.highlevel", "a ROS bag")
    typesys = library("rosbags.typesys", "a ROS bag")
    # Used only for bags of ROS 2 that do not hold the definitions of their messages.
    store = typesys.get_typestore(typesys.Stores.ROS2_HUMBLE)
    return highlevel.AnyReader([path], default_typestore=store)
