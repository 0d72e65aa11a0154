"""A private PostgreSQL cluster for the tests of the catalog, where the server is installed."""

from __future__ import annotations

import itertools
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from schemas.catalog import Catalog


def _program(name: str) -> Path | None:
    """The newest of Debian's versions, or what is on PATH."""
    debian = Path("/usr/lib/postgresql").glob(f"*/bin/{name}")
    newest = sorted(debian, key=lambda path: float(path.parent.parent.name), reverse=True)
    found = str(newest[0]) if newest else shutil.which(name)
    return Path(found) if found else None


def _unprivileged() -> str | None:
    """A user to run as, because PostgreSQL refuses to run as root; None: as ourselves."""
    if os.geteuid() != 0:
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class _Cluster:
    def __init__(self, folder: Path, initdb: Path, pg_ctl: Path) -> None:
        self.folder, self.pg_ctl = folder, pg_ctl
        self.user, self.port, self.numbers = _unprivileged(), _free_port(), itertools.count()
        if self.user:
            shutil.chown(folder, self.user)
        self.run(initdb, "-U", "rehearse", "-A", "trust", "--no-sync", "-E", "UTF8", "--locale=C")
        settings = ("listen_addresses=127.0.0.1", "unix_socket_directories=''", "fsync=off")
        options = f"-p {self.port} " + " ".join(f"-c {setting}" for setting in settings)
        log = folder / "server.log"
        try:
            self.run(pg_ctl, "-w", "-l", str(log), "-o", options, "start")
        except RuntimeError as error:
            raise RuntimeError(f"{error}\n{log.read_text() if log.exists() else ''}") from error

    def run(self, program: Path, *args: str) -> None:
        command = [str(program), "-D", str(self.folder / "data"), *args]
        if self.user:
            command = ["runuser", "-u", self.user, "--", *command]
        # The server inherits what it is given: with a pipe, reading would wait for its end.
        with tempfile.TemporaryFile() as output:
            done = subprocess.run(
                command, cwd=self.folder, stdout=output, stderr=subprocess.STDOUT, check=False
            )
            output.seek(0)
            if done.returncode:
                raise RuntimeError(f"{' '.join(command)}: {output.read().decode()}")

    def stop(self) -> None:
        self.run(self.pg_ctl, "-m", "immediate", "-w", "stop")

    def new_database(self) -> str:
        """The URL of a database of its own."""
        name = f"test_{next(self.numbers)}"
        engine = create_engine(self.url("postgres"), isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.execute(text(f"CREATE DATABASE {name}"))
        engine.dispose()
        return self.url(name)

    def url(self, database: str) -> str:
        return f"postgresql+psycopg://rehearse@127.0.0.1:{self.port}/{database}"


@pytest.fixture(scope="session")
def postgres() -> Iterator[_Cluster]:
    initdb, pg_ctl = _program("initdb"), _program("pg_ctl")
    if initdb is None or pg_ctl is None:
        pytest.skip("no PostgreSQL server here (Debian: apt install postgresql)")
    if os.geteuid() == 0 and shutil.which("runuser") is None:
        pytest.skip("PostgreSQL does not run as root, and there is no runuser to become another")
    pytest.importorskip("psycopg", reason="no PostgreSQL driver (pip install 'psycopg[binary]')")
    # Not below pytest's own folder, which other users may not enter.
    folder = Path(tempfile.mkdtemp(prefix="rehearse-postgres-"))
    try:
        cluster = _Cluster(folder, initdb, pg_ctl)
        try:
            yield cluster
        finally:
            cluster.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def catalog_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database, once of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'new folder' / 'catalog.sqlite'}"
    cluster: _Cluster = request.getfixturevalue("postgres")
    return cluster.new_database()


@pytest.fixture
def catalog(catalog_url: str) -> Iterator[Catalog]:
    catalog = Catalog(catalog_url)
    catalog.create()
    yield catalog
    catalog.close()
