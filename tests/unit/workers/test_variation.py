"""What is otherwise when a build is made again."""

from __future__ import annotations

import time
from datetime import UTC, date, datetime, timedelta

import pytest

from cleanroom_recipes.model import User
from cleanroom_workers import variation


@pytest.mark.parametrize("hour", range(24))
def test_the_date_is_another_one(hour: int, monkeypatch: pytest.MonkeyPatch) -> None:
    now = datetime(2030, 1, 31, hour, 59, tzinfo=UTC)
    monkeypatch.setenv("TZ", variation.environment(User.BUILDER, now)["TZ"])
    time.tzset()
    try:
        there = time.localtime(now.timestamp())
    finally:
        monkeypatch.undo()
        time.tzset()
    assert abs(date(*there[:3]) - now.date()) == timedelta(days=1)
