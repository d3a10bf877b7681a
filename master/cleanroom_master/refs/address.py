"""A repository's URL: which transport it uses, and whether the site allows it.

Git itself would run a program for some URLs (`ext::sh -c ...`), so what is not plainly one of a few known
forms is refused before git sees it.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from cleanroom_base.errors import InputError

_SCHEME = re.compile(r"^([a-z][a-z0-9+.-]*)://", re.IGNORECASE)
# Source: git-clone(1), "GIT URLS": [user@]host.xz:path/to/repo, with no slash before the first colon.
_SCP_LIKE = re.compile(r"^(?:[A-Za-z0-9._~+-]+@)?(?:[A-Za-z0-9][^/:@\[\]]*|\[[0-9a-fA-F:]+\]):(?P<path>[^:].*)$")
# Source: gitremote-helpers(7): TRANSPORT::ADDRESS runs the program git-remote-TRANSPORT.
_HELPER = re.compile(r"^[A-Za-z0-9][A-Za-z0-9+.-]*::")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class TransportRefused(InputError):
    """A repository's URL is of a form, or uses a transport, that is not allowed."""


def check(url: str, transports: Collection[str]) -> str:
    """The transport of a URL (`https`, `ssh`, `file`, ...). Raises TransportRefused."""
    transport = _transport(url)
    if transport not in transports:
        raise TransportRefused(
            f"the repository {url!r} uses the transport {transport!r}, which is not allowed",
            hint=f"allowed by the setting refs.transports: {', '.join(transports)}",
        )
    return transport


def _transport(url: str) -> str:
    if not url or url.startswith("-") or _CONTROL.search(url) or _HELPER.match(url):
        raise TransportRefused(f"{url!r} is not the URL of a git repository")
    if match := _SCHEME.match(url):
        host = url[match.end() :].partition("/")[0].rpartition("@")[2]
        if host.startswith("-"):
            raise TransportRefused(f"{url!r} is not the URL of a git repository")
        return match[1].lower()
    if url.startswith("/"):
        return "file"
    if match := _SCP_LIKE.match(url):
        if match["path"].startswith("-"):
            raise TransportRefused(f"{url!r} is not the URL of a git repository")
        return "ssh"
    raise TransportRefused(f"{url!r} is not the URL of a git repository", hint="a path must begin with a slash")
