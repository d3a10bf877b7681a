"""Mirrors: real repositories read, kept and archived; signatures checked with real keys."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest
from git_repository import Repository

from cleanroom_base import settings as site
from cleanroom_base.errors import InfrastructureError, InputError
from cleanroom_base.settings import Settings
from cleanroom_db.states import SignatureState, TagKind
from cleanroom_master.refs import contents, sources
from cleanroom_master.refs.address import TransportRefused
from cleanroom_master.refs.mirror import Mirror, RepositoryAway


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return site.load({"CLEANROOM_STATE": str(tmp_path / "state"), "CLEANROOM_SITE": str(tmp_path)})


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository.make(tmp_path / "hello")


@pytest.fixture
def mirror(settings: Settings, repository: Repository) -> Mirror:
    return Mirror(settings, "hello", str(repository.path))


@pytest.fixture
def quick_switches() -> Iterator[None]:
    """Threads that take turns as often as they can, to meet each other where they may."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def _fetch(mirror: Mirror, name: str) -> str:
    remote = mirror.remote_refs().tags[name.encode()]
    assert mirror.fetch({remote.name: remote.object_id}) == {remote.object_id}
    return remote.object_id


def test_a_mirror_belongs_to_whom_the_mirrors_belong() -> None:
    """Root's `product add` writes beside the service that has them: nothing of it may be in that one's way."""
    # Others do not get into pytest's own directory.
    with tempfile.TemporaryDirectory(dir="/var/tmp") as place:
        state = Path(place) / "state"
        repository = Repository.make(Path(place) / "hello")
        repository.commit(file="1")
        repository.tag("v1")
        (state / "mirrors").mkdir(parents=True)
        Path(place).chmod(0o755)
        owner = 65534 if os.geteuid() == 0 else os.geteuid()
        os.chown(state / "mirrors", owner, -1)
        settings = site.load({"CLEANROOM_STATE": str(state), "CLEANROOM_SITE": place})
        mirror = Mirror(settings, "hello", str(repository.path))
        _fetch(mirror, "v1")
        with mirror.objects() as objects:
            assert objects
        found = [state / "mirrors", *(state / "mirrors").rglob("*")]
        assert len(found) > 10
        assert {path.lstat().st_uid for path in found if path.is_file()} == {owner}
        assert {path.lstat().st_uid for path in found if path.name in ("hello.git", "objects", "refs")} == {owner}


def test_tags_say_what_they_are(mirror: Mirror, repository: Repository) -> None:
    commit = repository.commit(file="1")
    repository.tag("light")
    repository.tag(
        "heavy", "--annotate", "--message=The first\n\nof many", variables={"GIT_COMMITTER_DATE": "1700000000 +0200"}
    )
    remote = mirror.remote_refs()
    assert {name: (ref.commit, ref.tag_kind) for name, ref in remote.tags.items()} == {
        b"light": (commit, TagKind.LIGHTWEIGHT),
        b"heavy": (commit, TagKind.ANNOTATED),
    }
    assert remote.heads[b"main"].commit == commit
    light, heavy = _fetch(mirror, "light"), _fetch(mirror, "heavy")
    with mirror.objects() as objects:
        told = objects.tag(light, "light")
        assert (told.commit, told.tag_kind, told.signature) == (commit, TagKind.LIGHTWEIGHT, SignatureState.NONE)
        told = objects.tag(heavy, "heavy")
    assert (told.commit, told.tag_kind, told.signature) == (commit, TagKind.ANNOTATED, SignatureState.NONE)
    assert (told.tagger, told.message) == ("Anna <anna@example.org>", "The first\n\nof many")
    assert told.tagged_at is not None
    assert told.tagged_at.isoformat() == "2023-11-15T00:13:20+02:00"


def test_a_tag_of_a_file_is_no_release(mirror: Mirror, repository: Repository) -> None:
    repository.commit(file="1")
    repository.git("tag", "--annotate", "--message=our key", "key", "HEAD:file")
    object_id = _fetch(mirror, "key")
    with mirror.objects() as objects, pytest.raises(InputError, match="points to a blob, not to a commit"):
        objects.tag(object_id, "key")


