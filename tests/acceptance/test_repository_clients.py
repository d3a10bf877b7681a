"""A real apt and a real dnf, told only what the consumer's page says, against the repository over HTTP."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path

import pytest
import requests
from tiny_packages import make_deb, make_rpm, make_source, sha256

from cleanroom_master.publish.package import Package
from cleanroom_master.publish.repository import Repository
from cleanroom_master.publish.signing import Signer

SERVE = (
    "import sys; from pathlib import Path; from cleanroom_master.repository_server import serve;"
    "serve(Path(sys.argv[1]), ['127.0.0.1'], int(sys.argv[2]))"
)


class Blocks(HTMLParser):
    """The texts of the page's blocks to copy, by their id."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: dict[str, str] = {}
        self._current = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "pre":
            self._current = dict(attrs)["id"] or ""
            self.found[self._current] = ""

    def handle_endtag(self, tag: str) -> None:
        if tag == "pre":
            self._current = ""

    def handle_data(self, data: str) -> None:
        if self._current:
            self.found[self._current] += data


@dataclass
class Site:
    """A repository that is served, and the files to publish in it."""

    repository: Repository
    signer: Signer
    url: str
    files: Path
    packages: list[Package]

    def publish(self, *files: Path) -> None:
        for file in files:
            family = "rpm" if file.suffix == ".rpm" else "deb"
            package = self.repository.add_to_pool(file, sha256(file))
            self.packages.append(package.published_in("testing", f"debian-12/{family}"))
        number = (self.repository.current() or 0) + 1
        self.repository.build(number, self.packages)
        assert self.repository.verify(number) == []
        self.repository.switch(number)

    def blocks(self) -> dict[str, str]:
        answer = requests.get(self.url + "/", timeout=10)
        answer.raise_for_status()
        return Blocks(answer.text).found


@pytest.fixture
def site(tmp_path: Path, signer: Signer) -> Iterator[Site]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    directory = tmp_path / "repository"
    url = f"http://localhost:{port}"
    files = tmp_path / "files"
    files.mkdir()
    site = Site(Repository(directory, signer, origin="Test", url=url), signer, url, files, [])
    site.publish(make_deb(files), make_rpm(files))
    server = subprocess.Popen([sys.executable, "-c", SERVE, str(directory), str(port)])
    try:
        _wait_for(port)
        yield site
    finally:
        server.terminate()
        server.wait(timeout=20)
        # dnf checks signatures with a gpg home of its own, and leaves its agent running.
        for home in tmp_path.glob("dnf/cache/*/pubring"):
            subprocess.run(["gpgconf", "--homedir", home, "--kill", "gpg-agent"], check=True, timeout=60)


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


class Apt:
    """apt with directories of its own, configured by the page."""

    def __init__(self, root: Path, site: Site) -> None:
        self.root = root
        for name in (
            "etc/apt/sources.list.d",
            "etc/apt/keyrings",
            "etc/apt/apt.conf.d",
            "etc/apt/preferences.d",
            "etc/apt/trusted.gpg.d",
            "var/lib/apt/lists/partial",
            "var/cache/apt/archives/partial",
            "var/lib/dpkg/updates",
            "var/lib/dpkg/info",
            "var/log/apt",
        ):
            (root / name).mkdir(parents=True)
        (root / "var/lib/dpkg/status").touch()
        self._configuration = root / "apt.conf"
        self._configuration.write_text(
            f'Dir "{root}/"; Dir::State::Status "{root}/var/lib/dpkg/status"; APT::Sandbox::User "";\n'
            'Dir::Bin::Methods "/usr/lib/apt/methods/"; Dir::Bin::dpkg "/usr/bin/dpkg"; APT::Architecture "amd64";\n'
            f'DPkg::Options {{ "--root={root}"; "--force-not-root"; "--log={root}/dpkg.log"; }};\n'
            'Acquire::http::Proxy "DIRECT"; APT::Get::Assume-Yes "true"; Acquire::Retries "0";\n'
        )
        blocks = site.blocks()
        for line in blocks["apt-testing-debian-12-key"].splitlines():
            words = line.replace(" /etc/apt/", f" {root}/etc/apt/").split()
            subprocess.run(words, check=True, capture_output=True, timeout=60, env=self._environment())
        sources = blocks["apt-testing-debian-12-sources"].replace("/etc/apt/", f"{root}/etc/apt/")
        self._sources = root / "etc/apt/sources.list.d/test.sources"
        self._sources.write_text(sources)

    def with_sources(self) -> None:
        self._sources.write_text(self._sources.read_text().replace("Types: deb", "Types: deb deb-src"))

    def run(self, *words: str, ok: bool = True) -> str:
        done = subprocess.run(
            ["apt-get", *words],
            check=False,
            cwd=self.root,
            env=self._environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
        )
        assert (done.returncode == 0) == ok, done.stdout
        return done.stdout

    def update(self, *, ok: bool = True) -> str:
        return self.run("--error-on=any", "update", ok=ok)

    def _environment(self) -> dict[str, str]:
        return {"APT_CONFIG": str(self._configuration), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}


