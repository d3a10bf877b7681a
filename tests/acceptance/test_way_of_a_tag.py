"""The main way: a tag is pushed, and apt and dnf install what it became."""

from __future__ import annotations

import json
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest
import requests
from live_site import PRODUCTS, SCRIPT, SCRIPTS, LiveSite, until
from surroundings import IMAGE

from cleanroom_master.consumer import Consumer
from cleanroom_master.publish.attachments import PROVENANCE

HOOK = """#!/bin/sh
while read -r old new ref; do
	case $ref in
	refs/tags/*) CLEANROOM_STATE='{state}' '{command}' ref record tally "${{ref#refs/tags/}}" ;;
	esac
done
"""
PHASES = {
    **dict.fromkeys(("build", "install", "regress", "remove"), "passed"),
    **dict.fromkeys(("upgrade", "upgrade-snapshots", "upgrade-testing", "upgrade-stable"), "skipped"),
}


def require_provenance(site: LiveSite, shown: Any, name: str, tmp_path: Path) -> None:
    """Download a package and the key, and check what is signed of the package, as a consumer does."""
    [signed] = [one for one in shown["provenance"] if one["file"] == name]
    downloads = {
        name: signed["statement_url"].removesuffix(PROVENANCE),
        "key.asc": f"{site.settings.repository_url}/keys/cleanroom.asc",
    }
    for file, address in downloads.items():
        answer = requests.get(address, timeout=30)
        answer.raise_for_status()
        (tmp_path / file).write_bytes(answer.content)
    told = site.ask(
        *("provenance", "verify", str(tmp_path / name), "--key", str(tmp_path / "key.asc")),
        *("--provenance", signed["statement_url"]),
    )
    assert (told["verified"], told["commit"], told["bill_of_materials"]["checked"]) == (True, shown["commit"], True)
    assert told["builder"].endswith("/provenance.html#builder-container")
    build = next(phase for phase in told["phases"] if phase["name"] == "build")
    assert build["tests"]["passed"] == 17
    statement = site.ask("provenance", "show", name, "--provenance", signed["statement_url"])
    dependencies = statement["predicate"]["buildDefinition"]["resolvedDependencies"]
    assert any(one["uri"].startswith("pkg:deb/debian/gcc@") for one in dependencies if "uri" in one)


def require_records(site: LiveSite, event: int, builds: Any) -> None:
    """Every service on the way wrote the ref event's id, and what it did is found in the order in which it was done."""

    def published() -> Any:
        # The publisher says so once consumers see it, and everybody else has read it.
        told = site.ask("release", "log", "tally", "v1.0")
        return told if "is published in testing, generation" in told[-1]["message"] else None

    records = until(published, 30, "the publisher's record")
    assert records == sorted(records, key=lambda record: record["time"])
    # The ref was seen by the hook's command or by the watch; the Buildbot worker only names the id.
    services = {record["service"] for record in records if record.get("correlation") == f"ref-{event}"}
    assert services - {"refs", "command"} == {"master", "phases", "publisher"}
    assert services & {"refs", "command"}
    assert {"worker", "guests"} <= {record["service"] for record in records}
    phases = {(record["target"], record["phase"]) for record in records if record["service"] == "phases"}
    assert phases >= {(target, phase["name"]) for target, build in builds.items() for phase in build["phases"][:2]}
    assert "became a release" in site.run("release", "log", "tally", "v1.0").out


def require_support_bundle(site: LiveSite, tmp_path: Path) -> None:
    """What is written for whoever helps has all logs and doctor's findings, and no password of this site."""
    file = tmp_path / "support.tar.gz"
    # Isolations are probed, by a first emulated boot.
    members = site.ask("support-bundle", str(file), timeout=400)["members"]
    services = {f"logs/{service['name']}.log" for service in site.ask("status")["services"]}
    assert {"doctor.json", "status.json", "database.json", *services} <= set(members)
    with tarfile.open(file) as tar:
        told = {member.name.partition("/")[2]: tar.extractfile(member).read().decode() for member in tar}
    found = {one["what"]: one["works"] for one in json.loads(told["doctor.json"])}
    [worker] = [what for what in found if what.startswith("worker ")]
    assert found[worker] and found["clock"] and found["database version"], found
    assert any(what.startswith("mirror ") for what in found)
    secrets = [secret.read_text().strip() for secret in (site.state / "secrets").iterdir()]
    assert secrets and not any(secret in text for secret in secrets for text in told.values())


