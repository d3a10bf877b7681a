"""Root file systems that hold what guests need, as far as one can see from outside."""

from __future__ import annotations

from pathlib import Path

NEEDED = ("usr/lib/systemd/systemd", "usr/sbin/sshd", "usr/bin/sh", "usr/bin/tar", "usr/sbin/useradd")
OS_RELEASE = 'ID="rocky"\nID_LIKE="rhel fedora"\nVERSION_ID="9.4"\n'


def complete(tree: Path, *, release: str = OS_RELEASE) -> Path:
    """Make `tree` one that can be imported, with links as distributions have them."""
    for file in NEEDED:
        (tree / file).parent.mkdir(parents=True, exist_ok=True)
        (tree / file).write_text(f"the program {file}\n")
    for name in ("bin", "sbin", "lib"):
        (tree / name).symlink_to(f"usr/{name}")
    # An absolute link leads to the tree's own root, not to this machine's.
    (tree / "usr/sbin/init").symlink_to("/lib/systemd/systemd")
    (tree / "usr/lib/os-release").write_text(release)
    (tree / "etc").mkdir(exist_ok=True)
    (tree / "etc/os-release").symlink_to("../usr/lib/os-release")
    return tree
