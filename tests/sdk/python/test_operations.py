"""What operators and their tools see of a real gateway: health, metrics, and both while Redis is away."""

import asyncio
import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

from support import AFTER_RESTART, SOON, control, run

OPERATOR = os.environ["TIDEGATE_TEST_OPERATOR"]
ALERTS = Path(__file__).resolve().parents[3] / "deploy" / "prometheus" / "alerts.yml"


def get(path: str) -> tuple[int, str]:
    """Status and body of an answer on the operators' port."""
    try:
        with urllib.request.urlopen(OPERATOR + path, timeout=SOON) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def metric(name: str) -> float:
    """The sum of a metric's series."""
    status, text = get("/metrics")
    values = re.findall(rf"^{name}(?:\{{[^}}]*\}})? (\S+)$", text, re.M)
    assert status == 200 and values, f"no {name} in /metrics ({status})"
    return sum(map(float, values))


async def until(condition, what: str, deadline: float) -> None:
    end = time.monotonic() + deadline
    while not condition():
        assert time.monotonic() < end, f"{what}: not within {deadline:.0f} s"
        await asyncio.sleep(0.05)


def broker_check() -> tuple[int, str]:
    """Status of /health/ready, and of its check named broker."""
    status, body = get("/health/ready")
    (check,) = (check for check in json.loads(body)["checks"] if check["name"] == "broker")
    return status, check["status"]


async def healthy():
    """live, ready and startup answer 200 and name their checks"""
    for probe in ("live", "ready", "startup"):
        status, body = get(f"/health/{probe}")
        answer = json.loads(body)
        assert status == 200 and answer["status"] == "ok" and answer["checks"], (probe, status, body)


async def metrics_are_valid():
    """promtool accepts the metrics page"""
    status, text = get("/metrics")
    assert status == 200, text
    checked = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True, timeout=30)
    assert checked.returncode == 0, checked.stdout + checked.stderr


async def alerts_have_metrics():
    """every metric that an alert looks at is there from the start"""
    _, text = get("/metrics")
    used = set(re.findall(r"\b((?:tidegate|process)_\w+)", ALERTS.read_text()))
    missing = {name for name in used if not re.search(rf"^{name}[ {{]", text, re.M)}
    assert used and not missing, missing


async def redis_away():
    """while Redis is away the node is ready but degraded; afterwards it is well, and the gap is counted"""
    gaps = metric("tidegate_broker_gaps_total")
    await asyncio.to_thread(control, "/redis/stop")
    await until(lambda: broker_check() == (200, "degraded"), "degraded", SOON)
    assert metric("tidegate_broker_up") == 0
    await asyncio.to_thread(control, "/redis/start")
    await until(lambda: broker_check() == (200, "ok"), "well again", AFTER_RESTART)
    assert metric("tidegate_broker_up") == 1
    # One for each subscriber connection, of which every shard has one.
    shards = len(re.findall(r"^tidegate_shard_turns_total[ {]", get("/metrics")[1], re.M))
    assert shards > 0 and metric("tidegate_broker_gaps_total") == gaps + shards


async def stop_waits_for_nobody_idle():
    """a stop with --dev's drain of 1 s does not wait for silent connections, nor for idle ones of browsers"""
    address = urllib.parse.urlsplit(os.environ["TIDEGATE_TEST_HTTP"])
    with (
        socket.create_connection((address.hostname, address.port), SOON),
        socket.create_connection((address.hostname, address.port), SOON) as kept_alive,
    ):
        kept_alive.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert kept_alive.recv(12) == b"HTTP/1.1 200"
        started = time.monotonic()
        await asyncio.to_thread(control, "/gateway/restart")
        taken = time.monotonic() - started
        assert taken < 4, f"the restart took {taken:.1f} s"


CLAIMS = (healthy, metrics_are_valid, alerts_have_metrics, redis_away, stop_waits_for_nobody_idle)

if __name__ == "__main__":
    sys.exit(run((f"operations: {claim.__doc__}", claim) for claim in CLAIMS))
