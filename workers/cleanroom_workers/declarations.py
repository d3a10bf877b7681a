"""What a product declares that its build needs, as programs that install it in a guest without the product.

A layer that holds what such programs did is named by their text, which is the whole declaration: with a dependency more
or less it is another layer. Nothing else of the product is in the text, so nothing else of it is in the layer. The
source comes from a stranger: what of it is not plain makes no program, and the phase does without a layer.
"""

from __future__ import annotations

import re
import shlex
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from cleanroom_recipes.model import Declared
from cleanroom_recipes.plan import StepPlan
from cleanroom_recipes.request import PhaseRequest

_CONTROL = ("debian/control", "./debian/control")
_MEMBERS_LIMIT = 50_000
_CONTROL_LIMIT = 256 << 10  # bytes
_PROGRAM_LIMIT = 128 << 10  # characters
_FIELD = re.compile(r"([!\"$-,.-9;-~][!-9;-~]*):(.*)")
_WANTED = ("build-depends", "build-conflicts")
_OURS = "CLEANROOM_"
_PACKAGES = "CLEANROOM_PACKAGES"


def programs(request: PhaseRequest) -> tuple[str, ...]:
    """What the steps of a phase that depend on a declaration alone do, as programs for a guest that has nothing else.

    None where a phase has no such steps, nothing is declared, or a declaration is not plain. Raises OSError.
    """
    steps = [step for step in request.phase.steps if step.declared is not Declared.NOWHERE]
    made = [_program(step, request.source) for step in steps]
    found = tuple(program for program in made if program is not None)
    return found if len(found) == len(made) and sum(map(len, found)) <= _PROGRAM_LIMIT else ()


def _program(step: StepPlan, source: Path | None) -> str | None:
    environment = {name: value for name, value in step.environment.items() if not name.startswith(_OURS)}
    if step.declared is Declared.PACKAGES:
        packages = step.environment.get(_PACKAGES, "")
        return _with_environment({**environment, _PACKAGES: packages}, step.program) if packages else None
    control = None if source is None else read_control(source)
    declaration = None if control is None else declared_in(control)
    if not declaration:
        return None
    lines = ["Source: declared", *(f"{name}: {value}" for name, value in declaration.items())]
    return "\n".join(
        [
            'CLEANROOM_TREE=$(mktemp -d) && export CLEANROOM_TREE && mkdir "$CLEANROOM_TREE/debian" || exit',
            f"printf '%s\\n' {shlex.join(lines)} >\"$CLEANROOM_TREE/debian/control\" || exit",
            f"(\n{_with_environment(environment, step.program)}\n)",
            "status=$?",
            'rm -r "$CLEANROOM_TREE"',
            "exit $status",
            "",
        ]
    )


def _with_environment(environment: Mapping[str, str], program: str) -> str:
    exports = [f"export {name}={shlex.quote(environment[name])}" for name in sorted(environment)]
    return "\n".join([*exports, program])


def read_control(source: Path) -> str | None:
    """The text of debian/control in the tar of a source; None where it is no plain file of moderate size.

    Raises OSError.
    """
    try:
        with tarfile.open(source, "r:") as tar:
            for _ in range(_MEMBERS_LIMIT):
                member = tar.next()
                if member is None:
                    return None
                if member.name in _CONTROL:
                    file = tar.extractfile(member) if member.isreg() and member.size <= _CONTROL_LIMIT else None
                    return None if file is None else file.read(_CONTROL_LIMIT).decode()
    except (tarfile.TarError, UnicodeDecodeError):
        return None
    return None


def suites(source: Path, beginnings: Sequence[str]) -> list[str]:
    """The words of the field Testsuite at the top of debian/control that begin with one of `beginnings`.

    None where debian/control is not plain. Source of the format: deb-src-control(5). Raises OSError.
    """
    control = read_control(source)
    fields = None if control is None else _top(control)
    words = (fields or {}).get("testsuite", "").replace(",", " ").split()
    return [word for word in words if word.startswith(tuple(beginnings))]


def declared_in(control: str) -> dict[str, str] | None:
    """The fields about dependencies and conflicts of building at the top of a debian/control, by their names in lower
    case and order, each value on one line; None where not every reader would read the same.

    Source of the format: Debian Policy, chapters 5 and 7; deb-src-control(5).
    """
    fields = _top(control)
    if fields is None or "source" not in fields:
        return None
    wanted = {name: fields[name].replace("\t", " ") for name in sorted(fields) if name.startswith(_WANTED)}
    if not all(value.isprintable() for value in wanted.values()):
        return None
    return {name: " ".join(value.split()) for name, value in wanted.items()}


def _top(control: str) -> dict[str, str] | None:
    """The fields of the first paragraph by their names in lower case; None where readers would differ."""
    fields: dict[str, str] = {}
    name = ""
    for line in control.split("\n"):
        if line.startswith("#"):
            continue
        if not line:
            break
        found = _FIELD.fullmatch(line)
        if found is not None and found[1].lower() not in fields:
            name = found[1].lower()
            fields[name] = found[2]
        elif line[0] in " \t" and line.strip() and name:
            fields[name] += f" {line}"
        else:
            return None
    return fields
