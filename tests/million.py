"""bench/million with a few hundred sessions: real nodes, a real Redis, the real load generator.

Takes the debug builds of this checkout, which the step before has made. Standard library only.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "debug"
SCRIPT = [sys.executable, str(ROOT / "bench" / "million")]
QUICK = ["--hold", "2", "--pause", "1", "--broadcasts", "2"]
LIMIT = 120

failed = 0


def claim(words, held, evidence=""):
    global failed
    print(f"{'ok' if held else 'not ok'} - {words}", flush=True)
    if not held:
        failed += 1
        print(str(evidence)[-4000:], flush=True)


def environment(results):
    return os.environ | {
        "TIDEGATE": str(TARGET / "tidegate"), "LOADTEST": str(TARGET / "tidegate-loadtest"), "RESULTS": str(results),
    }  # fmt: skip


def descendants(pid):
    """Every process below this one."""
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            found += [int(child), *descendants(int(child))]
    return found


def alive(pid):
    """Whether a process still runs; one that nobody has waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def until(condition, seconds):
    """What the condition gives, once that is something, or when the time is over."""
    deadline = time.monotonic() + seconds
    while not (result := condition()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return result


def whole_run(results):
    ran = subprocess.run([*SCRIPT, "400", *QUICK], env=environment(results), capture_output=True, text=True, timeout=LIMIT)
    output = ran.stdout + ran.stderr
    claim("400 sessions over two nodes hold, and every check with them", ran.returncode == 0, output)
    try:
        result = json.loads((results / "million.json").read_text())
    except OSError as error:
        return claim("the run has a report", False, error)
    figures = result["report"]["figures"]
    claim("each broadcast reaches everybody once", (figures["delivered"], figures["lost"], figures["doubled"]) == (800, 0, 0), figures)
    claim("a killed node costs its own sessions and no other", figures["killed_sessions"] == 200, figures)
    claim("Redis does not mind", result["redis"]["alive"], result["redis"])
    claim("the section for the documentation has every figure", "| - |" not in (results / "million.md").read_text(), output)


def refusal(results):
    ran = subprocess.run([*SCRIPT, "100000000", "--dry-run"], env=environment(results), capture_output=True, text=True, timeout=LIMIT)
    named = all(word in ran.stderr for word in ("do not fit", "memory", "fs.file-max"))
    claim("too many sessions are refused, naming what is too little", ran.returncode == 2 and named, ran.stderr)


def interruption(results):
    script = subprocess.Popen([*SCRIPT, "400", *QUICK, "--hold", "60"], env=environment(results), stderr=subprocess.DEVNULL)
    # Two nodes, a Redis, the load generator and its two processes.
    started = until(lambda: (pids := descendants(script.pid)) and len(pids) >= 6 and pids, 60) or []
    script.send_signal(signal.SIGINT)
    script.wait(LIMIT)
    left = until(lambda: not any(map(alive, started)), 30)
    claim("Ctrl-C ends everything that was started", len(started) >= 6 and left, [pid for pid in started if alive(pid)])


def main():
    with tempfile.TemporaryDirectory(prefix="million-") as folder:
        results = Path(folder)
        refusal(results)
        interruption(results)
        whole_run(results)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
