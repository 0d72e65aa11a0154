"""Everything that is Faust: the app, its consumer with short waits, its belief table."""

import asyncio
import ssl
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faust
import rocksdict
from aiokafka.errors import IllegalStateError
from faust.auth import SASLCredentials, SSLCredentials
from faust.tables.manager import TableManager
from faust.transport.drivers import aiokafka as driver
from yarl import URL

from schemas.system import SystemSpec
from schemas.topics import Kind, cohort_partitions, topic
from streams.identity import client_id, instance_id
from streams.publish import Publisher, Record
from streams.stores import drop_damaged

# A partition that still holds unread records when a fetch is sent is left out of that fetch, so its
# next record waits until the fetch returns: Faust's 1,500 ms would be the worst-case delay.
FETCH_WAIT_MS = 20
FULL_S = 0.005
RECOVERY_WAIT_S = 0.05
SESSION_S, HEARTBEAT_S, COMMIT_S = 8.0, 1.0, 0.5
# Rows are few and small, and the newest of each is kept decoded in memory.
ROCKSDB = {"block_cache_size": 8 << 20, "write_buffer_size": 8 << 20, "max_write_buffer_number": 2}

_MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
# Of a client's certificate: Python's ssl reads it from PEM files alone.
_UNREAD = ("ssl.certificate.pem", "ssl.key.pem", "ssl.keystore.location")


class _ConsumerThread(driver.AIOKafkaConsumerThread):
    def _create_worker_consumer(self, transport: Any) -> Any:
        consumer = super()._create_worker_consumer(transport)
        consumer._fetch_max_wait_ms = FETCH_WAIT_MS  # read when the consumer starts
        return consumer

    async def on_start(self) -> None:
        await super().on_start()
        # A record that nobody takes keeps aiokafka from fetching any other for so long; the first
        # belief row is one, as the changelog is read back by the consumer that reads the frames.
        self._ensure_consumer()._fetcher._prefetch_backoff = FULL_S

    async def seek_to_committed(self) -> Any:
        return await self.call_thread(self._rewind)

    async def _rewind(self) -> Any:
        # After a rebalance Faust empties its buffers and reads again from the committed offset.
        # Without one, aiokafka stays where it is, and what was in the buffers would be lost.
        consumer = self._ensure_consumer()
        committed = await consumer.seek_to_committed()
        changelogs = self.app.tables.changelog_topics
        unread = [tp for tp, at in committed.items() if not at and tp.topic not in changelogs]
        if unread:
            for tp, first in (await consumer.beginning_offsets(unread)).items():
                consumer.seek(tp, first)
        return committed


class _Consumer(driver.Consumer):
    def _new_consumer_thread(self) -> _ConsumerThread:
        return _ConsumerThread(self, loop=self.loop, beacon=self.beacon)

    async def ends(self, places: Iterable[Any]) -> Mapping[Any, int]:
        """Up to where partitions have records, as the broker says.

        What a fetch said of it (`highwater`) is as old as the fetch: none is sent while the frames
        of the last one wait. It is asked past Faust's queue of calls, in which a fetch may be.
        """
        thread = self._thread
        asking = thread._ensure_consumer().end_offsets(list(places))
        asked = asyncio.run_coroutine_threadsafe(asking, thread.thread_loop)
        found: Mapping[Any, int] = await asyncio.wrap_future(asked)
        return found

    def leave(self) -> None:
        """Has the broker told when it ends, so that the others need not wait for its session.

        aiokafka never says so of a static member, in case it is back soon.
        """
        self._thread._ensure_consumer()._coordinator._group_instance_id = None

    async def _wait_next_records(self, timeout: float) -> Any:
        # Faust sleeps a second when all partitions wait: for the stream's buffer to empty, which
        # takes far less, or for a change of partitions to end. So after its flow was stopped we
        # look once more; else robots would wait for that second where a worker joins.
        if not self.flow_active:
            await self.wait(self.can_resume_flow)  # type: ignore[arg-type]
        if self.flow_active and not self._get_active_partitions():
            await self.sleep(FULL_S)
            return {}, set()
        return await super()._wait_next_records(timeout)

    async def _getmany(self, active_partitions: Any, timeout: float) -> Any:
        # At the end of a recovery Faust lets frames in, seeks, and then empties the buffers: what
        # came in between would be lost. So frames wait until all of it is done. The set is copied,
        # because Faust changes it while another thread reads it.
        wanted = set(active_partitions or ())
        if self.app.rebalancing:
            wanted = {tp for tp in wanted if self._is_changelog_tp(tp)}
            timeout = RECOVERY_WAIT_S  # of which the frames wait for the last
        if not wanted:
            await self.sleep(FULL_S)
            return {}
        count = self.app.rebalancing_count
        found = await super()._getmany(wanted, timeout)
        if self.app.rebalancing_count != count:
            # It was asked before partitions changed hands, and answered while they did, or after.
            found = self._put_back(found)
        return found

    def _put_back(self, found: Any) -> Any:
        """Has the frames of an answer read again; gives the rest of it."""
        kept = {}
        for tp, records in found.items():
            if self._is_changelog_tp(tp):
                kept[tp] = records
            elif records:
                # Of a partition that went to another worker nothing is to be read again.
                with suppress(IllegalStateError):
                    self._thread.seek(tp, records[0].offset)
        return kept


