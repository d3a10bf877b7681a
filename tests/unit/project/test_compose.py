"""docker-compose.yml and what belongs to it, as far as can be seen without Docker."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import containers
import pytest
import yaml

from cleanroom_base.settings import load
from cleanroom_db.roles import PROCESSES
from cleanroom_master import supervisor
from cleanroom_master.publish import addresses

ROOT = Path(__file__).resolve().parents[3]
SERVICES: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
ONCE = {"migrate", "cleanroom"}
TREE = [
    "apt/dists/testing/InRelease",
    "apt/dists/testing/debian-12/binary-amd64/by-hash/SHA256/" + "0" * 64,
    "apt/pool/a/answering_1.0_all.deb",
    "yum/debian-12/testing/pool/ab/tiny-1.0-1.x86_64.rpm",
    "yum/debian-12/testing/mirrorlist",
    "yum/debian-12/testing/repodata/repomd.xml",
    "yum/debian-12/testing/repodata/repomd.xml.asc",
    f"yum/debian-12/testing/repodata/{'a' * 64}-primary.xml.gz",
    f"yum/debian-12/testing/states/{'a' * 64}/repodata/repomd.xml",
    f"listing/{'a' * 64}.json",
    *("listing/other.json", "generation.json", "index.html", "style.css", "keys/cleanroom.asc", "pool", "apt/poolside"),
]


def secrets_of(service: dict[str, Any]) -> set[str]:
    return {one if isinstance(one, str) else one["source"] for one in service.get("secrets", [])}


def test_every_process_is_a_service(tmp_path: Path) -> None:
    settings = load({"CLEANROOM_STATE": str(tmp_path), "CLEANROOM_SITE": str(tmp_path)})
    # The worker's processes share one container, and nginx is the repository's server.
    started = {one.name for one in supervisor.services(settings)} - {"guests", "phases"}
    assert set(SERVICES) == started | {"postgresql"} | ONCE
    for name in started - {"worker", "repository"}:
        assert SERVICES[name]["command"] == ["service", "run", name]


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_a_service_is_told_settings_that_there_are(name: str, tmp_path: Path) -> None:
    variables = {key: str(value) for key, value in SERVICES[name].get("environment", {}).items()}
    secret = tmp_path / "secret"
    secret.write_text("hush")
    given = {key: str(secret) if key.endswith("_FILE") else value for key, value in variables.items()}
    for key in ("CLEANROOM_REPOSITORY_URL", "CLEANROOM_WEB_URL"):
        given.pop(key, None)
    load({"CLEANROOM_STATE": str(tmp_path), "CLEANROOM_SITE": str(tmp_path), **given})


@pytest.mark.parametrize("name", sorted(set(SERVICES) - {"worker"}))
def test_nothing_but_the_worker_has_rights(name: str) -> None:
    service = SERVICES[name]
    assert (service["cap_drop"], service["read_only"]) == (["ALL"], True)
    assert "no-new-privileges:true" in service["security_opt"]
    assert not {"cap_add", "privileged", "devices"} & set(service)


@pytest.mark.parametrize("name", sorted(set(SERVICES) - ONCE))
def test_what_runs_is_looked_after(name: str) -> None:
    service = SERVICES[name]
    assert service["restart"] == "unless-stopped"
    assert service["healthcheck"]["test"][0] == "CMD"


@pytest.mark.parametrize("name", ["refs", "master", "publisher", "notifications", "cleanroom"])
def test_who_keeps_house_can_note_when_and_who_copies_can_keep_it_off(name: str) -> None:
    assert "run:/var/lib/cleanroom/run" in SERVICES[name]["volumes"]


def test_a_process_has_the_passwords_of_its_own_roles() -> None:
    of = {
        name: {one for one in secrets_of(service) if one.startswith("database-")} for name, service in SERVICES.items()
    }
    assert of["migrate"] == {"database-owner", *(f"database-{role}" for role in PROCESSES)}
    assert of["web"] == {"database-web", "database-hooks", "database-access"}
    for name in ("refs", "master", "publisher", "notifications"):
        assert of[name] == {f"database-{name}"}
    assert of["worker"] == of["repository"] == set()
    assert {name for name, service in SERVICES.items() if "keys:" in str(service.get("volumes"))} == {"publisher"}


def test_all_secrets_are_made_once_and_stay(tmp_path: Path) -> None:
    place = tmp_path / "secrets"
    command = [ROOT / "compose" / "make-secrets", place]
    subprocess.run(command, check=True, timeout=30)
    made = {file.name: file.read_text() for file in place.iterdir()}
    assert set(made) == {one for service in SERVICES.values() for one in secrets_of(service)}
    assert all(re.fullmatch("([0-9a-f]{64})?", secret) for secret in made.values())
    assert len({secret for secret in made.values() if secret}) == len([secret for secret in made.values() if secret])
    (place / "mail").unlink()
    subprocess.run(command, check=True, timeout=30)
    assert {file.name: file.read_text() for file in place.iterdir()} == made
    assert place.stat().st_mode & 0o777 == 0o700


def test_nginx_lets_be_kept_what_our_own_server_does() -> None:
    text = (ROOT / "compose" / "nginx.conf").read_text()
    block = re.search(r"map \$uri \$caching \{(.*?)\n    \}", text, re.DOTALL)
    assert block is not None
    rules = re.findall(r'^\s+"?(default|~\S+?)"? "([^"]*)";$', block[1], re.MULTILINE)
    patterns = [(pattern.removeprefix("~"), caching) for pattern, caching in rules if pattern != "default"]
    for place in TREE:
        found = [caching for pattern, caching in patterns if re.search(pattern, f"/{place}")]
        assert (found or [dict(rules)["default"]])[0] == addresses.caching(place), place


def test_nginx_gives_the_types_that_our_own_server_does() -> None:
    text = (ROOT / "compose" / "nginx.conf").read_text()
    block = re.search(r"types \{(.*?)\n    \}", text, re.DOTALL)
    assert block is not None
    types = {
        ending: kind for kind, ending in re.findall(r'^\s+"?([^";]+(?:; [^"]+)?)"? (\w+);$', block[1], re.MULTILINE)
    }
    assert types == {key.removeprefix("."): kind for key, kind in addresses._TYPES.items() if key.startswith(".")}
    assert f'default_type "{addresses._TYPES["mirrorlist"]}"' in text


def test_what_is_installed_there_is_locked_as_everywhere() -> None:
    """The images' lock is that of development without what only development needs."""
    blocks = {
        name: {line.strip(" \\") for line in (ROOT / name).read_text().splitlines() if not line.strip().startswith("#")}
        for name in ("requirements.lock", "debian/runtime.lock")
    }
    assert blocks["debian/runtime.lock"] <= blocks["requirements.lock"]
    wanted = {"buildbot", "psycopg2", "libvirt-python", "uvicorn", "argon2-cffi"}
    assert wanted <= {line.partition("==")[0] for line in blocks["debian/runtime.lock"]}


