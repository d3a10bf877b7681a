"""A program that ssh starts to connect to a guest that is still starting: it tries until the guest's server answers.

    python -I -S dial.py ADDRESS PORT SECONDS OWNER

The connection is handed to ssh, and this program ends (ssh_config(5), ProxyUseFdpass). So ssh is ready when the guest
is, and nobody has to try whether it answers by a connection of its own, for which an SSH server starts a process: in an
emulated machine that takes time and memory. It imports next to nothing, to start at once; it ends when ssh does, when
the process OWNER does, and after so many seconds.
"""

from __future__ import annotations

import select
import socket
import sys
import time
from pathlib import Path

_PAUSE = 0.01
_PATIENCE = 0.02
_STANDARD_OUTPUT = 1


def main(address: str, port: int, seconds: float, owner: Path) -> int:
    """Connect, and pass the connection to who reads the standard output, a socket; returns the exit status."""
    begun = time.monotonic()
    reader = select.poll()
    reader.register(_STANDARD_OUTPUT, 0)
    while (waited := time.monotonic() - begun) < seconds and owner.exists() and not reader.poll(0):
        try:
            # A guest that is slow to start is also slow to answer: patience grows with the wait.
            connection = socket.create_connection((address, port), timeout=_PATIENCE + waited / 20)
        except OSError:
            time.sleep(_PAUSE)
            continue
        # As ssh expects it: it would not wait on a socket that does not block.
        connection.settimeout(None)
        with socket.socket(fileno=_STANDARD_OUTPUT) as ssh:
            socket.send_fds(ssh, [b"\0"], [connection.fileno()])
        return 0
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), Path(f"/proc/{int(sys.argv[4])}")))
