"""Which action needs which role, and what a role for one product is worth elsewhere."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from cleanroom_db.accounts import Account, Grant, Holder
from cleanroom_db.states import AccountRole
from cleanroom_master.permissions import ACTIONS, may, needed

READER, DEVELOPER, MANAGER, ADMINISTRATOR = AccountRole

# What each role may do for its product; each may do what those above it may.
MAY = {
    READER: set(),
    DEVELOPER: {"retry", "hold"},
    MANAGER: {"retry", "hold", "approve", "waive", "promote", "withdraw"},
    ADMINISTRATOR: {"retry", "hold", "approve", "waive", "promote", "withdraw"},
}


def who(*grants: Grant) -> Holder:
    return Holder(Account(1, "anna", None, None, None, datetime.now(UTC), "root", None), grants)


@pytest.mark.parametrize("role", list(AccountRole))
def test_a_role_for_a_product_is_for_that_product(role: AccountRole) -> None:
    anna = who(Grant(role, "hello"))
    assert {word for word, action in ACTIONS.items() if may(anna, action, "hello")} == MAY[role]
    assert not any(may(anna, action, "other") for action in ACTIONS.values())


@pytest.mark.parametrize("role", list(AccountRole))
def test_a_role_for_all_is_for_what_all_share_too(role: AccountRole) -> None:
    anna = who(Grant(role, None))
    shared = {MANAGER: {"rollback"}, ADMINISTRATOR: {"rollback", "drain", "resume"}}
    expected = MAY[role] | shared.get(role, set())
    assert {word for word, action in ACTIONS.items() if may(anna, action, "hello")} == expected


def test_nobody_may_do_nothing() -> None:
    assert not any(may(one, action, "hello") for one in (None, who()) for action in ACTIONS.values())


def test_what_is_missing_is_said() -> None:
    assert needed(ACTIONS["approve"], "hello") == "the role release manager for hello"
    assert needed(ACTIONS["rollback"], "hello") == "the role release manager for all products"
    assert needed(ACTIONS["retry"], "hello") == "the role developer for hello"
