"""Runs kosoku against the echo server, counts the verdicts, and exits with 1 if a case failed.

Usage: drive.py ECHO KOSOKU REPORT_DIRECTORY CASE...
"""

import collections
import json
import pathlib
import shutil
import subprocess
import sys

# The suite takes about four minutes on two busy cores.
TIMEOUT = 1200  # seconds

# Autobahn's verdicts that are not a failure: some cases only observe, and some allow a later, less strict reaction.
GOOD = {"OK", "NON-STRICT", "INFORMATIONAL"}


def drive(kosoku: str, address: str, report: pathlib.Path, cases: list[str]) -> dict[str, dict[str, str]]:
    """Runs the cases and returns each one's result."""
    shutil.rmtree(report, ignore_errors=True)
    report.mkdir(parents=True)
    command = [kosoku, "--outdir", str(report), f"ws://{address}"]
    for case in cases:
        command += ["--include", case]
    # Its exit code says "failed" as well; the report says which case.
    with open(report / "kosoku.log", "w", encoding="utf-8") as log:
        subprocess.run(command, stdout=log, stderr=log, timeout=TIMEOUT, check=False)
    index = json.loads((report / "index.json").read_text(encoding="utf-8"))
    return {case: result for agent in index.values() for case, result in agent.items()}


def main() -> int:
    echo, kosoku, report, *cases = sys.argv[1:]
    with subprocess.Popen([echo, "127.0.0.1:0"], stdout=subprocess.PIPE, text=True) as server:
        try:
            address = server.stdout.readline().strip()
            if not address:
                print("the echo server did not start", file=sys.stderr)
                return 1
            results = drive(kosoku, address, pathlib.Path(report), cases)
        finally:
            server.kill()
    verdicts = collections.Counter()
    failed = []
    for case, result in results.items():
        if bad := {result["behavior"], result["behaviorClose"]} - GOOD:
            failed.append(f"{case}: {', '.join(sorted(bad))}")
        verdicts[result["behavior"]] += 1
    for line in failed:
        print("FAILED", line)
    counts = ", ".join(f"{count} {verdict.lower()}" for verdict, count in sorted(verdicts.items()))
    print(f"autobahn: {len(results)} cases: {counts}; {len(failed)} failed")
    return 1 if failed or not results else 0


if __name__ == "__main__":
    sys.exit(main())
