"""Master and workers of versions beside each other understand each other; those further apart say so."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from test_plan import make_request

from cleanroom_base.errors import InputError
from cleanroom_recipes import protocol, request
from cleanroom_recipes.codec import to_plain

REQUEST = make_request()
# The keys that a worker of each version reads; those of a version that was released never change.
KEYS = {
    1: "product ref kind commit commit_time expected_version target attempt phase source artifacts previous output"
    " conditions repository candidates installed",
    2: "protocol correlation",
}


def test_a_request_has_no_key_that_a_worker_does_not_read() -> None:
    plain = to_plain(REQUEST)
    for version in (protocol.VERSION, protocol.VERSION - 1):
        read = {key for since, keys in KEYS.items() if since <= version for key in keys.split()}
        assert set(protocol.for_worker(plain, version)) == read


def test_a_request_of_a_master_one_version_away_is_read() -> None:
    plain = json.loads(request.encode(REQUEST))
    for version in (protocol.VERSION - 1, protocol.VERSION + 1):
        sent = {**plain, "protocol": version}
        assert request.decode(json.dumps(sent).encode()).protocol == version


def test_a_request_without_a_number_is_of_version_1() -> None:
    plain = json.loads(request.encode(REQUEST))
    del plain["protocol"]
    with pytest.raises(InputError, match="the request is of version 1"):
        request.decode(json.dumps(plain).encode())


@pytest.mark.parametrize("version", [protocol.VERSION + 2, protocol.VERSION - 2, "2", None, True])
def test_that_of_another_is_refused_with_what_to_do(version: object, tmp_path: Path) -> None:
    plain = {**json.loads(request.encode(REQUEST)), "protocol": version, "new": "what a later version says"}
    with pytest.raises(InputError, match="bring the older of master and worker up to date"):
        request.decode(json.dumps(plain).encode())


def test_a_worker_two_versions_away_gets_nothing_to_do() -> None:
    assert [protocol.understood(protocol.VERSION + away) for away in (-2, -1, 0, 1)] == [False, True, True, False]
    assert protocol.refusal(protocol.VERSION - 1) is None
    assert "now bring its host up to date" in str(protocol.refusal(protocol.VERSION - 2))
    assert "now bring the master up to date" in str(protocol.refusal(protocol.VERSION + 1))
