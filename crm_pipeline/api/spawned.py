"""The receiver's process, spawned while this one imports what it takes to serve: both import the same."""

from __future__ import annotations

import socket
import subprocess
import sys
from typing import NamedTuple


class Spawned(NamedTuple):
    """A process that waits for its settings; it ends when the socket is closed."""

    process: subprocess.Popen[bytes]
    socket: socket.socket

    def close(self) -> None:
        """Let it end, where nobody has done so."""
        self.socket.close()
        self.process.wait()


def spawn() -> Spawned:
    """Start one.

    Raises:
        OSError: there is no room for a process.
    """
    ours, theirs = socket.socketpair()
    with theirs:
        command = (sys.executable, "-m", "crm_pipeline.api.receiver", str(theirs.fileno()))
        try:
            return Spawned(subprocess.Popen(command, pass_fds=[theirs.fileno()]), ours)
        except OSError:
            ours.close()
            raise
