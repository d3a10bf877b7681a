"""A repository and a key to sign it, for tests that publish."""

from collections.abc import Iterator
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
