"""Who a worker is to the broker: its id, and which folder it keeps; no two share an id."""

import threading
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import structlog
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from infra.kafka import KafkaSetupError, client_config

_TIMEOUT_S: Final = 10.0
_POLL_S: Final = 0.5
RIVALS_S: Final = 15.0
_NO_GROUP: Final = (KafkaError.GROUP_ID_NOT_FOUND, KafkaError.COORDINATOR_LOAD_IN_PROGRESS)
_log = structlog.get_logger("worker")


def instance_id(group: str, worker: str) -> str:
    """The static member of the consumer group that a worker is: it outlives short restarts."""
    return f"{group}-{worker}"


def client_id(worker: str, folder: Path) -> str:
    """The worker's id with a mark of its data folder, by which the group's members are told apart.

    The mark is drawn once and stays in the folder.
    """
    file = folder / "identity"
    if not file.exists():
        fresh = file.with_suffix(".new")
        fresh.write_text(uuid.uuid4().hex[:8])
        fresh.replace(file)
    return f"{worker}@{file.read_text().strip()}"


def other_holder(
    bootstrap: str,
    extra: Mapping[str, str],
    group: str,
    worker: str,
    own: str,
    patience_s: float,
) -> str | None:
    """Where another live worker runs under this id, as the broker names the place; None: nowhere.

    Two of one id would take the partitions from each other without end: a broker lets the newer one
    in, and the older one joins again. One that was killed is a member until its session runs out,
    so another folder's is waited for, `patience_s`; one's own last life is not.

    Raises:
        KafkaSetupError: no broker answers.
    """
    admin = AdminClient({"log_level": "0", **client_config(bootstrap, extra)})
    end, said = time.monotonic() + patience_s, False
    while (place := _holder(admin, group, instance_id(group, worker), own)) is not None:
        if time.monotonic() > end:
            return place
        if not said:
            said = True
            _log.info("waiting for the end of another worker of this id", worker=worker)
        time.sleep(_POLL_S)
    return None


class Rivals(threading.Thread):
    """Looks for a while after the start whether another worker took this one's id meanwhile.

    Two that start at the same instant find nobody before they join. Then each is let in and takes
    the other's place in turn, until the one whose mark comes later sees the other and gives way.

    Attributes:
        place: where the other one runs, once this one has to give way.
    """

    def __init__(
        self, bootstrap: str, extra: Mapping[str, str], group: str, worker: str, own: str
    ) -> None:
        super().__init__(name="rivals", daemon=True)
        self._admin = AdminClient({"log_level": "0", **client_config(bootstrap, extra)})
        self._group, self._instance, self._own = group, instance_id(group, worker), own
        self.place: str | None = None
        self.start()

    def run(self) -> None:
        """Asks the broker every second, for `RIVALS_S`."""
        end = time.monotonic() + RIVALS_S
        while self.place is None and time.monotonic() < end:
            time.sleep(1.0)
            try:
                found = _holder(self._admin, self._group, self._instance, self._own)
            except KafkaSetupError:  # the worker itself says so
                continue
            if found is not None and self._own > found:
                self.place = found


def _holder(admin: AdminClient, group: str, instance: str, own: str) -> str | None:
    try:
        described = admin.describe_consumer_groups([group], request_timeout=_TIMEOUT_S)
        members = described[group].result(_TIMEOUT_S).members
    except (KafkaException, TimeoutError) as error:
        reason = error.args[0].str() if isinstance(error, KafkaException) else "timed out"
        if isinstance(error, KafkaException) and error.args[0].code() in _NO_GROUP:
            return None
        raise KafkaSetupError(
            f"no broker answers: {reason}. Check the address, and the settings given with -X."
        ) from error
    for member in members:
        if member.group_instance_id == instance and member.client_id != own:
            return f"{member.client_id}, {member.host.lstrip('/')}"
    return None
