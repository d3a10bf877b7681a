import shutil
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tiny_packages import make_rpm

from cleanroom_base.errors import InfrastructureError
from cleanroom_base.settings import load
from cleanroom_master.publish import agent
from cleanroom_master.publish.envelope import dearmored, verified
from cleanroom_master.publish.signing import KeyTrouble, Signer, expiries, signature_of
from cleanroom_master.publish.site import open_signer, repository_directory
from cleanroom_master.publish.token import Token
from cleanroom_workers.processes import started


def test_the_key_is_made_once_and_found_again(runtime: Path, signer: Signer):
    with Signer(signer.home, runtime, user_id="Another name") as again:
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


def test_what_is_signed_while_the_clock_is_back_is_good(tmp_path: Path, signer: Signer):
    """The key was made a moment ago, and would be one of the future."""
    (tmp_path / "keyring.gpg").write_bytes(signer.keyring())
    configuration = signer.home / "gpg.conf"
    configuration.write_text(f"faked-system-time {datetime.now(UTC) - timedelta(hours=2):%Y%m%dT%H%M%S}\n")
    try:
        (tmp_path / "clear").write_bytes(signer.clear_sign(b"text\n"))
    finally:
        configuration.unlink()
    subprocess.run(["gpgv", "--keyring", tmp_path / "keyring.gpg", tmp_path / "clear"], check=True, timeout=60)


def test_the_signature_of_a_text_with_an_empty_line_more_is_that_of_the_text(tmp_path: Path, signer: Signer):
    text = "Suite: testing\nOrigin: Ours & others, é\n".encode()
    (tmp_path / "keyring.gpg").write_bytes(signer.keyring())
    (tmp_path / "Release").write_bytes(text)
    (tmp_path / "Release.gpg").write_bytes(signature_of(signer.clear_sign(text + b"\n")))
    gpgv = ["gpgv", "--keyring", tmp_path / "keyring.gpg", tmp_path / "Release.gpg", tmp_path / "Release"]
    subprocess.run(gpgv, check=True, timeout=60)
    (tmp_path / "Release").write_bytes(text + b"\n")
    assert subprocess.run(gpgv, check=False, timeout=60).returncode == 1


def test_a_home_with_a_long_path_works(tmp_path: Path, runtime: Path, signer: Signer):
    """The agent's socket would not fit into the 107 bytes of a socket's path."""
    home = tmp_path / ("long" * 30) / "gnupg"
    home.parent.mkdir()
    signer.close()  # an agent that finds its home gone would be asked while it ends
    signer.home.rename(home)
    try:
        with Signer(home, runtime, user_id="Test repository") as moved:
            assert b"BEGIN PGP SIGNATURE" in moved.detach_sign(b"text\n")
    finally:
        home.rename(signer.home)


def test_no_agent_is_left(runtime: Path, signer: Signer):
    with Signer(signer.home, runtime, user_id="Test repository") as again:
        again.detach_sign(b"text\n")
        link = runtime / "gnupg"
        ask = ["gpg-connect-agent", "--no-autostart", "--homedir", link, "/bye"]
        assert subprocess.run(ask, check=False, capture_output=True, timeout=60).returncode == 0
    assert b"no gpg-agent running" in subprocess.run(ask, check=False, capture_output=True, timeout=60).stderr


def test_the_agent_of_a_publisher_that_was_killed_ends_by_its_home(runtime: Path, signer: Signer):
    """Not by its sockets: gpg looks for them elsewhere once there is a /run/user/UID."""
    killed = Signer(signer.home, runtime, user_id="Test repository")
    killed.detach_sign(b"text\n")
    asked = ["gpg-connect-agent", "--no-autostart", "--homedir", runtime / "gnupg", "GETINFO pid", "/bye"]
    told = subprocess.run(asked, check=True, capture_output=True, timeout=60).stdout
    process = int(told.split()[1])
    agent.end(runtime / "none")
    assert started(process)
    agent.end(runtime / "gnupg")
    assert not started(process)


def expired(home: Path) -> None:
    """Make a key whose time is over."""
    home.mkdir(mode=0o700)
    gpg = ["gpg", "--homedir", home, "--batch", "--pinentry-mode", "loopback", "--passphrase", ""]
    past = ["--faked-system-time", "20200101T000000", "--quick-generate-key", "Old", "rsa2048", "sign", "1d"]
    subprocess.run([*gpg, *past], check=True, capture_output=True, timeout=120)
    subprocess.run(["gpgconf", "--homedir", home, "--kill", "gpg-agent"], check=True, timeout=60)


