"""Everything at this site that must not be read by others: for taking it out of what is sent to whoever helps.

Nothing here is shown. What is kept as a digest only (sessions, tokens of programs) cannot be collected, and need not.
"""

from __future__ import annotations

import contextlib
import netrc
import os
import re
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

from cleanroom_base.masking import Secrets, in_address
from cleanroom_base.settings import SETTINGS, Settings
from cleanroom_master.places import Places

_SECRET_VARIABLE = re.compile(r"PASS(W|$)|PASSWORD|PASSPHRASE|SECRET|TOKEN|CREDENTIAL|API_?KEY|PRIVATE_?KEY", re.I)
_LARGEST = 64 * 1024
# Of an address that is secret as a whole, parts that are words in every log are not.
_PART = 8


def of_site(settings: Settings, addresses: Iterable[str] = ()) -> Secrets:
    """The secrets of a site: of its settings, its files, this process's environment, and within `addresses`."""
    return Secrets(
        {
            *_of_settings(settings),
            *_of_files(settings),
            *_of_notifications(settings),
            *_of_environment(),
            *_of_people(),
            *(secret for address in addresses for secret in in_address(address)),
        }
    )


def _of_settings(settings: Settings) -> Iterator[str]:
    for setting in SETTINGS:
        value = settings.values[setting.key]
        if not isinstance(value, str):
            continue
        if setting.secret:
            yield value
        yield from in_address(value) if "://" in value else ()
        if setting.secret and "=" in value and "://" not in value:
            # A connection in libpq's other form: password=... host=...
            yield from (match.strip("'") for match in re.findall(r"password\s*=\s*('[^']*'|\S+)", value))


def _of_files(settings: Settings) -> Iterator[str]:
    places = [Places(settings).secrets, settings.state / "publisher" / "pin"]
    for key in ("publisher.pin_file", "webhooks.secrets"):
        named = settings.optional(key)
        places += [Path(named)] if named else []
    for place in places:
        for file in sorted(place.iterdir()) if place.is_dir() else [place]:
            yield from _content(file)


def _of_notifications(settings: Settings) -> Iterator[str]:
    """Whatever form the file has: one that is not valid has secrets as well."""
    try:
        tables = tomllib.loads((settings.site / "notifications.toml").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return
    for table in tables.values():
        for key, value in table.items() if isinstance(table, dict) else ():
            if not isinstance(value, str):
                continue
            if key.endswith("_file"):
                for content in _content(Path(value)):
                    yield content
                    yield from _of_chat(content)
            elif "://" in value:
                yield from in_address(value)
                yield from _of_chat(value) if table.get("kind") == "chat" else ()
            elif _SECRET_VARIABLE.search(key):
                yield value


def _of_chat(address: str) -> Iterator[str]:
    """Whoever knows the address of a room may write there: its path is the secret."""
    try:
        path = urlsplit(address).path
    except ValueError:
        return
    yield path.strip("/")
    yield from (part for part in path.split("/") if len(part) >= _PART)


def _of_environment() -> Iterator[str]:
    for name, value in os.environ.items():
        if name.startswith("CLEANROOM_"):
            continue
        if _SECRET_VARIABLE.search(name) and not Path(value).is_absolute():
            yield value
        yield from in_address(value) if "://" in value else ()


def _of_people() -> Iterator[str]:
    """What git and PostgreSQL's programs find by themselves in the home directory. Source: netrc(5), libpq's manual."""
    with contextlib.suppress(OSError, RuntimeError, netrc.NetrcParseError):
        yield from (entry[2] for entry in netrc.netrc().hosts.values() if entry[2])
    with contextlib.suppress(RuntimeError):
        for line in "\n".join(_content(Path.home() / ".pgpass")).splitlines():
            yield line.rpartition(":")[2]
        for line in "\n".join(_content(Path.home() / ".git-credentials")).splitlines():
            yield from in_address(line)


def _content(file: Path) -> Iterator[str]:
    try:
        with file.open("rb") as stream:
            content = stream.read(_LARGEST).decode(errors="replace").strip()
    except OSError:
        return
    if content:
        yield content
