"""Who a worker is to the broker: its id, and which folder it keeps; no two share an id."""

import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, cast

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from infra.kafka import BrokerAwayError, client_config
from infra.log import Log

_TIMEOUT_S: Final = 10.0
_SOON_S: Final = 2.0
_POLL_S: Final = 0.5
_SETTLING_S: Final = 0.1
# A broker that has just started says so for a moment, without a text.
SETTLING: Final = (
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.NOT_COORDINATOR,
)
_log = Log("worker")


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
        BrokerAwayError: no broker answers.
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


def has_others(bootstrap: str, extra: Mapping[str, str], group: str, worker: str) -> bool:
    """Whether the group has members beside this worker; no, where no broker says so soon."""
    admin = AdminClient({"log_level": "0", **client_config(bootstrap, extra)})
    try:
        described = _describe(admin, group, _SOON_S)
    except BrokerAwayError:
        return False
    own = instance_id(group, worker)
    members = described.members if described else ()
    return any(member.group_instance_id != own for member in members)


def _holder(admin: AdminClient, group: str, instance: str, own: str) -> str | None:
    described = _describe(admin, group)
    for member in described.members if described else ():
        if member.group_instance_id == instance and member.client_id != own:
            return f"{member.client_id}, {member.host.lstrip('/')}"
    return None


def _describe(admin: AdminClient, group: str, patience_s: float = _TIMEOUT_S) -> Any:
    """What the broker says of a group; None where it knows none. Raises `BrokerAwayError`."""
    end = time.monotonic() + patience_s
    while True:
        try:
            described = admin.describe_consumer_groups([group], request_timeout=patience_s)
            return described[group].result(patience_s)
        except TimeoutError as error:
            reason, cause = "timed out", cast(Exception, error)
        except KafkaException as error:
            code = error.args[0].code()
            if code == KafkaError.GROUP_ID_NOT_FOUND:
                return None
            if code in SETTLING and time.monotonic() < end:
                time.sleep(_SETTLING_S)
                continue
            reason, cause = f"{error.args[0].name()}, {error.args[0].str()}", error
        raise BrokerAwayError(
            f"no broker answers: {reason}. Check the address, and the settings given with -X."
        ) from cause
