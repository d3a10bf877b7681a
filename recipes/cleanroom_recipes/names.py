"""Names that come from outside: of products, images, files and tags; and the version that a tag promises.

A name becomes part of a path, a command's argument or a page, so each kind has one narrow form, kept here.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Sequence

ENDPOINT = r"[a-z0-9][a-z0-9-]{0,63}"
PRODUCT = r"[a-z0-9][a-z0-9+.-]{0,63}"
IMAGE = r"[a-z0-9][a-z0-9.-]{0,63}"
PHASE = r"[a-z][a-z0-9-]{0,31}"
STEP = r"[a-z0-9][a-z0-9-]{0,63}"
CHANNEL = r"[a-z][a-z0-9-]{0,31}"
VARIABLE = r"[A-Za-z_][A-Za-z0-9_]{0,127}"
# Debian policy 5.6.1.
DEBIAN_PACKAGE = r"[a-z0-9][a-z0-9+.-]{1,127}"
COMMIT = r"[0-9a-f]{40}|[0-9a-f]{64}"
# What log records of one ref event, or of a trial that no release waits for, have in common.
CORRELATION = r"(ref|trial)-[0-9]{1,19}"
SHA256 = r"[0-9a-f]{64}"
# What Debian and RPM file names need and no more. A colon (an epoch) is not part of a file's name in either.
FILE = r"[A-Za-z0-9][A-Za-z0-9._+~^-]{0,199}"
# Debian policy 5.6.12 and RPM's own rule agree on these characters.
VERSION = r"[0-9][A-Za-z0-9.+~^:_-]{0,127}"

VERSION_PLACE = "{version}"
VERSION_PATTERNS = ("debian/{version}", "v{version}", "{name}-{version}", "{version}")


def is_name(form: str, text: str) -> bool:
    """Whether the whole of `text` has one of the forms above."""
    return re.fullmatch(form, text) is not None


def matches(ref: str, patterns: Sequence[str]) -> bool:
    """Whether a tag's or branch's name matches one of the shell patterns (`*`, `?`, `[...]`)."""
    return any(fnmatch.fnmatchcase(ref, pattern) for pattern in patterns)


def version_of_tag(tag: str, patterns: Sequence[str] = VERSION_PATTERNS, *, name: str = "") -> str | None:
    """The version that `tag` promises by the first pattern that fits, or None when it promises none.

    A tag's name cannot have some characters of a Debian version, so git-buildpackage writes `~` as `_`, `:`
    as `%`, and a `#` between two dots (DEP-14, "Version mangling"); this undoes it.
    """
    for pattern in patterns:
        before, _, after = pattern.replace("{name}", name).partition(VERSION_PLACE)
        if len(tag) <= len(before) + len(after) or not (tag.startswith(before) and tag.endswith(after)):
            continue
        written = tag[len(before) : len(tag) - len(after)]
        version = written.replace("%", ":").replace("_", "~").replace("#", "")
        if is_name(VERSION, version):
            return version
    return None


def version_agrees(expected: str, found: str) -> bool:
    """Whether a package's version is the one its tag promises.

    A tag may leave out what it does not know: the epoch, and the packaging's revision (`1.2` fits `1:1.2-3`).
    What it does say must be equal.
    """
    return expected in _forms(found)


def _forms(version: str) -> set[str]:
    without_epoch = version.partition(":")[2] if ":" in version else version
    forms = {version, without_epoch}
    return forms | {form.rpartition("-")[0] for form in forms if "-" in form}


def snapshot_suffix(commit: str, moment: str) -> str:
    """What the version of a commit that is no release ends with; `moment` is its time as YYYYMMDDHHMMSS."""
    return f"+git{moment}.{commit[:7]}"
