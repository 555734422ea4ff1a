"""The servers under test on free loopback ports: a Redis with a gateway on it, and a gateway with the embedded broker.

Each keeps its port over a restart, as a server behind a fixed address does. Nothing here sleeps for a
guessed time: every wait polls a condition and has a deadline.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

START_DEADLINE = 30.0
"""Seconds for a server to become ready; a debug build on a busy machine takes a few."""

STOP_DEADLINE = 20.0
"""Seconds for a server to exit after SIGTERM; `--dev` drains for one."""

POLL = 0.02
"""Seconds between two looks at a condition."""


class WorldError(Exception):
    """A server did not do what the tests need; the message says which and what."""


def free_port() -> int:
    """A loopback TCP port that nothing listened on a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_until(condition, deadline: float, what: str) -> None:
    """Returns once `condition()` is true; raises WorldError after `deadline` seconds."""
    end = time.monotonic() + deadline
    while not condition():
        if time.monotonic() > end:
            raise WorldError(f"{what}: not within {deadline:.0f} s")
        time.sleep(POLL)


class Server:
    """A child process with a log file that outlives its restarts."""

    def __init__(self, name: str, log: Path):
        self.name = name
        self.log = log
        self.process: subprocess.Popen | None = None

    def command(self) -> list[str]:
        raise NotImplementedError

    def environment(self) -> dict[str, str]:
        return dict(os.environ)

    def ready(self) -> bool:
        raise NotImplementedError

    def start(self) -> None:
        """Starts the process and returns when it is ready."""
        with self.log.open("ab") as log:
            log.write(f"--- start: {' '.join(self.command())}\n".encode())
            log.flush()
            self.process = subprocess.Popen(
                self.command(), stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=self.environment()
            )
        wait_until(self._ready_or_dead, START_DEADLINE, f"{self.name} to become ready")

    def _ready_or_dead(self) -> bool:
        if self.process.poll() is not None:
            raise WorldError(f"{self.name} exited with {self.process.returncode} before it was ready")
        return self.ready()

    def stop(self) -> int:
        """SIGTERM, then waits; the exit code."""
        return self._end(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL: the process gets no chance to say goodbye."""
        self._end(signal.SIGKILL)

    def _end(self, sig: signal.Signals) -> int:
        process, self.process = self.process, None
        if process is None:
            raise WorldError(f"{self.name} is not running")
        process.send_signal(sig)
        try:
            return process.wait(STOP_DEADLINE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise WorldError(f"{self.name} did not exit within {STOP_DEADLINE:.0f} s of {sig.name}") from None

    def discard(self) -> None:
        """Ends the process if there is one, whatever its state."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def tail(self, lines: int) -> str:
        """The last lines of the log."""
        if not self.log.exists():
            return ""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])


class Redis(Server):
    """A Redis without persistence."""

    def __init__(self, log: Path):
        super().__init__("redis", log)
        self.port = free_port()

    def command(self) -> list[str]:
        return [
            "redis-server", "--port", str(self.port), "--bind", "127.0.0.1",
            "--save", "", "--appendonly", "no", "--loglevel", "warning",
        ]  # fmt: skip

    def ready(self) -> bool:
        return self.cli(["PING"]).stdout.strip() == b"PONG"

    def cli(self, arguments: list[str], payload: bytes | None = None) -> subprocess.CompletedProcess:
        """Runs `redis-cli`; `payload` becomes the last argument, byte for byte (`-x`)."""
        command = ["redis-cli", "-h", "127.0.0.1", "-p", str(self.port)]
        if payload is not None:
            command.append("-x")
        return subprocess.run(command + arguments, input=payload or b"", capture_output=True, timeout=10, check=False)


NAMESPACES = [
    {
        "name": name, "history_size": size, "history_ttl": "300s", "force_recovery": True,
        "allow_subscribe_for_client": True, "allow_subscribe_for_anonymous": True,
        "allow_history_for_subscriber": True, "allow_history_for_anonymous": True,
        "allowed_delta_types": ["fossil"], "delta_publish": True,
    }
    for name, size in (("kept", 1000), ("brief", 10))
] + [
    {
        "name": "room", "presence": True, "join_leave": True,
        "allow_subscribe_for_client": True, "allow_subscribe_for_anonymous": True,
        "allow_presence_for_subscriber": True, "allow_presence_for_anonymous": True,
    }
]  # fmt: skip
"""Channels with a history: one that keeps all that a test publishes, and one that does not. And one with presence."""


class Gateway(Server):
    """A Tidegate node in `--dev`, on the Redis of the same world, or with the embedded broker."""

    API_KEY = "test"

    def __init__(self, binary: Path, redis: Redis | None, log: Path, name: str = "gateway"):
        super().__init__(name, log)
        self.binary = binary
        self.redis = redis
        self.port, self.tcp_port, self.operator_port = free_port(), free_port(), free_port()

    @property
    def http_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def operator_url(self) -> str:
        return f"http://127.0.0.1:{self.operator_port}"

    def command(self) -> list[str]:
        broker = [] if self.redis is None else ["--redis", f"redis://127.0.0.1:{self.redis.port}"]
        return [
            str(self.binary),
            "--dev",
            *broker,
            "--listen", f"127.0.0.1:{self.port}",
            "--tcp-listen", f"127.0.0.1:{self.tcp_port}",
            "--operator-listen", f"127.0.0.1:{self.operator_port}",
            "--api-key", self.API_KEY,
        ]  # fmt: skip

    def environment(self) -> dict[str, str]:
        # A gateway refuses TIDEGATE_ variables that name no key, and whoever runs the tests may have set some.
        kept = {name: value for name, value in os.environ.items() if not name.startswith("TIDEGATE_")}
        # Pings every 2 s instead of 25 s, so that a run sees them.
        return kept | {
            "TIDEGATE_CLIENT_PING_INTERVAL": "2s",
            "TIDEGATE_CLIENT_PONG_TIMEOUT": "1500ms",
            "TIDEGATE_CHANNEL_NAMESPACES": json.dumps(NAMESPACES),
        }

    def ready(self) -> bool:
        return self.health("ready")[0] == 200

    def health(self, probe: str) -> tuple[int, str]:
        """Status and body of a health probe; status 0 when nothing answers."""
        try:
            with urllib.request.urlopen(f"{self.operator_url}/health/{probe}", timeout=2) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError:
            return 0, ""


class World:
    """The servers of one suite; a context manager."""

    def __init__(self, binary: Path, logs: Path):
        shutil.rmtree(logs, ignore_errors=True)
        logs.mkdir(parents=True)
        self.redis = Redis(logs / "redis.log")
        self.gateway = Gateway(binary, self.redis, logs / "gateway.log")
        self.embedded = Gateway(binary, None, logs / "embedded.log", "embedded gateway")

    def __enter__(self):
        try:
            self.redis.start()
            self.gateway.start()
            self.embedded.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_):
        self.close()

    def close(self) -> None:
        self.embedded.discard()
        self.gateway.discard()
        self.redis.discard()

    def restart_redis(self) -> None:
        self.redis.stop()
        self.redis.start()

    def restart_gateway(self) -> None:
        """An orderly restart; a gateway that doesn't exit with 0 fails it."""
        code = self.gateway.stop()
        if code != 0:
            raise WorldError(f"the gateway exited with {code} after SIGTERM, not with 0")
        self.gateway.start()

    def crash_gateway(self) -> None:
        self.gateway.kill()
        self.gateway.start()
