"""What Cleanroom consists of: every package locked by hashes, its licence decided about, advisories told."""

from __future__ import annotations

import http.server
import importlib.util
import json
import re
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from surroundings import variables

ROOT = Path(__file__).resolve().parents[3]
_found = importlib.util.spec_from_file_location("supply_chain", ROOT / "scripts/supply_chain.py")
assert _found is not None and _found.loader is not None
supply_chain = importlib.util.module_from_spec(_found)
# Its dataclasses look themselves up there.
sys.modules["supply_chain"] = supply_chain
_found.loader.exec_module(supply_chain)


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, ROOT / "scripts/supply_chain.py", *words],
        env={**variables(), "no_proxy": "*"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def lines() -> dict[str, str]:
    """The locked packages, each with all that stands about it."""
    lock = (ROOT / "requirements.lock").read_text()
    parts = re.split(r"^(?=\S)", re.sub(r"^ *#.*\n", "", lock, flags=re.MULTILINE), flags=re.MULTILINE)
    return {part.partition("==")[0]: part for part in parts if part}


def test_every_line_of_the_lock_file_has_hashes() -> None:
    packages = lines()
    assert len(packages) > 90
    for name, part in packages.items():
        first, *hashes = part.rstrip("\n").split("\n")
        assert re.fullmatch(r"[a-z0-9.-]+==\S+( ; [^\\]+)? \\", first), name
        assert hashes, name
        assert all(re.fullmatch(r" {4}--hash=sha256:[0-9a-f]{64}( \\)?", line) for line in hashes), name


def test_the_licences_fit_the_lock_file_and_ours() -> None:
    """The program itself refuses a licence about which nobody decided; the page must be what it would write."""
    done = run("licenses", "--check")
    assert (done.returncode, done.stderr) == (0, "")
    rows = re.findall(r"^\| (\S+) \| (\S+) \|", (ROOT / "LICENSES.md").read_text(), re.MULTILINE)
    assert {f"{name}=={version}" for name, version in rows[2:] or rows} <= {
        part.split()[0] for part in lines().values()
    }
    assert len(lines()) == sum(name in lines() for name, _ in rows)


def test_the_bill_of_materials_has_what_is_locked_and_what_needs_what(tmp_path: Path) -> None:
    assert run("sbom", str(tmp_path / "one.json")).returncode == 0
    project = supply_chain._project()
    packages = supply_chain.locked((ROOT / "requirements.lock").read_text(), project)
    assert (tmp_path / "one.json").read_text() == supply_chain.bill(packages, project)
    bill = json.loads((tmp_path / "one.json").read_text())
    assert (bill["bomFormat"], bill["metadata"]["component"]["name"]) == ("CycloneDX", "cleanroom")
    components = {one["name"]: one for one in bill["components"]}
    assert components.keys() == lines().keys()
    assert (components["buildbot"]["scope"], components["pytest"]["scope"]) == ("required", "excluded")
    assert all(one["licenses"] for one in components.values())
    needs = {one["ref"].rpartition("/")[2].partition("@")[0]: one.get("dependsOn", []) for one in bill["dependencies"]}
    assert any("/twisted@" in need for need in needs["buildbot"])
    assert any("/buildbot@" in need for need in needs["cleanroom"])


def advisory(package: str = "Jinja2", ecosystem: str = "PyPI", **affected: Any) -> dict[str, Any]:
    return {
        "id": "TEST-1",
        "summary": "it breaks",
        "affected": [{"package": {"ecosystem": ecosystem, "name": package}, **affected}],
    }


def between(*events: dict[str, str]) -> dict[str, Any]:
    return {"ranges": [{"type": "ECOSYSTEM", "events": list(events)}]}


@pytest.mark.parametrize(
    ("known", "status"),
    [
        ([advisory(**between({"introduced": "0"}))], 1),
        ([advisory(**between({"introduced": "0"}, {"fixed": "99"}))], 1),
        ([advisory(**between({"introduced": "0"}, {"fixed": "1.0"}))], 0),
        ([advisory(**between({"introduced": "0"}, {"fixed": "1.0"}, {"introduced": "3.0"}))], 1),
        ([advisory(**between({"introduced": "0"}, {"last_affected": "3.0"}))], 0),
        ([advisory(**between({"introduced": "99"}))], 0),
        ([advisory(ecosystem="npm", **between({"introduced": "0"}))], 0),
        ([advisory(package="not-here", **between({"introduced": "0"}))], 0),
        ([{**advisory(**between({"introduced": "0"})), "withdrawn": "2030-01-01T00:00:00Z"}], 0),
        ([advisory(versions=["0.1"])], 0),
        ([advisory(package="jinja2", versions=[lines()["jinja2"].split()[0].partition("==")[2]])], 1),
    ],
)
def test_which_versions_an_advisory_is_about(known: list[dict[str, Any]], status: int) -> None:
    version = lines()["jinja2"].split()[0].partition("==")[2]
    packages = [supply_chain.Locked("jinja2", version, (), True)]
    assert [one.package for one in supply_chain.advised(packages, known)] == ["jinja2"] * status


def test_advisories_are_read_from_a_zip_and_what_is_none_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        archive.writestr("TEST-1.json", json.dumps(advisory(**between({"introduced": "0"}))))
    done = run("audit", "--advisories", str(tmp_path / "all.zip"))
    assert (done.returncode, "jinja2" in done.stdout, done.stderr) == (1, True, "")
    (tmp_path / "other.json").write_text('["text"]')
    done = run("audit", "--advisories", str(tmp_path / "other.json"))
    assert (done.returncode, "cannot be read" in done.stderr) == (2, True)


@contextmanager
def service(vulnerable: str) -> Iterator[str]:
    """A service in OSV's form that knows of one advisory."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["queries"]
            self._say(
                {"results": [{"vulns": [{"id": "T"}]} if one["package"]["name"] == vulnerable else {} for one in asked]}
            )

        def do_GET(self) -> None:
            self._say(advisory(package=vulnerable, **between({"introduced": "0"})))

        def _say(self, value: object) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(value).encode())

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_service_is_asked_and_one_that_is_away_is_no_pass() -> None:
    with service("twisted") as url:
        done = run("audit", "--service", url)
    assert (done.returncode, "TEST-1" in done.stdout) == (1, True)
    done = run("audit", "--service", url)
    assert (done.returncode, done.stdout) == (3, "")
    assert "cannot be reached" in done.stderr and "nothing was checked" in done.stderr