# An engine that answers, has the base, and does with containers what the test says.
DOCKER = """\
#!/bin/sh
case $1 in
version) echo 20 ;;
run) echo "$*" >>"$ASKED"; echo 'first line' >&2; echo 'docker: unable to apply caps.' >&2; exit {status} ;;
esac
"""


@pytest.mark.parametrize(("status", "why"), [(125, "docker: unable to apply caps."), (0, None)])
def test_where_docker_cannot_run_one_line_says_why(
    status: int, why: str | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "docker").write_text(DOCKER.format(status=status))
    (tmp_path / "docker").chmod(0o755)
    for name, value in (("PATH", f"{tmp_path}:/usr/bin:/bin"), ("ASKED", str(tmp_path / "asked"))):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("CLEANROOM_TEST_STATE", str(tmp_path / "state"))
    done = subprocess.run(
        [sys.executable, containers.__file__], capture_output=True, text=True, timeout=60, check=False
    )
    if os.geteuid() != 0:
        assert done.stdout == "make compose-test is left out here: it takes root\n"
        return
    worker = f"a container with a worker's rights does not work: {why}"
    if why is None:
        # Or there is not enough room on this machine's disk.
        assert "container" not in done.stdout
    else:
        assert (done.returncode, done.stdout) == (1, f"make compose-test is left out here: {worker}\n")
    asked = (tmp_path / "asked").read_text()
    assert all(f"--cap-add={right}" in asked for right in SERVICES["worker"]["cap_add"])
    assert "--cap-drop=ALL" in asked
    assert "--device=/dev/fuse" in asked


def test_where_no_docker_is_that_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert containers.obstacle() == ("there is no Docker" if os.geteuid() == 0 else "it takes root")
