"""Images built anew beside the present ones: taken when they are accepted, gone when not, and old ones kept in use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cleanroom_base.errors import InfrastructureError
from cleanroom_images.build import build, refresh
from cleanroom_images.catalogue import Catalogue
from cleanroom_images.store import Image

MMDEBSTRAP = '#!/bin/sh\nfor last in "$@"; do :; done\nexec tar -C {tree} -cf "$last" .\n'


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The tree that the fake mmdebstrap installs."""
    tree, programs = tmp_path / "tree", tmp_path / "programs"
    for directory in ("var/lib/apt/lists", "var/cache/apt"):
        (tree / directory).mkdir(parents=True)
    programs.mkdir()
    (programs / "mmdebstrap").write_text(MMDEBSTRAP.format(tree=tree))
    (programs / "mmdebstrap").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    return tree


@pytest.fixture
def catalogue(tmp_path: Path, tree: Path) -> Catalogue:
    """With the image `tiny`, built."""
    folder = tmp_path / "site/guest_images/tiny"
    folder.mkdir(parents=True)
    (folder / "image.toml").write_text('distribution = "debian"\nsuite = "bookworm"\n')
    catalogue = Catalogue(tmp_path / "state", tmp_path / "site")
    build(catalogue, "tiny")
    return catalogue


def refused(_: Image) -> None:
    raise InfrastructureError("it is not good")


def unexpected(image: Image) -> None:
    raise AssertionError(f"{image.digest} was to be tried")


def digests(catalogue: Catalogue) -> set[str]:
    """What is on the disk, the sealed and the half-made."""
    home = catalogue.store.directory / "tiny"
    names = {path.name.split(".json")[0] for path in home.iterdir()}
    return names - {"current", "users", "former", ".building", ".held", ".tried"}


def test_a_good_one_is_tried_before_it_is_present(catalogue: Catalogue, tree: Path) -> None:
    old = catalogue.image("tiny")
    (tree / "new").touch()
    seen: list[str] = []

    def accept(image: Image) -> None:
        assert catalogue.image("tiny") == old
        trial = Catalogue(catalogue.store.directory.parent, chosen={"tiny": image.digest})
        assert trial.image("tiny") == image
        # Whoever takes away what nobody needs takes neither.
        catalogue.store.tidy()
        trial.store.tidy()
        assert digests(catalogue) == {old.digest, image.digest}
        seen.append(image.digest)

    new = refresh(catalogue, "tiny", accept)
    assert seen == [new.digest]
    assert catalogue.verify("tiny") == new
    assert digests(catalogue) == {new.digest}


def test_one_that_is_refused_is_gone_and_the_old_one_stays(catalogue: Catalogue, tree: Path) -> None:
    old = catalogue.image("tiny")
    (tree / "new").touch()
    with pytest.raises(InfrastructureError, match="it is not good"):
        refresh(catalogue, "tiny", refused)
    assert catalogue.verify("tiny") == old
    assert digests(catalogue) == {old.digest}


def test_nothing_happens_when_only_the_lists_of_packages_are_new(catalogue: Catalogue, tree: Path) -> None:
    old = catalogue.image("tiny")
    assert refresh(catalogue, "tiny", unexpected) == old
    (tree / "var/lib/apt/lists/InRelease").write_text("signed anew\n")
    (tree / "var/cache/apt/pkgcache.bin").write_text("of these lists\n")
    assert refresh(catalogue, "tiny", unexpected) == old
    (tree / "var/lib/apt/extended_states").touch()
    with pytest.raises(AssertionError, match="was to be tried"):
        refresh(catalogue, "tiny", unexpected)


def test_one_that_was_tampered_with_is_replaced_by_the_same(catalogue: Catalogue, tree: Path) -> None:
    old = catalogue.image("tiny")
    assert old.disk is not None
    old.disk.write_bytes(b"tampered")
    assert refresh(catalogue, "tiny", lambda _: None).digest == old.digest
    catalogue.verify("tiny")


def test_an_old_one_is_kept_while_anybody_needs_it(catalogue: Catalogue, tree: Path) -> None:
    old = catalogue.image("tiny")
    catalogue.store.claim(old, "guest")
    (tree / "new").touch()
    new = refresh(catalogue, "tiny", lambda _: None)
    catalogue.store.tidy()
    assert digests(catalogue) == {old.digest, new.digest}
    assert catalogue.store.image("tiny", old.digest).tree == old.tree
    catalogue.store.release("tiny", "guest")
    with catalogue.store.held("tiny"):
        # Somebody is just taking an image into use, and is not to be waited for.
        catalogue.store.tidy()
    assert digests(catalogue) == {old.digest, new.digest}
    # Nor is the present one removed by somebody who takes another one for it.
    Catalogue(catalogue.store.directory.parent, chosen={"tiny": old.digest}).store.tidy()
    assert digests(catalogue) == {new.digest}


def test_the_last_ones_stay_for_who_looks_for_what_broke(catalogue: Catalogue, tree: Path, tmp_path: Path) -> None:
    keeping = Catalogue(tmp_path / "state", tmp_path / "site", former=2)
    past = [catalogue.image("tiny").digest]
    for number in range(3):
        (tree / f"new-{number}").touch()
        past.append(refresh(keeping, "tiny", lambda _: None).digest)
        keeping.store.tidy()
    assert digests(catalogue) == set(past[1:])
    assert keeping.store.former("tiny") == past[1:3]
    assert keeping.store.image("tiny", past[1]).digest == past[1]
    # One that was refused never was the present one.
    (tree / "bad").touch()
    with pytest.raises(InfrastructureError, match="it is not good"):
        refresh(keeping, "tiny", refused)
    assert digests(catalogue) == set(past[1:])
    # What comes back is no former one, and what it replaces is.
    for name in ("bad", "new-2"):
        (tree / name).unlink()
    assert refresh(keeping, "tiny", lambda _: None).digest == past[2]
    assert keeping.store.former("tiny") == [past[1], past[3]]
    keeping.remove("tiny")
    assert not (tmp_path / "state/images/tiny").exists()


def test_what_a_killed_one_had_built_is_removed(catalogue: Catalogue, tree: Path) -> None:
    old = catalogue.image("tiny")
    (tree / "new").touch()
    with catalogue.store.building("tiny") as directory:
        (directory / "tree").mkdir()
    child = os.fork()
    if child == 0:
        refresh(catalogue, "tiny", lambda _: os._exit(7))
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert len(digests(catalogue)) == 2
    catalogue.store.tidy()
    assert digests(catalogue) == {old.digest}


def test_images_are_due_when_they_are_old_and_were_not_tried_lately(catalogue: Catalogue, tree: Path) -> None:
    home = catalogue.store.directory / "tiny"
    assert catalogue.due(3600) == []
    os.utime(home / "current", (1, 1), follow_symlinks=False)
    assert catalogue.due(3600) == ["tiny"]
    refresh(catalogue, "tiny", unexpected)
    assert catalogue.due(3600) == []


def test_what_is_extended_comes_first(catalogue: Catalogue, tmp_path: Path) -> None:
    for name, base in (("a", "b"), ("b", "tiny"), ("c", "nothing")):
        folder = tmp_path / "site/guest_images" / name
        folder.mkdir()
        (folder / "image.toml").write_text(f'extends = "{base}"\n')
    assert catalogue.in_order(["a", "b", "c", "tiny"]) == ["c", "tiny", "b", "a"]
