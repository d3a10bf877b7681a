"""Whatever is written by a guest, a forge or a person: it is read, or refused in the one way in which that is done.

The corpus has good examples, and those that were found to break something. Each run reads all of it, and some
hundred changes of it; `make fuzz` makes many more.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from readers import READERS, Reader

CORPUS = Path(__file__).parent / "corpus"
# Of what the profile says, as many examples for each reader.
_SHARE = 4
_LONGEST = 1 << 16


def corpus(name: str) -> list[Path]:
    return sorted((CORPUS / name).iterdir())


def given_to(reader: Reader, content: bytes) -> None:
    """Read; to be refused in the agreed way is fine."""
    with contextlib.suppress(*reader.refuses):
        reader.read(content)


@st.composite
def changed(draw: Callable[..., object], name: str) -> bytes:
    """An example of the corpus with some changes: bytes cut, doubled, replaced, words of the format put in."""
    content = bytearray(draw(st.sampled_from([file.read_bytes() for file in corpus(name)])))
    pieces = st.sampled_from(READERS[name].pieces) | st.binary(max_size=8)
    for _ in range(draw(st.integers(0, 6))):
        at = draw(st.integers(0, len(content)))
        end = min(len(content), at + draw(st.sampled_from([0, 0, 1, 2, 8, 64, 1 << 12])))
        kept = bytes(content[at:end])
        content[at:end] = draw(pieces) + kept * draw(st.sampled_from([0, 0, 1, 2, 20]))
    return bytes(content[:_LONGEST])


@pytest.mark.parametrize("name", READERS)
def test_the_corpus_is_read_or_refused(name: str) -> None:
    """What is good is taken: otherwise nothing but a reader's first lines would be tried."""
    files = corpus(name)
    assert any(file.name.startswith("good") for file in files)
    for file in files:
        if file.name.startswith("good"):
            READERS[name].read(file.read_bytes())
        else:
            given_to(READERS[name], file.read_bytes())


@pytest.mark.parametrize("name", READERS)
def test_whatever_is_changed_is_read_or_refused(name: str) -> None:
    reader = READERS[name]
    examples = math.ceil(settings.default.max_examples / _SHARE / reader.costs)

    @settings(max_examples=examples)
    @given(changed(name))
    def fuzz(content: bytes) -> None:
        given_to(reader, content)

    fuzz()


def test_the_table_in_the_documentation_has_every_reader() -> None:
    documented = (Path(__file__).parents[2] / "README.md").read_text()
    assert [name for name in READERS if f"| `{name}` |" not in documented] == []
    assert sorted(path.name for path in CORPUS.iterdir()) == sorted(READERS)
