"""A program that ssh starts to connect to a guest that is still starting: it tries until the guest's server answers.

    python -I -S dial.py ADDRESS PORT SECONDS OWNER

The connection is handed to ssh, and this program ends (ssh_config(5), ProxyUseFdpass). So ssh is ready when the guest
is, and nobody has to try whether it answers by a connection of its own, for which an SSH server starts a process: in an
emulated machine that takes time and memory. It imports next to nothing, to start at once; it ends when ssh does, when
the process OWNER does, and after so many seconds.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import sys
import time

_PAUSE = 0.01
_PATIENCE = 0.02
_STANDARD_OUTPUT = 1


def main(address: str, port: int, seconds: float, owner: int) -> int:
    """Connect, and pass the connection to who reads the standard output, a socket; returns the exit status."""
    begun = time.monotonic()
    ends = select.poll()
    ends.register(_STANDARD_OUTPUT, 0)
    try:
        ends.register(os.pidfd_open(owner), select.POLLIN)
    except ProcessLookupError:
        return 1
    while (waited := time.monotonic() - begun) < seconds and not ends.poll(_PAUSE * 1000):
        # A guest that is slow to start is also slow to answer: patience grows with the wait.
        connection = _connected(address, port, ends, _PATIENCE + waited / 20)
        if connection is not None:
            with connection, socket.socket(fileno=_STANDARD_OUTPUT) as ssh:
                socket.send_fds(ssh, [b"\0"], [connection.fileno()])
            return 0
    return 1


def _connected(address: str, port: int, ends: select.poll, patience: float) -> socket.socket | None:
    """A connection, if the server answers within `patience` seconds and nothing happens meanwhile that ends all."""
    connection = socket.socket()
    connection.setblocking(False)
    error = connection.connect_ex((address, port))
    if error == errno.EINPROGRESS:
        ends.register(connection, select.POLLOUT)
        happened = ends.poll(patience * 1000)
        ends.unregister(connection)
        alone = [number for number, _ in happened] == [connection.fileno()]
        error = connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) if alone else errno.ETIMEDOUT
    if error == 0:
        # As ssh expects it, which makes of it what it needs.
        connection.setblocking(True)
        return connection
    connection.close()
    return None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4])))
