"""The lines of a file from a guest, whatever it holds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO

LINE_LIMIT = 4096


def lines(stream: IO[bytes]) -> Iterator[str]:
    """Each line without its end; what goes beyond the limit is left out, what is no UTF-8 is escaped."""
    beginning = True
    while chunk := stream.readline(LINE_LIMIT):
        if beginning:
            yield chunk.decode(errors="backslashreplace").rstrip("\r\n")
        beginning = chunk.endswith(b"\n")