def test_an_expired_key_signs_nothing_and_can_be_extended(tmp_path: Path, runtime: Path):
    expired(tmp_path / "gnupg")
    rpm = tmp_path / "tiny.rpm"
    with Signer(tmp_path / "gnupg", runtime, user_id="Old", may_make=False) as signer:
        for sign in (signer.detach_sign, signer.clear_sign, signer.signatures):
            with pytest.raises(KeyTrouble, match="expired on 2020-01-02") as raised:
                sign(b"text\n")
            assert "cleanroom repository key extend" in str(raised.value)
        with pytest.raises(KeyTrouble, match="expired on 2020-01-02"):
            signer.sign_rpm(rpm)
        [key] = signer.known
        signer.extend(key.fingerprint)
        assert b"BEGIN PGP SIGNATURE" in signer.detach_sign(b"text\n")


def test_a_key_that_vanished_is_not_replaced_by_itself(tmp_path: Path, runtime: Path):
    with Signer(tmp_path / "gone", runtime, user_id="Test repository", may_make=False) as signer:
        with pytest.raises(KeyTrouble, match="the signing key vanished") as raised:
            signer.detach_sign(b"text\n")
        assert "bring it back from a backup" in str(raised.value)
        assert signer.known == ()


def test_a_key_that_vanishes_later_is_told_too(two_keys: Signer):
    key = two_keys.key
    shutil.rmtree(two_keys.home)
    with pytest.raises(KeyTrouble, match=f"the signing key {key.fingerprint} vanished"):
        two_keys.detach_sign(b"text\n")
    assert two_keys.vanished == [key.fingerprint]
    # Others of our programs look into the home, which is none any more.
    two_keys.reload()
    assert two_keys.known == ()


def test_a_site_makes_a_key_only_before_its_first_publication(tmp_path: Path):
    settings = load({"CLEANROOM_STATE": str(tmp_path / "state"), "CLEANROOM_SITE": str(tmp_path)})
    repository = repository_directory(settings)
    repository.mkdir(parents=True)
    (repository / "current").symlink_to("generations/1")
    with open_signer(settings) as signer, pytest.raises(KeyTrouble, match="consumers trust no other"):
        signer.detach_sign(b"text\n")


def test_when_exported_keys_expire(tmp_path: Path, two_keys: Signer):
    file = tmp_path / "key.asc"
    file.write_bytes(two_keys.exported(*(key.fingerprint for key in two_keys.known)))
    assert expiries(file) == {key.fingerprint: key.expires for key in two_keys.known}
    file.write_text("no key")
    with pytest.raises(InfrastructureError):
        expiries(file)


def fingerprints(tmp_path: Path, signer: Signer, *content: bytes) -> list[str]:
    """The keys that signed, as gpgv sees it."""
    (tmp_path / "ring").write_bytes(signer.keyring())
    files = []
    for number, one in enumerate(content):
        files.append(tmp_path / str(number))
        files[-1].write_bytes(one)
    return [one.fingerprint for one in verified(tmp_path / "ring", *files)]


def test_while_two_keys_overlap_both_sign(tmp_path: Path, two_keys: Signer):
    first, second = (key.fingerprint for key in two_keys.known)
    published = {one: two_keys.exported(one).decode() for one in (first, second)}
    two_keys.use([first, second], published)
    assert [key.fingerprint for key in two_keys.keys] == [first, second]
    assert fingerprints(tmp_path, two_keys, two_keys.clear_sign(b"text\n")) == [first, second]
    assert fingerprints(tmp_path, two_keys, two_keys.detach_sign(b"text\n"), b"text\n") == [first, second]
    assert two_keys.retired_keys() == b""
    assert two_keys.public_key().count(b"BEGIN PGP PUBLIC KEY BLOCK") == 1

    two_keys.use([second], published)
    assert fingerprints(tmp_path, two_keys, two_keys.clear_sign(b"text\n")) == [second]
    assert dearmored(two_keys.public_key()) == dearmored(published[second].encode())
    assert dearmored(two_keys.retired_keys()) == dearmored(published[first].encode())


