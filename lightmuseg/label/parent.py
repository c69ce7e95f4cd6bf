"""Processes that a label server starts: they end when it has ended, and leave it the processor."""

from __future__ import annotations

import os
import threading
import time

# environment variable: the server's process
SERVER = "LIGHTMUSEG_LABEL_SERVER"
SECONDS_BETWEEN_LOOKS = 0.5
# of 19: the server's answers come first, then the inference somebody waits for, then what goes on in the background
NICE_INFERENCE, NICE_BACKGROUND = 5, 10


def follow_server(nice: int) -> None:
    """In a process that a server started, end at once when the server has; elsewhere, and the second time, do nothing.

    A server that is killed cannot end what it started; but a process whose parent is gone is given another one.

    Args:
        nice: how much this process gives way to others, 0 to 19.
    """
    server = os.environ.get(SERVER)
    if not server or int(server) == os.getpid() or any(one.name == SERVER for one in threading.enumerate()):
        return

    def follow() -> None:
        while os.getppid() == int(server):
            time.sleep(SECONDS_BETWEEN_LOOKS)
        os._exit(1)

    os.nice(nice)
    threading.Thread(target=follow, name=SERVER, daemon=True).start()
