"""A repository and a key to sign it, for tests that publish."""

import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cleanroom_master.publish.repository import Repository
from cleanroom_master.publish.signing import Signer


@pytest.fixture(scope="session")
def signer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Signer]:
    """One key for all tests: to make one takes seconds."""
    directory = tmp_path_factory.mktemp("signer")
    with Signer(directory / "gnupg", directory / "runtime", user_id="Test repository") as signer:
        yield signer


@pytest.fixture
def repository(tmp_path: Path, signer: Signer) -> Repository:
    return Repository(tmp_path / "repository", signer, origin="Test", url="http://repository.example")


@pytest.fixture(scope="session")
def home_of_two_keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GnuPG home with two keys, to be copied. They are short, because to make long ones takes seconds."""
    home = tmp_path_factory.mktemp("two-keys")
    home.chmod(0o700)
    made = ["--yes", "--quick-generate-key", "Test repository", "rsa2048", "sign", "5y"]
    for _ in range(2):
        gpg = ["gpg", "--homedir", home, "--batch", "--pinentry-mode", "loopback", "--passphrase", ""]
        subprocess.run([*gpg, *made], check=True, capture_output=True, timeout=300)
    subprocess.run(["gpgconf", "--homedir", home, "--kill", "gpg-agent"], check=True, timeout=60)
    return home


@pytest.fixture
def runtime() -> Iterator[Path]:
    """A place for an agent's sockets: their paths may have 107 bytes, and the name of a test is long."""
    with tempfile.TemporaryDirectory(prefix="cr-", dir="/tmp") as place:
        yield Path(place)


@pytest.fixture
def open_two_keys(home_of_two_keys: Path, tmp_path: Path, runtime: Path) -> Iterator[Callable[[], Signer]]:
    """Open this test's own copy of a home with two keys, as a process that starts does."""
    home = tmp_path / "two-keys"
    shutil.copytree(home_of_two_keys, home, ignore=shutil.ignore_patterns("S.*", "*.lock", ".#*"))
    opened: list[Signer] = []

    def open_signer() -> Signer:
        opened.append(Signer(home, runtime, user_id="Test repository", may_make=False))
        return opened[-1]

    yield open_signer
    for signer in opened:
        signer.close()


@pytest.fixture
def two_keys(open_two_keys: Callable[[], Signer]) -> Signer:
    """Two keys, of which the newest signs until something else is said."""
    return open_two_keys()
