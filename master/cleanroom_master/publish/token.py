"""Signing keys on a PKCS#11 token: a smart card, a hardware security module, or SoftHSM.

gpg reaches the token through gnupg-pkcs11-scd in the place of its own card daemon. A key pair is made on the token by
whoever owns it, with a certificate of the same id, which that daemon demands; here an OpenPGP key is put over it.
"""

from __future__ import annotations

import re
from collections.abc import Set
from dataclasses import dataclass
from pathlib import Path

from cleanroom_base.errors import InfrastructureError
from cleanroom_base.run import run
from cleanroom_master.publish import storage

PROGRAM = "/usr/bin/gnupg-pkcs11-scd"
_TIMEOUT = 60.0
_KEY_PAIR = re.compile(r"S KEYPAIRINFO ([0-9A-F]{40}) .*")


@dataclass(frozen=True, slots=True)
class Token:
    """A token: `module` is the library that speaks to it, `pin` a file with its PIN, for the publisher's eyes only."""

    module: Path
    pin: Path

    def configure(self, home: Path) -> None:
        """Lead the agent of a GnuPG home to the token; what stands there already stays."""
        files = {
            "gnupg-pkcs11-scd.conf": f"providers token\nprovider-token-library {self.module}\n",
            "gpg-agent.conf": f"scdaemon-program {PROGRAM}\nallow-loopback-pinentry\n",
        }
        for name, content in files.items():
            if not (home / name).exists():
                storage.replace(home / name, content.encode())

    def unused(self, home: Path, used: Set[str]) -> str:
        """The keygrip of the one key pair on the token that no OpenPGP key is of. Raises InfrastructureError."""
        # gpg's agent notes which keys are on the token when it is told to learn of them.
        done = run(["gpg-connect-agent", "--homedir", home, "LEARN --force", "SCD LEARN", "/bye"], timeout=_TIMEOUT)
        found = sorted({line[1] for line in map(_KEY_PAIR.fullmatch, done.text.splitlines()) if line} - used)
        if len(found) != 1:
            raise InfrastructureError(
                f"the token behind {self.module} has {len(found) or 'no'} key pairs that no key is made of yet; one is"
                " needed",
                hint="make an RSA key pair and a certificate with the same id on it (master/README.md says how)",
            )
        return found[0]

    @staticmethod
    def parameters(keygrip: str, user_id: str, validity: str) -> bytes:
        """What tells gpg to make an OpenPGP key of a key pair. Source of the format: GnuPG's manual, unattended key
        generation.
        """
        lines = ["Key-Type: RSA", f"Key-Grip: {keygrip}", "Key-Usage: sign", f"Name-Real: {user_id}"]
        return "\n".join([*lines, f"Expire-Date: {validity}", "%commit", ""]).encode()
