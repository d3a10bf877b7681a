"""A remote that takes files by HTTP PUT: a WebDAV server, or an object store that speaks as S3 does.

What fails on the way is tried again, with growing pauses. Credentials go into the request alone: no message has them.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO
from urllib.parse import quote, urlsplit

import requests

from cleanroom_base.errors import InfrastructureError, InputError
from cleanroom_base.settings import Settings
from cleanroom_master.publish import addresses

_TRIES = 7
_FIRST_PAUSE = 0.5
_LONGEST_PAUSE = 60.0
# Seconds until a remote answers a connection, and then each read or write.
_TIMEOUT = (10.0, 120.0)
_DONE = range(200, 300)
_GONE = (404, 410)
_DENIED = (401, 403)
_LATER = (408, 425, 429)


class Denied(InputError):
    """The remote does not let us write."""


class Remote:
    """A directory of a remote, by its URL. `pause` waits so many seconds."""

    def __init__(
        self,
        url: str,
        *,
        user: str | None = None,
        password: str | None = None,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        """Raises InputError for a URL that is none, or that has credentials in it."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise InputError("a remote is an address such as https://packages.example.org/cleanroom/")
        if parts.username is not None or parts.password is not None:
            raise InputError(
                f"the address of the remote at {parts.hostname} has credentials in it, and would be shown with them",
                hint="set delivery.user and delivery.password (CLEANROOM_DELIVERY_PASSWORD)",
            )
        self.url = url.rstrip("/")
        self._credentials = (user, password or "") if user is not None else None
        self._pause = pause
        self._local = threading.local()

    @classmethod
    def of(cls, settings: Settings, url: str | None = None) -> Remote:
        """The site's remote, or another one with the site's credentials. Raises InputError where there is none."""
        wanted = url or settings.optional("delivery.url")
        if wanted is None:
            raise InputError(
                "there is no remote to push to", hint="set delivery.url (CLEANROOM_DELIVERY_URL), or say --to URL"
            )
        return cls(wanted, user=settings.optional("delivery.user"), password=settings.optional("delivery.password"))

    def put(self, place: str, path: Path) -> None:
        """Bring a file. Raises Denied, InfrastructureError, and OSError where the file cannot be read."""
        with self._told(f"bringing {place}"):
            answer = self._asked("PUT", place, path)
            if answer.status_code in (404, 409):
                # A WebDAV server wants the directories first, an object store knows none.
                self._make_directories(place)
                answer = self._asked("PUT", place, path)
            self._require(answer, place, _DONE)

    def remove(self, place: str) -> None:
        """Remove a file, if it is there. Raises Denied, InfrastructureError."""
        with self._told(f"removing {place}"):
            answer = self._asked("DELETE", place)
            if answer.status_code not in _GONE:
                self._require(answer, place, _DONE)

    def _make_directories(self, place: str) -> None:
        parts = place.split("/")[:-1]
        for count in range(1, len(parts) + 1):
            directory = "/".join(parts[:count]) + "/"
            answer = self._asked("MKCOL", directory)
            # 405: it is there (RFC 4918, 9.3.1).
            if answer.status_code != 405:
                self._require(answer, directory, _DONE)

    def _asked(self, method: str, place: str, path: Path | None = None) -> requests.Response:
        """One answer to a request that is sent as often as it takes. Raises InfrastructureError."""
        trouble = ""
        for number in range(_TRIES):
            if number:
                self._pause(min(_FIRST_PAUSE * 2 ** (number - 1), _LONGEST_PAUSE))
            try:
                answer = self._send(method, place, path)
            except requests.RequestException as error:
                trouble = type(error).__name__
                continue
            if answer.status_code < 500 and answer.status_code not in _LATER:
                return answer
            trouble = f"status {answer.status_code}"
        raise InfrastructureError(f"{self.url} did not take it in {_TRIES} tries: {trouble}")

    def _send(self, method: str, place: str, path: Path | None) -> requests.Response:
        if path is None:
            return self._request(method, place, None, {})
        headers = {"Cache-Control": addresses.caching(place), "Content-Type": addresses.media_type(place)}
        with path.open("rb") as stream:
            # Streamed: a package may be larger than the memory. An empty file is no stream to the library.
            return self._request(method, place, stream if path.stat().st_size else b"", headers)

    def _request(
        self, method: str, place: str, content: IO[bytes] | bytes | None, headers: dict[str, str]
    ) -> requests.Response:
        return self._session.request(
            method,
            f"{self.url}/{quote(place)}",
            data=content,
            headers=headers,
            auth=self._credentials,
            timeout=_TIMEOUT,
            # Credentials are for this place and no other.
            allow_redirects=False,
        )

    @property
    def _session(self) -> requests.Session:
        """A session a thread: the library's are not made to be shared."""
        if not hasattr(self._local, "session"):
            self._local.session = requests.Session()
        session: requests.Session = self._local.session
        return session

    def _require(self, answer: requests.Response, place: str, wanted: range) -> None:
        if answer.status_code in _DENIED:
            raise Denied(
                f"{self.url} does not let us write {place}: status {answer.status_code}",
                hint="set delivery.user and delivery.password (CLEANROOM_DELIVERY_PASSWORD)",
            )
        if answer.status_code not in wanted:
            raise InfrastructureError(f"{self.url} did not take {place}: status {answer.status_code}")

    @contextmanager
    def _told(self, action: str) -> Iterator[None]:
        try:
            yield
        except InputError:
            raise
        except InfrastructureError as error:
            raise InfrastructureError(f"{action}: {error.message}", hint=error.hint) from error
