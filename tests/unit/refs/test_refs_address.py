"""URLs of repositories: what is allowed, what never is."""

from __future__ import annotations

import pytest

from cleanroom_master.refs.address import TransportRefused, check

ALL = ("https", "ssh", "file", "http", "git", "ext")


@pytest.mark.parametrize(
    ("url", "transport"),
    [
        ("https://example.org/hello.git", "https"),
        ("HTTPS://example.org/hello.git", "https"),
        ("ssh://git@example.org:2222/hello.git", "ssh"),
        ("git@example.org:group/hello.git", "ssh"),
        ("example.org:hello.git", "ssh"),
        ("git@[::1]:hello.git", "ssh"),
        ("file:///srv/hello.git", "file"),
        ("/srv/hello.git", "file"),
        ("/srv/a::b.git", "file"),
        ("https://[half/x", "https"),
        ("http://example.org/hello.git", "http"),
    ],
)
def test_the_transport_of_a_url(url: str, transport: str) -> None:
    assert check(url, ALL) == transport


@pytest.mark.parametrize(
    "url",
    [
        "",
        "-oProxyCommand=reboot",
        "--upload-pack=reboot",
        "ext::sh -c reboot",
        "fd::17",
        "ssh://-oProxyCommand=reboot/x",
        "ssh://git@-oProxyCommand=reboot/x",
        "-oProxyCommand=reboot:x",
        "git@-oProxyCommand=reboot:x",
        "host:-x",
        "https://example.org/a\nb",
        "https://example.org/\x1b[31m",
        "hello.git",
        "../hello.git",
        "~/hello.git",
    ],
)
def test_what_is_no_plain_url_is_refused(url: str) -> None:
    with pytest.raises(TransportRefused, match="is not the URL of a git repository"):
        check(url, ALL)


@pytest.mark.parametrize("url", ["http://example.org/x", "git://example.org/x", "/srv/x", "file:///srv/x"])
def test_a_transport_outside_the_list_is_refused(url: str) -> None:
    with pytest.raises(TransportRefused, match="which is not allowed") as raised:
        check(url, ("https", "ssh"))
    assert "refs.transports: https, ssh" in str(raised.value)
