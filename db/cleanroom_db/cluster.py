"""Which database: the site's own server, or a private cluster under the state directory.

The private cluster is made and run from the system's PostgreSQL programs, by an unprivileged user (PostgreSQL
refuses to run as root), on a socket only, with one generated password a role.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pwd
import re
import secrets
import shutil
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit, urlunsplit

from cleanroom_base.errors import InfrastructureError, InputError, TimedOut
from cleanroom_base.run import run
from cleanroom_base.settings import Settings
from cleanroom_db import roles
from cleanroom_db.connection import Database, execute_alone
from cleanroom_db.roles import Role

DATABASE = "cleanroom"
_PORT = 5432
_SOCKET_PATH_LIMIT = 107  # unix(7)
_UNPRIVILEGED = ("postgres", "nobody")
_PROGRAM_SECONDS = 120.0
_RECOVERY_SECONDS = 600.0
# What a killed server left is asked to end, and after so many seconds killed.
_ORPHANS_END = 5.0
_PAUSE = 0.1


@dataclass(frozen=True, slots=True)
class Status:
    """Whether the private cluster runs, and as which process."""

    process_id: int | None

    @property
    def running(self) -> bool:
        """It runs."""
        return self.process_id is not None


def is_private(settings: Settings) -> bool:
    """Whether the database is a cluster of our own."""
    return settings.optional("database.url") is None


def open_database(settings: Settings, role: str) -> Database:
    """The site's database, as one of the roles."""
    return Database(database_url(settings, role), wait=settings.number("database.wait"))


def database_url(settings: Settings, role: str) -> str:
    """The URL by which a role connects.

    On the site's own server a role has a URL of its own in the settings, or the owner's URL with a password of its own
    from `database.passwords`, or that URL with SET ROLE. Raises InputError for a URL that is none, and for a password
    that cannot be read.
    """
    who = Role(role)
    if who is Role.READER:
        # Nobody logs in as it.
        return _with_option(database_url(settings, Role.WEB), f"-c role={who.account}")
    if is_private(settings):
        return _private_url(settings, who)
    own = settings.values.get(f"database.{who}_url")
    url = _checked(str(own or settings.text("database.url")))
    if own is not None:
        return url
    if settings.optional("database.passwords") is not None:
        return _with_account(url, who, given_password(settings, who))
    return url if who is Role.OWNER else _with_option(url, f"-c role={who.account}")


def given_password(settings: Settings, role: Role) -> str:
    """The password that the site gives a role on its own server. Raises InputError when it cannot be read."""
    file = Path(settings.text("database.passwords")) / f"database-{role}"
    try:
        password = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"the password of {role.account} cannot be read: {error}", hint="see the setting database.passwords"
        ) from error
    if not password:
        raise InputError(f"the password of {role.account} is empty: {file}")
    return password


def let_in(settings: Settings, database: Database) -> list[str]:
    """Let the processes' roles log in with the passwords that the site gives them, where it does so; returns the roles.

    Raises InputError when one of them cannot be read, and then changes none.
    """
    if is_private(settings) or settings.optional("database.passwords") is None:
        return []
    passwords = {role: given_password(settings, role) for role in roles.PROCESSES}
    with database.transaction() as cursor:
        for role, password in passwords.items():
            roles.allow_login(cursor, role, password)
    return [role.account for role in passwords]


def ensure(settings: Settings) -> None:
    """Make the private cluster if there is none, run it if it does not run, and see to its roles.

    Does nothing where the site has its own server. Raises InfrastructureError.
    """
    if not is_private(settings):
        return
    place = _Place.of(settings)
    with place.locked():
        programs = _programs(place.data)
        if not place.data.exists():
            _create(place, programs)
        if not status(settings).running:
            _run(place, programs)
    _set_up(settings)


def stop(settings: Settings) -> None:
    """End the private cluster, if it runs; connections are cut, nothing that was committed is lost."""
    if not is_private(settings) or not status(settings).running:
        return
    place = _Place.of(settings)
    with place.locked():
        if status(settings).running:
            place.run(_programs(place.data) / "pg_ctl", "stop", "-D", place.data, "-m", "fast", "-w", "-t", "60")


