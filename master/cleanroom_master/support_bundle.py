"""One file with what somebody needs to know who is to find out what is wrong here, and with nothing secret in it.

Everything passes through `Secrets.masked`; and before the file is there, it is searched for every secret again.
"""

from __future__ import annotations

import io
import json
import os
import platform
import tarfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

from cleanroom_base import run
from cleanroom_base.errors import CleanroomError, InfrastructureError, InputError, causes
from cleanroom_base.masking import Secrets
from cleanroom_base.settings import SETTINGS, Settings
from cleanroom_db import cluster, dependencies, inspection, notifications, services
from cleanroom_db.connection import Database
from cleanroom_db.migrate import migrations
from cleanroom_db.roles import Role
from cleanroom_db.states import NotificationState
from cleanroom_master import known_secrets, service_records

SUFFIX = ".tar.gz"
# Of each log its end, in bytes.
_LOG_SIZE = 512 * 1024
_SIZES_TIMEOUT = 60.0
_VERSION_TIMEOUT = 20.0
_DATABASE_WAIT = 5.0
_LIMIT = 50
_PROGRAMS = (
    ("git", "--version"),
    ("gpg", "--version"),
    ("postgres", "--version"),
    ("libvirtd", "--version"),
    ("qemu-system-x86_64", "--version"),
    ("apt-get", "--version"),
    ("dpkg", "--version"),
    ("rpm", "--version"),
    ("ssh", "-V"),
)
_ABOUT = """\
What is in here, for whoever is to find out what is wrong:

versions.json   of Cleanroom, of what it is made with, and of this machine's programs
settings.json   every setting; of those that are secret only whether they are set
status.json     which services run, and what needs somebody before long
doctor.json     what works on this machine, what does not
database.json   version, schema, rows (estimated) and sizes, what was spoiled lately
queue.json      what is under way, and what waits for what
sizes.json      bytes of each part of the state directory
logs/           the end of each service's log

Passwords, tokens, keys and PINs are not in here: what is known of them, in any form in which programs write it, and
what looks like one, is replaced by "(masked)". Names of products, refs, hosts and people are in here.
"""


Look = Callable[[], Any]


def write(settings: Settings, file: Path, looks: Mapping[str, Look]) -> list[str]:
    """Write the bundle as a .tar.gz that only its owner reads; returns the names of its members.

    `looks` are those of commands, such as `status` and `doctor`, each a member of its own. What cannot be found out is
    said in its place. Raises InputError for a file that is there or is called otherwise, InfrastructureError when it
    cannot be written.
    """
    if not file.name.endswith(SUFFIX):
        raise InputError(f"{file.name} does not end with {SUFFIX}", hint="cleanroom support-bundle support.tar.gz")
    if file.exists():
        raise InputError(f"{file} is there already", hint="choose another name, or remove it")
    with _opened(settings) as database:
        secrets = known_secrets.of_site(settings, _addresses(database))
        members = {name: secrets.masked(text) for name, text in _members(settings, database, secrets, looks)}
    leaked = [name for name, text in members.items() if secrets.among(text)]
    if leaked:
        # Cannot happen; but what it would cost is too much to rely on that.
        raise InfrastructureError(f"there would be a secret in {', '.join(leaked)}: nothing was written")
    _pack(file, members)
    return list(members)


@contextmanager
def _opened(settings: Settings) -> Iterator[Database | None]:
    """The database; None where the private one does not run."""
    if cluster.is_private(settings) and not cluster.status(settings).running:
        yield None
        return
    database = Database(cluster.database_url(settings, Role.OWNER), wait=_DATABASE_WAIT)
    try:
        yield database
    finally:
        database.close()


def _addresses(database: Database | None) -> list[str]:
    try:
        return [] if database is None else inspection.addresses(database)
    except CleanroomError:
        # Then no address comes out of it either, and what logs say of one is known by its form.
        return []


def _members(
    settings: Settings, database: Database | None, secrets: Secrets, looks: Mapping[str, Look]
) -> Iterator[tuple[str, str]]:
    yield "README.txt", _ABOUT
    own: dict[str, Look] = {
        "versions": _versions,
        "settings": lambda: _settings(settings, secrets),
        "database": lambda: _database(database),
        "queue": lambda: _queue(database),
        "sizes": lambda: _sizes(settings),
    }
    for name, look in {**own, **looks}.items():
        yield f"{name}.json", json.dumps(_said(look), indent=1, default=_plain, ensure_ascii=False) + "\n"
    for log in service_records.files(settings):
        text = _said(partial(service_records.latest, log, _LOG_SIZE))
        yield f"logs/{log.name}", text if isinstance(text, str) else json.dumps(text)


