"""Where a form says to go on to is here, or nowhere."""

from __future__ import annotations

from urllib.parse import urljoin, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cleanroom_master.web.forms import local


@pytest.mark.parametrize("address", ["/", "/queue", "/release/hello/v1%2F2?target=a%2Fb#way"])
def test_an_address_of_ours_stays(address: str) -> None:
    assert local(address) == address


@pytest.mark.parametrize(
    "address",
    [
        *("", "queue", "//evil.example", "/\\evil.example", "\\\\evil.example", "/\t/evil.example", " //evil.example"),
        *(
            "https://evil.example",
            "https:evil.example",
            "javascript:alert(1)",
            "/\n",
            "///evil.example",
            "/" + "x" * 2000,
        ),
        *("http://[", "/\x00"),
    ],
)
def test_any_other_becomes_the_first_page(address: str) -> None:
    assert local(address) == "/"


@given(st.text(alphabet="/\\:.@?#a\t\n ", max_size=12))
def test_nothing_leads_elsewhere(address: str) -> None:
    assert urlsplit(urljoin("https://web.example/sign-in", local(address))).netloc == "web.example"
