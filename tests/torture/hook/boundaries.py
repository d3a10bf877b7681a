"""The named boundaries at which a process of the product can be stopped: between which two things, and in which one.

An audit event of Python's (PEP 578) is told just before its call is made. A statement is seen after the server has done
it and before its transaction ends; a commit, after the transaction has ended.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

BEFORE_CALL, AFTER_CALL, IN_TRANSACTION, AFTER_COMMIT = "before a call", "after a call", "in a transaction", "after it"


@dataclass(frozen=True)
class Boundary:
    """A place in a service's work. `event` is an audit event (for calls), `mark` what its arguments or the statement
    must contain; `needs` says what kind of release comes by there: any, one that passes ("good"), or that of a package
    ("deb")."""

    service: str
    name: str
    when: str
    mark: str
    event: str = ""
    needs: str = "any"

    @property
    def place(self) -> str:
        """How it is called in reports."""
        return f"{self.service}: {self.name}"

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        """`mark`, compiled."""
        return re.compile(self.mark, re.DOTALL)


def _calls(service: str, *rows: tuple[str, str, str, str], needs: str = "any") -> Iterable[Boundary]:
    for name, when, event, mark in rows:
        yield Boundary(service, name, when, mark, event, needs)


def _statements(service: str, *rows: tuple[str, str, str], needs: str = "any") -> Iterable[Boundary]:
    for name, when, mark in rows:
        yield Boundary(service, name, when, mark, needs=needs)


_EVENT = r"INSERT INTO cleanroom\.ref_event"
_RELEASE = r"INSERT INTO cleanroom\.release\s"
_LEASE = r"UPDATE cleanroom\.attempt\s+SET lease_owner"
_PHASE = r"INSERT INTO cleanroom\.phase "
_STEP = r"UPDATE cleanroom\.step\s+SET outcome = .*exit_status"
_PHASE_END = r"UPDATE cleanroom\.phase\s+SET outcome = .*command_seconds"
_ARTIFACTS = r"INSERT INTO cleanroom\.artifact"
_ATTEMPT_END = r"UPDATE cleanroom\.attempt\s+SET outcome"
_GENERATION = r"INSERT INTO cleanroom\.generation"
_NOTED = r"UPDATE cleanroom\.generation SET switched_at"

BOUNDARIES: tuple[Boundary, ...] = (
    *_statements(
        "refs",
        ("a tag is in the record, not committed", IN_TRANSACTION, _EVENT),
        ("a tag is recorded", AFTER_COMMIT, _EVENT),
    ),
    *_statements(
        "master",
        ("claimed, not committed", IN_TRANSACTION, _RELEASE),
        ("claimed, before the builds are scheduled", AFTER_COMMIT, _RELEASE),
        ("leased, not committed", IN_TRANSACTION, _LEASE),
        ("leased", AFTER_COMMIT, _LEASE),
        ("a phase begins", AFTER_COMMIT, _PHASE),
        ("a step's end is recorded, not committed", IN_TRANSACTION, _STEP),
        ("a step's end is recorded", AFTER_COMMIT, _STEP),
        ("a phase's end is recorded, not committed", IN_TRANSACTION, _PHASE_END),
        ("a phase's end is recorded", AFTER_COMMIT, _PHASE_END),
        ("judged, not committed", IN_TRANSACTION, _ATTEMPT_END),
        ("judged", AFTER_COMMIT, _ATTEMPT_END),
    ),
    *_statements(
        "master",
        ("artifacts are recorded, not committed", IN_TRANSACTION, _ARTIFACTS),
        ("artifacts are recorded", AFTER_COMMIT, _ARTIFACTS),
        needs="good",
    ),
    *_calls(
        "master",
        ("an artifact is written, not stored", BEFORE_CALL, "os.rename", r"/artifacts/[0-9a-f]{2}/"),
        ("an artifact is stored", AFTER_CALL, "os.rename", r"/artifacts/[0-9a-f]{2}/"),
        needs="good",
    ),
    *_calls("master", ("a log is sealed", AFTER_CALL, "os.rename", r"/logs/[0-9a-f]{2}/")),
    *_calls("worker", ("a phase's program is about to start", BEFORE_CALL, "start", r"run-phase")),
    *_calls(
        "phases",
        ("a guest is taken", AFTER_CALL, "os.rename", r"guest\.json"),
        ("a step is about to run in the guest", BEFORE_CALL, "subprocess.Popen", r"^ssh .*CLEANROOM_"),
    ),
    *_calls("phases", ("artifacts are about to come out", BEFORE_CALL, "os.mkdir", r"/\.incoming-"), needs="good"),
    *_calls(
        "guests",
        ("a guest is written down, before it is made", AFTER_CALL, "os.rename", r"guest\.json"),
        ("a guest's file system is about to be mounted", BEFORE_CALL, "subprocess.Popen", r"^(\S*/)?mount "),
        ("a guest's file system is about to be made", BEFORE_CALL, "subprocess.Popen", r"^mke2fs "),
    ),
    *_statements(
        "publisher",
        ("a generation is prepared, not committed", IN_TRANSACTION, _GENERATION),
        ("a generation is prepared", AFTER_COMMIT, _GENERATION),
        ("the switch is noted, not committed", IN_TRANSACTION, _NOTED),
        ("the switch is noted", AFTER_COMMIT, _NOTED),
        needs="good",
    ),
    *_calls(
        "publisher",
        ("a generation is written, not named", BEFORE_CALL, "os.rename", r"/generations/\d+\.partial"),
        ("a generation is named", AFTER_CALL, "os.rename", r"/generations/\d+\.partial"),
        ("the switch is about to come", BEFORE_CALL, "os.rename", r"\.current\.new"),
        ("switched, not noted", AFTER_CALL, "os.rename", r"\.current\.new"),
        needs="good",
    ),
    *_calls(
        "publisher",
        ("a statement of provenance is about to be signed", BEFORE_CALL, "subprocess.Popen", r"^gpg .*--detach-sign"),
        ("a suite is about to be signed", BEFORE_CALL, "subprocess.Popen", r"^gpg .*(--clear-sign|--textmode)"),
        ("apt is about to verify", BEFORE_CALL, "subprocess.Popen", r"^(\S*/)?apt-get "),
        ("a package is about to be in the pool", BEFORE_CALL, "os.rename", r"/repository/pool/"),
        needs="deb",
    ),
)


def of_service(service: str) -> tuple[Boundary, ...]:
    """Those in the work of one service."""
    return tuple(one for one in BOUNDARIES if one.service == service)


def named(place: str) -> Boundary:
    """The one of that place. Raises KeyError."""
    return _BY_PLACE[place]


_BY_PLACE: Mapping[str, Boundary] = {one.place: one for one in BOUNDARIES}
