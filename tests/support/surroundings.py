"""What tests take from the machine on which they run."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cleanroom_base.run import run
from cleanroom_images.build import build
from cleanroom_images.catalogue import Catalogue
from cleanroom_images.store import ImageChanged, Store

# The image that guests of tests start from.
IMAGE = "debian-12"


def variables() -> dict[str, str]:
    """The environment without our own settings: programs refuse those they do not know, and must meet no others."""
    return {name: value for name, value in os.environ.items() if not name.startswith("CLEANROOM_")}


def kept_between_runs() -> Path:
    """The directory of the images that tests build, and of what they download."""
    return Path(os.environ.get("CLEANROOM_TEST_STATE", "/var/tmp/cleanroom-test"))


def of_this_process(name: str) -> Path:
    """A state directory of that name; processes that run tests beside each other have an installation each."""
    return kept_between_runs() / f"{name}-{os.environ.get('PYTEST_XDIST_WORKER', 'gw0')}"


def image_of_tests() -> Path:
    """The state directory in which the image of all tests is built; the first who asks builds it."""
    state = kept_between_runs()
    state.mkdir(parents=True, exist_ok=True)
    with _alone(state):
        catalogue = Catalogue(state)
        if catalogue.store.digest(IMAGE) is None:
            build(catalogue, IMAGE)
    return state


def copied_image(state: Path) -> None:
    """Have a copy of that image in another state directory, for tests that change images.

    It is made anew when a test was killed while its image was changed.
    """
    original, copy = Store(image_of_tests()), Store(state)
    if copy.digest(IMAGE) == original.digest(IMAGE):
        with suppress(ImageChanged):
            copy.check(copy.image(IMAGE))
            return
    copy.directory.mkdir(parents=True, exist_ok=True)
    place = copy.directory / IMAGE
    if place.exists():
        shutil.rmtree(place)
    run(["cp", "--archive", "--reflink=auto", original.directory / IMAGE, place], timeout=600)
    shutil.rmtree(place / "users", ignore_errors=True)


@contextmanager
def _alone(state: Path) -> Iterator[None]:
    with (state / "image.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
