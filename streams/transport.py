"""Faust's transport over librdkafka: the driver, and what Faust needs beside a consumer."""

from collections.abc import Mapping
from typing import Any, ClassVar

import confluent_kafka
from faust.transport import base
from faust.types import TP
from mode import Service

from streams.faust_consumer import Consumer


class Fetcher(Service):
    """Of Faust's task that fetches records, the name: here they arrive."""

    def __init__(self, app: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)


class Producer(base.Producer):
    """Of Faust's producer, what Faust cannot do without: everything goes out by `Publisher`."""

    async def flush(self) -> None:
        """Nothing is under way."""

    async def send(self, topic: str, *_: Any, **__: Any) -> Any:
        """Refuses."""
        raise NotImplementedError(f"{topic}: records go out through streams.publish")

    send_and_wait = send


class Assignor:
    """Tells Faust what this member has, as librdkafka's range assignor gave it out.

    Frames and beliefs have the same number of partitions, and every member reads both: so
    each range of the one comes together with the same range of the other.
    """

    def __init__(self, app: Any, replicas: int = 0) -> None:
        self._app = app

    def assigned_actives(self) -> set[TP]:
        """The partitions that this member works on."""
        found: set[TP] = self._app.consumer.assignment()
        return found

    def assigned_standbys(self) -> set[TP]:
        """None: a belief is recovered from its changelog within a second."""
        return set()


class Transport(base.Transport):
    """The driver: `address` and settings of librdkafka come with the app, credentials included."""

    Consumer: ClassVar = Consumer
    Producer: ClassVar = Producer
    Fetcher: ClassVar = Fetcher
    default_port = 9092
    driver_version = f"confluent-kafka={confluent_kafka.__version__}"

    app: Any

    @property
    def address(self) -> tuple[str, Mapping[str, str]]:
        """Bootstrap servers, and what the user gave with `-X`."""
        found: tuple[str, Mapping[str, str]] = self.app.kafka
        return found

    def membership(self) -> dict[str, str]:
        """The group, and the static member of it that this worker is."""
        return {"group": self.app.conf.id, "instance": self.app.conf.consumer_group_instance_id}

    def settings(self) -> dict[str, str]:
        """librdkafka's settings of the worker's consumer, with `_` for `.`."""
        conf = self.app.conf
        seconds = {
            "session_timeout_ms": conf.broker_session_timeout,
            "heartbeat_interval_ms": conf.broker_heartbeat_interval,
            "max_poll_interval_ms": conf.broker_max_poll_interval,
        }
        return {
            **{name: str(round(1e3 * value)) for name, value in seconds.items()},
            "client_id": conf.broker_client_id,
            "group_id": conf.id,
            "group_instance_id": conf.consumer_group_instance_id,
            "partition_assignment_strategy": "range",
            "auto_offset_reset": conf.consumer_auto_offset_reset,
            # A wait that ends with the tick has the next frame meet a fetch on its way back. A
            # longer one only delays what is read anew, after a rebalance.
            "fetch_wait_max_ms": "250",
            "queued_min_messages": "32",
            "reconnect_backoff_max_ms": "1000",
        }