class _Transport(driver.Transport):
    Consumer = _Consumer


class _TableManager(TableManager):
    async def on_start(self) -> None:
        # Faust sleeps a second here, in case tables are still being declared: ours are.
        await self._update_channels()
        await self.recovery.start()


class _App(faust.App):
    def _new_transport(self) -> _Transport:
        return _Transport(self.conf.broker_consumer, self)

    def _new_producer_transport(self) -> _Transport:
        return _Transport(self.conf.broker_producer, self)


@dataclass(frozen=True)
class WorkerApp:
    """A Faust app with the topic that it reads and the table that it keeps."""

    app: Any
    frames: Any
    beliefs: "BeliefTable"


class BeliefTable:
    """Belief rows by cohort: RocksDB below, a topic as its changelog, recovery by Faust.

    A row is written to the changelog first, and locally only when the broker has it: the local
    store is never ahead of what another worker would recover.
    """

    def __init__(self, app: Any, spec: SystemSpec, changelog: Kind) -> None:
        partitions = cohort_partitions(spec)
        raw = {"key_type": bytes, "value_type": bytes}
        self.topic = topic(spec, changelog)
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
        offset = await publisher.send([record], hurry=False)
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
    changelog: Kind = "beliefs",
) -> WorkerApp:
    """The Faust app of one worker of consumer group `group`, with its data in `data_dir`."""
    data_dir.mkdir(parents=True, exist_ok=True)
    drop_damaged(data_dir)
    app = bare_app(bootstrap, extra, group, worker, data_dir, cohort_partitions(spec))
    frames = app.topic(
        topic(spec, "frames"), key_type=bytes, value_type=bytes, partitions=cohort_partitions(spec)
    )
    return WorkerApp(app, frames, BeliefTable(app, spec, changelog))


def bare_app(
    bootstrap: str,
    extra: Mapping[str, str],
    group: str,
    worker: str,
    data_dir: Path,
    partitions: int,
) -> Any:
    """A Faust app without topics and tables; `data_dir` is there."""
    return _App(
        group,
        broker=[URL(f"kafka://{address}") for address in bootstrap.split(",")],
        broker_credentials=credentials(extra),
        broker_client_id=client_id(worker, data_dir),
        consumer_group_instance_id=instance_id(group, worker),
        consumer_auto_offset_reset="earliest",
        broker_session_timeout=SESSION_S,
        broker_heartbeat_interval=HEARTBEAT_S,
        broker_commit_interval=COMMIT_S,
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
        topic_partitions=partitions,
        web_enabled=False,
        web_tables_enabled=False,
        TableManager=_TableManager,
        logging_config=None,
    )


def credentials(extra: Mapping[str, str]) -> Any:
    """Faust's credentials for librdkafka's settings of TLS and SASL; None where there are none.

    Raises `ValueError` for settings that librdkafka takes and aiokafka has no counterpart for.
    """
    protocol = extra.get("security.protocol", "plaintext").upper()
    context = _tls(extra) if protocol.endswith("SSL") else None
    if protocol.startswith("SASL"):
        mechanism = extra.get("sasl.mechanisms") or extra.get("sasl.mechanism") or "unset"
        if mechanism not in _MECHANISMS:
            raise ValueError(
                f"sasl.mechanism is {mechanism}; the worker's client can do "
                f"{', '.join(_MECHANISMS)}"
            )
        return SASLCredentials(
            username=extra.get("sasl.username"),
            password=extra.get("sasl.password"),
            mechanism=mechanism,
            ssl_context=context,
        )
    return SSLCredentials(context) if context else None


def _tls(extra: Mapping[str, str]) -> ssl.SSLContext:
    if unread := [name for name in _UNREAD if name in extra]:
        raise ValueError(
            f"{', '.join(unread)}: the worker's client cannot read this; give PEM files with "
            "ssl.certificate.location and ssl.key.location"
        )
    context = ssl.create_default_context(
        cafile=extra.get("ssl.ca.location"), cadata=extra.get("ssl.ca.pem")
    )
    if certificate := extra.get("ssl.certificate.location"):
        context.load_cert_chain(
            certificate, extra.get("ssl.key.location"), extra.get("ssl.key.password")
        )
    if extra.get("ssl.endpoint.identification.algorithm") == "none":
        context.check_hostname = False
    if extra.get("enable.ssl.certificate.verification") == "false":
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context
