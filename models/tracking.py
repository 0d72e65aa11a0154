"""MLflow, where it is asked for: what a run was made of, how it went, and what came out of it."""

from __future__ import annotations

import json
import logging
import math
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from infra.storage import StorageError

if TYPE_CHECKING:
    from models.train import Progress

EXTRA: Final = "MLflow is not installed: pip install 'rehearse[mlflow]', or leave --mlflow out"
EVERY: Final = 10  # updates between two that are logged
_BATCH: Final = 900  # MLflow takes 1,000 metrics at a time, and 100 parameters or tags
_LONGEST: Final = 5_000  # characters of a value
_ODD: Final = re.compile(r"[^\w\-. /:]")  # what MLflow allows in no name
_NOTE: Final = "mlflow.json"


class TrackingError(ValueError):
    """MLflow cannot be reached or used; the message names its URI, and the remedy."""


class Tracked:
    """A run of MLflow. Make it with `tracked`."""

    def __init__(self, client: Any, run_id: str) -> None:
        self._client, self._run_id = client, run_id
        self._waiting: list[Any] = []
        self._rounds = 0

    def params(self, content: Mapping[str, Any]) -> None:
        """A nested mapping as parameters, by dotted names."""
        from mlflow.entities import Param

        found = [Param(k, _text(v)) for k, v in _flat(content, ".").items() if v is not None]
        for begin in range(0, len(found), 100):
            self._client.log_batch(self._run_id, params=found[begin : begin + 100])

    def tags(self, content: Mapping[str, Any]) -> None:
        """A mapping as tags."""
        from mlflow.entities import RunTag

        found = [RunTag(_name(k), _text(v)) for k, v in content.items() if v not in ("", None)]
        self._client.log_batch(self._run_id, tags=found)

    def metrics(self, content: Mapping[str, Any], step: int = 0) -> None:
        """All numbers of a nested mapping, by names with slashes; they may wait for others."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        for name, value in _flat(content, "/").items():
            if isinstance(value, int | float) and math.isfinite(value):
                self._waiting.append(Metric(name, float(value), now, step))
        if len(self._waiting) >= _BATCH:
            self.flush()

    def flush(self) -> None:
        """Sends what waits."""
        while self._waiting:
            self._client.log_batch(self._run_id, metrics=self._waiting[:_BATCH])
            del self._waiting[:_BATCH]

    def progress(self, progress: Progress, total: int) -> None:
        """The losses of every tenth update, and of the last one."""
        if progress.step % EVERY == 0 or progress.step == total:
            last = {name: curve[-1] for name, curve in progress.curves.items() if curve}
            # Actor and critic, or the model, may have stopped learning before.
            fresh = {n: v for n, (step, v) in last.items() if step >= progress.step - 1}
            self.metrics({"loss": fresh}, progress.step)

    def returns(self, course: Sequence[tuple[int, float]]) -> None:
        """The mean returns of rounds by their steps, those that were not logged before."""
        for step, value in course[self._rounds :]:
            self.metrics({"return": value}, step)
        self._rounds = max(self._rounds, len(course))

    def bundle(self, manifest: Mapping[str, Any], folder: Path) -> None:
        """The metrics of a bundle, where it is from as tags, and its files as artifacts."""
        lineage = manifest["lineage"]
        told = ("command", "code", "seed", "fingerprint", "processes", "plant", "parent")
        tags = {name: lineage[name] for name in told if name in lineage}
        tags |= {"spec_hash": lineage["spec"]["spec_hash"], "datasets": lineage.get("datasets")}
        named = ("digest", "system", "interface_hash", "objective_hash", "actor_trusted")
        self.tags(tags | {name: manifest[name] for name in named})
        self.metrics(manifest["metrics"])
        self._client.log_artifacts(self._run_id, str(folder), "bundle")

    def end(self, status: str) -> None:
        """Sends what waits, and says how it ended: `FINISHED`, `FAILED` or `KILLED`."""
        self.flush()
        self._client.set_terminated(self._run_id, status)


@contextmanager
def tracked(
    uri: str | None, experiment: str, name: str, work: Path | None = None, resume: bool = False
) -> Iterator[Tracked | None]:
    """A run of `experiment` at an MLflow URI, which ends as what is done within it ends.

    Args:
        uri: None: nothing is logged.
        work: a folder that keeps which run it is, so that what is resumed goes on with it.

    Raises:
        TrackingError: MLflow is not there, or cannot be used.
    """
    if uri is None:
        yield None
        return
    run = _begun(uri, experiment, name, work, resume)
    try:
        yield run
    except BaseException as error:
        stopped = isinstance(error, KeyboardInterrupt) or type(error).__name__ == "TrainingStopped"
        with _told(uri):
            run.end("KILLED" if stopped else "FAILED")
        raise
    with _told(uri):
        run.end("FINISHED")


def _begun(uri: str, experiment: str, name: str, work: Path | None, resume: bool) -> Tracked:
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    logging.getLogger("alembic").setLevel(logging.WARNING)
    try:
        from mlflow.tracking import MlflowClient
    except ImportError as error:
        raise TrackingError(f"{uri}: {EXTRA}") from error
    note = None if work is None else work / _NOTE
    with _told(uri):
        client = MlflowClient(tracking_uri=uri)
        if note is not None and resume and note.is_file():
            kept = json.loads(note.read_text(encoding="utf-8"))
            if kept["uri"] == uri:
                client.update_run(kept["run_id"], status="RUNNING")
                return Tracked(client, kept["run_id"])
        known = client.get_experiment_by_name(experiment)
        made = known.experiment_id if known else _new_experiment(client, uri, experiment)
        run_id = client.create_run(made, run_name=name).info.run_id
    if note is not None:
        note.parent.mkdir(parents=True, exist_ok=True)
        note.write_text(json.dumps({"uri": uri, "run_id": run_id}), encoding="utf-8")
    return Tracked(client, run_id)


def _new_experiment(client: Any, uri: str, name: str) -> str:
    """For a local database artifacts lie beside it, not wherever the command was started."""
    path = uri.removeprefix("sqlite:///") if uri.startswith("sqlite:///") else None
    where = None if path is None else str(Path(path).resolve().parent / "mlartifacts" / name)
    made: str = client.create_experiment(name, artifact_location=where)
    return made


@contextmanager
def _told(uri: str) -> Iterator[None]:
    try:
        yield
    except (TrackingError, StorageError):
        raise
    except Exception as error:  # of MLflow, of its database, of requests
        line = (str(error).splitlines() or [""])[0]
        raise TrackingError(
            f"{uri}: MLflow: {line}; check the URI, such as http://host:5000 or sqlite:///runs.db"
        ) from error


def _name(name: str) -> str:
    return _ODD.sub("_", name)


def _text(value: Any) -> str:
    return (value if isinstance(value, str) else json.dumps(value, default=str))[:_LONGEST]


def _flat(content: Mapping[str, Any], between: str, before: str = "") -> dict[str, Any]:
    """Leaves of a nested mapping by their names joined."""
    found: dict[str, Any] = {}
    for key, value in content.items():
        name = f"{before}{_name(str(key))}"
        if isinstance(value, Mapping):
            found |= _flat(value, between, f"{name}{between}")
        else:
            found[name] = value
    return found
