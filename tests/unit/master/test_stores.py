"""Logs and files by the hash of their content."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from cleanroom_base.errors import InputError
from cleanroom_master import stores
from cleanroom_master.files import FileStore
from cleanroom_master.logs import LogStore

NO_DIGESTS = ["", "abc", "../" + "a" * 61, "A" * 64, "a" * 64 + "\n", "a" * 63 + "/"]


def test_a_log_is_kept_under_the_hash_of_what_it_says(tmp_path: Path) -> None:
    store = LogStore(tmp_path)
    log = store.open("7-build-compile")
    log.write("first\n")
    log.write("zweite Zeile: grün\n")
    text = "first\nzweite Zeile: grün\n".encode()
    sealed = log.seal()
    assert (sealed.sha256, sealed.size) == (hashlib.sha256(text).hexdigest(), len(text))
    assert store.read(sealed.sha256) == text
    assert list((tmp_path / "growing").iterdir()) == []


def test_a_log_can_be_read_while_it_grows(tmp_path: Path) -> None:
    log = LogStore(tmp_path).open("7-build-compile")
    log.write("so far\n")
    [growing] = (tmp_path / "growing").iterdir()
    assert growing.read_text() == "so far\n"
    log.seal()


def test_equal_logs_are_one_file(tmp_path: Path) -> None:
    store = LogStore(tmp_path)
    logs = [store.open(name) for name in ("one", "two")]
    for log in logs:
        log.write("the same\n")
    first, second = (log.seal() for log in logs)
    assert first == second
    assert len(list(tmp_path.glob("??/*.gz"))) == 1


def test_a_log_s_name_leads_nowhere_else(tmp_path: Path) -> None:
    log = LogStore(tmp_path / "logs").open("../../escaped\n")
    log.write("x")
    log.seal()
    assert [path.name for path in tmp_path.iterdir()] == ["logs"]


def test_lone_surrogates_are_written_as_escapes(tmp_path: Path) -> None:
    store = LogStore(tmp_path)
    log = store.open("x")
    log.write("\ud800")
    assert store.read(log.seal().sha256) == b"\\ud800"


def test_a_missing_log_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no log"):
        LogStore(tmp_path).read("a" * 64)


def test_a_file_is_kept_and_not_changed_again(tmp_path: Path) -> None:
    store = FileStore(tmp_path / "artifacts")
    digest = hashlib.sha256(b"content").hexdigest()
    places = []
    for name in ("one", "two"):
        (tmp_path / name).write_bytes(b"content")
        places.append(store.take(tmp_path / name, digest))
    assert places[0] == places[1] == store.path(digest)
    assert places[0].read_bytes() == b"content"
    assert places[0].stat().st_mode & 0o777 == 0o444
    kept = [path for path in (tmp_path / "artifacts").rglob("*") if path.is_file() and path.name != ".lock"]
    assert kept == [places[0]]


def test_a_file_from_another_file_system_is_kept_whole_or_not_at_all(tmp_path: Path) -> None:
    store = FileStore(tmp_path / "artifacts")
    content = b"content" * 100_000
    digest = hashlib.sha256(content).hexdigest()
    with tempfile.TemporaryDirectory(dir=_elsewhere(tmp_path)) as elsewhere:
        for name in ("one", "two"):
            source = Path(elsewhere, name)
            source.write_bytes(content)
            kept = store.take(source, digest)
        assert (kept.read_bytes(), kept.stat().st_mode & 0o777) == (content, 0o444)
        # One who is killed before the end.
        other = hashlib.sha256(b"other").hexdigest()
        Path(elsewhere, "other").write_bytes(b"other")
        command = [sys.executable, "-c", KILLED, str(store.directory), str(Path(elsewhere, "other")), other]
        assert subprocess.run(command, check=False, timeout=60).returncode == -signal.SIGKILL
    assert [file for file in store.directory.rglob("*") if file.is_file() and file.name != ".lock"] == [kept]


KILLED = """
import os, shutil, signal, sys
from pathlib import Path
from cleanroom_master.files import FileStore
shutil.copyfileobj = lambda given, fresh: fresh.write(b"ot") and fresh.flush() or os.kill(os.getpid(), signal.SIGKILL)
FileStore(Path(sys.argv[1])).take(Path(sys.argv[2]), sys.argv[3])
"""


def _elsewhere(place: Path) -> Path:
    """A directory on another file system."""
    candidates = (Path("/dev/shm"), Path("/var/tmp"), Path.home())
    return next(one for one in candidates if one.is_dir() and one.stat().st_dev != place.stat().st_dev)


def test_locks_that_another_user_made_are_good_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Services have users of their own; a backup is made by root."""
    with stores.no_removal(tmp_path):
        stores.found(tmp_path, tmp_path / "any")
    for lock in ("run/backup.lock", ".lock"):
        (tmp_path / lock).chmod(0o444)
    tmp_path.chmod(0o755)
    # What is above belongs to whoever runs the tests.
    monkeypatch.chdir(tmp_path)
    me = os.geteuid()
    if me == 0:
        os.seteuid(65534)
    try:
        with stores.removal(Path()) as may:
            assert may
        assert not stores.found(Path(), Path("any"))
    finally:
        os.seteuid(me)


@pytest.mark.parametrize("digest", NO_DIGESTS)
def test_what_is_no_digest_leads_nowhere(tmp_path: Path, digest: str) -> None:
    for store in (LogStore(tmp_path), FileStore(tmp_path)):
        with pytest.raises(InputError):
            store.path(digest)
