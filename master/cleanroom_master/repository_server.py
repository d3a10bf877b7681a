"""The published repository over HTTP, for a site without a web server of its own.

It serves the current generation as static files, and nothing else. What a client may keep for ever is said to
be immutable (addresses with a checksum in them); everything else must be asked for again, so that a switch of
the generation is seen at once.
"""

from __future__ import annotations

import logging
import sys
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from email.utils import formatdate
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

from twisted.internet.error import CannotListenError
from twisted.internet.task import LoopingCall
from twisted.logger import globalLogBeginner
from twisted.web.error import UnsupportedMethod
from twisted.web.http import NOT_MODIFIED
from twisted.web.pages import notFound
from twisted.web.resource import Resource
from twisted.web.server import Request, Site
from twisted.web.static import File

from cleanroom_base import health, log_records
from cleanroom_base.errors import CleanroomError, InfrastructureError, causes
from cleanroom_base.settings import Settings, load
from cleanroom_master.publish import addresses
from cleanroom_master.publish.site import repository_directory
from cleanroom_workers import twisted_records

_SIGNED = "/repodata/repomd.xml"
_SIGNATURE = f"{_SIGNED}.asc"
_MIRRORS = "/mirrorlist"
# So long, in seconds, and of so many clients at most, it is remembered which repomd.xml they were given.
_PATIENCE = 60.0
_REMEMBERED = 10_000
_TURN = 5.0
_EVERY_ADDRESS = ("0.0.0.0", "::", "")  # noqa: S104 - compared with, not bound to


class PublishedTree(Resource):
    """The current generation below a repository's directory.

    A client that knows nothing of the mirrorlist gets the signature of that repomd.xml which its address was given
    last, also when the generation was switched meanwhile.
    """

    def __init__(self, directory: Path, url: str = "") -> None:
        """`url` is the address that the repository calls its own."""
        super().__init__()
        self.isLeaf = True
        self._directory = directory.resolve()
        self._url = url
        self._given: OrderedDict[tuple[str, str], tuple[float, Path]] = OrderedDict()

    def render(self, request: Request) -> bytes | int:
        """Answer with one file, or say that it is what the client has, or give a part of it: RFC 9110, 13 and 14."""
        if request.method not in (b"GET", b"HEAD"):
            raise UnsupportedMethod((b"GET", b"HEAD"))
        place = "/".join(part.decode(errors="replace") for part in request.postpath)
        file = self._find(place or "index.html")
        if file is not None and place.endswith((_SIGNED, _SIGNATURE)):
            file = self._of_one_generation(f"{request.getClientAddress().host}", place, file)
        if file is None:
            body: bytes | int = notFound(message="There is no such file in the repository.").render(request)
            return body
        request.setHeader("Cache-Control", addresses.caching(place))
        request.setHeader("X-Content-Type-Options", "nosniff")
        request.setHeader("Content-Security-Policy", "default-src 'none'; style-src 'self'")
        if place.endswith(_MIRRORS) and _is_guest(request):
            # To guests this host has another address.
            own = f"http://{request.getHeader('host')}"
            request.setHeader("Content-Type", "text/plain; charset=utf-8")
            return file.read_text(encoding="utf-8").replace(self._url, own).encode()
        served = _Served(str(file))
        # Said here, because the library would declare a .gz or .xz file to be an encoding of something else.
        served.type, served.encoding = addresses.media_type(str(file)), None
        if _is_what_the_client_has(request, served):
            return b""
        content: bytes | int = served.render_GET(request)
        return content

    def _of_one_generation(self, client: str, place: str, file: Path) -> Path:
        """A repomd.xml, noting who gets it; or the signature of the one that the client was given."""
        now = time.monotonic()
        if place.endswith(_SIGNED):
            self._given.pop((client, place), None)
            self._given[client, place] = (now, file)
            if len(self._given) > _REMEMBERED:
                self._given.popitem(last=False)
            return file
        at, given = self._given.get((client, place.removesuffix(".asc")), (-_PATIENCE, file))
        signature = given.with_name(given.name + ".asc")
        return signature if now - at < _PATIENCE and signature.is_file() else file

    def _find(self, place: str) -> Path | None:
        """The plain file at a place of the current generation, wherever its links lead inside the repository."""
        parts = place.split("/")
        if any(part in ("", ".", "..") or "\0" in part for part in parts):
            return None
        try:
            file = self._directory.joinpath("current", *parts).resolve(strict=True)
        except (OSError, ValueError):
            return None
        inside = any(file.is_relative_to(self._directory / part) for part in ("generations", "files"))
        return file if inside and file.is_file() else None