@pytest.mark.parametrize(
    "content",
    [
        b"object %b\ntype commit\ntag v1\ntagger nonsense\n\nmessage\n",
        b"object %b\ntype nonsense\ntag v1\n\nmessage\n",
        b"object nonsense\n\n%b",
    ],
)
def test_a_broken_tag_object_is_an_input_error_or_harmless(
    mirror: Mirror, repository: Repository, content: bytes
) -> None:
    commit = repository.commit(file="1")
    made = repository.git("hash-object", "-t", "tag", "-w", "--literally", "--stdin", stdin=content % commit.encode())
    mirror.create()
    (mirror.path / "objects" / made[:2]).mkdir(exist_ok=True)
    source = repository.path / ".git" / "objects" / made[:2] / made[2:]
    (mirror.path / "objects" / made[:2] / made[2:]).write_bytes(source.read_bytes())
    mirror.keep_commit(commit)
    with mirror.objects() as objects:
        try:
            told = objects.tag(made, "v1")
        except InputError as error:
            assert "v1" in str(error) or "commit" in str(error)
        else:
            assert told.commit == commit


def test_a_git_that_was_killed_does_not_spoil_what_it_reads(mirror: Mirror, repository: Repository) -> None:
    commit = repository.commit(file="1")
    repository.tag("v1")
    tag = _fetch(mirror, "v1")
    with mirror.objects() as objects:
        reads: list[Callable[[], object]] = [
            lambda: objects.tag(tag, "v1").commit == commit,
            lambda: objects.commit(commit).commit == commit,
            lambda: objects.file(commit, "file", most=10) == b"1",
        ]
        for read in reads:
            assert read()
            children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
            running = [int(child) for child in children if Path(f"/proc/{child}/comm").read_text() == "git\n"]
            assert running, "GitPython keeps no git any more: the reading can be simpler"
            for process in running:
                os.kill(process, signal.SIGKILL)
            assert read()


def test_what_was_recorded_stays_when_the_tag_moves(
    mirror: Mirror, repository: Repository, settings: Settings, tmp_path: Path
) -> None:
    first = repository.commit(file="1")
    repository.tag("v1")
    _fetch(mirror, "v1")
    repository.git("checkout", "--quiet", "--orphan", "other")
    second = repository.commit(file="2")
    repository.tag("v1", "--force")
    repository.git("branch", "--delete", "--force", "main")
    repository.git("reflog", "expire", "--expire=now", "--all")
    repository.git("gc", "--quiet", "--prune=now")
    _fetch(mirror, "v1")
    mirror.inside("gc", "--quiet", "--prune=now")
    for commit, content in ((first, b"1"), (second, b"2")):
        with tarfile.open(sources.archive(settings, "hello", commit, tmp_path / "source.tar")) as archive:
            file = archive.extractfile("file")
            assert file is not None
            assert file.read() == content


def test_a_tag_that_moves_between_look_and_fetch_is_left_for_the_next_look(
    mirror: Mirror, repository: Repository
) -> None:
    repository.commit(file="1")
    repository.tag("v1")
    old = mirror.remote_refs().tags[b"v1"]
    repository.commit(file="2")
    repository.tag("v1", "--force")
    assert mirror.fetch({old.name: old.object_id}) == set()
    assert _fetch(mirror, "v1") != old.object_id


def test_tags_that_exclude_one_another_over_time_are_no_problem(mirror: Mirror, repository: Repository) -> None:
    repository.commit(file="1")
    repository.tag("a")
    _fetch(mirror, "a")
    repository.git("tag", "--delete", "a")
    repository.commit(file="2")
    repository.tag("a/b")
    _fetch(mirror, "a/b")


def test_the_archive_is_the_tree_whatever_its_attributes_say(
    mirror: Mirror, repository: Repository, settings: Settings, tmp_path: Path
) -> None:
    files = {
        "hidden": b"secret\n",
        "subst": b"$Format:%H$\n",
        "ident": b"$Id$\n",
        "crlf": b"a\nb\n",
        "utf16": "größe\n".encode(),
        "__gitattributes": b"hidden export-ignore\nsubst export-subst\nident ident\ncrlf text eol=crlf\n"
        b"utf16 working-tree-encoding=UTF-16\n* filter=evil\n",
    }
    repository.git("config", "core.attributesFile", "/dev/null")
    blobs = {
        name.replace("__", "."): repository.git("hash-object", "-w", "--stdin", "--no-filters", stdin=content)
        for name, content in files.items()
    }
    listing = "".join(f"100644 blob {blob}\t{name}\n" for name, blob in sorted(blobs.items()))
    tree = repository.git("mktree", stdin=listing.encode())
    commit = repository.git("commit-tree", "-m", "attributes", tree)
    repository.git("tag", "v1", commit)
    _fetch(mirror, "v1")
    one = sources.archive(settings, "hello", commit, tmp_path / "one.tar")
    with tarfile.open(one) as archive:
        content = {}
        for member in archive.getmembers():
            file = archive.extractfile(member)
            assert file is not None
            assert member.mode == 0o644
            content[member.name] = file.read()
    assert content == {name.replace("__", "."): data for name, data in files.items()}
    two = sources.archive(settings, "hello", commit, tmp_path / "two.tar")
    assert one.read_bytes() == two.read_bytes()


