"""Signing in and acting in a real browser: by the keyboard alone, and readable by everybody."""

from __future__ import annotations

import re

import pytest
from browsing import Served, reader
from database_server import add_product
from people import PASSWORD, join
from playwright.sync_api import Browser, expect
from recorded import P, build, claimed

from cleanroom_db import releases
from cleanroom_db.states import AccountRole, ReleaseState


@pytest.mark.parametrize("scripts", [True, False], ids=["with JavaScript", "without"])
def test_a_manager_signs_in_approves_and_makes_a_token_by_the_keyboard(
    served: Served, browser: Browser, scripts: bool
) -> None:
    name = f"signed{int(scripts)}"
    add_product(served.owner, name)
    join(served.owner, name, AccountRole.MANAGER, name)
    release = claimed(served.owner, "v1", product=name, gates=("builds", "approval"))
    build(served.owner, release, {"a": P})
    how = {"color_scheme": "light"} if scripts else {"viewport": {"width": 360, "height": 740}, "color_scheme": "dark"}
    one = reader(browser, served, java_script_enabled=scripts, **how)
    page = one.open(f"/release/{name}/v1")
    page.get_by_role("link", name="Sign in").press("Enter")
    page.get_by_label("Name").fill(name)
    violations = one.violations() if scripts else []
    page.get_by_label("Password").fill("wrong password")
    page.get_by_label("Password").press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("The name or the password is wrong.")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_label("Password").press("Enter")
    expect(page).to_have_url(re.compile(f"/release/{name}/v1$"))
    violations += one.violations() if scripts else []
    page.get_by_role("link", name="Approve").press("Enter")
    violations += one.violations() if scripts else []
    page.get_by_label("Reason").fill("looked at it: Größe ist gut 👍")
    wide = one.sideways()
    page.get_by_role("button", name="Approve").press("Enter")
    expect(page.get_by_role("status").get_by_text("It is approved.")).to_be_visible()
    assert releases.get(served.owner, release.id).state is ReleaseState.PASSED
    page.get_by_role("link", name=name, exact=True).first.press("Enter")
    page.get_by_role("link", name=name, exact=True).first.press("Enter")
    page.get_by_text("Make a token").press("Enter")
    page.get_by_text("Change it").first.press("Enter")
    violations += one.violations() if scripts else []
    page.get_by_label("Name of the token").fill("ci")
    page.get_by_role("button", name="Make it").press("Enter")
    expect(page.locator("#secret")).to_contain_text("cleanroom_")
    violations += one.violations() if scripts else []
    wide = wide or one.sideways()
    page.get_by_role("button", name="Sign out", exact=True).press("Enter")
    expect(page.get_by_role("link", name="Sign in")).to_be_visible()
    assert violations == []
    assert not wide
    assert one.problems == []
    page.context.close()
