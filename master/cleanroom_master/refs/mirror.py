"""Mirrors: bare repositories of our own that hold what was recorded.

A mirror keeps each recorded object under `refs/recorded/ID`, never under the name it has in the repository:
names from outside cannot harm it, and what was recorded stays when the tag moves or is deleted. Programs of git
run without the user's or the machine's configuration, without hooks, and only over allowed transports.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO

from cleanroom_base.errors import InfrastructureError
from cleanroom_base.run import CommandError, Completed, run
from cleanroom_base.settings import Settings
from cleanroom_db.states import TagKind
from cleanroom_master.refs import address
from cleanroom_master.refs.objects import Objects, opened

TAGS = b"refs/tags/"
HEADS = b"refs/heads/"
# In the mirror, so that whoever wants its source needs no database.
_URL_FILE = "cleanroom-url"
_RECORDED = b"refs/recorded/"
LOCAL_SECONDS = 120.0
_CAPTURE_LIMIT = 256 * 1024 * 1024
_ID = re.compile(rb"^(?:[0-9a-f]{40}|[0-9a-f]{64})$")
_MOST_COMMITS = 1000
_MOST_FAILURES = 40
_LEFTOVERS = ("*.lock", "refs/recorded/*.lock", "objects/pack/tmp_*")

# The tree's own attributes must not change what goes into an archive: these come last and win (gitattributes(5)).
_ATTRIBUTES = "* -export-ignore -export-subst -text -eol -ident -filter -working-tree-encoding\n"
# Another user's repository may be read: git serves it without obeying its hooks or configuration.
_CONFIGURATION = "[safe]\n\tdirectory = *\n[gc]\n\tauto = 0\n[maintenance]\n\tauto = false\n[tar]\n\tumask = 0022\n"


class RepositoryAway(InfrastructureError):
    """A watched repository cannot be read."""


@dataclass(frozen=True, slots=True)
class RemoteRef:
    """A ref in the watched repository. `commit` is what an annotated tag points to in the end."""

    name: bytes
    object_id: str
    commit: str

    @property
    def tag_kind(self) -> TagKind:
        """How the tag was made."""
        return TagKind.LIGHTWEIGHT if self.object_id == self.commit else TagKind.ANNOTATED


@dataclass(frozen=True)
class Remote:
    """The refs of a watched repository at one moment, by their names without `refs/tags/` and `refs/heads/`."""

    tags: Mapping[bytes, RemoteRef]
    heads: Mapping[bytes, RemoteRef]


@dataclass(frozen=True)
class Mirror:
    """The mirror of one product's repository."""

    settings: Settings
    product: str
    url: str

    @property
    def path(self) -> Path:
        """The bare repository."""
        return self.settings.state / "mirrors" / f"{self.product}.git"

    @classmethod
    def of(cls, settings: Settings, product: str) -> Mirror:
        """The mirror that was made for a product. Raises RepositoryAway if there is none yet."""
        file = cls(settings, product, "").path / _URL_FILE
        try:
            return cls(settings, product, file.read_text())
        except FileNotFoundError as error:
            raise RepositoryAway(f"the repository of {product} was not looked at yet") from error

    def remote_refs(self) -> Remote:
        """Look at the repository. Raises TransportRefused and RepositoryAway."""
        listed = self._outside("ls-remote", "--tags", "--heads", "--", self.url)
        self._remember_url()
        return _parse(listed.stdout)

    def fetch(self, refs: Mapping[bytes, str]) -> set[str]:
        """Fetch refs (full name, or an id: object id) and return the object ids that are kept now.

        Missing are those that have changed since they were looked at, and those that the repository does not
        give although it shows them. Raises as `remote_refs`, if it gives none.
        """
        kept = self._kept()
        # Several names may have one object, but git fetches only one of them to one place.
        wanted = {object_id: name for name, object_id in refs.items() if object_id not in kept}
        if not wanted:
            return set(refs.values())
        with self._locked():
            self._fetch_parts(wanted)
            for object_id, held in self._kept().items():
                if held != object_id:
                    self.inside("update-ref", "-d", f"{_RECORDED.decode()}{object_id}")
        kept = self._kept()
        return {object_id for object_id in refs.values() if object_id in kept}

    def keeps(self, commit: str) -> bool:
        """Whether a commit is certainly kept, at the price of one look at the disk."""
        return (self.path / _RECORDED.decode() / commit).exists()

    def keep_commit(self, commit: str) -> bool:
        """Have a commit and keep it, fetching it by its id if need be; False if the repository has it not."""
        if not self._has_commit(commit):
            with contextlib.suppress(RepositoryAway):
                self.fetch({commit.encode(): commit})
        if not self._has_commit(commit):
            return False
        with self._locked():
            self.inside("update-ref", f"{_RECORDED.decode()}{commit}", commit)
        return True

    def commits_since(self, before: str, tip: str) -> list[str]:
        """The commits of a branch after `before` up to `tip`, oldest first; only `tip` if `before` is unknown.

        Only first parents, at most the newest 1,000.
        """
        listed = self.inside(
            "rev-list", "--first-parent", f"--max-count={_MOST_COMMITS}", tip, f"^{before}", check=False
        )
        return listed.text.split()[::-1] if listed.exit_status == 0 else [tip]

    def archive(self, commit: str, destination: IO[bytes]) -> None:
        """Write the tree of a commit as a tar archive: exactly its files, whatever its attributes say."""
        self.inside("archive", "--format=tar", commit, stdout=destination, timeout=self._limit())

    @contextlib.contextmanager
    def objects(self) -> Iterator[Objects]:
        """What is in the mirror."""
        self.create()
        environment = self.environment
        keyring = self.settings.optional("refs.keyring")
        with opened(self.path, environment, None if keyring is None else Path(keyring)) as found:
            yield found

    def create(self) -> None:
        """Make the mirror if there is none; it is found whole or not at all."""
        if self.path.exists():
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self._locked():
            if self.path.exists():
                return
            fresh = self.path.with_suffix(".new")
            user, group = self._account()
            run(
                ["git", "init", "--quiet", "--bare", "--template=", fresh],
                timeout=LOCAL_SECONDS,
                environment=self.environment,
                user=user,
                group=group,
            )
            (fresh / "info").mkdir(exist_ok=True)
            (fresh / "info" / "attributes").write_text(_ATTRIBUTES)
            self._give(fresh / "info" / "attributes")
            fresh.rename(self.path)

    def inside(
        self,
        *words: str,
        timeout: float = LOCAL_SECONDS,
        check: bool = True,
        stdin: bytes | None = None,
        stdout: IO[bytes] | None = None,
    ) -> Completed:
        """Run git in the mirror."""
        self.create()
        user, group = self._account()
        return run(
            ["git", f"--git-dir={self.path}", *words],
            timeout=timeout,
            check=check,
            stdin=stdin,
            stdout=stdout,
            environment=self.environment,
            capture_limit=_CAPTURE_LIMIT,
            user=user,
            group=group,
        )

    def _account(self) -> tuple[int | None, int | None]:
        """As whom git runs: root's commands write as the service does that has the mirrors, and read what it may."""
        owner = self.path.parent.stat()
        return (owner.st_uid, owner.st_gid) if os.geteuid() == 0 and owner.st_uid else (None, None)

    def _give(self, file: Path) -> None:
        """Let what root wrote belong to whom the mirrors belong."""
        user, group = self._account()
        if user is not None and group is not None:
            os.chown(file, user, group)

    @cached_property
    def environment(self) -> Mapping[str, str]:
        """Variables that keep git to itself; they also hold for the programs that it starts."""
        forget_inherited()
        configuration = self.settings.state / "mirrors" / "gitconfig"
        if not configuration.exists():
            configuration.parent.mkdir(parents=True, exist_ok=True)
            fresh = configuration.with_name(f"{configuration.name}.{os.getpid()}.{threading.get_ident()}")
            fresh.write_text(_CONFIGURATION)
            self._give(fresh)
            fresh.replace(configuration)
        return {
            "LC_ALL": "C",
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": str(configuration),
            "GIT_ATTR_NOSYSTEM": "1",
            "GIT_NO_REPLACE_OBJECTS": "1",
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_ASKPASS": "true",
            "GIT_SSH_COMMAND": "ssh -o BatchMode=yes",
            "GIT_ALLOW_PROTOCOL": ":".join(self.settings.words("refs.transports")),
        }

    def _outside(self, *words: str, stdin: bytes | None = None) -> Completed:
        """Run git in the mirror so that it talks to the watched repository."""
        address.check(self.url, self.settings.words("refs.transports"))
        try:
            return self.inside(*words, timeout=self._limit(), stdin=stdin)
        except CommandError as error:
            printed = error.completed.stderr.decode(errors="replace").strip()
            raise RepositoryAway(f"the repository {self.url} cannot be read: {printed[-1000:]}") from error
        except InfrastructureError as error:
            raise RepositoryAway(f"the repository {self.url} cannot be read: {error.message}") from error

    def _remember_url(self) -> None:
        file = self.path / _URL_FILE
        if not file.exists() or file.read_text() != self.url:
            fresh = file.with_name(f"{_URL_FILE}.{os.getpid()}.{threading.get_ident()}")
            fresh.write_text(self.url)
            self._give(fresh)
            fresh.replace(file)

    def _fetch_parts(self, wanted: Mapping[str, bytes]) -> None:
        """Fetch objects by their names; where one spoils the whole, fetch it in parts without that one."""
        parts = [list(wanted.items())]
        failures = successes = 0
        while parts:
            part = parts.pop()
            try:
                self._fetch(part)
                successes += 1
            except RepositoryAway as error:
                failures += 1
                half = len(part) // 2
                parts += [part[:half], part[half:]] if half else []
                lost = not isinstance(error.__cause__, CommandError) or failures > _MOST_FAILURES
                if lost or not (parts or successes):
                    raise

    def _fetch(self, wanted: Iterable[tuple[str, bytes]]) -> None:
        lines = [b"+%b:%b%b\n" % (name, _RECORDED, object_id.encode()) for object_id, name in wanted]
        self._outside(
            *("fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--no-recurse-submodules"),
            *("--stdin", "--", self.url),
            stdin=b"".join(lines),
        )

    def _kept(self) -> dict[str, str]:
        """What is kept: the id after which a ref is named, and the id that it holds."""
        listed = self.inside("for-each-ref", "--format=%(refname:lstrip=2) %(objectname)", _RECORDED.decode())
        return dict(line.split(" ", 1) for line in listed.text.splitlines())

    def _has_commit(self, commit: str) -> bool:
        return self.inside("cat-file", "-e", f"{commit}^{{commit}}", check=False).exit_status == 0

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Keep other processes from writing into the mirror, and clear away what a killed git left there."""
        with self.path.with_suffix(".lock").open("w") as file:
            self._give(Path(file.name))
            fcntl.flock(file, fcntl.LOCK_EX)
            for pattern in _LEFTOVERS:
                for leftover in self.path.glob(pattern):
                    leftover.unlink(missing_ok=True)
            yield

    def _limit(self) -> float:
        return self.settings.number("refs.timeout")


def forget_inherited() -> None:
    """Drop the variables for git that this process inherited, from a git hook for example.

    They would point git and GitPython at another repository. A process with threads does it before it has them:
    whoever copies the environment meanwhile would miss a variable that he has just seen.
    """
    for variable in [name for name in os.environ if name.startswith("GIT_")]:
        os.environ.pop(variable, None)


def _parse(listing: bytes) -> Remote:
    """Read what `git ls-remote` prints: ID TAB NAME, and NAME^{} for what an annotated tag points to."""
    objects: dict[bytes, str] = {}
    for line in listing.split(b"\n"):
        object_id, tab, name = line.partition(b"\t")
        if tab and _ID.match(object_id):
            objects[name] = object_id.decode()
    return Remote(_named(objects, TAGS), _named(objects, HEADS))


def _named(objects: Mapping[bytes, str], prefix: bytes) -> dict[bytes, RemoteRef]:
    return {
        name.removeprefix(prefix): RemoteRef(name, object_id, objects.get(name + b"^{}", object_id))
        for name, object_id in objects.items()
        if name.startswith(prefix) and not name.endswith(b"^{}")
    }
