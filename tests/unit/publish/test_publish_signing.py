import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from cleanroom_base.errors import InfrastructureError
from cleanroom_base.settings import load
from cleanroom_master.publish.signing import Signer, expiry, signature_of
from cleanroom_master.publish.site import open_signer, repository_directory


def test_the_key_is_made_once_and_found_again(tmp_path: Path, signer: Signer):
    with Signer(signer.home, tmp_path / "runtime", user_id="Another name") as again:
        assert again.key == signer.key
    assert again.key.user_id == "Test repository"


def test_the_expiry_is_set_and_reported(signer: Signer):
    assert signer.key.expires is not None
    assert timedelta(days=4 * 365) < signer.key.expires - datetime.now(UTC) < timedelta(days=6 * 365)


def test_nobody_else_can_read_the_home(signer: Signer):
    assert signer.home.stat().st_mode & 0o077 == 0


def test_signatures_are_good(tmp_path: Path, signer: Signer):
    (tmp_path / "keyring.gpg").write_bytes(signer.keyring())
    (tmp_path / "text").write_bytes(b"text\n")
    (tmp_path / "text.asc").write_bytes(signer.detach_sign(b"text\n"))
    (tmp_path / "clear").write_bytes(signer.clear_sign(b"text\n"))
    gpgv = ["gpgv", "--keyring", tmp_path / "keyring.gpg"]
    subprocess.run([*gpgv, tmp_path / "text.asc", tmp_path / "text"], check=True, timeout=60)
    subprocess.run([*gpgv, tmp_path / "clear"], check=True, timeout=60)


def test_the_signature_of_a_text_with_an_empty_line_more_is_that_of_the_text(tmp_path: Path, signer: Signer):
    text = "Suite: testing\nOrigin: Ours & others, é\n".encode()
    (tmp_path / "keyring.gpg").write_bytes(signer.keyring())
    (tmp_path / "Release").write_bytes(text)
    (tmp_path / "Release.gpg").write_bytes(signature_of(signer.clear_sign(text + b"\n")))
    gpgv = ["gpgv", "--keyring", tmp_path / "keyring.gpg", tmp_path / "Release.gpg", tmp_path / "Release"]
    subprocess.run(gpgv, check=True, timeout=60)
    (tmp_path / "Release").write_bytes(text + b"\n")
    assert subprocess.run(gpgv, check=False, timeout=60).returncode == 1


def test_a_home_with_a_long_path_works(tmp_path: Path, signer: Signer):
    """The agent's socket would not fit into the 107 bytes of a socket's path."""
    home = tmp_path / ("long" * 30) / "gnupg"
    home.parent.mkdir()
    signer.close()  # an agent that finds its home gone would be asked while it ends
    signer.home.rename(home)
    try:
        with Signer(home, tmp_path / "runtime", user_id="Test repository") as moved:
            assert b"BEGIN PGP SIGNATURE" in moved.detach_sign(b"text\n")
    finally:
        home.rename(signer.home)


def test_no_agent_is_left(tmp_path: Path, signer: Signer):
    with Signer(signer.home, tmp_path / "runtime", user_id="Test repository") as again:
        again.detach_sign(b"text\n")
        link = tmp_path / "runtime/gnupg"
        ask = ["gpg-connect-agent", "--no-autostart", "--homedir", link, "/bye"]
        assert subprocess.run(ask, check=False, capture_output=True, timeout=60).returncode == 0
    assert b"no gpg-agent running" in subprocess.run(ask, check=False, capture_output=True, timeout=60).stderr


def test_an_expired_key_is_reported(tmp_path: Path):
    home = tmp_path / "gnupg"
    home.mkdir(mode=0o700)
    gpg = ["gpg", "--homedir", home, "--batch", "--pinentry-mode", "loopback", "--passphrase", ""]
    past = ["--faked-system-time", "20200101T000000", "--quick-generate-key", "Old", "rsa2048", "sign", "1d"]
    subprocess.run([*gpg, *past], check=True, capture_output=True, timeout=120)
    with pytest.raises(InfrastructureError, match="expired on 2020-01-02"):
        Signer(home, tmp_path / "runtime", user_id="Old")
    for name in (home, tmp_path / "runtime/gnupg"):
        subprocess.run(["gpgconf", "--homedir", name, "--kill", "gpg-agent"], check=True, timeout=60)


def test_a_key_that_vanished_is_not_replaced_by_itself(tmp_path: Path):
    with pytest.raises(InfrastructureError, match="the signing key vanished"):
        Signer(tmp_path / "gone", tmp_path / "runtime", user_id="Test repository", may_make=False)


def test_a_site_makes_a_key_only_before_its_first_publication(tmp_path: Path):
    settings = load({"CLEANROOM_STATE": str(tmp_path / "state"), "CLEANROOM_SITE": str(tmp_path)})
    repository = repository_directory(settings)
    repository.mkdir(parents=True)
    (repository / "current").symlink_to("generations/1")
    with pytest.raises(InfrastructureError, match="consumers trust no other"):
        open_signer(settings)


def test_when_an_exported_key_expires(tmp_path: Path, signer: Signer):
    file = tmp_path / "key.asc"
    file.write_bytes(signer.public_key())
    assert expiry(file) == signer.key.expires
    file.write_text("no key")
    with pytest.raises(InfrastructureError):
        expiry(file)