def test_hooks_and_configuration_of_the_repository_do_nothing(
    mirror: Mirror, repository: Repository, tmp_path: Path
) -> None:
    repository.commit(file="1")
    repository.tag("v1")
    mark = tmp_path / "mark"
    program = tmp_path / "program"
    program.write_text(f'#!/bin/sh\ntouch {mark}\nexec "$@"\n')
    program.chmod(0o755)
    for hook in ("post-checkout", "reference-transaction", "post-update", "pre-receive"):
        (repository.path / ".git" / "hooks" / hook).parent.mkdir(exist_ok=True)
        (repository.path / ".git" / "hooks" / hook).symlink_to(program)
    for key in ("uploadpack.packObjectsHook", "core.fsmonitor", "core.sshCommand", "core.gitProxy"):
        repository.git("config", key, str(program))
    repository.git("config", "alias.upload-pack", f"!{program}")
    _fetch(mirror, "v1")
    assert not mark.exists()


def test_another_user_s_repository_can_be_watched(mirror: Mirror, repository: Repository) -> None:
    repository.commit(file="1")
    repository.tag("v1")
    if os.geteuid() == 0:
        subprocess.run(["chown", "-R", "nobody", repository.path], check=True, timeout=60)
    _fetch(mirror, "v1")


@pytest.mark.parametrize("url", ["/nowhere/at/all", "file:///nowhere/at/all"])
def test_a_repository_that_is_not_there_is_said(settings: Settings, url: str) -> None:
    with pytest.raises(RepositoryAway, match=r"cannot be read: fatal: .*does not"):
        Mirror(settings, "hello", url).remote_refs()


