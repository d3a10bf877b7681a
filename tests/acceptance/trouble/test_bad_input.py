"""Bad input by the real command line and the real way: a clear error, nothing lost, nothing half done."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from live_site import Answer, LiveSite, installed, until
from surroundings import IMAGE

pytestmark = pytest.mark.timeout(240)
TREE = {
    "cleanroom.toml": 'builder = "deb"\n[phases.build]\ntimeout = 600\n',
    "debian/control": (
        "Source: NAME\nMaintainer: Nobody <nobody@example.org>\nStandards-Version: 4.6.2\n\n"
        "Package: NAME\nArchitecture: all\nDescription: a tiny package\n It has nothing.\n"
    ),
    "debian/changelog": (
        "NAME (1.3) unstable; urgency=medium\n\n  * First.\n\n"
        " -- Nobody <nobody@example.org>  Thu, 01 Jan 2026 12:00:00 +0000\n"
    ),
    "debian/rules": "#!/usr/bin/make -f\n%:\n\ttrue\n",
    "debian/source/format": "3.0 (native)\n",
}


def _tree(name: str, **changes: str) -> dict[str, str]:
    return {file: content.replace("NAME", name) for file, content in {**TREE, **changes}.items()}


# -- releases that fail ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def failing(site: LiveSite) -> LiveSite:
    """Four releases that fail, each for its own reason, on their way side by side."""
    site.product("says-other", _tree("says-other")).tag("v2.0")
    site.product("no-debian", {"cleanroom.toml": 'builder = "deb"\n', "README": "hello\n"}).tag("v1.0")
    rules = "#!/usr/bin/make -f\n%:\n\techo all is lost; exit 7\n"
    site.product("breaks", _tree("breaks", **{"debian/rules": rules})).tag("v1.3")
    step = '[[phases.build.steps]]\nname = "hostile"\nuser = "root"\nrun = "systemctl poweroff; sleep 60"\n'
    site.script("goes-off", "echo done > result.txt", step).tag("v1.0")
    return site


@pytest.mark.parametrize(
    ("name", "ref", "words"),
    [
        ("says-other", "v2.0", ["1.3", "2.0"]),
        ("no-debian", "v1.0", ["debian"]),
        ("breaks", "v1.3", ["build"]),
    ],
)
def test_a_product_s_fault_is_told_in_one_sentence(failing: LiveSite, name: str, ref: str, words: list[str]) -> None:
    answer = failing.wait(name, ref)
    shown = answer.json
    assert (answer.status, shown["state"]) == (1, "failed"), answer
    [build] = shown["builds"]
    assert (build["outcome"], build["attempt"]) == ("failed", 1)
    assert all(word in shown["why"] for word in words), shown["why"]
    assert "\n" not in shown["why"]
    assert failing.run("release", "show", name, ref).out.splitlines()[1].strip() == shown["why"]


def test_a_product_that_switches_its_guest_off_fails_the_second_time(failing: LiveSite) -> None:
    """The first time somebody may have killed the guest."""
    shown = failing.wait("goes-off", "v1.0").json
    [build] = shown["builds"]
    assert [attempt["outcome"] for attempt in build["attempts"]] == ["infrastructure", "failed"]
    why = "debian-12/script: build: the guest went off, as it did in attempt 1: the product switches it off"
    assert (shown["state"], shown["why"].partition("; ")[0]) == ("failed", why)


def test_the_log_of_what_failed_is_kept(failing: LiveSite) -> None:
    assert failing.wait("breaks", "v1.3").status == 1
    assert "all is lost" in failing.logs("breaks", "v1.3")


# -- what never becomes a release ----------------------------------------------------------------------------------


def test_every_mistake_of_a_product_s_own_recipe_is_told_at_once(site: LiveSite) -> None:
    recipe = 'builder = "deb"\ncolour = "red"\n[timeouts]\nstep = -1\n[phases.bild]\nenabled = true\n'
    site.product("mistaken", {"cleanroom.toml": recipe}).tag("v1")
    answer = site.wait("mistaken", "v1", timeout=60)
    assert answer.status == 2, answer
    for word in ("cleanroom.toml", "colour", "timeouts.step", "phases", "bild"):
        assert word in answer.error
    [event] = site.ask("ref", "list", "mistaken")
    assert (event["state"], site.show("mistaken", "v1")) == ("refused", None)


def test_every_mistake_of_a_recipe_in_a_file_is_told_at_once(site: LiveSite, tmp_path: Path) -> None:
    recipe = tmp_path / "bad.toml"
    recipe.write_text('builder = "debb"\nnonsense = 1\ntargets = ["debian-12"]\n')
    answer = site.run("product", "add", "bad", "https://example.org/bad.git", "--file", str(recipe))
    assert answer.status == 2
    for word in (str(recipe), "builders[0]", "nonsense", "targets[0]"):
        assert word in answer.error
    assert site.run("product", "show", "bad").status == 2


@pytest.mark.parametrize(
    ("url", "status", "words"),
    [
        ("ext::touch%20/tmp/owned", 2, ["ext::"]),
        ("file:///nonexistent/repository.git", 3, ["/nonexistent/repository.git"]),
        ("http://127.0.0.1:1/hello.git", 2, ["http", "refs.transports"]),
        ("https://127.0.0.1:1/hello.git", 3, ["127.0.0.1"]),
        ("--upload-pack=touch", 2, []),
    ],
)
def test_a_wrong_address_is_refused_and_nothing_is_recorded(
    site: LiveSite, url: str, status: int, words: list[str]
) -> None:
    answer = (
        site.run("product", "add", "wrong", "--", url)
        if url.startswith("-")
        else site.run("product", "add", "wrong", url)
    )
    assert answer.status == status, answer
    assert all(word in answer.error for word in words), answer.error
    assert "Traceback" not in answer.error
    assert "wrong" not in {product["name"] for product in site.ask("product", "list")}


def test_a_directory_that_is_no_repository_is_refused(site: LiveSite, tmp_path: Path) -> None:
    answer = site.run("product", "add", "wrong", tmp_path.as_uri())
    assert answer.status == 3
    assert "repository" in answer.error


@pytest.mark.parametrize("ref", ["v1;reboot", "--all", "v 1", "a" * 300, "v1\n2", "../../etc/passwd"])
def test_a_tag_s_name_that_is_none_is_refused(site: LiveSite, ref: str) -> None:
    if site.run("product", "show", "names").status != 0:
        site.script("names", "true")
    answer = site.run("ref", "record", "names", "--", ref)
    assert answer.status == 2, answer
    assert "Traceback" not in answer.error
    assert site.run("release", "show", "names", "--", ref).status == 2


def test_unknown_words_are_answered_with_a_hint(site: LiveSite) -> None:
    for words in (
        ["release", "show", "nobody", "v1"],
        ["release", "wait", "nobody", "v1"],
        ["product", "show", "nobody"],
    ):
        answer = site.run(*words)
        assert (answer.status, answer.out) == (2, ""), answer
        assert "nobody" in answer.error
    assert site.run("releases").status == 2


# -- the surroundings ----------------------------------------------------------------------------------------------


def test_a_missing_image_is_named_with_what_to_do(other: LiveSite) -> None:
    answer = other.run("guest", "reset", "debian-99")
    assert (answer.status, "debian-99" in answer.error) == (2, True), answer
    shutil.copytree(Path(__file__).parents[3] / "guest_images" / IMAGE, other.site / "guest_images" / "unbuilt")
    answer = other.run("guest", "reset", "unbuilt")
    assert answer.status == 3, answer
    assert "cleanroom image build unbuilt" in answer.error
    # A description that is not valid spoils only its own image.
    (other.site / "guest_images" / "unbuilt" / "image.toml").write_text("nonsense = 1\n")
    assert other.run("guest", "reset", "unbuilt").status == 2
    guest = other.ask("guest", "reset", IMAGE, "--network", "none")["name"]
    assert other.run("down").status == 0
    assert guest not in {one["name"] for one in other.ask("guest", "list")}


@pytest.fixture
def other(site: LiveSite, tmp_path: Path) -> Iterator[LiveSite]:
    """An installation that does not run."""
    with installed(site.state.parent / "acceptance-other") as other:
        yield other


def test_a_port_that_is_taken_is_named(other: LiveSite) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        other.environment["CLEANROOM_REPOSITORY_PORT"] = str(port)
        answer = other.run("up", "--detach", "--timeout", "60")
        assert (answer.status, str(port) in answer.error) == (3, True), answer
        assert "repository.port" in answer.error
        assert "in use" in answer.error
        assert other.run("status").status == 3
    started = other.run("up", "--detach", timeout=180)
    assert started.status == 0, started
    again = other.run("up", "--detach")
    assert (again.status, "already runs" in again.error) == (3, True), again
    assert other.run("down").status == 0
    assert other.run("status").status == 3


def test_a_wrong_password_is_told_as_such(site: LiveSite, other: LiveSite) -> None:
    from cleanroom_db.cluster import database_url
    from cleanroom_db.roles import Role

    right = database_url(site.settings, Role.OWNER)
    wrong = right.partition(":")[0] + "://cleanroom:wrong@" + right.partition("@")[2]
    for words in (["release", "list"], ["up", "--detach", "--timeout", "60"]):
        answer = other.run(*words, CLEANROOM_DATABASE_URL=wrong)
        assert (answer.status, "password" in answer.error) == (3, True), answer
        assert ":wrong@" not in answer.error


def test_all_problems_of_the_settings_are_told_at_once(other: LiveSite) -> None:
    (other.site / "cleanroom.toml").write_text("[refs]\npoll = 'often'\n[nonsense]\nkey = 1\n")
    answer = other.run("config", "check", CLEANROOM_MASTER_PORT="0", CLEANROOM_TYPO="1")
    assert answer.status == 2
    for word in ("refs.poll", "nonsense.key", "CLEANROOM_MASTER_PORT", "CLEANROOM_TYPO"):
        assert word in answer.error
    (other.site / "cleanroom.toml").unlink()
    assert other.ask("config", "check")["valid"] is True


# On a machine where nothing was probed yet, a machine is booted by emulation.
@pytest.mark.timeout(600)
def test_status_and_doctor_tell_what_is_there(site: LiveSite) -> None:
    status = site.ask("status")
    assert status["state"] == "running"
    assert {service["name"] for service in status["services"]} == {
        "refs",
        "master",
        "worker",
        "guests",
        "phases",
        "publisher",
        "notifications",
        "repository",
        "web",
    }

    def told() -> Answer | None:
        # Right after the start the worker may still be connecting to the master.
        answer = site.run("doctor", "--format", "json", timeout=400)
        away = [one for one in answer.json if one["what"].startswith("worker ") and not one["works"]]
        return None if away else answer

    answer = until(told, 60, "the worker is connected, and of this version")
    findings = {finding["what"]: finding for finding in answer.json}
    assert answer.status == 0, [finding for finding in findings.values() if not finding["works"]]
    assert findings["isolation container"]["works"]
    assert findings["database"]["works"]
    table = site.run("doctor", CLEANROOM_STORAGE_MINIMUM_FREE="999999999", timeout=400)
    assert table.status == 3
    assert "FAIL  disk" in table.out
