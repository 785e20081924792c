"""Databases of the tests: a SQLite file, and a PostgreSQL cluster of their own in a folder that
goes with it. Nothing that the machine runs by itself is touched.
"""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import psycopg
import pytest

from cds_service.config import migrations_dir
from cds_service.store import Store
from tests.loopback import wait_until

KINDS = ("sqlite", "postgresql")
PORT = 5432  # only the name of a socket: the cluster listens to no network


@dataclass
class Cluster:
    """A PostgreSQL cluster that runs as a child of this process."""

    binaries: Path
    folder: Path
    started_as: dict[str, Any]
    process: "subprocess.Popen[bytes] | None" = None
    _names: Iterator[int] = field(default_factory=count)

    def start(self) -> None:
        """Returns once it takes connections."""
        socket = ("-k", str(self.folder), "-p", str(PORT), "-c", "listen_addresses=")
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [self.binaries / "postgres", "-D", self.folder / "data", *socket],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                **self.started_as,
            )
        wait_until(self._answers, f"no cluster: {self.folder / 'log'}")

    def _answers(self) -> bool:
        with suppress(psycopg.OperationalError):
            psycopg.connect(self.address("postgres"), connect_timeout=2).close()
            return True
        return False

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """SIGINT ends it in order, SIGQUIT at once, as a crash would."""
        assert self.process is not None
        self.process.send_signal(how)
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def address(self, name: str) -> str:
        """Where a database is, for clients of PostgreSQL."""
        return f"postgresql://cds@/{name}?host={self.folder}&port={PORT}"

    def new_database(self) -> str:
        """The URL of an empty database."""
        name = f"test{next(self._names)}"
        with psycopg.connect(self.address("postgres"), autocommit=True) as connection:
            connection.execute(f"create database {name}".encode())
        return self.address(name)


@contextmanager
def cluster() -> Iterator[Cluster]:
    """A cluster until the end of the block; skips where PostgreSQL is not installed."""
    binaries = _binaries()
    if binaries is None:
        pytest.skip("PostgreSQL is not installed (Debian: postgresql)")
    folder = Path(tempfile.mkdtemp(prefix="cds-tests-"))
    found = Cluster(binaries, folder, _started_as(folder))
    try:
        subprocess.run(
            [
                *(binaries / "initdb", "-D", folder / "data", "-U", "cds", "-A", "trust"),
                *("-E", "UTF8", "--locale=C", "--no-sync"),
            ],
            check=True,
            capture_output=True,
            timeout=120,
            cwd=folder,
            **found.started_as,
        )
        found.start()
        yield found
    finally:
        if found.process is not None:
            found.stop(signal.SIGQUIT)
        shutil.rmtree(folder)


def _binaries() -> Path | None:
    """Where initdb and postgres are; Debian keeps them out of the PATH."""
    named = shutil.which("initdb")
    if named is not None:
        return Path(named).resolve().parent
    there = Path("/usr/lib/postgresql").glob("*/bin/initdb")
    newest = sorted(there, key=lambda x: float(x.parts[-3]))
    return newest[-1].parent if newest else None


def _started_as(folder: Path) -> dict[str, Any]:
    """As whom to start it: PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return {}
    names = {x.pw_name: x for x in pwd.getpwall()}
    user = names.get("postgres") or names["nobody"]
    os.chown(folder, user.pw_uid, user.pw_gid)
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


@dataclass(frozen=True)
class Databases:
    """Gives databases of one kind; `cluster` is the one they are in, None for SQLite."""

    kind: str
    folder: Path
    cluster: Cluster | None = None
    _names: Iterator[int] = field(default_factory=count)

    def empty(self) -> str:
        """The URL of a database without tables."""
        if self.cluster is not None:
            return self.cluster.new_database()
        return f"sqlite:///{self.folder}/store{next(self._names)}.sqlite"

    def migrated(self) -> str:
        """The URL of a database with our tables."""
        url = self.empty()
        with opened(url) as store:
            store.migrate(migrations_dir())
        return url


@contextmanager
def opened(url: str) -> Iterator[Store]:
    """A store until the end of the block."""
    store = Store(url)
    try:
        yield store
    finally:
        store.close()
