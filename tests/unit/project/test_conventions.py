"""What the project promises about its own code, as tests: linters, types, the directions of imports."""

from __future__ import annotations

import ast
import re
import subprocess
import sysconfig
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
FOLDERS = ("base", "recipes", "db", "guest_images", "workers", "master")
# Each of these libraries has one place where it is imported.
ONLY_IMPORTERS = {
    "psycopg2": {"db/cleanroom_db/connection.py"},
    "libvirt": {"workers/cleanroom_workers/libvirt_access.py"},
    "git": {"master/cleanroom_master/refs/objects.py"},
    "subprocess": {"base/cleanroom_base/run.py"},
}


def sources() -> list[Path]:
    return [file for folder in FOLDERS for file in sorted((ROOT / folder).rglob("*.py"))]


def imports(file: Path) -> Iterator[str]:
    """The modules that a file imports when it runs."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module


def tool(*command: str) -> None:
    scripts = Path(sysconfig.get_path("scripts"))
    done = subprocess.run(
        [scripts / command[0], *command[1:]], cwd=ROOT, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    "command", [("ruff", "check", "."), ("ruff", "format", "--check", "."), ("mypy",), ("lint-imports",)], ids=" ".join
)
def test_linters_find_nothing(command: tuple[str, ...]) -> None:
    tool(*command)


@pytest.mark.parametrize("library", sorted(ONLY_IMPORTERS))
def test_libraries_are_imported_in_one_place(library: str) -> None:
    importers = {
        str(file.relative_to(ROOT))
        for file in sources()
        if any(name.split(".")[0] == library for name in imports(file))
    }
    assert importers == ONLY_IMPORTERS[library]


def test_no_module_imports_itself_through_others() -> None:
    modules = {
        ".".join(file.relative_to(ROOT).with_suffix("").parts[1:]).removesuffix(".__init__"): file for file in sources()
    }
    graph = {
        name: {target for imported in imports(file) if (target := _module(imported, modules)) and target != name}
        for name, file in modules.items()
    }
    finished: set[str] = set()

    def visit(name: str, way: tuple[str, ...]) -> None:
        assert name not in way, f"a cycle of imports: {' -> '.join((*way[way.index(name) :], name))}"
        if name not in finished:
            for target in sorted(graph[name]):
                visit(target, (*way, name))
            finished.add(name)

    for name in graph:
        visit(name, ())


def _module(imported: str, modules: dict[str, Path]) -> str | None:
    while imported and imported not in modules:
        imported = imported.rpartition(".")[0]
    return imported or None


def test_every_module_and_public_function_says_what_it_is_for() -> None:
    silent = []
    for file in sources():
        tree = ast.parse(file.read_text())
        if tree.body and not ast.get_docstring(tree):
            silent.append(str(file.relative_to(ROOT)))
        silent += [
            f"{file.relative_to(ROOT)}: {node.name}"
            for node in tree.body
            if isinstance(node, ast.FunctionDef | ast.ClassDef)
            and not node.name.startswith("_")
            and not ast.get_docstring(node)
        ]
    assert silent == []


def test_no_test_hands_its_own_settings_on() -> None:
    """A program that a test starts refuses settings that it does not know, such as the tests' own."""
    passing = [file for file in (ROOT / "tests").rglob("*.py") if "**os." + "environ" in file.read_text()]
    assert passing == []


def test_every_dependency_is_locked_with_hashes() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["development"]]
    lock = (ROOT / "requirements.lock").read_text()
    for requirement in wanted:
        name = re.split(r"[<>=!~\[ ]", requirement)[0].lower()
        assert re.search(rf"^{re.escape(name)}==\S+ \\\n +--hash=sha256:", lock, re.MULTILINE), name


def test_make_help_lists_every_target() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)[0].split())
    shown = subprocess.run(
        ["make", "--no-print-directory", "help"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    ).stdout
    assert {line.split()[1] for line in shown.splitlines()} == targets
