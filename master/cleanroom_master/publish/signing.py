"""The signing keys: the first is made at first start; they are used by the publisher alone, never given away.

Keys are RSA because every client in use verifies it: rpm 4.18's own OpenPGP parser as well as gpgv. They have no
passphrase (nobody is there to type one); what protects them is that only the publisher's user can read their home, or
that they are on a token (see token). While one key takes over from another, both sign.
"""

from __future__ import annotations

import os
import shlex
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from types import TracebackType

from cleanroom_base.errors import InfrastructureError
from cleanroom_base.run import Completed, run
from cleanroom_master.publish import agent, storage
from cleanroom_master.publish.token import Token

# 128 bits of security (NIST SP 800-57 part 1, revision 5, table 2), and signed with in half the time of 4096 bits, of
# which a generation has several.
ALGORITHM = "rsa3072"
VALIDITY = "5y"
# A key is as old as that when it is made: where the clock was ahead then and is set right, or is set back later, gpg
# would sign with no key of the future, and no client trust one.
_AGE = timedelta(days=1)
_TIMEOUT = 60.0
# Key generation waits for entropy on machines that just started.
_KEY_TIMEOUT = 600.0


class KeyTrouble(InfrastructureError):
    """There is no key that can sign."""


@dataclass(frozen=True, slots=True)
class Key:
    """The public facts of a signing key. `expires` None: never; `keygrip` is gpg's name of its secret."""

    fingerprint: str
    user_id: str
    created: datetime
    expires: datetime | None
    keygrip: str = ""


