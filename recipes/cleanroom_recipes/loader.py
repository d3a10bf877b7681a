"""Reads recipes: TOML from a file or from a product's repository, JSON from where a read recipe was kept.

The product's own `cleanroom.toml` was written by somebody else, so its size is limited and everything in it
is checked. Everything that is wrong is reported at once, each problem with its place.
"""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from cleanroom_base.errors import InputError, Problem
from cleanroom_recipes import builders, codec
from cleanroom_recipes.model import DEFAULT_IMAGE, Builder, Gate, Recipe, Target

FILE_NAME = "cleanroom.toml"
SIZE_LIMIT = 256 * 1024

# Keys that mean something to some builders only.
_ONLY_FOR = {
    "spec": (Builder.RPM,),
    "packages": (Builder.RPM, Builder.SCRIPT),
    "commands": (Builder.SCRIPT,),
    "artifacts": (Builder.SCRIPT,),
}


def load(content: bytes, *, source: str, name: str | None = None, url: str | None = None) -> Recipe:
    """Read a recipe from TOML; `source` names it in errors.

    `name` and `url` are what the site already knows of the product: they fill in what the recipe leaves out.
    A recipe cannot rename its product, and where it was found counts more than what it says of that.
    Raises InputError with every problem and its place.
    """
    table = _parse(content, source)
    problems: list[Problem] = []
    if name is not None and table.setdefault("name", name) != name:
        problems.append(Problem("name", f"must be {name}: so is the product called here"))
    if url is not None:
        table["url"] = url
    _settle_builders(table, problems)
    recipe = codec.collect(Recipe, table, problems)
    problems += _contradictions(table)
    if recipe is None or problems:
        raise InputError(f"{source} is not a valid recipe", problems=sorted(set(problems), key=str))
    return replace(recipe, gates=tuple(dict.fromkeys((Gate.BUILDS, *recipe.gates))))


def read(file: Path, *, name: str | None = None, url: str | None = None) -> Recipe:
    """Read a recipe from a file; as `load`."""
    try:
        with file.open("rb") as stream:
            content = stream.read(SIZE_LIMIT + 1)
    except OSError as error:
        raise InputError(f"cannot read the recipe {file}: {error.strerror}") from error
    return load(content, source=str(file), name=name, url=url)


def to_json(recipe: Recipe) -> dict[str, Any]:
    """The recipe as JSON values, complete, to be kept with the release."""
    plain: dict[str, Any] = codec.to_plain(recipe)
    return plain


def from_json(value: object) -> Recipe:
    """Read what `to_json` made. Raises InputError."""
    return codec.from_plain(Recipe, value, what="the recipe")


def digest(recipe: Recipe) -> str:
    """The SHA-256 of the complete recipe: equal recipes have equal digests, however they were written."""
    return hashlib.sha256(codec.dumps(recipe)).hexdigest()


def _parse(content: bytes, source: str) -> dict[str, Any]:
    if len(content) > SIZE_LIMIT:
        raise InputError(f"{source} is larger than a recipe may be ({SIZE_LIMIT} bytes)")
    try:
        return tomllib.loads(content.decode())
    except (ValueError, RecursionError) as error:
        raise InputError(f"{source} is not valid TOML: {error}") from error


def _settle_builders(table: dict[str, Any], problems: list[Problem]) -> None:
    """Make `builder = "deb"` the list it stands for; fill in the targets that follow from it."""
    if "builder" in table:
        if "builders" in table:
            problems.append(Problem("builder", "must not be given together with builders"))
        single = table.pop("builder")
        table.setdefault("builders", single if isinstance(single, list) else [single])
    elif "builders" not in table:
        problems.append(Problem("builder", f"is missing; one of: {', '.join(Builder)}"))
        table["builders"] = []
    if "targets" not in table:
        table["targets"] = [f"{DEFAULT_IMAGE}/{builder}" for builder in _builders(table)]


def _builders(table: dict[str, Any]) -> list[Builder]:
    """The builders that the table names rightly."""
    given = table["builders"]
    return [Builder(word) for word in given if word in list(Builder)] if isinstance(given, list) else []


def _contradictions(table: dict[str, Any]) -> Iterator[Problem]:
    """What is wrong between keys, each of them fine alone."""
    chosen = _builders(table)
    for key, fitting in _ONLY_FOR.items():
        if table.get(key) and chosen and not set(fitting) & set(chosen):
            words = " and ".join(fitting)
            yield Problem(key, f"is only for the builder {words}, not for {' and '.join(chosen)}")
    if Builder.SCRIPT in chosen:
        for key in ("commands", "artifacts"):
            if not table.get(key):
                yield Problem(key, "is missing: the script builder needs it")
    yield from _target_contradictions(table, chosen)
    yield from _phase_contradictions(table, chosen)
    yield from _gate_contradictions(table, chosen)
    depends = table.get("depends")
    if isinstance(depends, list) and table.get("name") in depends:
        yield Problem(f"depends[{depends.index(table['name'])}]", "a product cannot depend on itself")
    for key in ("builders", "targets", "packages", "gates", "depends", "notify"):
        yield from _doubles(key, table.get(key))