def status(settings: Settings) -> Status:
    """Whether the private cluster runs."""
    data = settings.state / "postgresql" / "data"
    try:
        process_id = int((data / "postmaster.pid").read_text().split("\n", 1)[0])
        # The server works in its data directory: this tells it from a later process of the same number.
        works_in = Path(f"/proc/{process_id}/cwd").readlink()
    except (OSError, ValueError):
        return Status(None)
    return Status(process_id if works_in == data.resolve() else None)


def dump(settings: Settings, file: Path, *, snapshot: str, timeout: float) -> None:
    """Write the whole database as it is in a snapshot, in PostgreSQL's custom format. Raises InfrastructureError."""
    url, environment = _for_programs(database_url(settings, Role.OWNER))
    command: list[str | Path] = [
        _program(settings, "pg_dump"),
        "--format=custom",
        "--no-password",
        f"--snapshot={snapshot}",
    ]
    run([*command, f"--file={file}", f"--dbname={url}"], timeout=timeout, environment=environment, umask=0o077)


def restore(settings: Settings, file: Path, *, timeout: float) -> None:
    """Put a dump in the place of all that the database has, in one transaction. Raises InfrastructureError."""
    url, environment = _for_programs(database_url(settings, Role.OWNER))
    owner = open_database(settings, Role.OWNER)
    try:
        with owner.transaction() as cursor:
            # Rights name these; they are given anew by the migration that follows.
            roles.create(cursor)
            cursor.execute("DROP SCHEMA IF EXISTS cleanroom CASCADE; DROP SCHEMA IF EXISTS buildbot CASCADE")
    finally:
        owner.close()
    command: list[str | Path] = [
        _program(settings, "pg_restore"),
        "--single-transaction",
        "--exit-on-error",
        "--no-privileges",
    ]
    run([*command, "--no-password", f"--dbname={url}", file], timeout=timeout, environment=environment)


def _program(settings: Settings, name: str) -> Path:
    """One of PostgreSQL's programs: of the private cluster's own version, else as the system has it."""
    found = None if is_private(settings) else shutil.which(name)
    return Path(found) if found else _programs(settings.state / "postgresql/data") / name


def _for_programs(url: str) -> tuple[str, dict[str, str]]:
    """A URL that may stand on a command line, and the environment with its password."""
    parts = urlsplit(url)
    user, separator, host = parts.netloc.rpartition("@")
    name, _, password = user.partition(":")
    query = dict(parse_qsl(parts.query))
    given = query.pop("password", None) or unquote(password)
    plain = parts._replace(netloc=f"{name}{separator}{host}", query=urlencode(query, quote_via=quote, safe=""))
    return urlunsplit(plain), {"PGPASSWORD": given} if given else {}


def secret(settings: Settings, role: Role) -> str:
    """The generated password of a role, made when first asked for."""
    file = settings.state / "secrets" / f"database-{role}"
    with contextlib.suppress(FileNotFoundError):
        return file.read_text().strip()
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fresh = file.with_suffix(f".{os.getpid()}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as stream:
        stream.write(secrets.token_urlsafe(24))
    # Of two processes that come here at once, one wins, and both use its password.
    with contextlib.suppress(FileExistsError):
        os.link(fresh, file)
    fresh.unlink()
    return file.read_text().strip()


@dataclass(frozen=True)
class _Place:
    """Where the private cluster is, and as whom it runs (None: as ourselves)."""

    home: Path
    sockets: Path
    user: str | None
    owner_password: str

    @classmethod
    def of(cls, settings: Settings) -> _Place:
        sockets = _socket_directory(settings)
        if len(str(sockets / f".s.PGSQL.{_PORT}")) > _SOCKET_PATH_LIMIT:
            raise InfrastructureError(f"the path of the database's socket is too long: {sockets}")
        return cls(settings.state / "postgresql", sockets, _unprivileged_user(), secret(settings, Role.OWNER))

    @property
    def data(self) -> Path:
        return self.home / "data"

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep another process from starting or stopping the cluster at the same time."""
        self.home.mkdir(mode=0o755, parents=True, exist_ok=True)
        self.own(self.home)
        self._require_reachable()
        with (self.home / "lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def run(self, *command: str | Path) -> None:
        run(command, timeout=_PROGRAM_SECONDS, cwd=Path("/"), user=self.user, group=self._group())

    def own(self, path: Path) -> None:
        """Give a file to the cluster's user."""
        if self.user is not None:
            entry = pwd.getpwnam(self.user)
            os.chown(path, entry.pw_uid, entry.pw_gid)

    def _group(self) -> int | None:
        return None if self.user is None else pwd.getpwnam(self.user).pw_gid

    def _require_reachable(self) -> None:
        if self.user is None:
            return
        for directory in reversed([self.home, *self.home.parents]):
            reached = run(["test", "-x", directory], timeout=10, check=False, user=self.user, group=self._group())
            if reached.exit_status != 0:
                raise InfrastructureError(
                    f"the user {self.user}, as whom PostgreSQL runs, cannot enter {directory}",
                    hint=f"set CLEANROOM_STATE to another place, or: chmod o+x {directory}",
                )


def _socket_directory(settings: Settings) -> Path:
    return settings.runtime / "postgresql"


def _unprivileged_user() -> str | None:
    if os.geteuid() != 0:
        return None
    for name in _UNPRIVILEGED:
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name).pw_name
    raise InfrastructureError(f"none of the users {', '.join(_UNPRIVILEGED)} exists to run PostgreSQL")


