"""Runs the steps of ./test: each with a time limit, its output shown and kept, its tests counted.

A step's own counts are read off its output: `test result:` lines of cargo, a closing `N passed, N failed`, or
`ok - ...` lines, or the Autobahn driver's. A step that prints none of them counts as one test. Standard library only.
"""

import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LOGS = ROOT / ".cache" / "logs"

CARGO_RESULT = re.compile(r"^test result: \w+\. (\d+) passed; (\d+) failed; (\d+) ignored")
CLOSING = re.compile(r"^(?:\w+: )?(\d+) passed, (\d+) failed(?:, (\d+) skipped)?$")
AUTOBAHN = re.compile(r"^autobahn: (\d+) cases: .*; (\d+) failed$")
CLAIM = re.compile(r"^(ok|not ok|skip) - ")


@dataclass(frozen=True)
class Step:
    """`command` runs in the root of the repository; `limit` is in seconds."""

    name: str
    what: str
    command: list[str]
    limit: int
    environment: dict[str, str] = field(default_factory=dict)


def cargo_test(*more: str) -> list[str]:
    return ["cargo", "test", "--workspace", "--no-fail-fast", *more]


def sdk(suite: str, what: str, limit: int = 330) -> Step:
    return Step(suite, what, [sys.executable, "tests/sdk/run.py", suite], limit)


CHECKS = [
    Step("fmt", "formatting", ["cargo", "fmt", "--all", "--check"], 60),
    Step("clippy", "lints as errors", ["cargo", "clippy", "--workspace", "--all-targets", "--", "-D", "warnings"], 1200),
    Step("doc", "documentation without warnings", ["cargo", "doc", "--workspace", "--no-deps"], 600,
         {"RUSTDOCFLAGS": "-D warnings"}),
]  # fmt: skip

STEPS = [
    Step("tools", "compilers, Redis, promtool, strace and valgrind", ["tests/install", "tools"], 900),
    Step("rust", "the Rust tests of all crates", cargo_test(), 1800),
    Step("fuzz", "a short fuzz run of the decoders", ["protocol/fuzz/run", "10"], 900),
    Step("conformance", "WebSocket conformance", ["protocol/conformance/run"], 1300),
    Step("install", "what the tests in other languages need", ["tests/install", "sdk"], 900),
    # --tests: with the features of the step before, so that nothing is compiled twice.
    Step("build", "the gateway under test", ["cargo", "build", "--workspace", "--bins", "--tests"], 1200),
    Step("million", "bench/million with a few hundred sessions", [sys.executable, "tests/million.py"], 400),
    Step("deploy", "what deploy/ ships", [".cache/venv/bin/python", "deploy/check.py"], 120),
    sdk("javascript", "the JavaScript SDK, JSON and Protobuf"),
    sdk("python", "the Python SDK, JSON and Protobuf"),
    sdk("python-recovery", "recovery with the Python SDK, on both brokers"),
    sdk("python-presence", "presence with the Python SDK, on both brokers"),
    sdk("go", "the Go SDK, JSON and Protobuf"),
    sdk("cent", "the server API through cent"),
    sdk("operations", "health and metrics, as operators' tools see them"),
    sdk("page", "the demo page in headless Chromium"),
    Step("budgets", "memory, instructions and allocations against budgets.toml",
         [sys.executable, "tests/budgets/run.py"], 2400),
]  # fmt: skip

LONG = {
    "peers": Step("peers", "the servers that Tidegate is compared with", ["tests/install", "peers"], 900),
    "rust": Step("rust", "the Rust tests, long ones too", cargo_test("--", "--include-ignored"), 5400,
                 {"ACCOUNTING_SECONDS": "600"}),
    "simulation": Step("simulation", "10,000 seeds of the simulator",
                       ["cargo", "test", "--release", "-p", "tidegate", "--test", "simulation", "--", "--nocapture"], 1800,
                       {"SIMULATION_SEEDS": "10000"}),
    "valkey": Step("valkey", "the tests that talk to Redis, against Valkey", ["tests/valkey"], 1800),
    "fuzz": Step("fuzz", "a long fuzz run of the decoders", ["protocol/fuzz/run", "300"], 7200),
    "compare": Step("compare", "a small comparison with the other servers", ["bench/compare", "--quick"], 1800),
}

SDK_STEPS = ["javascript", "python", "python-recovery", "python-presence", "go", "cent", "operations", "page"]


@dataclass
class Result:
    step: Step
    passed: int
    failed: int
    skipped: int
    seconds: float


