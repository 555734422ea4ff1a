"""Starts servers, waits until they listen, ends them."""

import random
import signal
import socket
import subprocess
import time
from pathlib import Path

START_LIMIT = 15
"""Seconds within which a server has to listen."""

STOP_LIMIT = 15
"""Seconds within which a server has to end after SIGTERM, before SIGKILL."""


class Failed(Exception):
    """A server or a run that did not do what it should; the text says which and where to look."""


def listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def free_port() -> int:
    """A free port below the range that Linux gives to outgoing connections."""
    for _ in range(100):
        port = random.randrange(20_000, 30_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue
    raise Failed("no free port between 20000 and 30000")


class Processes:
    """Servers that end together, the last one first. A context manager; their output goes to files in `logs`."""

    def __init__(self, logs: Path):
        self.logs = logs
        self.running: list[subprocess.Popen] = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in reversed(self.running):
            # nginx ends its workers only if it is asked: SIGKILL is the last resort.
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(STOP_LIMIT)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def start(self, name: str, command: list, port: int) -> int:
        """Starts a server and waits until it listens on `port`; its process id."""
        log = self.logs / f"{name}.log"
        with log.open("w") as output:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
            )
        self.running.append(process)
        deadline = time.monotonic() + START_LIMIT
        while not listens(port):
            if process.poll() is not None:
                raise Failed(f"{name} has ended; see {log}")
            if time.monotonic() > deadline:
                raise Failed(f"{name} does not listen on port {port} after {START_LIMIT} s; see {log}")
            time.sleep(0.02)
        return process.pid


def family(pid: int, children: int = 0) -> list[int]:
    """The process and its children, once it has at least so many of them."""
    deadline = time.monotonic() + START_LIMIT
    while True:
        found = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
        if len(found) >= children:
            return [pid, *found]
        if time.monotonic() > deadline:
            raise Failed(f"process {pid} has {len(found)} of {children} children after {START_LIMIT} s")
        time.sleep(0.02)
