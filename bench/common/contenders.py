"""What is compared: how each is started, and how the load generator is pointed at it."""

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .processes import Processes, family, free_port

ROOT = Path(__file__).resolve().parents[2]
TEMPLATES = ROOT / "bench" / "peers"
NCHAN_MODULE = Path("/usr/lib/nginx/modules/ngx_nchan_module.so")
API_KEY = "bench"
"""Of a node that listens on loopback for a minute: no secret."""


@dataclass(frozen=True)
class Programs:
    """The two that are built from this checkout."""

    tidegate: Path
    loadtest: Path


@dataclass(frozen=True)
class Ready:
    """A contender that listens. `ports` fill in its arguments; the costs of all `pids` are added up."""

    ports: dict[str, int]
    pids: list[int]


@dataclass(frozen=True)
class Contender:
    """`target` and `publish` are arguments of the load generator, with names of ports in braces."""

    name: str
    title: str
    target: list[str]
    publish: list[str]
    start: Callable[[Programs, Processes], Ready]
    version: Callable[[Programs], str]
    present: Callable[[], bool]
    own_channels: bool = True
    """Whether it can give each session a channel of its own."""

    def arguments(self, publishes: bool) -> list[str]:
        return self.target + (self.publish if publishes else [])


def start_redis(processes: Processes) -> int:
    """A Redis without persistence; its port."""
    port = free_port()
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    processes.start("redis", command, port)
    return port


def start_node(programs: Programs, processes: Processes, *more: str) -> Ready:
    node, tcp, operator = free_port(), free_port(), free_port()
    command = [programs.tidegate, "--dev", "--listen", f"127.0.0.1:{node}", "--tcp-listen", f"127.0.0.1:{tcp}"]
    command += ["--operator-listen", f"127.0.0.1:{operator}", *more]
    pid = processes.start("tidegate", command, node)
    return Ready({"port": node, "tcp": tcp, "operator": operator}, [pid])


def start_tidegate(programs: Programs, processes: Processes) -> Ready:
    redis = start_redis(processes)
    ready = start_node(programs, processes, "--redis", f"redis://127.0.0.1:{redis}")
    return Ready(ready.ports | {"redis": redis}, ready.pids)


def start_embedded(programs: Programs, processes: Processes) -> Ready:
    return start_node(programs, processes, "--api-key", API_KEY)


def start_floor(programs: Programs, processes: Processes) -> Ready:
    redis, port = start_redis(processes), free_port()
    command = [programs.loadtest, "floor", "--listen", f"127.0.0.1:{port}", "--redis", f"redis://127.0.0.1:{redis}"]
    pid = processes.start("floor", command, port)
    return Ready({"port": port, "redis": redis}, [pid])


def configured(processes: Processes, template: str, **values) -> Path:
    """The template with its values filled in, as a file beside the logs."""
    text = (TEMPLATES / template).read_text()
    for name, value in values.items():
        text = text.replace(f"@{name.upper()}@", str(value))
    file = processes.logs / template
    file.write_text(text)
    return file


def start_nchan(_: Programs, processes: Processes) -> Ready:
    port = free_port()
    file = configured(processes, "nginx.conf", port=port, directory=processes.logs)
    pid = processes.start("nchan", ["nginx", "-c", file], port)
    # The master listens before it has its workers, one for each processor.
    return Ready({"port": port}, family(pid, len(os.sched_getaffinity(0))))


def start_nats(_: Programs, processes: Processes) -> Ready:
    port, websocket = free_port(), free_port()
    file = configured(processes, "nats.conf", port=port, websocket=websocket)
    pid = processes.start("nats", ["nats-server", "-c", file], websocket)
    return Ready({"port": websocket, "publish": port}, [pid])


def start_mosquitto(_: Programs, processes: Processes) -> Ready:
    port = free_port()
    pid = processes.start("mosquitto", ["mosquitto", "-c", configured(processes, "mosquitto.conf", port=port)], port)
    return Ready({"port": port}, [pid])


def said(*command) -> str:
    """The first version number in what a program says."""
    result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=10)
    found = re.search(r"\d+(\.\d+)+", result.stdout)
    return found[0] if found else "of unknown version"


def nchan_version(_: Programs) -> str:
    package = subprocess.run(
        ["dpkg-query", "--show", "--showformat=${Version}", "libnginx-mod-nchan"], capture_output=True, text=True
    )
    found = re.search(r"\d+(\.\d+)+", package.stdout)
    return f"{found[0] if found else 'of unknown version'} in nginx {said('nginx', '-v')}"


def on_redis(programs: Programs) -> str:
    return f"{said(programs.tidegate, '--version')}, Redis {said('redis-server', '--version')}"


def always() -> bool:
    return True


def has_redis() -> bool:
    return shutil.which("redis-server") is not None


REDIS = ["--publish=redis", "--redis=redis://127.0.0.1:{redis}"]

TIDEGATE = Contender(
    "tidegate", "Tidegate", ["--wire=ws-json", "--server=127.0.0.1:{port}"], REDIS,
    start_tidegate, on_redis, has_redis,
)  # fmt: skip

TIDEGATE_TCP = Contender(
    "tidegate-tcp", "Tidegate, raw TCP", ["--wire=tcp", "--server=127.0.0.1:{tcp}"], REDIS,
    start_tidegate, on_redis, has_redis,
)  # fmt: skip

CONTENDERS = [
    Contender(
        "floor", "floor", ["--wire=floor", "--server=127.0.0.1:{port}"], REDIS,
        start_floor, lambda programs: f"of tidegate-loadtest {said(programs.loadtest, '--version')}", has_redis,
        own_channels=False,
    ),
    TIDEGATE,
    Contender(
        "tidegate-api", "Tidegate without Redis", ["--wire=ws-json", "--server=127.0.0.1:{port}"],
        ["--publish=api", "--api-url=http://127.0.0.1:{port}/api", f"--api-key={API_KEY}"],
        start_embedded, lambda programs: said(programs.tidegate, "--version"), always,
    ),
    Contender(
        "nchan", "Nchan", ["--wire=nchan", "--server=127.0.0.1:{port}"],
        ["--publish=nchan", "--publish-url=http://127.0.0.1:{port}/pub"],
        start_nchan, nchan_version, lambda: shutil.which("nginx") is not None and NCHAN_MODULE.exists(),
    ),
    Contender(
        "nats", "NATS", ["--wire=nats", "--server=127.0.0.1:{port}"],
        ["--publish=nats", "--publish-url=nats://127.0.0.1:{publish}"],
        start_nats, lambda _: said("nats-server", "--version"), lambda: shutil.which("nats-server") is not None,
    ),
    Contender(
        "mosquitto", "Mosquitto", ["--wire=mqtt", "--server=127.0.0.1:{port}"],
        ["--publish=mqtt", "--publish-url=mqtt://127.0.0.1:{port}"],
        start_mosquitto, lambda _: said("mosquitto", "-h"), lambda: shutil.which("mosquitto") is not None,
    ),
]  # fmt: skip
