"""Everything that is Faust but its transport: the app and its belief table."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faust
import rocksdict
from faust.tables.manager import TableManager
from yarl import URL

from schemas.system import SystemSpec
from schemas.topics import cohort_partitions, topic
from streams.identity import SESSION_S, client_id, instance_id
from streams.publish import Publisher, Record
from streams.stores import drop_damaged
from streams.transport import Assignor, Transport

HEARTBEAT_S, COMMIT_S = 2.0, 0.5
# A rebalance waits for as long for a member that hangs; this is longer than one waits for records
# that it sent to be confirmed.
POLL_INTERVAL_S = 150.0
# Rows are few and small, and the newest of each is kept decoded in memory.
ROCKSDB = {"block_cache_size": 8 << 20, "write_buffer_size": 8 << 20, "max_write_buffer_number": 2}


class _TableManager(TableManager):
    async def on_start(self) -> None:
        # Faust sleeps a second here, in case tables are still being declared: ours are.
        await self._update_channels()
        await self.recovery.start()


class _App(faust.App):
    kafka: tuple[str, Mapping[str, str]]

    def _new_transport(self) -> Transport:
        return Transport(self.conf.broker_consumer, self)

    def _new_producer_transport(self) -> Transport:
        return Transport(self.conf.broker_producer, self)

    def on_rebalance_end(self) -> None:
        super().on_rebalance_end()
        consumer: Any = self.consumer
        consumer.release()


@dataclass(frozen=True)
class WorkerApp:
    """A Faust app with the topic that it reads and the table that it keeps."""

    app: Any
    frames: Any
    beliefs: "BeliefTable"


class BeliefTable:
    """Belief rows by cohort: RocksDB below, `S.beliefs` as its changelog, recovery by Faust.

    A row is written to the changelog first, and locally only when the broker has it: the local
    store is never ahead of what another worker would recover.
    """

    def __init__(self, app: Any, spec: SystemSpec) -> None:
        partitions = cohort_partitions(spec)
        raw = {"key_type": bytes, "value_type": bytes}
        self.topic = topic(spec, "beliefs")
        self.table = app.Table(
            "beliefs",
            partitions=partitions,
            options=dict(ROCKSDB),
            changelog_topic=app.topic(
                self.topic, **raw, partitions=partitions, acks=False, internal=True, maxsize=4096
            ),
            recovery_buffer_size=64,
            **raw,
        )
        # Before the store is opened; else bytes go through Faust's JSON codec.
        self.table.key_serializer = self.table.value_serializer = "raw"

    def read(self, partition: int, cohort: int) -> bytes | None:
        """The row of `cohort`, whose frames come on `partition`; None where there is none."""
        row: bytes | None = self._store(partition).get(_key(cohort))
        return row

    async def write(self, publisher: Publisher, partition: int, cohort: int, row: bytes) -> None:
        """Stores a row. Raises `DeliveryError` where the changelog did not take it."""
        record = Record(self.topic, partition, row, _key(cohort))
        offset = await publisher.send([record])
        # With the offset up to which the store is complete, where Faust's recovery looks for it.
        batch = rocksdict.WriteBatch(raw_mode=True)
        batch.put(_key(cohort), row)
        batch.put(self.table.data.offset_key, str(offset).encode())
        self._store(partition).write(batch)

    def _store(self, partition: int) -> Any:
        return self.table.data._db_for_partition(partition)


def _key(cohort: int) -> bytes:
    return str(cohort).encode()


def make_app(
    spec: SystemSpec,
    bootstrap: str,
    extra: Mapping[str, str],
    *,
    group: str,
    worker: str,
    data_dir: Path,
) -> WorkerApp:
    """The Faust app of one worker of consumer group `group`, with its data in `data_dir`."""
    data_dir.mkdir(parents=True, exist_ok=True)
    drop_damaged(data_dir)
    app = _App(
        group,
        broker=[URL(f"kafka://{address}") for address in bootstrap.split(",")],
        broker_client_id=client_id(worker, data_dir),
        consumer_group_instance_id=instance_id(group, worker),
        consumer_auto_offset_reset="earliest",
        broker_session_timeout=SESSION_S,
        broker_heartbeat_interval=HEARTBEAT_S,
        broker_commit_interval=COMMIT_S,
        broker_max_poll_interval=POLL_INTERVAL_S,
        datadir=str(data_dir),
        store="rocksdb://",
        key_serializer="raw",
        value_serializer="raw",
        processing_guarantee="at_least_once",
        stream_buffer_maxsize=64,
        stream_recovery_delay=0.0,
        table_standby_replicas=0,
        topic_allow_declare=False,
        topic_disable_leader=True,
        topic_partitions=cohort_partitions(spec),
        web_enabled=False,
        web_tables_enabled=False,
        TableManager=_TableManager,
        PartitionAssignor=Assignor,
        logging_config=None,
    )
    app.kafka = (bootstrap, extra)
    frames = app.topic(
        topic(spec, "frames"), key_type=bytes, value_type=bytes, partitions=cohort_partitions(spec)
    )
    return WorkerApp(app, frames, BeliefTable(app, spec))