def _target_contradictions(table: dict[str, Any], chosen: list[Builder]) -> Iterator[Problem]:
    if not isinstance(table["targets"], list):
        return
    formats = set()
    for index, text in enumerate(table["targets"]):
        try:
            target = Target.parse(str(text))
        except InputError:
            continue
        formats.add(target.format)
        if chosen and target.format not in chosen:
            yield Problem(f"targets[{index}]", f"needs the builder {target.format}, which is not listed")
    for builder in chosen:
        if builder not in formats:
            yield Problem("targets", f"has none for the builder {builder}")


def _phase_contradictions(table: dict[str, Any], chosen: list[Builder]) -> Iterator[Problem]:
    phases = table.get("phases")
    if not isinstance(phases, dict) or not chosen:
        return
    known = {phase.name for builder in chosen for phase in builders.definition(builder).phases}
    for name, phase in phases.items():
        if name not in known:
            yield codec.unknown_key("phases", name, sorted(known))
        elif isinstance(phase, dict):
            steps = phase.get("steps")
            given = [step.get("name") for step in steps if isinstance(step, dict)] if isinstance(steps, list) else []
            yield from _doubles(f"phases.{name}.steps", given)
            yield from _not_to_be_left_out(name, phase.get("without"), chosen)
            yield from _not_to_be_added(name, phase.get("also"), chosen)
        if name == "build" and isinstance(phase, dict) and phase.get("enabled") is False:
            yield Problem("phases.build.enabled", "must not be false: without a build there is nothing to test")


def _not_to_be_left_out(name: str, without: object, chosen: list[Builder]) -> Iterator[Problem]:
    phases = [phase for builder in chosen for phase in builders.definition(builder).phases if phase.name == name]
    optional = {step.name for phase in phases for step in phase.steps if not step.required}
    for word in without if isinstance(without, list) else []:
        if isinstance(word, str) and word not in optional:
            which = f"only {', '.join(sorted(optional))}" if optional else "no step"
            yield Problem(f"phases.{name}.without", f"{word!r}: {which} of this phase can be left out")


def _not_to_be_added(name: str, also: object, chosen: list[Builder]) -> Iterator[Problem]:
    phases = [phase for builder in chosen for phase in builders.definition(builder).phases if phase.name == name]
    further = {step.name for phase in phases for step in phase.steps if not step.enabled}
    for word in also if isinstance(also, list) else []:
        if isinstance(word, str) and word not in further:
            which = f"only {', '.join(sorted(further))}" if further else "no step"
            yield Problem(f"phases.{name}.also", f"{word!r}: {which} can be run in this phase besides")


def _gate_contradictions(table: dict[str, Any], chosen: list[Builder]) -> Iterator[Problem]:
    """Gates that could never hold: of phases and steps that no build has."""
    lists = {"gates": table.get("gates")}
    channels = table.get("channels")
    for name, channel in channels.items() if isinstance(channels, dict) else ():
        if isinstance(channel, dict):
            lists[f"channels.{name[:100]}.gates"] = channel.get("gates")
            yield from _doubles(f"channels.{name[:100]}.gates", channel.get("gates"))
    known = {phase.name for builder in chosen for phase in builders.definition(builder).phases}
    switched_off = _switched_off(table.get("phases"), chosen)
    for place, gates in lists.items():
        for index, gate in enumerate(gates if isinstance(gates, list) else ()):
            kind, _, rest = gate.partition(":") if isinstance(gate, str) else ("", "", "")
            phase = rest.partition("/")[0]
            if kind not in ("phase", "step") or not chosen:
                continue
            if phase not in known:
                yield Problem(
                    f"{place}[{index}]", f"there is no phase {phase[:100]!r}; one of: {', '.join(sorted(known))}"
                )
            elif phase in switched_off:
                yield Problem(f"{place}[{index}]", switched_off[phase])


def _switched_off(phases: object, chosen: list[Builder]) -> dict[str, str]:
    """The phases that no build has, each with why."""
    table = phases if isinstance(phases, dict) else {}
    found = {}
    for phase in (phase for builder in chosen for phase in builders.definition(builder).phases):
        key = phase.name if phase.name in table else phase.general
        wish = table.get(key)
        enabled = wish.get("enabled") if isinstance(wish, dict) else None
        if enabled is False:
            found[phase.name] = f"the phase {phase.name} is switched off by phases.{key}.enabled"
        elif enabled is None and not phase.enabled:
            found[phase.name] = f"the phase {phase.name} runs only where phases.{key}.enabled is true"
    return found


def _doubles(place: str, given: object) -> Iterator[Problem]:
    words = [word for word in given if isinstance(word, str)] if isinstance(given, list) else []
    for word in sorted({word for word in words if words.count(word) > 1}):
        yield Problem(place, f"has {word} twice")
