"""The suites: how each is started, and how its lines are read.

A suite is a program that finds the world in its environment (`World` -> `environment`) and prints one line per
claim. The JavaScript and Python tests print `ok - CLAIM`, `not ok - CLAIM` and `skip - CLAIM # REASON` themselves;
Go's are read off `go test -v`.
"""

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Iterator

from .world import World

SDK = Path(__file__).resolve().parents[1]
ROOT = SDK.parents[1]
CACHE = ROOT / ".cache"

GO_AT_LEAST = (1, 25)
"""What the Go SDK's own go.mod asks for."""


@dataclass(frozen=True)
class Claim:
    """One thing that a suite looked at. `outcome` is ok, not ok or skip."""

    outcome: str
    text: str


@dataclass(frozen=True)
class Suite:
    """`command` runs in `directory`; `claims` finds the claims in its output, line by line."""

    name: str
    directory: Path
    command: list[str]
    claims: object
    missing: object = lambda: None


def plain_claims(lines: Iterator[str]) -> Iterator[Claim]:
    """Reads `ok - ...` lines."""
    for line in lines:
        found = re.match(r"(ok|not ok|skip) - (.+)", line)
        if found:
            yield Claim(found[1], found[2])


def go_claims(lines: Iterator[str]) -> Iterator[Claim]:
    """Reads `--- PASS: TestName/format/claim (0.01s)`; a test that only holds others is no claim of its own."""
    outcomes = {"PASS": "ok", "FAIL": "not ok", "SKIP": "skip"}
    for line in lines:
        found = re.match(r"\s*--- (PASS|FAIL|SKIP): Test(\w+)/(\w+)/(\S+) (\(.*\))", line)
        if found:
            yield Claim(outcomes[found[1]], f"{found[3]}: {found[4].replace('_', ' ')} {found[5]}")


def go_missing() -> str | None:
    """Why the Go suite can't run here, or None."""
    if shutil.which("go") is None:
        return "Go is not installed"
    version = subprocess.run(["go", "env", "GOVERSION"], capture_output=True, text=True, check=True).stdout.strip()
    found = re.match(r"go(\d+)\.(\d+)", version)
    if found is None or tuple(map(int, found.groups())) < GO_AT_LEAST:
        return f"{version} is too old: the Go SDK needs {'.'.join(map(str, GO_AT_LEAST))}"
    return None


def _node(*files: str) -> list[str]:
    # One file after the other: one of them restarts the gateway.
    options = ["--test", "--test-concurrency=1", "--test-reporter=./reporter.mjs", "--test-reporter-destination=stdout"]
    return ["node", *options, *files]


PYTHON = str(CACHE / "venv" / "bin" / "python")

SUITES = {
    suite.name: suite
    for suite in (
        Suite("javascript", SDK / "javascript", _node("client.test.mjs", "recovery.test.mjs", "presence.test.mjs"), plain_claims),
        Suite("python", SDK / "python", [PYTHON, "test_client.py"], plain_claims),
        Suite("python-recovery", SDK / "python", [PYTHON, "test_recovery.py"], plain_claims),
        Suite("python-presence", SDK / "python", [PYTHON, "test_presence.py"], plain_claims),
        Suite("go", SDK / "go", ["go", "test", "-v", "-count=1", "-timeout=240s", "."], go_claims, go_missing),
        Suite("cent", SDK / "python", [PYTHON, "test_cent.py"], plain_claims),
        Suite("operations", SDK / "python", [PYTHON, "test_operations.py"], plain_claims),
        Suite("page", SDK / "javascript", _node("page.test.mjs"), plain_claims),
    )
}


def environment(world: World, control_url: str) -> dict[str, str]:
    """What a suite needs to find the world."""
    gateway = world.gateway
    return gateway.redis.environment() | {
        "TIDEGATE_TEST_WS": f"ws://127.0.0.1:{gateway.port}/connection/websocket",
        "TIDEGATE_TEST_HTTP": gateway.http_url,
        "TIDEGATE_TEST_EMBEDDED_WS": f"ws://127.0.0.1:{world.embedded.port}/connection/websocket",
        "TIDEGATE_TEST_EMBEDDED_HTTP": world.embedded.http_url,
        "TIDEGATE_TEST_OPERATOR": gateway.operator_url,
        "TIDEGATE_TEST_API_KEY": gateway.API_KEY,
        "TIDEGATE_TEST_CONTROL": control_url,
        "TIDEGATE_TEST_SCREENSHOTS": str(CACHE / "screenshots"),
        # Loopback only: no proxy of the machine shall stand between.
        "NO_PROXY": "127.0.0.1,localhost", "no_proxy": "127.0.0.1,localhost",
        "PYTHONUNBUFFERED": "1", "GOTOOLCHAIN": "local", "GOFLAGS": "-mod=readonly",
    }  # fmt: skip
