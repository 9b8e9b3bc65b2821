"""A PostgreSQL server for the test session: its own cluster, on a free port of this machine."""

import itertools
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from sqlalchemy import URL, create_engine, text

OWNER, PASSWORD = "owner", "correct-horse"
# Nothing here has to survive a crash of the machine.
OPTIONS = "-c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=off"
OPTIONS += " -c full_page_writes=off -c max_connections=300"


@dataclass
class Server:
    """A running server; ``commands`` is the folder of its programs."""

    commands: Path
    folder: Path
    port: int
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def url(self, database: str, user: str = OWNER, password: str = PASSWORD) -> str:
        url = URL.create("postgresql", user, password, "127.0.0.1", self.port, database)
        return url.render_as_string(hide_password=False)

    def run(self, statement: str, database: str = "postgres") -> None:
        engine = create_engine(self.url(database), isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.execute(text(statement))
        engine.dispose()

    def new_database(self) -> str:
        name = f"test_{next(self._numbers)}"
        self.run(f"CREATE DATABASE {name}")
        return name

    def drop(self, database: str) -> None:
        self.run(f"DROP DATABASE {database} WITH (FORCE)")

    def control(self, *arguments: str) -> None:
        _run(self.commands / "pg_ctl", "-D", self.folder / "data", "-w", *arguments)

    def start(self) -> None:
        log = str(self.folder / "log")
        self.control("start", "-l", log, "-o", f"-p {self.port} {OPTIONS}")

    def stop(self) -> None:
        self.control("stop", "-m", "immediate")


@contextmanager
def serving() -> Iterator[Server]:
    """Create a cluster, serve it, and leave nothing behind."""
    commands = _commands()
    folder = Path(tempfile.mkdtemp(prefix="fulcrum-postgres-"))
    try:
        (folder / "password").write_text(PASSWORD)
        if os.geteuid() == 0:
            for path in (folder, folder / "password"):
                shutil.chown(path, _account())
        _run(
            *(commands / "initdb", "-D", folder / "data", "-U", OWNER, "-E", "UTF8", "--no-sync"),
            *("--locale", "C.UTF-8", "-A", "scram-sha-256", "--pwfile", folder / "password"),
        )
        server = Server(commands, folder, free_port())
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _commands() -> Path:
    """The programs of the newest PostgreSQL that has pgvector."""
    versions = sorted(
        (int(path.name), path)
        for path in Path("/usr/lib/postgresql").glob("*")
        if _has_pgvector(path)
    )
    if not versions:
        pytest.fail(
            "no PostgreSQL with pgvector in /usr/lib/postgresql; "
            "run: apt-get install postgresql-17 postgresql-17-pgvector"
        )
    return versions[-1][1] / "bin"


def _has_pgvector(version: Path) -> bool:
    extensions = Path("/usr/share/postgresql") / version.name / "extension"
    return (version / "bin/initdb").exists() and (extensions / "vector.control").exists()


def _run(*command: str | Path) -> None:
    """Run a program of PostgreSQL, which refuses to run as root."""
    if os.geteuid() == 0:
        ids = pwd.getpwnam(_account())
        drop = ("--reuid", str(ids.pw_uid), "--regid", str(ids.pw_gid), "--clear-groups")
        command = ("setpriv", *drop, *command)
    # Output goes to a file and not to a pipe, which the server would keep open.
    with tempfile.TemporaryFile() as output:
        done = subprocess.run(command, stdout=output, stderr=output, cwd="/", check=False)
        output.seek(0)
        assert done.returncode == 0, output.read().decode()


def _account() -> str:
    names = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"
