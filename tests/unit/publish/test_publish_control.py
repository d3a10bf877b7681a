import pytest
from hypothesis import given
from hypothesis import strategies as st

from cleanroom_base.errors import InputError
from cleanroom_master.publish import control


def test_fields_keep_their_order_and_their_continuation_lines():
    content = b"Package: tiny\nDescription: short\n long\n .\n more\nTag: a::b\n"
    fields = control.parse(content)
    assert list(fields) == ["Package", "Description", "Tag"]
    assert fields["Description"] == "short\n long\n .\n more"
    assert control.write(fields).encode() == content


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"Package: a\n\nPackage: b\n",
        b"Package: a\n  \nPackage: b\n",
        b"Package: a\npackage: b\n",
        b" continued\n",
        b"no field\n",
        b"-Package: a\n",
        b"#Package: a\n",
        b"Package: a\rPackage: b\n",
        b"Package: a\x00\n",
        b"Package: \xff\n",
        "Package: a\x85Filename: b\n".encode("latin-1"),
    ],
)
def test_what_a_lenient_reader_would_let_pass_is_refused(content: bytes):
    with pytest.raises(InputError):
        control.parse(content)


@given(st.binary())
def test_any_bytes_are_one_paragraph_or_refused(content: bytes):
    try:
        fields = control.parse(content)
    except InputError:
        return
    written = control.write(fields)
    assert "\n\n" not in written
    assert control.parse(written.encode()) == fields
