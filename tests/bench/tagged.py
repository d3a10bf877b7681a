"""A product with a real repository, and as many tags of it as a measurement wants, recorded by INSERT."""

from __future__ import annotations

import itertools
import shutil

from cleanroom_base import run
from cleanroom_base.settings import Settings
from cleanroom_db import ref_events
from cleanroom_db.connection import Database
from cleanroom_db.ref_events import NewRef, RefDetails
from cleanroom_db.states import TagKind
from cleanroom_master.demo import DemoRepository
from cleanroom_master.refs import repositories
from cleanroom_recipes import places

_TIMEOUT = 60.0
_NAME = "tally"


class Tagged:
    """The demonstration's own small product; every tag is of the same commit, which has its recipe."""

    def __init__(self, settings: Settings, database: Database) -> None:
        self._database = database
        tree = settings.state / "demo"
        repository = DemoRepository(
            settings, tree, _NAME, lambda place: shutil.copytree(places.products() / _NAME, place), "v"
        )
        repositories.add(settings, database, _NAME, repository.url, tag_patterns=("v*",))
        head = run.run(["git", "-C", tree / _NAME, "rev-parse", "HEAD"], timeout=_TIMEOUT).text.strip()
        self._details = RefDetails(commit=head, tag_kind=TagKind.ANNOTATED)
        self._numbers = itertools.count(1)

    def record(self, count: int) -> list[int]:
        """Record `count` new tags in one transaction; gives the events' ids."""
        refs = [NewRef(f"v9.{next(self._numbers)}", self._details) for _ in range(count)]
        return ref_events.record_many(self._database, _NAME, refs, recorded_by="bench")
