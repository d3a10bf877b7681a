"""What makes one guest another than the next: host name, machine id, SSH host key, MAC, random seed."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from pathlib import Path

from cleanroom_base.run import run

_KEY_TIMEOUT = 20.0


@dataclass(frozen=True, slots=True)
class Identity:
    """A guest's fresh identity. `host_key` is a private OpenSSH key, `host_key_public` its public line."""

    host_name: str
    machine_id: str
    mac: str
    host_key: bytes
    host_key_public: str
    seed: bytes


def fresh(host_name: str, directory: Path) -> Identity:
    """Make an identity; `directory` serves for a moment to make the key in."""
    private, public = make_key(directory / "host_key")
    (directory / "host_key").unlink()
    (directory / "host_key.pub").unlink()
    # Locally administered, as QEMU's own. Source: IEEE 802, bit 1 of the first byte.
    tail = ":".join(f"{byte:02x}" for byte in secrets.token_bytes(3))
    return Identity(
        host_name=host_name,
        machine_id=secrets.token_hex(16),
        mac=f"52:54:00:{tail}",
        host_key=private,
        host_key_public=public,
        seed=secrets.token_bytes(512),
    )


def make_key(file: Path) -> tuple[bytes, str]:
    """Make an SSH key pair in `file` and `file`.pub; returns the private file's content and the public line."""
    run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", file], timeout=_KEY_TIMEOUT)
    return file.read_bytes(), file.with_name(file.name + ".pub").read_text(encoding="ascii").strip()


def files(
    identity: Identity, *, authorized_key: str, proxy: str | None, nameservers: list[str]
) -> dict[str, tuple[int, bytes]]:
    """The files (path without the leading slash: mode, content) that give a guest its identity and its way in."""
    name = identity.host_name
    contents = {
        "etc/hostname": (0o644, f"{name}\n"),
        "etc/hosts": (
            0o644,
            f"127.0.0.1\tlocalhost\n127.0.1.1\t{name}\n::1\tlocalhost ip6-localhost ip6-loopback\n",
        ),
        "etc/machine-id": (0o444, f"{identity.machine_id}\n"),
        "etc/ssh/ssh_host_ed25519_key.pub": (0o644, f"{identity.host_key_public}\n"),
        "root/.ssh/authorized_keys": (0o600, f"{authorized_key}\n"),
    }
    if proxy is not None:
        contents["etc/apt/apt.conf.d/50cleanroom-proxy"] = (
            0o644,
            f'Acquire::http::Proxy "{proxy}";\nAcquire::https::Proxy "{proxy}";\n',
        )
    if nameservers:
        contents["etc/resolv.conf"] = (0o644, "".join(f"nameserver {server}\n" for server in nameservers))
    encoded = {path: (mode, text.encode()) for path, (mode, text) in contents.items()}
    # First, because the SSH server of a restored machine waits for it, and starts while the others are written.
    return {"etc/ssh/ssh_host_ed25519_key": (0o600, identity.host_key), **encoded}