def test_packages_signed_by_a_key_that_retired_stay_good(tmp_path: Path, two_keys: Signer):
    first, second = (key.fingerprint for key in two_keys.known)
    published = {one: two_keys.exported(one).decode() for one in (first, second)}
    old, new, unsigned = (make_rpm(tmp_path, version=version) for version in ("1", "2", "3"))
    two_keys.use([first, second], published)
    two_keys.sign_rpm(old)
    two_keys.use([second], published)
    two_keys.sign_rpm(new)
    check = ["rpm", "--dbpath", two_keys.rpm_database, "--define", "_pkgverify_level all", "--checksig"]
    for file, good in ((old, True), (new, True), (unsigned, False)):
        done = subprocess.run([*check, file], check=False, capture_output=True, timeout=60)
        assert (done.returncode == 0) is good, done.stdout
    # An older key made the signature as long as it signed.
    two_keys.use([second], {second: published[second]})
    check[2] = two_keys.rpm_database
    assert [subprocess.run([*check, one], check=False, timeout=60).returncode for one in (old, new)] == [1, 0]


@pytest.fixture
def token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Token:
    """A token of SoftHSM's with one key pair, and the certificate that goes with it."""
    (tmp_path / "tokens").mkdir()
    (tmp_path / "softhsm2.conf").write_text(f"directories.tokendir = {tmp_path}/tokens\n")
    (tmp_path / "pin").write_text("1234\n")
    monkeypatch.setenv("SOFTHSM2_CONF", str(tmp_path / "softhsm2.conf"))
    made = Token(Path("/usr/lib/softhsm/libsofthsm2.so"), tmp_path / "pin")
    tool("softhsm2-util", "--init-token", "--free", "--label", "test", "--pin", "1234", "--so-pin", "5678")
    add_key_pair(tmp_path, made, "01")
    return made


def tool(*command: str | Path) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=60)


def add_key_pair(tmp_path: Path, token: Token, number: str) -> None:
    """Make a key pair on the token, as master/README.md says."""
    pkcs11 = ["pkcs11-tool", "--module", token.module, "--login", "--pin", "1234"]
    tool(*pkcs11, "--keypairgen", "--key-type", "rsa:2048", "--id", number, "--label", "sign")
    tool(*pkcs11, "--read-object", "--type", "pubkey", "--id", number, "--output-file", tmp_path / "public.der")
    tool("openssl", "rsa", "-pubin", "-inform", "DER", "-in", tmp_path / "public.der", "-out", tmp_path / "public.pem")
    issuer = ["-keyout", tmp_path / "throwaway.key", "-out", tmp_path / "throwaway.pem", "-subj", "/CN=throwaway"]
    tool("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", *issuer)
    signed = ["-CA", tmp_path / "throwaway.pem", "-CAkey", tmp_path / "throwaway.key", "-days", "3650"]
    public = ["-force_pubkey", tmp_path / "public.pem", "-subj", "/CN=cleanroom"]
    tool("openssl", "x509", "-new", *public, *signed, "-outform", "DER", "-out", tmp_path / "public.crt")
    tool(*pkcs11, "--write-object", tmp_path / "public.crt", "--type", "cert", "--id", number)


def test_a_key_on_a_token_signs_and_is_followed_by_another(tmp_path: Path, runtime: Path, token: Token):
    rpm = make_rpm(tmp_path)
    home = tmp_path / "gnupg"
    with Signer(home, runtime, user_id="Test repository", token=token) as signer:
        # What is in the home leads to the token, and is no secret.
        [stub] = (home / "private-keys-v1.d").iterdir()
        assert b"shadowed-private-key" in stub.read_bytes()
        first = signer.key.fingerprint
        assert datetime.now(UTC) - signer.key.created > timedelta(hours=23)
        assert fingerprints(tmp_path, signer, signer.clear_sign(b"text\n")) == [first]
        signer.sign_rpm(rpm)
        check = ["rpm", "--dbpath", signer.rpm_database, "--define", "_pkgverify_level all", "--checksig", rpm]
        assert subprocess.run(check, check=False, capture_output=True, timeout=60).returncode == 0

        with pytest.raises(InfrastructureError, match="has no key pairs that no key is made of yet"):
            signer.make_key()
        add_key_pair(tmp_path, token, "02")
        second = signer.make_key().fingerprint
        signer.use([first, second], {})
        assert fingerprints(tmp_path, signer, signer.detach_sign(b"text\n"), b"text\n") == [first, second]

        token.pin.write_text("9999\n")
        signer.close()
        with pytest.raises(InfrastructureError):
            signer.detach_sign(b"text\n")
