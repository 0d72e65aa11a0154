"""Who a worker is to the broker: its id, and which folder it keeps; no two share an id."""

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable, Container, Mapping
from pathlib import Path
from typing import Any, Final, cast

import structlog
from confluent_kafka import ConsumerGroupState, KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from infra.kafka import KafkaSetupError, client_config

_TIMEOUT_S: Final = 10.0
_POLL_S: Final = 0.5
_SETTLING_S: Final = 0.1
SESSION_S: Final = 8.0
FORGOTTEN_S: Final = SESSION_S + 4  # a little more: what was killed is no member any more
# A broker that has just started says so for a moment, without a text.
_SETTLING: Final = (
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.NOT_COORDINATOR,
)
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
    """Another worker has this one's place in the group; the message says what helps."""


class Rivals:
    """Tells, of a static member that is fenced, whether another living one has its place.

    By the broker's name of the member, which is drawn anew at each joining: what else it says of a
    member whose place was taken (client id, host) stays that of the first one.
    """

    def __init__(
        self, bootstrap: str, extra: Mapping[str, str], *, group: str, instance: str
    ) -> None:
        self._admin = _admin(bootstrap, extra)
        self._group, self._instance = group, instance
        session_s = float(extra.get("session.timeout.ms", 1e3 * SESSION_S)) / 1e3
        self._patience_s = session_s + FORGOTTEN_S - SESSION_S

    async def none(
        self, own: Callable[[], Awaitable[Container[str]]], ended: Callable[[], bool]
    ) -> None:
        """Returns when nobody but `own` names has the place, or when `ended` says so.

        Raises `Displaced` when in a group at rest somebody keeps it for longer than the dead can:
        an own joining whose answer was lost leaves a member behind as well.
        """
        keeps, since = "", time.monotonic()
        while not ended():
            try:
                found = await asyncio.to_thread(self._look)
            except KafkaSetupError:
                found = "", False  # and who had the place may be gone when a broker answers
            if found is None or found[0] in await own():
                return
            holder, at_rest = found
            if not at_rest or holder != keeps:
                keeps, since = holder, time.monotonic()
            elif time.monotonic() - since > self._patience_s:
                worker = self._instance.removeprefix(f"{self._group}-")
                raise Displaced(
                    f"another worker runs under the id {worker} and has its partitions: stop it, "
                    "or give this worker an id of its own with --id"
                )
            await asyncio.sleep(_POLL_S)

    def _look(self) -> tuple[str, bool] | None:
        described = _describe(self._admin, self._group)
        for member in described.members if described else ():
            if member.group_instance_id == self._instance:
                return member.member_id, described.state == ConsumerGroupState.STABLE
        return None


def _admin(bootstrap: str, extra: Mapping[str, str]) -> AdminClient:
    return AdminClient({"log_level": "0", **client_config(bootstrap, extra)})


def _holder(admin: AdminClient, group: str, instance: str, own: str) -> str | None:
    described = _describe(admin, group)
    for member in described.members if described else ():
        if member.group_instance_id == instance and member.client_id != own:
            return f"{member.client_id}, {member.host.lstrip('/')}"
    return None


def _describe(admin: AdminClient, group: str) -> Any:
    """What the broker says of a group; None where it knows none. Raises `KafkaSetupError`."""
    end = time.monotonic() + _TIMEOUT_S
    while True:
        try:
            described = admin.describe_consumer_groups([group], request_timeout=_TIMEOUT_S)
            return described[group].result(_TIMEOUT_S)
        except TimeoutError as error:
            reason, cause = "timed out", cast(Exception, error)
        except KafkaException as error:
            code = error.args[0].code()
            if code == KafkaError.GROUP_ID_NOT_FOUND:
                return None
            if code in _SETTLING and time.monotonic() < end:
                time.sleep(_SETTLING_S)
                continue
            reason, cause = f"{error.args[0].name()}, {error.args[0].str()}", error
        raise KafkaSetupError(
            f"no broker answers: {reason}. Check the address, and the settings given with -X."
        ) from cause
