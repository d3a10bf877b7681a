"""When two addresses lead to the same repository, whatever the transport and the account."""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import unquote, urlsplit

# Source: git-clone(1), "GIT URLS".
_SCP_LIKE = re.compile(r"^(?:[^/@]+@)?(\[[0-9a-fA-F:]+\]|[^/:@]+):(?!//)(.+)$")


def parts(url: str) -> tuple[str, str] | None:
    """The host and the path (such as account/name) of a repository; None: it has no host (a local path)."""
    if "://" in url:
        try:
            found = urlsplit(url)
            host = found.hostname
        except ValueError:
            return None
        path = found.path
    elif match := _SCP_LIKE.match(url):
        host, path = match[1], match[2]
    else:
        return None
    path = unquote(path).strip("/").removesuffix(".git")
    return (host.lower(), path) if host and path else None


def place(url: str) -> tuple[str, str] | None:
    """The host and the path of a repository, alike for all of its addresses; None: it has no host."""
    found = parts(url)
    # Forges take names of accounts and repositories for the same in any case.
    return None if found is None else (found[0], found[1].lower())


def same(url: str, others: Iterable[str]) -> bool:
    """Whether a repository's address and one of some others lead to the same place."""
    wanted = place(url)
    return any(url == other or (wanted is not None and place(other) == wanted) for other in others)