def _said(look: Callable[[], Any]) -> Any:
    """What a look finds; what it fails by, where it does: the rest is wanted all the same."""
    try:
        return look()
    except CleanroomError as error:
        return {"cannot be told": causes(error)}
    except OSError as error:
        return {"cannot be told": [str(error)]}


def _versions() -> dict[str, Any]:
    release = Path("/etc/os-release")
    system = os.uname()
    return {
        "at": datetime.now(UTC),
        "cleanroom": metadata.version("cleanroom"),
        "schema": len(migrations()),
        "python": platform.python_version(),
        "kernel": f"{system.sysname} {system.release} {system.machine}",
        "processors": os.cpu_count(),
        "load": os.getloadavg(),
        "system": release.read_text(encoding="utf-8").splitlines() if release.exists() else [],
        "programs": {program: _version(program, option) for program, option in _PROGRAMS},
        "packages": {one.metadata["Name"]: one.version for one in metadata.distributions()},
    }


def _version(program: str, option: str) -> str:
    try:
        done = run.run([program, option], timeout=_VERSION_TIMEOUT, check=False)
    except CleanroomError as error:
        return error.message
    return ((done.stdout or done.stderr).decode(errors="replace").splitlines() or [""])[0]


def _settings(settings: Settings, secrets: Secrets) -> dict[str, Any]:
    def shown(key: str, *, secret: bool) -> Any:
        value = settings.values[key]
        if secret:
            return "(set)" if value else None
        return secrets.masked(value) if isinstance(value, str) else value

    return {
        "state": settings.state,
        "site": settings.site,
        "settings": {setting.key: shown(setting.key, secret=setting.secret) for setting in SETTINGS},
        "differ_from_default": [one.key for one in SETTINGS if settings.values[one.key] != one.default],
    }


def _database(database: Database | None) -> Any:
    if database is None:
        return "does not run"
    failed = notifications.latest(database, state=NotificationState.FAILED, limit=_LIMIT)
    return {
        "server": _fields(inspection.server(database)),
        **inspection.facts(database),
        "services": [_fields(one) for one in services.list_all(database)],
        "hosts": [_fields(one) for one in services.hosts(database)],
        "failed_notifications": [
            {"id": one.id, "endpoint": one.endpoint, "event": one.event, "tries": one.tries, "problem": one.problem}
            for one in failed
        ],
    }


def _queue(database: Database | None) -> Any:
    if database is None:
        return "the database does not run"
    found, graph = dependencies.queue(database)
    return {"queue": [_fields(one) for one in found], "cycles": graph.cycles}


def _sizes(settings: Settings) -> dict[str, int]:
    """Bytes of each part of the state directory; of what vanishes meanwhile, none."""
    command = ["du", "--bytes", "--one-file-system", "--max-depth=1", str(settings.state)]
    done = run.run(command, timeout=_SIZES_TIMEOUT, check=False)
    pairs = (line.partition("\t") for line in done.text.splitlines())
    return {Path(name).name: int(size) for size, _, name in pairs if size.isdigit()}


def _fields(entity: object) -> dict[str, Any]:
    return dict(vars(entity))


def _plain(value: object) -> Any:
    """What JSON does not know."""
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, set | frozenset):
        return sorted(value)
    return str(value)


def _pack(file: Path, members: dict[str, str]) -> None:
    """Make the archive beside its place, and give it its name when it is whole."""
    fresh = file.with_name(f".{file.name}.new")
    try:
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as stream, tarfile.open(fileobj=stream, mode="w:gz") as tar:
            for name, text in members.items():
                content = text.encode(errors="backslashreplace")
                member = tarfile.TarInfo(f"{file.name.removesuffix(SUFFIX)}/{name}")
                member.size, member.mtime, member.mode = len(content), int(time.time()), 0o600
                tar.addfile(member, io.BytesIO(content))
        os.link(fresh, file)
    except OSError as error:
        raise InfrastructureError(f"{file} cannot be written: {error.strerror}") from error
    finally:
        fresh.unlink(missing_ok=True)
