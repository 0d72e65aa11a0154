"""librdkafka's mock cluster: a broker in this process that answers with the errors it is told to.

It is in the library that confluent_kafka brings along, and reached by ctypes, as the Python client
has no interface for it. It speaks Kafka over TCP, so that clients of any kind may come; what it
keeps is in memory. Errors are answers to whole requests, each once, in the order in which they were
pushed; what a request was to do is not done then.
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Final

import confluent_kafka
from confluent_kafka import Producer

PRODUCE: Final = 0
FETCH: Final = 1
LIST_OFFSETS: Final = 2
METADATA: Final = 3
OFFSET_COMMIT: Final = 8
OFFSET_FETCH: Final = 9
FIND_COORDINATOR: Final = 10
JOIN_GROUP: Final = 11
HEARTBEAT: Final = 12
SYNC_GROUP: Final = 14
INIT_PRODUCER_ID: Final = 22

_CONFIG_SIZE: Final = 512
_PRODUCER: Final = 0
_ANY: Final = -1


def _library() -> ctypes.CDLL:
    """The very librdkafka that is loaded already."""
    bundled = Path(confluent_kafka.__file__).parents[1] / "confluent_kafka.libs"
    found = sorted(bundled.glob("librdkafka*"))
    library = ctypes.CDLL(str(found[0]) if found else "librdkafka.so.1")
    pointer, number = ctypes.c_void_p, ctypes.c_int
    signatures = {
        "rd_kafka_conf_new": (pointer, ()),
        "rd_kafka_new": (pointer, (number, pointer, ctypes.c_char_p, ctypes.c_size_t)),
        "rd_kafka_destroy": (None, (pointer,)),
        "rd_kafka_mock_cluster_new": (pointer, (pointer, number)),
        "rd_kafka_mock_cluster_destroy": (None, (pointer,)),
        "rd_kafka_mock_cluster_bootstraps": (ctypes.c_char_p, (pointer,)),
        "rd_kafka_mock_topic_create": (number, (pointer, ctypes.c_char_p, number, number)),
        "rd_kafka_mock_broker_set_rtt": (number, (pointer, ctypes.c_int32, number)),
        "rd_kafka_mock_clear_request_errors": (None, (pointer, ctypes.c_int16)),
        "rd_kafka_mock_broker_error_stack_cnt": (
            number,
            (pointer, ctypes.c_int32, ctypes.c_int16, ctypes.POINTER(ctypes.c_size_t)),
        ),
        "rd_kafka_mock_push_request_errors_array": (
            None,
            (pointer, ctypes.c_int16, ctypes.c_size_t, ctypes.POINTER(number)),
        ),
    }
    for name, (result, arguments) in signatures.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, list(arguments)
    return library


class MockCluster:
    """A cluster of `brokers`; a context manager."""

    def __init__(self, brokers: int = 1) -> None:
        self._library = _library()
        reason = ctypes.create_string_buffer(_CONFIG_SIZE)
        config = self._library.rd_kafka_conf_new()
        self._client = self._library.rd_kafka_new(_PRODUCER, config, reason, _CONFIG_SIZE)
        assert self._client, reason.value
        self._cluster = self._library.rd_kafka_mock_cluster_new(self._client, brokers)
        assert self._cluster

    def __enter__(self) -> MockCluster:
        return self

    def __exit__(self, *_: object) -> None:
        self._library.rd_kafka_mock_cluster_destroy(self._cluster)
        self._library.rd_kafka_destroy(self._client)

    @property
    def bootstrap(self) -> str:
        """Where clients find it."""
        found: bytes = self._library.rd_kafka_mock_cluster_bootstraps(self._cluster)
        return found.decode()

    def create(self, name: str, partitions: int) -> None:
        """Makes a topic."""
        code = self._library.rd_kafka_mock_topic_create(self._cluster, name.encode(), partitions, 1)
        assert code == 0, code

    def fail(self, request: int, *codes: int) -> None:
        """Answers the next requests of a kind with these errors, one after the other."""
        array = (ctypes.c_int * len(codes))(*codes)
        self._library.rd_kafka_mock_push_request_errors_array(
            self._cluster, request, len(codes), array
        )

    def heal(self, request: int) -> None:
        """Forgets the errors that were not given yet."""
        self._library.rd_kafka_mock_clear_request_errors(self._cluster, request)

    def slow(self, milliseconds: int) -> None:
        """How long every answer takes from now on."""
        code = self._library.rd_kafka_mock_broker_set_rtt(self._cluster, _ANY, milliseconds)
        assert code == 0, code


def produce(cluster: MockCluster, name: str, values: list[bytes], partition: int = 0) -> None:
    """Puts records into a topic."""
    producer = Producer({"bootstrap.servers": cluster.bootstrap})
    for value in values:
        producer.produce(name, value, partition=partition)
    assert producer.flush(20) == 0
