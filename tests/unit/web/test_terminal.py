"""What programs print, as HTML: colours stay, nothing else does anything."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cleanroom_master.web.terminal import rendered

# Text as hostile programs print it: sequences whole and broken, markup, control and direction characters.
SEQUENCES = ("\x1b[", "\x1b]", "\x1b", "\x1b[1;31m", "\x1b[0m", "\x1b[38;5;", "\x1b[48;2;1;2;3m", "\x07", "\r")
OTHERS = ("\x9b31m", "m", ";", "31", "<script>", "</span>", '"', "'", "&amp;", "\u202e", "\u2066", "\x00", "ü", "👩‍💻")
PIECES = st.sampled_from(SEQUENCES + OTHERS)
LINES = st.one_of(st.binary(max_size=200), st.lists(PIECES, max_size=60).map(lambda parts: "".join(parts).encode()))


@pytest.mark.parametrize(
    ("line", "html"),
    [
        (b"plain", "plain"),
        (b"\x1b[1;31mred\x1b[0m <b>", '<span class="bold ink-1">red</span> &lt;b&gt;'),
        (b"\x1b[32mok\x1b[39m done\x1b[m", '<span class="ink-2">ok</span> done'),
        (b"\x1b[97;44mx", '<span class="ink-15 ground-4">x</span>'),
        (b"\x1b[38;5;196mx\x1b[22;39my", '<span class="ink-9">x</span>y'),
        (b"\x1b[38;2;0;200;0mx", '<span class="ink-2">x</span>'),
        (b"10%\r55%\r100%\r", "100%"),
        (b"\x1b[2K\x1b[1Gmoved", "moved"),
        (b"\x1b]0;title\x07shown", "shown"),
        (b"\x1b]8;;https://example.org\x1b\\link\x1b]8;;\x1b\\", "link"),
        (b"lone \x1b", "lone \\x1b"),
        (b"\xff\xfe", "\ufffd\ufffd"),
        ("\u202eevil".encode(), "\\u202eevil"),
    ],
)
def test_a_line_is_shown_as_a_terminal_would(line: bytes, html: str) -> None:
    assert rendered(line) == html


@given(LINES)
def test_whatever_is_printed_is_harmless(line: bytes) -> None:
    html = str(rendered(line))
    rest = re.sub(r'<span class="[a-z0-9 -]+">|</span>', "", html)
    assert "<" not in rest
    assert ">" not in rest
    assert '"' not in rest
    assert html.count("<span") == html.count("</span>")
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", html)


@given(st.text(st.characters(exclude_categories=("Cs", "Cc", "Cf", "Co", "Cn", "Zl", "Zp")), max_size=100))
def test_text_without_sequences_stays_as_it_is(text: str) -> None:
    import html

    assert html.unescape(str(rendered(text.encode()))) == text
