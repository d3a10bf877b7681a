"""Signing in and acting in a real browser: by the keyboard alone, and readable by everybody."""

from __future__ import annotations

import re

import pytest
from browsing import Reader, Served, reader
from database_server import add_product
from people import PASSWORD, join
from playwright.sync_api import Browser, expect
from recorded import F, P, build, claimed, published

from cleanroom_db import publications, releases, services
from cleanroom_db.states import AccountRole, HostState, ReleaseState
from cleanroom_recipes import loader


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


def signed_in(served: Served, browser: Browser, name: str) -> Reader:
    """Somebody who has signed in."""
    one = reader(browser, served, color_scheme="light")
    page = one.open("/sign-in")
    page.get_by_label("Name").fill(name)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("link", name=name, exact=True)).to_be_visible()
    return one


def test_every_action_is_done_in_a_browser(served: Served, browser: Browser) -> None:
    owner, name = served.owner, "acts"
    add_product(owner, name)
    join(owner, name, AccountRole.ADMINISTRATOR)
    out = published(owner, "v1", {"a": P}, product=name)
    later = published(owner, "v2", {"a": P}, product=name)
    waived = claimed(owner, "v3", product=name, gates=("builds", "phase:upgrade"))
    build(owner, waived, {"a": P}, failing={"upgrade": "the script failed"})
    failed = claimed(owner, "v4", product=name)
    build(owner, failed, {"a": F}, failing={"regress": "1 failed"})
    services.host_seen(owner, name, ("container",), 2, 2048)
    with owner.transaction() as cursor:
        recipe = loader.to_json(loader.load(b'builder = "deb"', source="x", name=name, url="https://example.org/a.git"))
        cursor.execute(
            "UPDATE cleanroom.release SET recipe = %(recipe)s WHERE product = %(name)s", recipe=recipe, name=name
        )
    one = signed_in(served, browser, name)
    page, wrong = one.page, []

    def act(address: str, link: str, button: str, said: str) -> None:
        """Go the way from a page to what became of it."""
        one.open(address)
        page.get_by_role("link", name=link).first.click()
        wrong.extend([*one.violations(), *(["sideways"] if one.sideways() else [])])
        page.get_by_label("Reason").fill("Größe 👍")
        page.get_by_role("button", name=button).click()
        expect(page.locator("main")).to_contain_text(said)

    act(f"/release/{name}/v4", "Retry", "Retry", "What did not pass is tried again.")
    assert releases.get(owner, failed.id).state is ReleaseState.WAITING
    act(f"/release/{name}/v4", "Hold", "Hold", "It is held")
    assert releases.get(owner, failed.id).hold_reason == "Größe 👍"
    act(f"/release/{name}/v3", "Waive a gate", "Waive a gate", "The gate is waived.")
    act(f"/release/{name}/v1", "Promote", "Promote", "The publisher was asked to promote it.")
    assert ("stable", out.id) in [(asked.channel, asked.release_id) for asked in publications.pending(owner)]
    act(f"/release/{name}/v2", "Withdraw", "Withdraw", "It waits for the publisher")
    assert releases.get(owner, later.id).state is ReleaseState.PUBLISHED
    wrong.extend(one.violations())
    act("/repository", "roll back to 1", "Roll back to this", "It waits for the publisher")
    act("/hosts", f"Drain {name}", "Drain", "The host takes no new work.")
    assert services.host(owner, name).state is HostState.DRAINED
    act("/hosts", f"Resume {name}", "Resume", "The host takes work again.")
    assert (wrong, one.problems) == ([], [])
    page.context.close()


def test_a_developer_finds_what_is_his_to_do(served: Served, browser: Browser) -> None:
    owner, name = served.owner, "dora"
    add_product(owner, name)
    join(owner, name, AccountRole.DEVELOPER, name)
    published(owner, "v1", {"a": P}, product=name)
    held = claimed(owner, "v2", product=name, gates=("builds", "approval"))
    build(owner, held, {"a": P})
    one = signed_in(served, browser, name)
    page = one.open(f"/release/{name}/v2")
    for word, there in (("Hold", 1), ("Retry", 1), ("Approve", 0), ("Waive a gate", 0)):
        expect(page.get_by_role("link", name=word, exact=True)).to_have_count(there)
    one.open(f"/release/{name}/v1")
    expect(page.get_by_role("link", name="Withdraw")).to_have_count(0)
    one.open(f"/actions/approve/{held.id}")
    expect(page.locator("main")).to_contain_text(f"release approve needs the role release manager for {name}")
    assert one.violations() == []
    assert one.problems == []
    page.context.close()


def test_a_reader_of_one_product_sees_that_one_alone(closed: Served, browser: Browser) -> None:
    owner, name, other = closed.owner, "mine", "theirs"
    for product in (name, other):
        add_product(owner, product)
        published(owner, "v1", {"a": P}, product=product)
    join(owner, name, AccountRole.READER, name)
    one = signed_in(closed, browser, name)
    page = one.page
    for address in ("/", "/products"):
        one.open(address)
        expect(page.locator("main")).to_contain_text(name)
        expect(page.locator("main")).not_to_contain_text(other)
    for address in (f"/product/{other}", f"/release/{other}/v1"):
        answer = page.goto(closed.address + address)
        assert answer is not None
        assert answer.status == 404
    # What changes in what he may read shows in an open page.
    one.open("/")
    expect(page.locator("#liveness")).to_have_text("Live")
    claimed(owner, "v2", product=name)
    expect(page.locator("main")).to_contain_text("v2")
    assert one.problems == []
    page.context.close()