def _programs(data: Path) -> Path:
    """The directory of PostgreSQL's programs, of the version that made the cluster if there is one."""
    installed = sorted(
        Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: _number(path.parent.name), reverse=True
    )
    for program in ("postgres", "initdb", "pg_config"):
        if found := shutil.which(program):
            installed.append(Path(found).resolve().parent)
    candidates = [directory for directory in installed if (directory / "initdb").exists()]
    with contextlib.suppress(FileNotFoundError):
        made_by = (data / "PG_VERSION").read_text().strip()
        candidates = [directory for directory in candidates if _version(directory) == made_by]
        if not candidates:
            raise InfrastructureError(
                f"the database under {data} was made by PostgreSQL {made_by}, which is not installed",
                hint=f"apt-get install postgresql-{made_by}",
            )
    if not candidates:
        raise InfrastructureError("PostgreSQL is not installed", hint="apt-get install postgresql")
    return candidates[0]


def _number(text: str) -> int:
    return int(text) if text.isdigit() else 0


def _version(directory: Path) -> str | None:
    """The major version of the programs in a directory."""
    printed = run([directory / "postgres", "--version"], timeout=30, check=False).text
    match = re.search(r"\) (\d+)", printed)
    return match[1] if match else None


def _create(place: _Place, programs: Path) -> None:
    """Make the cluster beside its place and move it there whole, so that half a cluster is never found."""
    fresh = place.home / "data.new"
    shutil.rmtree(fresh, ignore_errors=True)
    password = place.home / "password"
    password.touch(mode=0o600)
    try:
        password.write_text(place.owner_password)
        place.own(password)
        place.run(
            programs / "initdb",
            f"--pgdata={fresh}",
            f"--username={Role.OWNER.account}",
            f"--pwfile={password}",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            "--locale=C",
            "--data-checksums",
        )
    finally:
        password.unlink()
    with (fresh / "postgresql.conf").open("a") as file:
        file.write("\ninclude_if_exists = 'cleanroom.conf'\n")
    fresh.rename(place.data)


def _run(place: _Place, programs: Path) -> None:
    _end_orphans(place.data)
    place.sockets.mkdir(mode=0o755, parents=True, exist_ok=True)
    place.own(place.sockets)
    # What a killed server left; that it does not run was seen before.
    for stale in (place.data / "postmaster.pid", *place.sockets.glob(".s.PGSQL.*")):
        stale.unlink(missing_ok=True)
    configuration = place.data / "cleanroom.conf"
    configuration.write_text(_configuration(place.sockets))
    place.own(configuration)
    log = place.home / "log"
    try:
        place.run(programs / "pg_ctl", "start", "-D", place.data, "-l", log, "-w", "-t", "60")
    except InfrastructureError as error:
        end = log.read_text(errors="replace")[-2000:] if log.exists() else "it wrote no log"
        raise InfrastructureError(f"PostgreSQL did not start: {end.strip()}") from error