class Dnf:
    """dnf with directories of its own, configured by the page."""

    def __init__(self, root: Path, site: Site) -> None:
        self.root = root
        for name in ("repos", "log"):
            (root / name).mkdir(parents=True)
        (root / "dnf.conf").write_text("[main]\n")
        (root / "repos/test.repo").write_text(site.blocks()["yum-testing-debian-12-repo"])

    def run(self, *words: str, ok: bool = True) -> str:
        command = [
            "dnf",
            f"--config={self.root}/dnf.conf",
            f"--installroot={self.root}/installed",
            f"--setopt=reposdir={self.root}/repos",
            f"--setopt=cachedir={self.root}/cache",
            f"--setopt=logdir={self.root}/log",
            f"--setopt=persistdir={self.root}/persist",
            "--setopt=proxy=",
            "--setopt=retries=1",
            "--releasever=1",
            "--assumeyes",
            "--refresh",
            *words,
        ]
        done = subprocess.run(
            command, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120
        )
        assert (done.returncode == 0) == ok, done.stdout
        return done.stdout


def test_apt_installs_and_upgrades(tmp_path: Path, site: Site):
    apt = Apt(tmp_path / "apt", site)
    apt.update()
    apt.run("install", "tiny")
    assert (apt.root / "usr/share/tiny/greeting").read_text() == "hello\n"
    site.publish(make_deb(site.files, version="1.1", greeting="hello again"))
    apt.update()
    apt.run("upgrade")
    assert (apt.root / "usr/share/tiny/greeting").read_text() == "hello again\n"
    # All versions are kept.
    apt.run("install", "--allow-downgrades", "tiny=1.0")
    assert (apt.root / "usr/share/tiny/greeting").read_text() == "hello\n"


def test_dnf_installs_and_upgrades(tmp_path: Path, site: Site):
    dnf = Dnf(tmp_path / "dnf", site)
    dnf.run("install", "tiny")
    assert (dnf.root / "installed/usr/share/tiny/greeting").read_text() == "hello\n"
    site.publish(make_rpm(site.files, version="1.1"))
    assert "1.1-1" in dnf.run("upgrade", "tiny")
    assert "1.0-1" in dnf.run("downgrade", "tiny")


def test_apt_gets_source_packages(tmp_path: Path, site: Site):
    dsc = make_source(site.files)
    for companion in ("tiny_1.0.orig.tar.gz", "tiny_1.0-1.debian.tar.xz"):
        site.repository.add_companion(site.files / companion, sha256(site.files / companion))
    site.publish(dsc)
    apt = Apt(tmp_path / "apt", site)
    apt.with_sources()
    apt.update()
    apt.run("source", "--download-only", "tiny")
    for file in (dsc.name, "tiny_1.0.orig.tar.gz", "tiny_1.0-1.debian.tar.xz"):
        assert sha256(apt.root / file) == sha256(site.files / file)


def test_a_client_that_read_the_old_generation_can_finish(tmp_path: Path, site: Site):
    apt = Apt(tmp_path / "apt", site)
    apt.update()
    packages, site.packages = site.packages, []
    site.publish(make_deb(site.files, version="2.0"))
    assert packages[0] not in site.packages
    # The lists of before still name 1.0, and it is still there.
    apt.run("install", "tiny=1.0")


def test_clients_that_update_while_generations_come_and_go_see_no_error(tmp_path: Path, site: Site):
    """The long form, with many clients and a publisher that is killed, is `make bench PART=soak`."""
    apt, dnf = Apt(tmp_path / "apt", site), Dnf(tmp_path / "dnf", site)
    ended = threading.Event()

    def update(client: Callable[[], str]) -> int:
        count = 0
        while not ended.is_set() or count == 0:
            client()
            count += 1
        return count

    repository, original = site.repository, site.packages[:]
    with ThreadPoolExecutor() as threads:
        updates = [threads.submit(update, one) for one in (apt.update, lambda: dnf.run("makecache"))]
        for number in range(2, 6):
            files = [make_deb(site.files, version=f"{number}.0"), make_rpm(site.files, version=f"{number}.0")]
            added = [
                repository.add_to_pool(file, sha256(file)).published_in("testing", f"debian-12/{kind}")
                for file, kind in zip(files, ("deb", "rpm"), strict=True)
            ]
            repository.change(number, start=number - 1, added=added, removed=[])
            repository.switch(number)
        # Back to where it began.
        repository.change(6, start=1, added=[], removed=[])
        repository.switch(6)
        ended.set()
        assert all(one.result() > 0 for one in updates)
    assert set(repository.read(6).packages) == set(original)
    apt.update()
    assert apt.run("download", "tiny=1.0")


