from concurrent.futures import ThreadPoolExecutor

import pytest

from cleanroom_master.publish.progress import EVERYTHING, Progress


def test_who_waits_goes_on_when_its_part_is_there():
    progress = Progress()
    with ThreadPoolExecutor() as threads:
        waiting = threads.submit(progress.wait, "one")
        progress.written("another")
        assert not waiting.done()
        progress.written("one")
        waiting.result(timeout=60)
    progress.wait("one")


def test_everything_is_every_part():
    progress = Progress()
    progress.written(EVERYTHING)
    progress.wait("whatever")
    Progress.complete().wait("whatever")


def test_who_waits_for_what_will_not_come_is_told_why():
    progress = Progress()
    progress.written("one")
    with ThreadPoolExecutor() as threads:
        waiting = threads.submit(progress.wait, "another")
        progress.failed(ValueError("the disk is full"))
        with pytest.raises(ValueError, match="the disk is full"):
            waiting.result(timeout=60)
    with pytest.raises(ValueError, match="the disk is full"):
        progress.wait("one")