def _end_orphans(data: Path) -> None:
    """End what a killed server's first process left at work on the cluster's files.

    They look for their first process where they wait, and one that computes does not wait; as long as it works, a new
    server refuses to start. Raises InfrastructureError.
    """
    deadline = time.monotonic() + _ORPHANS_END
    how = signal.SIGQUIT
    while orphans := _workers_on(data):
        if time.monotonic() > deadline and how is signal.SIGKILL:
            raise InfrastructureError(f"processes of a killed PostgreSQL do not end: {orphans}")
        if time.monotonic() > deadline:
            # As PostgreSQL itself does with them in the end.
            how, deadline = signal.SIGKILL, time.monotonic() + _ORPHANS_END
        for process in orphans:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, how)
        time.sleep(_PAUSE)


def _workers_on(data: Path) -> list[int]:
    """The server's processes that work in a data directory."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        # A process that ends meanwhile is none, and so is one that we may not look at: ours are our user's.
        with contextlib.suppress(OSError):
            named = (entry / "comm").read_text().strip()
            if named == "postgres" and (entry / "cwd").readlink() == data.resolve():
                found.append(int(entry.name))
    return found


def _configuration(sockets: Path) -> str:
    quoted = str(sockets).replace("'", "''")
    return (
        "# Written at every start.\n"
        "listen_addresses = ''\n"
        f"unix_socket_directories = '{quoted}'\n"
        f"port = {_PORT}\n"
        "max_connections = 100\n"
        "log_line_prefix = '%m [%p] %u '\n"
    )


def _set_up(settings: Settings) -> None:
    """See that the database and the login roles exist."""
    administration = _private_url(settings, Role.OWNER, database="postgres")
    server = Database(administration, wait=settings.number("database.wait"))
    try:
        _wait_for_recovery(server)
        with server.transaction() as cursor:
            roles.create(cursor)
            for role in roles.PROCESSES:
                roles.allow_login(cursor, role, secret(settings, role))
            known = cursor.value("SELECT 1 FROM pg_database WHERE datname = %(name)s", name=DATABASE)
    finally:
        server.close()
    if known is None:
        execute_alone(administration, f"CREATE DATABASE {DATABASE}")


def _wait_for_recovery(server: Database) -> None:
    """Wait for a cluster that replays a log until a point in time, see db/README.md. Raises TimedOut."""
    deadline = time.monotonic() + _RECOVERY_SECONDS
    while True:
        with server.transaction() as cursor:
            if not cursor.value("SELECT pg_is_in_recovery()"):
                return
        if time.monotonic() > deadline:
            raise TimedOut(
                f"the database has been recovering for {_RECOVERY_SECONDS:.0f} s",
                hint="it goes on; without recovery_target_action = 'promote' it waits at its target",
            )
        time.sleep(_PAUSE)


def _private_url(settings: Settings, role: Role, *, database: str = DATABASE) -> str:
    host = quote(str(_socket_directory(settings)), safe="")
    password = quote(secret(settings, role), safe="")
    return f"postgresql://{role.account}:{password}@/{database}?host={host}"


def _checked(url: str) -> str:
    scheme, separator, rest = url.partition("://")
    if not separator or scheme not in ("postgresql", "postgres"):
        raise InputError("the database's URL is not one: it begins with postgresql://")
    return f"postgresql://{rest}"


def _with_account(url: str, role: Role, password: str) -> str:
    """The URL for a role's own account; the owner is whom the URL names."""
    parts = urlsplit(url)
    account = (parts.username or role.account) if role is Role.OWNER else role.account
    place = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{quote(unquote(account), safe='')}:{quote(password, safe='')}@{place}"))


def _with_option(url: str, option: str) -> str:
    """The URL with one more option for the server's session."""
    parts = urlsplit(url)
    query = dict(parse_qsl(parts.query))
    query["options"] = f"{query.get('options', '')} {option}".strip()
    return urlunsplit(parts._replace(query=urlencode(query, quote_via=quote, safe="")))