def test_a_directory_that_is_no_repository_is_said(settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(RepositoryAway, match="not appear to be a git repository"):
        Mirror(settings, "hello", str(tmp_path)).remote_refs()


def test_a_url_that_is_not_allowed_is_not_tried(settings: Settings, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    with pytest.raises(TransportRefused):
        Mirror(settings, "hello", f"ext::touch {mark}").remote_refs()
    assert not mark.exists()


def test_a_repository_that_never_answers_ends_in_time(
    tmp_path: Path, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "ssh").write_text("#!/bin/sh\nexec sleep 600\n")
    (programs / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    settings = site.load(
        {"CLEANROOM_STATE": str(tmp_path / "state"), "CLEANROOM_SITE": str(tmp_path), "CLEANROOM_REFS_TIMEOUT": "0.5"}
    )
    with pytest.raises(RepositoryAway, match="did not end in its time"):
        Mirror(settings, "hello", "git@example.org:hello.git").remote_refs()


def test_many_begin_at_once_with_the_variables_of_a_hook(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, quick_switches: None
) -> None:
    for number in range(500):
        monkeypatch.setenv(f"GIT_CONFIG_KEY_{number}", "x")
    mirrors = [Mirror(settings, f"hello-{number}", "https://example.org") for number in range(8)]
    together = Barrier(len(mirrors))

    def begin(mirror: Mirror) -> Mapping[str, str]:
        together.wait(60)
        return mirror.environment

    with ThreadPoolExecutor(len(mirrors)) as threads:
        environments = list(threads.map(begin, mirrors))
    assert all(environment == environments[0] for environment in environments)
    assert not [name for name in os.environ if name.startswith("GIT_")]


def test_what_a_killed_git_left_is_cleared_away(mirror: Mirror, repository: Repository) -> None:
    commit = repository.commit(file="1")
    repository.tag("v1")
    mirror.create()
    left = [
        mirror.path / f"refs/recorded/{commit}.lock",
        mirror.path / "objects/pack/tmp_pack_1",
        mirror.path / "packed-refs.lock",
    ]
    for file in left:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    assert _fetch(mirror, "v1") == commit
    assert not any(file.exists() for file in left)


def test_branches_give_their_new_commits(mirror: Mirror, repository: Repository) -> None:
    first = repository.commit(file="1")
    second = repository.commit(file="2")
    third = repository.commit(file="3")
    assert mirror.fetch({b"refs/heads/main": third}) == {third}
    assert mirror.commits_since(first, third) == [second, third]
    assert mirror.commits_since("f" * 40, third) == [third]
    with mirror.objects() as objects:
        assert objects.commit(second).message == "A change"


def test_files_of_a_commit(mirror: Mirror, repository: Repository, settings: Settings) -> None:
    (repository.path / "link").symlink_to("/etc/passwd")
    commit = repository.commit(recipe__toml="builders = []\n")
    mirror.remote_refs()
    assert contents.read_file(settings, "hello", commit, "recipe.toml", limit=100) == b"builders = []\n"
    assert contents.read_file(settings, "hello", commit, "other.toml", limit=100) is None
    with pytest.raises(InputError, match="14 bytes, 3 are the limit"):
        contents.read_file(settings, "hello", commit, "recipe.toml", limit=3)
    with pytest.raises(InputError, match="not a plain file"):
        contents.read_file(settings, "hello", commit, "link", limit=100)
    assert contents.commit_time(settings, "hello", commit).utcoffset() is not None
    with pytest.raises(sources.CommitAway):
        contents.read_file(settings, "hello", "f" * 40, "recipe.toml", limit=100)
    with pytest.raises(InfrastructureError, match="was not looked at yet"):
        contents.read_file(settings, "other", commit, "recipe.toml", limit=100)


@pytest.fixture(scope="module")
def gnupg(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A GnuPG home with the keys of Anna and Eve, and Anna's public key in a file."""
    home = tmp_path_factory.mktemp("gnupg")
    home.chmod(0o700)
    for user in ("anna@example.org", "eve@example.org"):
        _gpg(home, "--passphrase", "", "--quick-generate-key", user, "ed25519", "sign", "never")
    (home / "anna.asc").write_bytes(_gpg(home, "--armor", "--export", "anna@example.org"))
    (home / "anna.gpg").write_bytes(_gpg(home, "--export", "anna@example.org"))
    yield home
    subprocess.run(["gpgconf", "--homedir", home, "--kill", "all"], check=True, timeout=60)


def _gpg(home: Path, *words: str) -> bytes:
    command = ["gpg", "--homedir", str(home), "--batch", "--quiet", *words]
    return subprocess.run(command, check=True, timeout=60, capture_output=True).stdout


@pytest.mark.parametrize(
    ("keyring", "signer", "state"),
    [
        ("anna.asc", "anna@example.org", SignatureState.GOOD),
        ("anna.gpg", "anna@example.org", SignatureState.GOOD),
        ("anna.asc", "eve@example.org", SignatureState.UNKNOWN_KEY),
        (None, "anna@example.org", SignatureState.UNCHECKED),
    ],
)
def test_signatures_are_checked_against_the_keyring(
    tmp_path: Path, repository: Repository, gnupg: Path, keyring: str | None, signer: str, state: SignatureState
) -> None:
    mirror = _signing_mirror(tmp_path, repository, gnupg / keyring if keyring else None)
    repository.commit(file="1")
    repository.tag("v1", "--sign", f"--local-user={signer}", "--message=Signed", variables={"GNUPGHOME": str(gnupg)})
    object_id = _fetch(mirror, "v1")
    with mirror.objects() as objects:
        told = objects.tag(object_id, "v1")
        assert (told.signature, told.message) == (state, "Signed")
        if state is SignatureState.GOOD:
            # The same signed tag, published under another name.
            assert objects.tag(object_id, "v2").signature is SignatureState.BAD


def test_a_changed_tag_has_a_bad_signature(tmp_path: Path, repository: Repository, gnupg: Path) -> None:
    mirror = _signing_mirror(tmp_path, repository, gnupg / "anna.asc")
    repository.commit(file="1")
    repository.tag(
        "v1", "--sign", "--local-user=anna@example.org", "--message=Signed", variables={"GNUPGHOME": str(gnupg)}
    )
    signed = repository.git("cat-file", "tag", "v1")
    forged = repository.git("mktag", stdin=signed.replace("Signed", "Forged").encode() + b"\n")
    repository.git("update-ref", "refs/tags/v1", forged)
    object_id = _fetch(mirror, "v1")
    with mirror.objects() as objects:
        assert objects.tag(object_id, "v1").signature is SignatureState.BAD


def _signing_mirror(tmp_path: Path, repository: Repository, keyring: Path | None) -> Mirror:
    variables = {"CLEANROOM_STATE": str(tmp_path / "state"), "CLEANROOM_SITE": str(tmp_path)}
    if keyring is not None:
        variables["CLEANROOM_REFS_KEYRING"] = str(keyring)
    return Mirror(site.load(variables), "hello", str(repository.path))