def test_tampered_packages_are_refused(tmp_path: Path, site: Site):
    apt, dnf = Apt(tmp_path / "apt", site), Dnf(tmp_path / "dnf", site)
    apt.update()
    for file in (tmp_path / "repository/files").rglob("tiny[_-]*"):
        content = bytearray(file.read_bytes())
        content[-10] ^= 1
        file.write_bytes(content)
    assert "Hash Sum mismatch" in apt.run("install", "tiny", ok=False)
    assert "checksum" in dnf.run("install", "tiny", ok=False)
    assert not (apt.root / "usr/share/tiny").exists()
    assert not (dnf.root / "installed/usr/share/tiny").exists()


def test_an_unsigned_rpm_is_refused(tmp_path: Path, site: Site):
    """Even in a repository that lists it rightly and whose index bears our signature."""
    dnf = Dnf(tmp_path / "dnf", site)
    forged = tmp_path / "forged"
    forged.mkdir()
    shutil.copy(next(site.files.glob("rpmbuild-*/RPMS/noarch/*.rpm")), forged)
    subprocess.run(["createrepo_c", "--quiet", forged], check=True, timeout=60)
    repomd = forged / "repodata/repomd.xml"
    (forged / "repodata/repomd.xml.asc").write_bytes(site.signer.detach_sign(repomd.read_bytes()))
    configuration = dnf.root / "repos/test.repo"
    configuration.write_text(re.sub("mirrorlist=.*", f"baseurl=file://{forged}", configuration.read_text()))
    assert "not signed" in dnf.run("install", "tiny", ok=False)


@pytest.mark.parametrize("file", ["Release.gpg", "InRelease"])
def test_apt_refuses_what_is_not_signed(tmp_path: Path, site: Site, file: str):
    apt = Apt(tmp_path / "apt", site)
    suite = tmp_path / "repository/current/apt/dists/testing"
    (suite / "InRelease").unlink()
    if file == "Release.gpg":
        apt.update()  # the detached signature alone is enough
        (suite / "Release.gpg").unlink()
    else:
        (suite / "InRelease").write_bytes((suite / "Release").read_bytes())
    for stale in (apt.root / "var/lib/apt/lists").glob("*Release*"):
        stale.unlink()
    apt.update(ok=False)


def test_dnf_refuses_metadata_that_is_not_signed(tmp_path: Path, site: Site):
    dnf = Dnf(tmp_path / "dnf", site)
    repomd = tmp_path / "repository/current/yum/debian-12/testing/repodata/repomd.xml"
    repomd.write_text(repomd.read_text().replace("<revision>", "<revision>1"))
    assert "GPG" in dnf.run("install", "tiny", ok=False)


def test_a_key_of_someone_else_is_not_accepted(tmp_path: Path, site: Site):
    apt = Apt(tmp_path / "apt", site)
    with Signer(tmp_path / "other", tmp_path / "runtime", user_id="Someone else") as other:
        (apt.root / "etc/apt/keyrings/test.asc").write_bytes(other.public_key())
    assert "NO_PUBKEY" in apt.update(ok=False)


def test_clients_go_on_while_one_key_takes_over_from_another(tmp_path: Path, site: Site, two_keys: Signer):
    """apt and dnf that know the first key alone; then those that fetched the key file again during the overlap."""
    second, first = (key.fingerprint for key in two_keys.known)
    published = {key: two_keys.exported(key).decode() for key in (first, second)}
    two_keys.use([first], {first: published[first]})
    site.signer = two_keys
    shutil.rmtree(tmp_path / "repository")
    site.repository = Repository(tmp_path / "repository", two_keys, origin="Test", url=site.url)
    site.packages.clear()
    site.publish(make_deb(site.files, "one"), make_rpm(site.files, "one"))
    apt, dnf = Apt(tmp_path / "apt", site), Dnf(tmp_path / "dnf", site)
    apt.update()
    dnf.run("install", "one")

    two_keys.use([first, second], published)
    site.publish(make_deb(site.files, "two"), make_rpm(site.files, "two"))
    apt.update()
    apt.run("install", "two")
    dnf.run("install", "two")
    # New consumers during the overlap, and old ones that fetched the key file again.
    fresh = Apt(tmp_path / "fresh-apt", site)
    fresh.update()
    assert "rotation" in requests.get(site.url + "/", timeout=10).text

    two_keys.use([second], published)
    site.publish(make_deb(site.files, "three"), make_rpm(site.files, "three"))
    assert "NO_PUBKEY" in apt.update(ok=False)
    fresh.update()
    fresh.run("install", "one", "three")
    # dnf fetches the key file again by itself.
    dnf.run("install", "three")
    # The first rpm bears the signature of the first key, and whoever comes now is told of it.
    newcomer = Dnf(tmp_path / "newcomer", site)
    newcomer.run("install", "one", "three")
