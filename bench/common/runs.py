"""Builds, runs the load generator against a fresh server, reads its report."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from .contenders import ROOT, Contender, Programs
from .processes import Failed, Processes

RUN_LIMIT = 600
"""Seconds that one run may take."""


@dataclass(frozen=True)
class Run:
    """`arguments` are those of the load generator, without what names the server."""

    name: str
    what: str
    arguments: list[str]
    publishes: bool = True


def end_on_signals() -> None:
    """So that what was started is ended whatever ends the script."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _frame: sys.exit(128 + number))


def raise_limit(sessions: int) -> None:
    """The limit of file descriptors as high as it may be, for everything that is started."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    needed = sessions + 1000
    if hard != resource.RLIM_INFINITY and hard < needed:
        sys.exit(f"{sessions} sessions need {needed} file descriptors, the limit is {hard}: raise it (ulimit -n)")


def build() -> Programs:
    """Release builds, unless TIDEGATE and LOADTEST name others."""
    programs = {}
    for variable, package in [("TIDEGATE", "tidegate"), ("LOADTEST", "tidegate-loadtest")]:
        if variable in os.environ:
            programs[variable.lower()] = Path(os.environ[variable]).resolve()
            continue
        print(f"building {package}", flush=True)
        subprocess.run(["cargo", "build", "--release", "--quiet", "-p", package], cwd=ROOT, check=True)
        target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
        programs[variable.lower()] = target / "release" / package
    return Programs(**programs)


def empty(directory: Path) -> Path:
    """The directory without what was there: no table mixes two measurements."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    return directory


def measure(run: Run, contender: Contender, programs: Programs, directory: Path) -> dict:
    """One run against servers of its own; its report, which stays in `directory`. Raises `Failed` if there is none."""
    directory.mkdir(parents=True)
    file = directory / "report.json"
    with Processes(directory) as processes:
        ready = contender.start(programs, processes)
        target = [argument.format(**ready.ports) for argument in contender.arguments(run.publishes)]
        pids = [f"--server-pid={pid}" for pid in ready.pids]
        arguments = [argument.format(**ready.ports) for argument in run.arguments]
        command = [programs.loadtest, "--quiet", "run", *arguments, *target, *pids]
        command += [f"--label={contender.name}", f"--json={file}"]
        try:
            result = subprocess.run(command, capture_output=True, text=True, timeout=RUN_LIMIT)
        except subprocess.TimeoutExpired:
            raise Failed(f"not done after {RUN_LIMIT} s") from None
    (directory / "run.log").write_text(result.stdout + result.stderr)
    if not file.exists():
        raise Failed((result.stderr.strip().splitlines() or [f"exit status {result.returncode}"])[-1])
    return json.loads(file.read_text())


def missed(report: dict) -> str:
    """The checks that a run did not hold, in words; empty if it held all."""
    return "; ".join(f"{check['what']}: {check['measured']}" for check in report["checks"] if not check["passed"])