class Runner:
    """Runs steps one after another. A signal ends the running step with everything it started."""

    def __init__(self):
        self.process: subprocess.Popen | None = None
        for sig in (signal.SIGINT, signal.SIGTERM):
            signal.signal(sig, self.interrupted)

    def interrupted(self, sig, _frame):
        self.end_group(signal.SIGTERM)
        sys.exit(128 + sig)

    def end_group(self, sig: signal.Signals) -> None:
        if self.process is not None and self.process.poll() is None:
            os.killpg(self.process.pid, sig)

    def run(self, step: Step, number: int, total: int) -> Result:
        print(f"\n[{number}/{total}] {step.name}: {step.what}", flush=True)
        started = time.monotonic()
        log = LOGS / f"{step.name}.log"
        status, timed_out = self.execute(step, log)
        result = count(step, log, status, time.monotonic() - started)
        if timed_out:
            print(f"{step.name}: not done within {step.limit} s", flush=True)
        outcome = "failed" if result.failed else "done"
        print(f"[{number}/{total}] {step.name}: {outcome} in {result.seconds:.0f} s", flush=True)
        return result

    def execute(self, step: Step, log: Path) -> tuple[int, bool]:
        """Runs the step's command; its exit status, and whether the time limit ended it."""
        tee = subprocess.Popen(["tee", str(log)], stdin=subprocess.PIPE, start_new_session=True)
        try:
            self.process = subprocess.Popen(
                step.command, cwd=ROOT, env=os.environ | step.environment, start_new_session=True,
                stdin=subprocess.DEVNULL, stdout=tee.stdin, stderr=subprocess.STDOUT,
            )  # fmt: skip
        except OSError as error:
            tee.communicate(f"{step.command[0]}: {error.strerror}\n".encode())
            return 127, False
        tee.stdin.close()
        timed_out = False
        try:
            self.process.wait(step.limit)
        except subprocess.TimeoutExpired:
            timed_out = True
            self.end_group(signal.SIGTERM)
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                self.end_group(signal.SIGKILL)
        status = self.process.wait()
        try:
            tee.wait(10)  # a process that the step left behind may hold the pipe
        except subprocess.TimeoutExpired:
            tee.kill()
        return status, timed_out


def count(step: Step, log: Path, status: int, seconds: float) -> Result:
    """Counts the step's tests; its exit status has the last word on failure."""
    cargo, closing, claims = [0, 0, 0], None, {"ok": 0, "not ok": 0, "skip": 0}
    for line in log.read_text(errors="replace").splitlines():
        if found := CARGO_RESULT.match(line):
            cargo = [sum(pair) for pair in zip(cargo, map(int, found.groups()))]
        elif found := CLOSING.match(line):
            closing = [int(number or 0) for number in found.groups()]
        elif found := AUTOBAHN.match(line):
            cases, bad = map(int, found.groups())
            closing = [cases - bad, bad, 0]
        elif found := CLAIM.match(line):
            claims[found[1]] += 1
    if closing:
        passed, failed, skipped = closing
    elif any(cargo):
        passed, failed, skipped = cargo
    else:
        passed, failed, skipped = claims.values()
    if status != 0 and failed == 0:
        failed = 1
    if passed == failed == skipped == 0:
        passed = 1
    return Result(step, passed, failed, skipped, seconds)


def chosen(arguments: list[str]) -> list[Step]:
    """The steps that the command line asks for; exits with a message if it makes no sense."""
    options = {argument for argument in arguments if argument.startswith("--")}
    unknown = options - {"--quick", "--long", "--checks", "--list"}
    if unknown:
        sys.exit(f"./test: unknown option {unknown.pop()}; see the head of the file")
    steps = {step.name: step for step in CHECKS + STEPS}
    if "--list" in options:
        print("\n".join(f"{step.name:12} {step.what}" for step in steps.values()))
        sys.exit(0)
    if "--long" in options:
        steps |= LONG
    names: list[str] = []
    for argument in arguments:
        if not argument.startswith("--"):
            names += SDK_STEPS if argument == "sdk" else [argument]
    for name in names:
        if name not in steps:
            sys.exit(f"./test: unknown step {name!r}; ./test --list names them")
    if not names:
        names = ["rust"] if "--quick" in options else [step.name for step in STEPS]
        names += ["simulation", "valkey", "compare"] if "--long" in options else []
    if "--checks" in options:
        names = [step.name for step in CHECKS] + names
    return [steps[name] for name in with_needed(names, steps)]


def with_needed(names: list[str], known: dict[str, Step]) -> list[str]:
    """These steps, and before each the ones that it stands on."""
    ordered: list[str] = []
    for name in names:
        if name not in ("fmt", "tools"):
            ordered.append("tools")
        if name in ("rust", "compare") and "peers" in known:
            ordered.append("peers")
        if name in ("deploy", *SDK_STEPS):
            ordered.append("install")
            if "TIDEGATE_BIN" not in os.environ:
                ordered.append("build")
        ordered.append(name)
    return list(dict.fromkeys(ordered))


def main() -> int:
    steps = chosen(sys.argv[1:])
    LOGS.mkdir(parents=True, exist_ok=True)
    runner = Runner()
    results = [runner.run(step, number, len(steps)) for number, step in enumerate(steps, 1)]

    print(f"\n{'step':14}{'passed':>8}{'failed':>8}{'skipped':>9}{'seconds':>9}")
    for result in results:
        print(f"{result.step.name:14}{result.passed:8}{result.failed:8}{result.skipped:9}{result.seconds:9.0f}")
    for result in results:
        if result.failed:
            print(f"failed: {result.step.name}; see {LOGS.relative_to(ROOT) / result.step.name}.log")
    passed, failed, skipped = (sum(getattr(r, name) for r in results) for name in ("passed", "failed", "skipped"))
    print(f"{passed} passed, {failed} failed" + (f", {skipped} skipped" if skipped else ""), flush=True)
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
