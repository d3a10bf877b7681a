"""Why a step failed, in one sentence from the end of what it printed; whether apt's mirror is to blame."""

from __future__ import annotations

import re

from cleanroom_recipes.events import WHY_LIMIT

APT_STATUS = 100

_MARK = "cleanroom: "
_MESSAGE_LIMIT = 400
# The words with which compilers, make, dpkg, apt, rpm, shells and test runners begin to complain.
_TELLING = re.compile(
    r"\berror\b|\bfailed\b|\bfatal\b|^E: |^FAIL|\bcannot\b|not found|no such file|not installable"
    r"|unmet depend|permission denied|no space left|unavailable|undefined reference|segmentation fault|killed|not ok\b",
    re.IGNORECASE,
)
# Lines that complain, but only about a complaint further up.
_ECHO = re.compile(
    r"^(make(\[\d+\])?: (\*\*\*|Leaving)|dh_auto_\w+: error: .* returned exit code|dpkg-buildpackage: error: "
    r"|E: Unable to (fetch|correct)|E: Sub-process|error: Bad exit status|RPM build errors"
    r"|\s+Bad exit status|# (X?FAIL|ERROR|X?PASS|SKIP|TOTAL))"
)
# apt-get's reports of what it could not get over the network; a local repository is the product's own.
_NOT_FETCHED = re.compile(
    r"^Err:\d+ https?://|^[EW]: Failed to fetch https?://"
    r"|^E: The repository 'https?://\S+ .*(does not have|no longer has) a Release",
    re.MULTILINE,
)
# What dnf says of a repository, or of a package in it, that it could not get over the network. Its exit status says
# nothing: it is 1 whatever went wrong.
_DNF_NOT_FETCHED = re.compile(r"(Curl error \(\d+\): .*|Status code: \d+) for https?://")
_RPM_FAILED = re.compile(r"^(error: .*scriptlet failed|Error: Transaction failed)", re.MULTILINE)
_DPKG_FAILED = re.compile(r"^(E: Sub-process \S*dpkg|dpkg: error processing)", re.MULTILINE)


def why(tail: str, *, status: int, step: str) -> str:
    """One sentence about a step that ended with `status`, from the end of its output."""
    lines = [line.strip() for line in tail.splitlines() if line.strip()]
    marked = next((line for line in reversed(lines) if line.startswith(_MARK)), None)
    if marked is not None:
        return marked.removeprefix(_MARK)[:WHY_LIMIT]
    how = f"was ended by signal {-status}" if status < 0 else f"ended with status {status}"
    if not lines:
        return f"step {step} {how} and printed nothing"
    first_hand = [line for line in lines if not _ECHO.search(line)] or lines
    telling = [line for line in first_hand if _TELLING.search(line)] or first_hand
    return f"step {step} {how}: {_shortened(telling[-1])}"


def skip_reason(tail: str) -> str:
    """Why a step says that there was nothing to do."""
    lines = [line.strip() for line in tail.splitlines() if line.strip()]
    marked = next((line for line in reversed(lines) if line.startswith(_MARK)), None)
    return marked.removeprefix(_MARK)[:WHY_LIMIT] if marked else "the step found nothing to do"


def source_is_away(tail: str, status: int) -> bool:
    """Whether a step that ended with `status` did so because a source of packages could not be reached."""
    return (status == APT_STATUS and mirror_is_down(tail)) or repository_is_away(tail)


def repository_is_away(tail: str) -> bool:
    """Whether dnf's output says that it could not fetch from a repository, and no package failed to install."""
    return bool(_DNF_NOT_FETCHED.search(tail)) and not _RPM_FAILED.search(tail)


def mirror_is_down(tail: str) -> bool:
    """Whether apt's output says that it could not fetch from the mirror, and nothing else went wrong.

    A package that does not exist, or one whose installation fails, is the product's own fault.
    """
    return bool(_NOT_FETCHED.search(tail)) and not _DPKG_FAILED.search(tail)


def _shortened(line: str) -> str:
    return line if len(line) <= _MESSAGE_LIMIT else f"{line[: _MESSAGE_LIMIT - 3]}..."
