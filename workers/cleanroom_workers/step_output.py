"""What a step prints, on its way from the guest's bytes to events.

A chatty build must not flood the master, and a silent one must not keep its last line back: what arrives
within a fifth of a second goes out together.
"""

from __future__ import annotations

import codecs
import re
import threading
from collections.abc import Callable

from cleanroom_recipes import events

PAUSE = 0.2
TAIL = 16 * 1024
LINE_LIMIT = 4096

# ECMA-48 control sequences: colours and cursor movements.
_CONTROL_SEQUENCE = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b[@-Z\\-_]")


class StepOutput:
    """Takes a step's bytes, emits Output events, and keeps the end of it for the reason of a failure.

    `emit` may be called from a thread of this object, never at the same time as from `feed` or `close`.
    `on_line` gets each complete line, cut at LINE_LIMIT characters.
    """

    def __init__(
        self,
        step: str,
        emit: Callable[[events.Event], None],
        *,
        on_line: Callable[[str], None] | None = None,
    ) -> None:
        self.size = 0
        self._step = step
        self._emit = emit
        self._on_line = on_line
        self._decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")
        self._waiting = ""
        self._tail = ""
        self._line = ""
        self._closed = False
        self._error: BaseException | None = None
        self._changed = threading.Condition()
        self._flusher = threading.Thread(target=self._flush_regularly, daemon=True)
        self._flusher.start()

    @property
    def tail(self) -> str:
        """The end of what was printed, without colours."""
        return _CONTROL_SEQUENCE.sub("", self._tail).replace("\r\n", "\n").replace("\r", "\n")

    def feed(self, data: bytes) -> None:
        """Take some bytes. Raises what `emit` raised, also in the thread."""
        self.size += len(data)
        self._take(self._decoder.decode(data))

    def close(self) -> None:
        """Emit what is left, and end the thread. Raises what `emit` raised."""
        self._take(self._decoder.decode(b"", final=True))
        if self._on_line is not None and self._line:
            self._on_line(self._line)
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._flusher.join()
        self._raise_error()
        self._flush(0)

    def _take(self, text: str) -> None:
        if not text:
            return
        text = text.replace("\0", "\\x00")
        self._tail = (self._tail + text)[-TAIL:]
        if self._on_line is not None:
            self._take_lines(text)
        with self._changed:
            self._raise_error()
            self._waiting += text
            self._flush(events.TEXT_LIMIT)
            self._changed.notify()

    def _take_lines(self, text: str) -> None:
        assert self._on_line is not None
        *complete, rest = text.split("\n")
        for line in complete:
            self._on_line((self._line + line)[:LINE_LIMIT])
            self._line = ""
        self._line = (self._line + rest)[:LINE_LIMIT]

    def _flush(self, keep_below: int) -> None:
        """Emit until at most `keep_below` characters wait."""
        while len(self._waiting) > keep_below:
            text, self._waiting = self._waiting[: events.TEXT_LIMIT], self._waiting[events.TEXT_LIMIT :]
            self._emit(events.Output(events.now(), self._step, text))

    def _flush_regularly(self) -> None:
        try:
            while True:
                with self._changed:
                    self._changed.wait_for(lambda: self._waiting or self._closed)
                    if self._closed:
                        return
                    if self._changed.wait_for(lambda: self._closed, PAUSE):
                        return
                    self._flush(0)
        except Exception as error:
            # Handed to the thread that feeds.
            self._error = error

    def _raise_error(self) -> None:
        if self._error is not None:
            raise self._error
