"""How the ref watch's process ends."""

from __future__ import annotations

import os
import subprocess
import sys

# Ends its children again and again while its threads come and go.
END = """
import subprocess, threading
from cleanroom_master.refs.__main__ import end_children

def come_and_go():
    while not stop.is_set():
        thread = threading.Thread(target=int)
        thread.start()
        thread.join()

stop = threading.Event()
child = subprocess.Popen(["sleep", "600"], start_new_session=True)
threads = [threading.Thread(target=come_and_go) for _ in range(4)]
for thread in threads:
    thread.start()
try:
    for _ in range(300):
        end_children()
finally:
    stop.set()
print(child.wait(30))
"""


def test_children_end_while_threads_come_and_go() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", END],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(sys.path)},
        check=True,
        stdout=subprocess.PIPE,
        timeout=60,
    )
    assert ended.stdout == b"-9\n"