class Signer:
    """Signs with the keys in a GnuPG home.

    gpg is led to its home by a short link in `runtime`: its agent's socket lies in the home, and a socket's
    path may have 107 bytes only (unix(7)). Use it as a context manager, or call `close`, to end the agent.
    """

    def __init__(
        self, home: Path, runtime: Path, *, user_id: str, may_make: bool = True, token: Token | None = None
    ) -> None:
        """Open the home, and make it and the first key when there is none; raises InfrastructureError.

        With `may_make` false a key that is not there is an error of whoever wants to sign: consumers know the one that
        there was. `token`: where new keys are, if not in the home.
        """
        self.home = home.absolute()
        self._user_id = user_id
        self._token = token
        with storage.reported("opening the home of the signing key"):
            self.home.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.home.chmod(0o700)
            runtime.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._link = runtime.absolute() / "gnupg"
            storage.replace_symbolic_link(self._link, self.home)
            if token is not None:
                token.configure(self.home)
        self._chosen: tuple[str, ...] | None = None
        self._published: tuple[str, ...] = ()
        self._there = self._find_keys()
        if not self._there and may_make:
            self.make_key()

    @property
    def keys(self) -> tuple[Key, ...]:
        """The keys that sign, the one that signed first before the others. Raises KeyTrouble when there is none."""
        chosen, vanished = self._wanted(), self.vanished
        if vanished or not chosen:
            raise KeyTrouble(
                f"{' '.join(['the signing key', *vanished])} vanished from {self.home}, and consumers trust no other",
                hint="bring it back from a backup; to go on with a new key, which every consumer has to fetch:"
                " cleanroom repository key rotate --lost",
            )
        there = {key.fingerprint: key for key in self._there}
        now = datetime.now(UTC)
        left = tuple(there[one] for one in chosen if (there[one].expires or now) >= now)
        if not left:
            last = there[chosen[-1]]
            raise KeyTrouble(
                f"the signing key {last.fingerprint} expired on {last.expires:%Y-%m-%d}",
                hint="extend it: cleanroom repository key extend; or make another: cleanroom repository key rotate",
            )
        return left

    @property
    def vanished(self) -> list[str]:
        """Those of the keys that are to sign whose secret part is not there."""
        there = {key.fingerprint: key for key in self._there}
        return [one for one in self._wanted() if one not in there or not self._has_secret(there[one])]

    @property
    def key(self) -> Key:
        """Of the keys that sign, the one that consumers know longest. Raises KeyTrouble."""
        return self.keys[0]

    @property
    def known(self) -> tuple[Key, ...]:
        """All keys whose secret part is in the home, whether they sign or not."""
        return self._there

    @property
    def newest(self) -> Key | None:
        """Of all keys in the home the one that was made last; None: there is none."""
        return sorted(self._there, key=lambda key: key.created)[-1] if self._there else None

    def use(self, signing: Sequence[str], published: Mapping[str, str]) -> None:
        """Let these keys sign, by their fingerprints. `published` are the public keys of these and of all that signed
        before, in ASCII armour: what the home does not have of them is brought there.
        """
        missing = set(published) - self._find_public()
        if missing:
            self._gpg("--import", stdin="".join(published[one] for one in sorted(missing)).encode())
        self._chosen = tuple(signing)
        self._published = tuple(published)
        self.reload()

    def reload(self) -> None:
        """Look into the home again; one that was removed is made again, without keys."""
        with storage.reported("opening the home of the signing key"):
            self.home.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._there = self._find_keys()
        for name in ("_armored", "_retired", "_binary", "rpm_database"):
            self.__dict__.pop(name, None)

    def make_key(self) -> Key:
        """Make one more key, or take one from the token that no key here is of. Raises InfrastructureError."""
        before = {key.fingerprint for key in self._there}
        dated = ("--faked-system-time", f"{datetime.now(UTC) - _AGE:%Y%m%dT%H%M%S}")
        if self._token is None:
            what = ("--yes", "--quick-generate-key", self._user_id, ALGORITHM, "sign", VALIDITY)
            self._gpg(*dated, *what, timeout=_KEY_TIMEOUT)
        else:
            # The agent's card daemon sees no key pair that is younger than itself.
            self.close()
            keygrip = self._token.unused(self._link, {key.keygrip for key in self._there})
            parameters = self._token.parameters(keygrip, self._user_id, VALIDITY)
            self._gpg(*dated, "--gen-key", stdin=parameters, timeout=_KEY_TIMEOUT)
        self.reload()
        made = [key for key in self._there if key.fingerprint not in before]
        if not made:
            raise InfrastructureError(f"gpg made no key in {self.home}")
        return made[0]

    def extend(self, fingerprint: str) -> Key:
        """Let a key be valid for as long from now on as a new one. Raises InfrastructureError."""
        self._gpg("--quick-set-expire", fingerprint, VALIDITY)
        self.reload()
        return next(key for key in self._there if key.fingerprint == fingerprint)

    def exported(self, *fingerprints: str) -> bytes:
        """Public keys in ASCII armour."""
        return self._gpg("--armor", "--export-options", "export-minimal", "--export", *fingerprints).stdout

    def __enter__(self) -> Signer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the agent of this home; the next signature starts one again."""
        agent.end(self._link)

    def clear_sign(self, content: bytes) -> bytes:
        """The text with its signature around it."""
        return self._sign("--clear-sign", content)

    def detach_sign(self, content: bytes) -> bytes:
        """The signature alone, armored."""
        return self._sign("--detach-sign", content)

    def sign_rpm(self, file: Path) -> None:
        """Sign an rpm in place; a signature that it had is replaced. An rpm has one signature: of the older key."""
        run(
            [
                "rpmsign",
                "--addsign",
                # rpm takes this program from no PATH, and Debian's rpm expects another name.
                *("--define", f"__gpg {shutil.which('gpg')}"),
                *("--define", f"_gpg_path {self._link}"),
                *("--define", f"_gpg_name {self.key.fingerprint}"),
                *("--define", "_gpg_digest_algo sha512"),
                *("--define", f"_gpg_sign_cmd_extra_args --batch --no-tty {shlex.join(self._passphrase())}"),
                file,
            ],
            timeout=_TIMEOUT,
        )

    def signatures(self, content: bytes) -> dict[str, bytes]:
        """The signature of each key that signs, by its fingerprint, in binary form."""
        return {key.fingerprint: self._sign("--detach-sign", content, key, armored=False) for key in self.keys}

    def public_key(self) -> bytes:
        """The public keys that sign, armored, as consumers get them."""
        return self._armored

    def retired_keys(self) -> bytes:
        """The public keys that signed packages once and sign no more, armored; empty where there are none."""
        return self._retired

    def keyring(self) -> bytes:
        """The public keys that sign in binary form, as gpgv wants them."""
        return self._binary

    @cached_property
    def rpm_database(self) -> Path:
        """A database of rpm's that knows these keys and those that signed before, and nothing else, for checking.

        It is this process's own: one that is killed while it makes its database spoils nobody else's.
        """
        for old in self._link.parent.glob("rpm-*"):
            if not Path("/proc", old.name.removeprefix("rpm-")).exists():
                storage.remove(old)
        database = self._link.with_name(f"rpm-{os.getpid()}")
        storage.remove(database)
        for name, keys in (("key.asc", self.public_key()), ("retired.asc", self.retired_keys())):
            if keys:
                self._link.with_name(name).write_bytes(keys)
                run(["rpm", "--dbpath", database, "--import", self._link.with_name(name)], timeout=_TIMEOUT)
        return database

    # Asked for once: who changes keys by hand starts the publisher anew.
    @cached_property
    def _armored(self) -> bytes:
        return self.exported(*(key.fingerprint for key in self.keys))

    @cached_property
    def _retired(self) -> bytes:
        signing = {key.fingerprint for key in self.keys}
        retired = [one for one in self._published if one not in signing]
        return self.exported(*retired) if retired else b""

    @cached_property
    def _binary(self) -> bytes:
        return self._gpg("--export", *(key.fingerprint for key in self.keys)).stdout

    def _sign(self, how: str, content: bytes, *keys: Key, armored: bool = True) -> bytes:
        users = [word for key in keys or self.keys for word in ("--local-user", key.fingerprint)]
        form = ["--armor"] if armored else []
        return self._gpg(*form, "--digest-algo", "SHA512", *users, how, stdin=content).stdout

    def _gpg(self, *words: str, stdin: bytes | None = None, timeout: float = _TIMEOUT) -> Completed:
        return run(
            [
                "gpg",
                *("--homedir", self._link, "--batch", "--no-tty", "--quiet", "--no-auto-check-trustdb"),
                *self._passphrase(),
                *words,
            ],
            stdin=stdin,
            timeout=timeout,
        )

    def _passphrase(self) -> list[str]:
        """How gpg gets the token's PIN; a key in the home has none."""
        known = ["--passphrase", ""] if self._token is None else ["--passphrase-file", str(self._token.pin)]
        return ["--pinentry-mode", "loopback", *known]

    def _wanted(self) -> tuple[str, ...]:
        """The keys that were chosen to sign; before any were, the newest."""
        newest = () if self.newest is None else (self.newest.fingerprint,)
        return newest if self._chosen is None else self._chosen

    def _has_secret(self, key: Key) -> bool:
        """Whether the secret part of a key, or what leads to it on a token, is there now."""
        return (self.home / "private-keys-v1.d" / f"{key.keygrip}.key").exists()

    def _find_keys(self) -> tuple[Key, ...]:
        """The keys that are not revoked. Source of the format: GnuPG's doc/DETAILS, colon listings."""
        found: list[Key] = []
        record: list[str] = []
        fingerprint = keygrip = ""
        for line in self._gpg("--with-colons", "--with-keygrip", "--list-secret-keys").text.splitlines():
            fields = line.split(":")
            match fields[0]:
                case "sec":
                    record, fingerprint, keygrip = fields, "", ""
                case "fpr":
                    fingerprint = fingerprint or fields[9]
                case "grp":
                    keygrip = keygrip or fields[9]
                case "uid" if record and record[1] != "r":
                    expires = _moment_or_none(record[6])
                    found.append(Key(fingerprint, fields[9], _moment(record[5]), expires, keygrip))
                    record = []
        return tuple(found)

    def _find_public(self) -> set[str]:
        lines = self._gpg("--with-colons", "--list-keys").text.splitlines()
        return {line.split(":")[9] for line in lines if line.startswith("fpr:")}


def signature_of(signed_text: bytes) -> bytes:
    """The signature that stands at the end of a signed text, armored."""
    return signed_text[signed_text.rindex(b"-----BEGIN PGP SIGNATURE-----") :]


def expiries(public_keys: Path) -> dict[str, datetime | None]:
    """When each exported key expires, by its fingerprint; None: never. Raises InfrastructureError: there is none."""
    with tempfile.TemporaryDirectory() as home:
        shown = run(["gpg", "--homedir", home, "--with-colons", "--show-keys", public_keys], timeout=_TIMEOUT).text
    found: dict[str, datetime | None] = {}
    expires: datetime | None = None
    is_primary = False
    for fields in (line.split(":") for line in shown.splitlines()):
        if fields[0] in ("pub", "sub"):
            is_primary, expires = fields[0] == "pub", _moment_or_none(fields[6])
        elif fields[0] == "fpr" and is_primary:
            found[fields[9]] = expires
    if not found:
        raise InfrastructureError(f"{public_keys} is no OpenPGP key")
    return found


def _moment(seconds: str) -> datetime:
    return datetime.fromtimestamp(int(seconds), UTC)


def _moment_or_none(seconds: str) -> datetime | None:
    return _moment(seconds) if seconds else None
