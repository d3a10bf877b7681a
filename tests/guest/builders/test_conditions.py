"""What a trial or a replay asks of its guests, in real guests."""

from __future__ import annotations

from pathlib import Path

from builds import Build, write_tree
from surroundings import IMAGE

from cleanroom_recipes import events
from cleanroom_recipes.conditions import Conditions
from cleanroom_recipes.model import Outcome
from cleanroom_workers.host import Host

SCRIPT = 'builder = "script"\nartifacts = ["result.txt"]\ncommands = ["echo done > result.txt"]\n'


def test_a_phase_starts_from_the_digest_that_is_asked_for(
    host: Host, environment: dict[str, str], tmp_path: Path
) -> None:
    build = Build(tmp_path, environment, write_tree(tmp_path / "tree", {"x": ""}), SCRIPT, f"{IMAGE}/script", "v1")
    build.without = ("update",)
    image = host.catalogue.image(IMAGE)
    current = host.catalogue.store.directory / IMAGE / "current"
    host.catalogue.store.claim(image, "this test")
    try:
        # Another image is the present one now.
        current.unlink()
        current.symlink_to("1" * 64)
        build.conditions = Conditions(image_digest=image.digest)
        told = build.run("build")
        assert told.outcome is Outcome.PASSED, told.why
        assert [event.digest for event in told.of(events.Reset)] == [image.digest]
    finally:
        current.unlink()
        current.symlink_to(image.digest)
        host.catalogue.store.release(IMAGE, "this test")
    build.artifacts = tmp_path / "again"
    build.conditions = Conditions(image_digest="2" * 64)
    told = build.run("build")
    assert (told.outcome, told.exit_status) == (Outcome.INFRASTRUCTURE, 3)
    assert told.why == f"the image {IMAGE} of digest {'2' * 64} is not there on this host any more"
