"""How values are shown to readers."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from markupsafe import Markup

from cleanroom_master.web import text


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        *((None, "-"), (0.0, "0.00 s"), (0.044, "0.04 s"), (1.0, "1.0 s"), (59.94, "59.9 s"), (59.96, "1 min")),
        *(
            (60.0, "1 min"),
            (200, "3 min 20 s"),
            (3600, "1 h"),
            (7500, "2 h 5 min"),
            (360000, "4 d 4 h"),
            (-3.0, "-3.0 s"),
        ),
    ],
)
def test_durations_are_said_in_words(seconds: float | None, words: str) -> None:
    assert text.duration(seconds) == words


@pytest.mark.parametrize(
    ("count", "words"), [(None, "-"), (0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (5 << 30, "5.0 GiB")]
)
def test_sizes_are_said_in_words(count: int | None, words: str) -> None:
    assert text.size(count) == words


def test_times_are_in_utc_for_people_and_machines() -> None:
    at = datetime(2030, 1, 31, 13, 0, 5, tzinfo=timezone(timedelta(hours=1)))
    expected = '<time datetime="2030-01-31T12:00:05.000Z" title="2030-01-31 12:00:05 UTC">2030-01-31 12:00 UTC</time>'
    assert text.time(at) == text.time("2030-01-31T12:00:05Z") == text.time(at.astimezone(UTC)) == expected
    assert text.time(None) == "-"


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        *(
            ("Grüße", "Grüße"),
            ("👩‍💻", "👩‍💻"),
            ("a\nb\tc", "a\nb\tc"),
            ("\x1b[31m", "\\x1b[31m"),
            ("\u202e", "\\u202e"),
        ),
        *((None, ""), (3, 3), (Markup("<b>"), Markup("<b>")), ("\ue000", "\\ue000"), ("\u2028", "\\u2028")),
    ],
)
def test_text_from_outside_cannot_steer_a_screen(given: object, shown: object) -> None:
    assert text.shown(given) == shown


@pytest.mark.parametrize(("ref", "words"), [("v1.0", "v1.0"), ("a" * 40, "a" * 12), ("a" * 39, "a" * 39)])
def test_commits_are_called_by_their_beginning(ref: str, words: str) -> None:
    assert text.ref(ref) == words


def test_a_name_is_one_part_of_an_address() -> None:
    assert text.path('a/b?c#d"é') == "a%2Fb%3Fc%23d%22%C3%A9"
