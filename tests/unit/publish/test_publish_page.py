import hashlib
from pathlib import Path

from tiny_packages import make_deb, make_rpm, sha256

from cleanroom_master.publish.repository import Repository
from cleanroom_master.publish.signing import Signer


def page(directory: Path, signer: Signer, files: list[Path], *, origin: str = "Test") -> str:
    repository = Repository(directory, signer, origin=origin, url="https://packages.example/")
    packages = []
    for file in files:
        added = repository.add_to_pool(file, sha256(file))
        packages.append(added.published_in("testing", f"debian-12/{added.format}"))
    return (repository.build(1, packages) / "index.html").read_text()


def test_it_says_how_to_add_the_repository_for_apt(tmp_path: Path, signer: Signer):
    html = page(tmp_path / "repository", signer, [make_deb(tmp_path)])
    for line in (
        "URIs: https://packages.example/apt",
        "Suites: testing",
        "Components: debian-12",
        "Signed-By: /etc/apt/keyrings/test.asc",
        f"SHA256:{hashlib.sha256(signer.public_key()).hexdigest()}",
    ):
        assert line in html
    assert "mirrorlist" not in html


def test_it_says_how_to_add_the_repository_for_dnf(tmp_path: Path, signer: Signer):
    html = page(tmp_path / "repository", signer, [make_rpm(tmp_path)])
    for line in (
        "mirrorlist=https://packages.example/yum/debian-12/testing/mirrorlist",
        "gpgcheck=1",
        "repo_gpgcheck=1",
        "gpgkey=https://packages.example/keys/cleanroom.asc",
    ):
        assert f"\n{line}\n" in html
    assert "Signed-By" not in html


def test_it_names_the_key_and_every_package(tmp_path: Path, signer: Signer):
    files = [make_deb(tmp_path, version=version) for version in ("1.9", "1.10~rc1", "1.10")]
    html = page(tmp_path / "repository", signer, files)
    assert signer.key.fingerprint in html
    assert all(sha256(file) in html for file in files)
    assert html.index("<td>1.10") < html.index("<td>1.9")


def test_it_needs_no_script_and_escapes_what_it_shows(tmp_path: Path, signer: Signer):
    html = page(tmp_path / "repository", signer, [], origin="Ours & <script>")
    assert "Ours &amp; &lt;script&gt;" in html
    assert "<script" not in html


def test_while_one_key_takes_over_from_another_it_names_both(tmp_path: Path, two_keys: Signer):
    first, second = (key.fingerprint for key in two_keys.known)
    published = {key: two_keys.exported(key).decode() for key in (first, second)}
    two_keys.use([first, second], published)
    html = page(tmp_path / "repository", two_keys, [make_rpm(tmp_path)])
    assert html.index(first) < html.index(second)
    assert "Fetch the key file again" in html
    assert "retired.asc" not in html
    two_keys.use([second], published)
    html = page(tmp_path / "after", two_keys, [make_rpm(tmp_path, "other")])
    assert (first in html, second in html) == (False, True)
    keys = "https://packages.example/keys"
    assert f"\ngpgkey={keys}/cleanroom.asc {keys}/retired.asc\n" in html
    assert (tmp_path / "after/generations/1/keys/retired.asc").read_bytes() == two_keys.exported(first)


def test_beside_it_is_a_page_that_says_how_far_to_trust_its_packages(tmp_path: Path, signer: Signer):
    html = page(tmp_path / "repository", signer, [make_deb(tmp_path)])
    assert 'href="provenance.html"' in html
    assert "<small>not recorded</small>" in html
    told = (tmp_path / "repository/generations/1/provenance.html").read_text()
    for isolation, level in (("kvm", 3), ("container", 2), ("emulated", 2), ("unknown", 1)):
        # The name of a builder is the address of what is said of it.
        place = told.index(f'id="builder-{isolation}"')
        assert f"Build level {level}" in told[place : place + 300]
    assert "<script" not in told
