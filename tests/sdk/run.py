#!/usr/bin/env python3
"""Runs the SDK tests: `tests/sdk/run.py [SUITE ...]` (javascript, python, go, cent, operations, page; all by default).

The gateway under test is `TIDEGATE_BIN`, or else what `cargo build` left in the target directory. `./test sdk`
installs what the suites need and builds the gateway first.
"""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from harness.control import Control
from harness.suites import CACHE, ROOT, SUITES, Suite, environment
from harness.world import World, WorldError

SUITE_DEADLINE = 300
"""Seconds for one suite. The suites have deadlines of their own for each claim; this one catches the rest."""

LOG_LINES = 60
"""How much of each server's log is shown when a suite fails."""


def gateway_binary() -> Path:
    """The binary under test."""
    if "TIDEGATE_BIN" in os.environ:
        return Path(os.environ["TIDEGATE_BIN"]).resolve()
    metadata = subprocess.run(
        ["cargo", "metadata", "--format-version=1", "--no-deps"], cwd=ROOT, capture_output=True, check=True
    )
    return Path(json.loads(metadata.stdout)["target_directory"]) / "debug" / "tidegate"


def run_suite(suite: Suite, binary: Path) -> dict[str, int]:
    """Runs one suite in a world of its own; how many claims had which outcome."""
    count = {"ok": 0, "not ok": 0, "skip": 0}
    print(f"{suite.name}:", flush=True)
    reason = suite.missing()
    if reason is not None:
        print(f"skip - {suite.name} # {reason}", flush=True)
        return count | {"skip": 1}
    logs = CACHE / "logs" / suite.name
    world = World(binary, logs)
    try:
        with world, Control(world) as control:
            run_program(suite, environment(world, control.url), logs / "output.log", count)
    except (WorldError, OSError) as error:
        print(f"not ok - {suite.name}: {error}", flush=True)
        count["not ok"] += 1
    if count["not ok"]:
        for server in (world.gateway, world.embedded, world.redis):
            print(f"--- the last lines of the {server.name}'s log ({server.log})\n{server.tail(LOG_LINES)}", flush=True)
    return count


def run_program(suite: Suite, env: dict[str, str], log: Path, count: dict[str, int]) -> None:
    """Runs the suite's program, prints its claims as they come and everything else only if it failed."""
    process = subprocess.Popen(
        suite.command, cwd=suite.directory, env=env, text=True, errors="replace", start_new_session=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    alarm = threading.Timer(SUITE_DEADLINE, os.killpg, (process.pid, signal.SIGKILL))
    alarm.start()
    output: list[str] = []

    def lines():
        for line in process.stdout:
            output.append(line)
            yield line.rstrip("\n")

    try:
        for claim in suite.claims(lines()):
            count[claim.outcome] += 1
            print(f"  {claim.outcome} - {claim.text}", flush=True)
        status = process.wait()
    finally:
        timed_out = not alarm.is_alive()
        alarm.cancel()
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        log.write_text("".join(output))
    if timed_out:
        fail(count, f"{suite.name}: not done within {SUITE_DEADLINE} s")
    elif status != 0 and count["not ok"] == 0:
        fail(count, f"{suite.name}: its program exited with {status} without naming a failed claim")
    elif sum(count.values()) == 0:
        fail(count, f"{suite.name}: no claim was tested")
    if count["not ok"]:
        print(f"--- the output of {suite.name} ({log})\n{''.join(output)}", flush=True)


def fail(count: dict[str, int], text: str) -> None:
    count["not ok"] += 1
    print(f"  not ok - {text}", flush=True)


def main() -> int:
    # A `timeout` around this ends the servers as well: SystemExit unwinds the context managers.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    names = sys.argv[1:] or list(SUITES)
    unknown = [name for name in names if name not in SUITES]
    if unknown:
        print(f"unknown suite {unknown[0]!r}: there are {', '.join(SUITES)}", file=sys.stderr)
        return 2
    binary = gateway_binary()
    if not os.access(binary, os.X_OK):
        print(f"no gateway at {binary}: `cargo build`, or set TIDEGATE_BIN", file=sys.stderr)
        return 2
    total = {"ok": 0, "not ok": 0, "skip": 0}
    for name in names:
        for outcome, number in run_suite(SUITES[name], binary).items():
            total[outcome] += number
    skipped = f", {total['skip']} skipped" if total["skip"] else ""
    print(f"{total['ok']} passed, {total['not ok']} failed{skipped}")
    return 1 if total["not ok"] else 0


if __name__ == "__main__":
    sys.exit(main())
