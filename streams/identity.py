"""Who a worker is to the broker: its id, and which folder it keeps; no two share an id."""

import asyncio
import time
import uuid
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import structlog
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from infra.kafka import KafkaSetupError, client_config

_TIMEOUT_S: Final = 10.0
_POLL_S: Final = 0.5
SESSION_S: Final = 8.0
FORGOTTEN_S: Final = SESSION_S + 4  # a little more: what was killed is no member any more
MANY_TIMES, OFTEN_S = 6, 60.0  # an outage costs a place once, and takes longer than a session
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
    admin = _admin(bootstrap, extra)
    end, said = time.monotonic() + patience_s, False
    while (place := _holder(admin, group, instance_id(group, worker), own)) is not None:
        if time.monotonic() > end:
            return place
        if not said:
            said = True
            _log.info("waiting for the end of another worker of this id", worker=worker)
        time.sleep(_POLL_S)
    return None


class Displaced(RuntimeError):
    """Another worker has this one's place in the group; the message says which, and what helps."""


class Rivals:
    """Tells, of a member that the broker calls replaced, by whom: by itself, or by another."""

    def __init__(
        self, bootstrap: str, extra: Mapping[str, str], *, group: str, instance: str, own: str
    ) -> None:
        self._admin = _admin(bootstrap, extra)
        self._who = group, instance, own
        self._times: deque[float] = deque(maxlen=MANY_TIMES)

    async def none(self, ended: Callable[[], bool]) -> None:
        """Returns when no other live worker has the id, or `ended` says so.

        One that was killed is waited for until it is forgotten, and a broker until it answers.
        Raises `Displaced` where there is another, or where it happens again and again.
        """
        group, instance, own = self._who
        begun = time.monotonic()
        self._times.append(begun)
        if len(self._times) == MANY_TIMES and begun - self._times[0] < OFTEN_S:
            raise Displaced(
                f"{instance} was replaced {MANY_TIMES} times within {OFTEN_S:g} s: does another "
                "worker use a copy of this data folder? Stop one, and give it a folder of its own"
            )
        while not ended():
            try:
                place = await asyncio.to_thread(_holder, self._admin, group, instance, own)
            except KafkaSetupError:
                begun, place = time.monotonic(), ""  # whoever it was may be gone with the broker
            if place is None:
                return
            if time.monotonic() - begun > FORGOTTEN_S:
                raise Displaced(taken(instance.removeprefix(f"{group}-"), place))
            await asyncio.sleep(_POLL_S)


def taken(worker: str, place: str) -> str:
    """What is said where an id is taken, and what helps."""
    return (
        f"{worker} is already running with another data folder ({place}): stop it, or give "
        "this worker an id of its own with --id"
    )


def _admin(bootstrap: str, extra: Mapping[str, str]) -> AdminClient:
    return AdminClient({"log_level": "0", **client_config(bootstrap, extra)})


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
