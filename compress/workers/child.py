"""A worker's process: `python -m compress.workers.child SOCKET`, started by `processes.py` and ended with it.

It gets (sys.path, setup, resources) once, then (call, resources) of
task after task; it answers each with a value or what was raised.
"""

import os
import queue
import signal
import sys
import threading
from multiprocessing.connection import Connection
from typing import Any

from compress.workers.perform import Raised, limit_threads, perform, raised, set_up


def main() -> None:
    """Serve until the other end is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole terminal; the driver decides
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    connection: Connection[Any, Any] = Connection(int(sys.argv[1]))
    inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(connection, inbox), daemon=True).start()
    path, setup, needs = inbox.get()
    sys.path[:] = path
    limit_threads(needs)
    first = set_up(setup)
    if isinstance(first, Raised):
        connection.send(first)
        return
    connection.send(None)  # ready
    while True:
        call, needs = inbox.get()
        value = perform(call, first, needs)
        try:
            connection.send(value)
        except Exception as error:  # not one that can be sent: nothing has been written yet
            connection.send(_unsendable(error))
        del value


def _listen(connection: "Connection[Any, Any]", inbox: "queue.SimpleQueue[Any]") -> None:
    """Pass on what comes; where the driver is gone, so is its worker, also in the middle of a task."""
    while True:
        try:
            inbox.put(connection.recv())
        except (EOFError, OSError):
            os._exit(0)


def _unsendable(error: Exception) -> Raised:
    found = raised(error)
    return Raised(f"what the task returned cannot be sent: {found.what}", found.traceback)


if __name__ == "__main__":
    main()