class _Served(File):
    """A file whose time is in whole seconds, as all headers have it: the library would round up what it says."""

    def getModificationTime(self) -> int:  # noqa: N802 - the library's name
        """Seconds since 1970, cut off: a time that lies ahead, and was never the file's, would be no good."""
        return int(super().getModificationTime())


def _is_what_the_client_has(request: Request, served: File) -> bool:
    """Answer conditions about the file's tag; conditions about its time are the library's.

    The tag is made from time and size: files of generations differ in the first, what is in a pool never changes.
    """
    tag = f'"{int(served.getModificationTime()):x}-{served.getsize():x}"'
    request.setHeader("ETag", tag)
    known = request.getHeader("if-none-match")
    if known is not None:
        # Where tags are compared, times are not (13.2.2).
        request.requestHeaders.removeHeader("if-modified-since")
        if known.strip() == "*" or tag in {one.strip().removeprefix("W/") for one in known.split(",")}:
            request.setResponseCode(NOT_MODIFIED)
            return True
    begun_with = request.getHeader("if-range")
    if begun_with is not None and begun_with.strip() not in (tag, _date(served)):
        # The client has the beginning of something else: it gets all of this.
        request.requestHeaders.removeHeader("range")
    return False


def _date(served: File) -> str:
    return formatdate(int(served.getModificationTime()), usegmt=True)


def main(settings: Settings) -> None:
    """Serve the site's repository at `repository.bind`, and to this host's guests, until the process is told to end.

    Raises InfrastructureError when an address or the port cannot be had.
    """
    pulse = health.Server.begin(settings, "repository")
    serve(
        repository_directory(settings),
        # Guests are led to the loopback address, see cleanroom_workers.network.
        _addresses(settings.text("repository.bind"), ["127.0.0.1"]),
        settings.whole("repository.port"),
        settings.repository_url,
        lambda: pulse.turn("clients", within=_TURN),
    )


def serve(
    directory: Path, addresses: Iterable[str], port: int, url: str = "", turned: Callable[[], None] | None = None
) -> None:
    """Serve the repository in `directory`, which calls itself `url`, at some addresses until the process is told to
    end. `turned` is called every now and then, as long as clients are served.
    """
    # The reactor is made by its import; this process is the one that wants it.
    from twisted.internet import reactor

    globalLogBeginner.beginLoggingTo([twisted_records.observer("repository")], redirectStandardIO=False)
    tree = Site(PublishedTree(directory, url))
    for address in addresses:
        try:
            reactor.listenTCP(port, tree, interface=address)
        except CannotListenError as error:
            raise InfrastructureError(
                f"the repository cannot be served at {address or '*'}, port {port}: {error.socketError}",
                hint="set repository.port or repository.bind (CLEANROOM_REPOSITORY_PORT, CLEANROOM_REPOSITORY_BIND),"
                " or end what uses the port",
            ) from error
    if turned is not None:
        LoopingCall(turned).start(_TURN)
    reactor.run()


def _is_guest(request: Request) -> bool:
    """Whether a guest asks: only they are led to the loopback address from elsewhere."""
    here, there = (_plain(address.host) for address in (request.getHost(), request.getClientAddress()))
    return here.is_loopback and not there.is_loopback


def _plain(address: str) -> IPv4Address | IPv6Address:
    """An address; one of IPv4 that is written as one of IPv6 as what it is."""
    found = ip_address(address)
    return getattr(found, "ipv4_mapped", None) or found


def _addresses(bind: str, extra: Iterable[str]) -> list[str]:
    return [bind] if bind in _EVERY_ADDRESS else list(dict.fromkeys([bind, *extra]))


if __name__ == "__main__":
    log_records.begin("repository")
    try:
        main(load())
    except CleanroomError as error:
        logging.critical("%s", "\n".join(causes(error)))
        sys.exit(error.exit_status)
