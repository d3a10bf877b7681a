"""What scripts read is frozen: keys are added here by decision, and never renamed or removed."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
from live_site import SCRIPTS, LiveSite, until
from surroundings import IMAGE

pytestmark = pytest.mark.timeout(240)


def keys(words: str) -> list[str]:
    """The keys, in their order, that these words name."""
    return words.split()


@pytest.fixture(scope="module")
def release(site: LiveSite) -> Any:
    """A published release with one build of one phase."""
    site.script("frozen", "echo done > result.txt").tag("v1")
    return site.published("frozen", "v1")


def test_status(site: LiveSite) -> None:
    status = site.ask("status")
    assert list(status) == ["state", "web_url", "repository_url", "buildbot_url", "services", "warnings"]
    for service in status["services"]:
        assert list(service) == ["name", "state", "since", "process", "restarts"]


def test_release_show(release: Any) -> None:
    assert set(release) == set(
        keys(
            "id product ref commit version state kind channel requested_by tag_kind tagger signature why tagged_at"
            " recorded_at claimed_at created_at finished_at builds published comparison comparison_with_previous gates"
            " waivers removed security_fix union provenance canaries next"
        )
    )
    [build] = release["builds"]
    assert set(build) == set(
        keys(
            "target attempt outcome why worker buildbot_url pauses isolation image queued_at not_before started_at"
            " finished_at planned phases artifacts attempts comparison comparison_with_previous reproduction"
        )
    )
    counts = "regressed fixed still_failing flaky new gone slower same"
    for compared in (release["comparison"], release["comparison_with_previous"], build["comparison"]):
        assert list(compared) == keys(f"against {counts} phases names")
        assert list(compared["names"]) == keys(counts)[:-1]
    for gate in release["gates"]:
        assert list(gate) == keys("gate target state why evaluated_at")
    assert set(build["image"]) == {"name", "digest"}
    for phase in build["phases"]:
        assert set(phase) == set(
            keys(
                "name outcome why isolation network reset_method reset_seconds seconds command_seconds image"
                " package_state started_at finished_at tests failing steps runs failures replays repeated_tests"
            )
        )
        assert set(phase["tests"]) == {"passed", "failed", "skipped", "flaky"}
        for case in phase["failing"]:
            assert set(case) == {"step", "name", "outcome", "seconds", "message", "line"}
    for step in build["phases"][0]["steps"]:
        assert set(step) == {"id", "name", "outcome", "exit_status", "why", "seconds", "started_at", "log", "remark"}
        assert set(step["log"]) == {"sha256", "size", "truncated"}
    for artifact in build["artifacts"]:
        assert set(artifact) == set(keys("file sha256 size kind phase replay package version architecture"))
    for attempt in build["attempts"]:
        assert set(attempt) == set(keys("id number outcome why worker queued_at started_at finished_at"))
    for published in release["published"]:
        assert set(published) == {"channel", "generation", "at"}
        assert published["at"].endswith("Z")


def test_release_list(site: LiveSite, release: Any) -> None:
    [row] = site.ask("release", "list", "frozen")
    assert list(row) == ["product", "ref", "commit", "version", "state", "why", "created_at"]


def test_repository_show_and_history(site: LiveSite, release: Any) -> None:
    shown = site.ask("repository", "show")
    assert list(shown) == ["url", "generation", "channels", "canaries", "deliveries"]
    for channel in shown["channels"]:
        assert list(channel) == ["name", "packages", "withdrawn"]
        for package in channel["packages"]:
            assert list(package) == keys("name version architecture format target file sha256 size")
    newest = site.ask("repository", "history")[0]
    assert list(newest) == ["number", "at", "actor", "reason", "added", "removed", "canaries"]


def test_image_list(site: LiveSite) -> None:
    images = {image["name"]: image for image in site.ask("image", "list")}
    assert list(images[IMAGE]) == keys(
        "name built digest architecture formats built_at size description extends outdated"
    )
    assert images[IMAGE]["built"] is True


def test_guests(site: LiveSite, tmp_path: Path) -> None:
    reset = site.ask("guest", "reset", IMAGE)
    assert list(reset) == ["name", "image", "digest", "isolation", "reset_seconds", "address"]
    name = reset["name"]
    try:
        [guest] = [guest for guest in site.ask("guest", "list") if guest["name"] == name]
        assert list(guest) == keys("name image digest isolation network address state started_at reset_seconds")
        told = site.run("guest", "exec", "--format", "json", name, "--", "echo", "hello").json
        assert list(told) == ["exit_status", "stdout", "stderr", "seconds"]
        assert told["stdout"] == "hello\n"
        assert site.run("guest", "exec", name, "--", "sh", "-c", "exit 7").status == 7
        told = subprocess.run(
            [SCRIPTS / "cleanroom", "guest", "shell", name],
            input="hostname; exit 5\n",
            env=site.environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (told.returncode, told.stdout) == (5, f"{name}\n"), told
        verified = site.ask("guest", "verify", name)
        assert verified == {"name": name, "identical": True, "differences": []}
        (tmp_path / "file").write_text("from outside")
        assert site.ask("guest", "copy", str(tmp_path / "file"), f"{name}:/etc/left") == {
            "copied": [str(tmp_path / "file")]
        }
        out = site.ask("guest", "copy", f"{name}:/etc/left", str(tmp_path / "out"))
        assert out == {"copied": [str(tmp_path / "out/left")]}
        assert (tmp_path / "out/left").read_text() == "from outside"
        for wrong in (("/a", "/b"), (f"{name}:/a", f"{name}:/b"), ("/a", f"{name}:b")):
            assert site.run("guest", "copy", *wrong).status == 2
        kept = site.ask("guest", "snapshot", name, "early")
        assert list(kept) == ["guest", "name", "made_at", "size"]
        assert site.ask("guest", "snapshot", name) == [{key: kept[key] for key in ("name", "made_at", "size")}]
        assert site.run("guest", "exec", name, "--", "rm", "/etc/left").status == 0
        returned = site.ask("guest", "rollback", name, "early")
        assert list(returned) == ["guest", "name", "seconds"]
        assert site.run("guest", "exec", name, "--", "test", "-e", "/etc/left").status == 0
        assert site.ask("guest", "snapshot", name, "--remove", "early") == {"removed": "early"}
        assert site.run("guest", "rollback", name, "early").status == 2
        assert site.run("guest", "snapshot", name, "one", "--remove", "one").status == 2
        assert list(site.ask("guest", "console", name)) == ["name", "printed"]
        changed = site.run("guest", "verify", name, "--format", "json")
        assert (changed.status, changed.json["identical"]) == (1, False)
        assert any("etc/left" in difference for difference in changed.json["differences"])
    finally:
        assert site.ask("guest", "destroy", name) == {"destroyed": name}
    assert name not in {guest["name"] for guest in site.ask("guest", "list")}


def test_hosts_and_a_drained_one_takes_no_work(site: LiveSite) -> None:
    def host() -> Any:
        [found] = site.ask("host", "list")
        return found

    until(lambda: site.ask("host", "list") and host()["heard_at"], 60, "the host says how it is")
    assert list(host()) == keys(
        "name state isolations free ready running drained processors memory_mib seen_at places heard_at problem"
    )
    name = host()["name"]
    assert site.ask("host", "drain", name, "--reason", "to see that")["state"] in ("draining", "drained")
    try:
        until(lambda: host()["state"] == "drained", 60, "what ran there has ended")
        assert site.run("host", "drain", name).status == 2
        site.script("drained", "echo done > result.txt").tag("v1")
        asked = "SELECT count(*) FROM buildbot.buildsets WHERE reason LIKE 'drained v1%%' AND complete = 0"
        until(lambda: site.sql(asked) == [(1,)], 60, "Buildbot is asked")
        assert site.show("drained", "v1")["builds"][0]["started_at"] is None
    finally:
        assert site.ask("host", "resume", name)["state"] == "ready"
    site.published("drained", "v1")
