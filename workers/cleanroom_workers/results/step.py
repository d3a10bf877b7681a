"""All test results of a phase's steps: from the log, from files, and from a command that is a test itself."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import IO, Protocol

from cleanroom_base.errors import CleanroomError
from cleanroom_base.run import Completed, Output, OutputLimitExceeded
from cleanroom_recipes.events import WHY_LIMIT, TestCase
from cleanroom_recipes.model import Outcome
from cleanroom_workers.results import files
from cleanroom_workers.results.log import CASES_LIMIT, LogReport

# Bytes of messages in a phase: what ten thousand tests may say in full.
MESSAGES_LIMIT = 32 << 20
# Cases are counted beyond their limit, but not for ever.
_COUNTED_LIMIT = 1_000_000
_TIMEOUT = 120.0
_REMARKS = 5
_PARTS = 16


class Guest(Protocol):
    """What is needed of a guest."""

    def run(
        self,
        command: Sequence[str],
        *,
        timeout: float,
        output: Output | None = None,
        output_limit: int | None = None,
    ) -> Completed:
        """Run a command, whatever its exit status."""


@dataclass(frozen=True, slots=True)
class StepResults:
    """The test cases of a step, and a remark on what is not among them; empty where there is nothing to say."""

    cases: Sequence[TestCase]
    remark: str


class PhaseResults:
    """The steps' results, one after the other; together they hold what a phase may hold."""

    def __init__(self, home: str) -> None:
        """`home` is the directory in the guest that has `build`, `results` and `steps`."""
        self._home = home
        self._room = CASES_LIMIT
        self._messages = MESSAGES_LIMIT

    def of(
        self,
        guest: Guest | None,
        patterns: Sequence[str],
        log: LogReport | None,
        own: TestCase | None,
    ) -> StepResults:
        """What a step reports: `own` is the step itself as a test. Without a guest no files are looked for."""
        found = _Bounded(self._room, self._messages)
        remarks: list[str] = []
        if own is not None:
            found.add(own)
        from_files = len(found.cases)
        if guest is not None:
            remarks += self._read(guest, patterns, found)
        groups = log.groups() if log is not None else []
        found.merge(groups, from_files)
        found.left_out += log.left_out if log is not None else 0
        self._room -= len(found.cases)
        self._messages = found.messages
        return StepResults(found.cases, _remark([*found.remarks(), *remarks]))

    def _read(self, guest: Guest, patterns: Sequence[str], found: _Bounded) -> list[str]:
        """Add what the guest's result files say; return remarks. Whatever happens, it is not the step's outcome."""
        with tempfile.TemporaryFile() as stream:
            remarks = []
            command = files.command(self._home, patterns)
            try:
                guest.run(
                    command,
                    timeout=_TIMEOUT,
                    output=lambda chunk: _write(stream, chunk),
                    output_limit=files.BYTES_LIMIT,
                )
            except OutputLimitExceeded:
                remarks.append(f"the result files have more than {files.BYTES_LIMIT >> 20} MiB")
            except CleanroomError as error:
                remarks.append(f"the result files could not be read: {error.message}")
            stream.seek(0)
            reader = files.Files()
            for case in reader.read(stream):
                found.add(case)
                if found.left_out > _COUNTED_LIMIT:
                    remarks.append("the rest was not counted")
                    break
            return [*remarks, *reader.remarks]


class _Bounded:
    """Test cases up to a number, and what they say up to a number of bytes."""

    def __init__(self, room: int, messages: int) -> None:
        self.cases: list[TestCase] = []
        self.messages = messages
        self.left_out = 0
        self._failed = 0
        self._silenced = 0
        self._room = room

    def add(self, case: TestCase) -> None:
        """Keep a case, or count it."""
        if len(self.cases) >= self._room:
            self.left_out += 1
            self._failed += case.outcome is Outcome.FAILED
            return
        if case.message is not None:
            size = 4 * len(case.message)
            if size > self.messages:
                self._silenced += 1
                case = replace(case, message=None)
            else:
                self.messages -= size
        self.cases.append(case)

    def merge(self, groups: Iterable[Sequence[TestCase]], begin: int) -> None:
        """Add what harnesses printed; `begin` is where the cases from files begin.

        A harness most of whose cases are in the files too is recorded from these: they say more. Of the log they get
        their place, and the outcome where that is worse.
        """
        groups = list(groups)
        printed = {_key(case.name): case for group in groups for case in group}
        matched: set[str] = set()
        if printed:
            for index in range(begin, len(self.cases)):
                self.cases[index] = _placed(self.cases[index], printed, matched)
        for group in groups:
            keys = [_key(case.name) for case in group]
            if 2 * sum(key in matched for key in keys) < len(keys) or not matched:
                for case in group:
                    self.add(case)

    def remarks(self) -> Iterator[str]:
        """What was not kept."""
        if self.left_out:
            failed = f", {self._failed} of them failed" if self._failed else ""
            yield f"{self.left_out} test cases were left out{failed}: a phase keeps at most {CASES_LIMIT}"
        if self._silenced:
            yield f"the messages of {self._silenced} test cases were left out"


def _write(stream: IO[bytes], chunk: bytes) -> None:
    stream.write(chunk)


def _placed(case: TestCase, printed: dict[str, TestCase], matched: set[str]) -> TestCase:
    """A case from a file with what a harness printed of it: under its name, the end of it, or its class's."""
    key = _key(case.name)
    for part in _parts(key):
        said = printed.get(part)
        if said is not None:
            matched.add(part)
            worse = part == key and said.outcome is Outcome.FAILED and case.outcome is not Outcome.FAILED
            return replace(
                case,
                outcome=said.outcome if worse else case.outcome,
                message=(said.message or case.message) if worse else case.message,
                line=said.line,
            )
    return case


def _parts(key: str) -> Iterator[str]:
    """A dotted name, its ends from the longest, then its beginnings from the longest."""
    yield key
    at = -1
    for _ in range(_PARTS):
        if (at := key.find(".", at + 1)) < 0:
            break
        yield key[at + 1 :]
    at = len(key)
    for _ in range(_PARTS):
        if (at := key.rfind(".", 0, at)) <= 0:
            break
        yield key[:at]


def _key(name: str) -> str:
    """A name as JUnit's XML has it, where a harness prints it with slashes and colons."""
    return name.removesuffix(".py").replace(".py::", ".").replace("::", ".").replace("/", ".")


def _remark(remarks: Sequence[str]) -> str:
    shown = [*itertools.islice(remarks, _REMARKS)]
    if len(remarks) > _REMARKS:
        shown.append(f"and {len(remarks) - _REMARKS} more such")
    return "; ".join(shown)[:WHY_LIMIT]
