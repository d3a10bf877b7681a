"""The signing key: made at first start, used by the publisher alone, never given away.

The key is RSA because every client in use verifies it: rpm 4.18's own OpenPGP parser as well as gpgv. It has
no passphrase (nobody is there to type one); what protects it is that only the publisher's user can read its
home.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from types import TracebackType

from cleanroom_base.errors import InfrastructureError
from cleanroom_base.run import Completed, run
from cleanroom_master.publish import storage

ALGORITHM = "rsa4096"
VALIDITY = "5y"
_TIMEOUT = 60.0
# Key generation waits for entropy on machines that just started.
_KEY_TIMEOUT = 600.0


@dataclass(frozen=True, slots=True)
class Key:
    """The public facts of a signing key. `expires` is None when it never does."""

    fingerprint: str
    user_id: str
    created: datetime
    expires: datetime | None


class Signer:
    """Signs with the one key in a GnuPG home.

    gpg is led to its home by a short link in `runtime`: its agent's socket lies in the home, and a socket's
    path may have 107 bytes only (unix(7)). Use it as a context manager, or call `close`, to end the agent.
    """

    def __init__(self, home: Path, runtime: Path, *, user_id: str, may_make: bool = True) -> None:
        """Open the home, and make it and the key when there is none; raises InfrastructureError.

        With `may_make` false a key that is not there is an error: consumers know the one that there was.
        """
        self.home = home.absolute()
        with storage.reported("opening the home of the signing key"):
            self.home.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.home.chmod(0o700)
            runtime.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._link = runtime.absolute() / "gnupg"
            storage.replace_symbolic_link(self._link, self.home)
        key = self._find_key()
        if key is None and not may_make:
            raise InfrastructureError(
                f"the signing key vanished from {self.home}, and consumers trust no other",
                hint="bring it back from a backup; to go on with a new key, which every consumer has to fetch, make it:"
                f" gpg --homedir {self.home} --quick-generate-key '{user_id}' {ALGORITHM} sign {VALIDITY}",
            )
        if key is None:
            self._gpg("--quick-generate-key", user_id, ALGORITHM, "sign", VALIDITY, timeout=_KEY_TIMEOUT)
            key = self._find_key()
        if key is None:
            raise InfrastructureError(f"gpg made no key in {self.home}")
        if key.expires is not None and key.expires <= datetime.now(UTC):
            raise InfrastructureError(
                f"the signing key {key.fingerprint} expired on {key.expires:%Y-%m-%d}",
                hint=f"extend it: gpg --homedir {self.home} --quick-set-expire {key.fingerprint} {VALIDITY}",
            )
        self.key = key

    def __enter__(self) -> Signer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the agent of this home; the next signature starts one again."""
        run(["gpgconf", "--homedir", self._link, "--kill", "gpg-agent"], timeout=_TIMEOUT, check=False)

    def clear_sign(self, content: bytes) -> bytes:
        """The text with its signature around it."""
        return self._sign("--clear-sign", content)

    def detach_sign(self, content: bytes) -> bytes:
        """The signature alone, armored."""
        return self._sign("--detach-sign", content)

    def sign_rpm(self, file: Path) -> None:
        """Sign an rpm in place; a signature that it had is replaced."""
        run(
            [
                "rpmsign",
                "--addsign",
                # rpm takes this program from no PATH, and Debian's rpm expects another name.
                *("--define", f"__gpg {shutil.which('gpg')}"),
                *("--define", f"_gpg_path {self._link}"),
                *("--define", f"_gpg_name {self.key.fingerprint}"),
                *("--define", "_gpg_digest_algo sha512"),
                *("--define", "_gpg_sign_cmd_extra_args --batch --no-tty --pinentry-mode loopback"),
                file,
            ],
            timeout=_TIMEOUT,
        )

    def public_key(self) -> bytes:
        """The public key, armored, as consumers get it."""
        return self._armored

    def keyring(self) -> bytes:
        """The public key in binary form, as gpgv wants it."""
        return self._binary

    @cached_property
    def rpm_database(self) -> Path:
        """A database of rpm's that knows this key and nothing else, for checking.

        It is this process's own: one that is killed while it makes its database spoils nobody else's.
        """
        for old in self._link.parent.glob("rpm-*"):
            if not Path("/proc", old.name.removeprefix("rpm-")).exists():
                storage.remove(old)
        database = self._link.with_name(f"rpm-{os.getpid()}")
        storage.remove(database)
        key = self._link.with_name("key.asc")
        key.write_bytes(self.public_key())
        run(["rpm", "--dbpath", database, "--import", key], timeout=_TIMEOUT)
        return database

    # Asked for once: who extends the key's validity starts the publisher anew.
    @cached_property
    def _armored(self) -> bytes:
        return self._gpg("--armor", "--export", self.key.fingerprint).stdout

    @cached_property
    def _binary(self) -> bytes:
        return self._gpg("--export", self.key.fingerprint).stdout

    def _sign(self, how: str, content: bytes) -> bytes:
        return self._gpg(
            *("--armor", "--digest-algo", "SHA512", "--local-user", self.key.fingerprint, how), stdin=content
        ).stdout

    def _gpg(self, *words: str, stdin: bytes | None = None, timeout: float = _TIMEOUT) -> Completed:
        return run(
            [
                "gpg",
                *("--homedir", self._link, "--batch", "--no-tty", "--quiet", "--no-auto-check-trustdb"),
                *("--pinentry-mode", "loopback", "--passphrase", ""),
                *words,
            ],
            stdin=stdin,
            timeout=timeout,
        )

    def _find_key(self) -> Key | None:
        """The newest key that is not revoked. Source of the format: GnuPG's doc/DETAILS, colon listings."""
        found: list[Key] = []
        record: list[str] = []
        fingerprint = ""
        for line in self._gpg("--with-colons", "--list-secret-keys").text.splitlines():
            fields = line.split(":")
            if fields[0] == "sec":
                record, fingerprint = fields, ""
            elif fields[0] == "fpr" and not fingerprint:
                fingerprint = fields[9]
            elif fields[0] == "uid" and record and record[1] != "r":
                found.append(Key(fingerprint, fields[9], _moment(record[5]), _moment_or_none(record[6])))
                record = []
        return max(found, key=lambda key: key.created, default=None)


def signature_of(signed_text: bytes) -> bytes:
    """The signature that stands at the end of a signed text, armored."""
    return signed_text[signed_text.rindex(b"-----BEGIN PGP SIGNATURE-----") :]


def expiry(public_key: Path) -> datetime | None:
    """When an exported key expires; None: never. Raises InfrastructureError when it is no key."""
    with tempfile.TemporaryDirectory() as home:
        shown = run(["gpg", "--homedir", home, "--with-colons", "--show-keys", public_key], timeout=_TIMEOUT).text
    expiries = [line.split(":")[6] for line in shown.splitlines() if line.startswith("pub:")]
    if not expiries:
        raise InfrastructureError(f"{public_key} is no OpenPGP key")
    return _moment_or_none(expiries[0])


def _moment(seconds: str) -> datetime:
    return datetime.fromtimestamp(int(seconds), UTC)


def _moment_or_none(seconds: str) -> datetime | None:
    return _moment(seconds) if seconds else None
