"""A real git repository for tests, made and changed by real git."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import surroundings

_ENVIRONMENT = {
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_AUTHOR_NAME": "Anna",
    "GIT_AUTHOR_EMAIL": "anna@example.org",
    "GIT_COMMITTER_NAME": "Anna",
    "GIT_COMMITTER_EMAIL": "anna@example.org",
}


@dataclass(frozen=True)
class Repository:
    """A repository with a working tree."""

    path: Path

    @classmethod
    def make(cls, path: Path) -> Repository:
        """An empty repository with the branch `main`."""
        path.mkdir(parents=True)
        repository = cls(path)
        repository.git("init", "--quiet", "--initial-branch=main")
        return repository

    def git(self, *words: str | bytes, stdin: bytes | None = None, variables: Mapping[str, str] | None = None) -> str:
        """Run git and return what it prints; `variables` are added to its environment."""
        done = subprocess.run(
            ["git", *words],
            cwd=self.path,
            input=stdin,
            stdout=subprocess.PIPE,
            check=True,
            timeout=60,
            env={**surroundings.variables(), **_ENVIRONMENT, **(variables or {})},
        )
        return done.stdout.decode(errors="replace").strip()

    def commit(self, **files: str | bytes) -> str:
        """Commit files (`__` in a name is a dot) and return the commit's id."""
        for name, content in files.items():
            data = content.encode() if isinstance(content, str) else content
            (self.path / name.replace("__", ".")).write_bytes(data)
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message=A change")
        return self.git("rev-parse", "HEAD")

    def tag(self, name: str, *words: str, variables: Mapping[str, str] | None = None) -> None:
        """A lightweight tag, or what `words` say."""
        self.git("tag", *words, name, variables=variables)

    def raw_tag(self, name: bytes, commit: str) -> None:
        """A tag of any name that git stores, written where git keeps packed refs."""
        self.git("pack-refs", "--all")
        packed = self.path / ".git" / "packed-refs"
        lines = packed.read_bytes().splitlines(keepends=True)[1:] if packed.exists() else []
        header = b"# pack-refs with: peeled fully-peeled \n"  # not "sorted": git sorts it then
        packed.write_bytes(header + b"".join(lines) + b"%b refs/tags/%b\n" % (commit.encode(), name))