@pytest.mark.timeout(840)
def test_a_pushed_tag_becomes_packages_that_apt_and_dnf_install(site: LiveSite, tmp_path: Path) -> None:
    bare = site.repositories / "tally.git"
    subprocess.run(["git", "init", "--quiet", "--bare", bare], check=True, timeout=60)
    hook = bare / "hooks" / "post-receive"
    hook.write_text(HOOK.format(state=site.state, command=SCRIPTS / "cleanroom"))
    hook.chmod(0o755)
    site.ask("product", "add", "tally", bare.as_uri())
    tree = site.tree("tally-tree", PRODUCTS / "tally")
    tree.git("tag", "--annotate", "--message=tally 1.0", "v1.0")
    tree.git("push", "--quiet", str(bare), "main", "v1.0", variables=site.environment)

    shown = site.published("tally", "v1.0", timeout=600)
    # Whoever comes first, hook or poll: one event becomes the release.
    [event] = [one for one in site.ask("ref", "list", "tally") if one["ref"] == "v1.0"]
    assert event["state"] == "claimed"
    assert (event["tag_kind"], event["commit"]) == ("annotated", tree.git("rev-parse", "v1.0^{}"))
    builds = {build["target"]: build for build in shown["builds"]}
    assert set(builds) == {"debian-12/deb", "debian-12/rpm"}
    for build in builds.values():
        assert (build["outcome"], build["attempt"], build["isolation"]) == ("passed", 1, "container")
        outcomes = {phase["name"]: phase["outcome"] for phase in build["phases"]}
        assert outcomes == {name: PHASES[name] for name in outcomes}
        assert build["phases"][0]["tests"] == {"passed": 17, "failed": 0, "skipped": 0, "flaky": 0}
    assert shown["version"].startswith("1.0")
    require_records(site, event["id"], builds)
    require_support_bundle(site, tmp_path)
    page = requests.get(f"{site.ask('status')['web_url']}release/tally/v1.0", timeout=60)
    assert (page.status_code, shown["why"] in page.text, "tally_1.0_amd64.deb" in page.text) == (200, True, True)
    repository = site.ask("repository", "show")
    files = {package["file"] for channel in repository["channels"] for package in channel["packages"]}
    assert {"tally_1.0_amd64.deb", "tally-1.0-1.x86_64.rpm"} <= {Path(file).name for file in files}
    for name in ("tally_1.0_amd64.deb", "tally-1.0-1.x86_64.rpm"):
        require_provenance(site, shown, name, tmp_path)

    consumer = Consumer(site.settings, image=IMAGE, channel="testing")
    try:
        assert "1.0" in consumer.apt(["tally"], [["tally", "--version"]]).printed
        assert "1.0" in consumer.dnf(["tally"], [["tally", "--version"]]).printed
    finally:
        consumer.close()


@pytest.mark.timeout(240)
def test_a_row_inserted_by_hand_triggers_the_way(site: LiveSite) -> None:
    repository = site.script("by-hand", "echo done > result.txt")
    repository.tag("not-seen")
    site.sql("INSERT INTO cleanroom.ref_event (product, ref) VALUES ('by-hand', 'not-seen') ON CONFLICT DO NOTHING")
    shown = site.published("by-hand", "not-seen")
    assert shown["commit"] == repository.git("rev-parse", "HEAD")
    [build] = shown["builds"]
    assert [artifact["file"] for artifact in build["artifacts"]] == ["result.txt"]


@pytest.mark.timeout(240)
def test_a_commit_goes_into_snapshots(site: LiveSite, tmp_path: Path) -> None:
    # Which branches are watched is for the site to say.
    recipe = tmp_path / "snapshot.toml"
    recipe.write_text(SCRIPT.format(command="echo done > result.txt") + 'branches = ["main"]\n')
    repository = site.product("snapshot", {"README": "hello\n"}, "--file", str(recipe))
    commit = repository.commit(more="more\n")
    shown = site.published("snapshot", commit)
    assert [one["channel"] for one in shown["published"]] == ["snapshots"]
