#!/usr/bin/env python3
"""Holds the figures of this checkout to `budgets.toml`: `tests/budgets/run.py [KIND ...]`.

Kinds are the tables of that file: size, formula, memory, instructions, allocations; all by default. Prints a table, warns
where a bound is far above its figure, and fails where a figure is above its bound or has none. `./test budgets` runs it.
"""

import json
import os
import subprocess
import sys
import tomllib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(HERE), str(ROOT / "tests" / "sdk")]

import callgrind
import memory
from client import ClientError
from harness.world import WorldError

FILE = ROOT / "budgets.toml"
CACHE = ROOT / ".cache" / "budgets"
PROFILE = "budgets"
BUILD_DEADLINE = 1800
"""Seconds for a build from nothing on a busy machine."""

Figures = dict[str, float]
"""Measured, by the name in the kind's table."""


@dataclass(frozen=True)
class Programs:
    """What is measured."""

    node: Path
    counted: Path


def build() -> Programs:
    """Builds the node and the program with the scenarios, and says where they are."""
    command = ["cargo", "build", "--profile", PROFILE, "-p", "tidegate", "-p", "tidegate-budgets", "--bins"]
    subprocess.run(command, cwd=ROOT, check=True, timeout=BUILD_DEADLINE)
    metadata = subprocess.run(
        ["cargo", "metadata", "--format-version=1", "--no-deps"], cwd=ROOT, capture_output=True, check=True
    )
    directory = Path(json.loads(metadata.stdout)["target_directory"]) / PROFILE
    return Programs(directory / "tidegate", directory / "tidegate-budgets")


def printed(programs: Programs, kind: str) -> Figures:
    """Sizes and formulas: what the program prints."""
    output = subprocess.run([programs.counted, "sizes"], capture_output=True, text=True, check=True, timeout=60).stdout
    figures = {}
    for line in output.splitlines():
        name, value = line.split()
        prefix, _, name = name.partition(".")
        if prefix == kind:
            figures[name] = float(value)
    return figures


def counted(programs: Programs) -> dict[str, callgrind.Count]:
    """Every scenario's cost, as many at a time as there are processors: callgrind's counts don't depend on the load."""
    scenarios = callgrind.scenarios(programs.counted)
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        counts = pool.map(lambda scenario: callgrind.measure(programs.counted, scenario, CACHE), scenarios)
        return {scenario.name: count for scenario, count in zip(scenarios, counts)}


def measured_memory(programs: Programs) -> Figures:
    """The memory of real nodes."""
    memory.raise_descriptor_limit()
    return {name: measure(programs.node, CACHE / name) for name, measure in memory.FIGURES.items()}


def measure(kinds: list[str]) -> dict[str, Figures]:
    """The figures of these kinds."""
    programs = build()
    CACHE.mkdir(parents=True, exist_ok=True)
    figures: dict[str, Figures] = {}
    for kind in kinds:
        match kind:
            case "size" | "formula":
                figures[kind] = printed(programs, kind)
            case "memory":
                figures[kind] = measured_memory(programs)
    if {"instructions", "allocations"} & set(kinds):
        counts = counted(programs)
        if "instructions" in kinds:
            figures["instructions"] = {name: count.instructions for name, count in counts.items()}
        if "allocations" in kinds:
            figures["allocations"] = {name: count.allocations for name, count in counts.items()}
    return figures


@dataclass
class Verdict:
    """How the figures stand to their bounds."""

    passed: int = 0
    failed: int = 0


def text(value: float) -> str:
    """A figure with as many decimals as tell it from its neighbours."""
    return f"{value:,.4f}" if value < 1 else f"{value:,.1f}"


def judge(figures: dict[str, Figures], budgets: dict) -> Verdict:
    """Prints the table and says what is wrong."""
    verdict, notes = Verdict(), []
    print(f"\n{'figure':42}{'measured':>12}{'bound':>12}{'room':>8}")
    for kind, measured in figures.items():
        bounds = budgets[kind]
        slack = budgets["margin"][kind]
        for name in sorted(measured.keys() | bounds.keys(), key=list(measured | bounds).index):
            full, value, bound = f"{kind}.{name}", measured.get(name), bounds.get(name)
            if value is None or bound is None:
                missing = "has a bound and is not measured" if value is None else f"is {text(value)} and has no bound"
                notes.append(f"not ok: {full} {missing}: mend budgets.toml")
                verdict.failed += 1
                continue
            room = (bound - value) / bound if bound else -value
            print(f"{full:42}{text(value):>12}{text(bound):>12}{room:8.1%}")
            if value > bound:
                notes.append(f"not ok: {full} is {text(value)}, above its bound of {bound}")
                verdict.failed += 1
                continue
            verdict.passed += 1
            if bound > value * (1 + 2 * slack):
                notes.append(f"warning: {full} is {text(value)}, far below its bound of {bound}: lower the bound")
    print("\n".join(["", *notes]))
    return verdict


def main() -> int:
    budgets = tomllib.loads(FILE.read_text())
    known = [kind for kind in budgets if kind != "margin"]
    kinds = sys.argv[1:] or known
    if unknown := set(kinds) - set(known):
        sys.exit(f"{FILE.name} has no table {unknown.pop()!r}; it has {', '.join(known)}")
    try:
        figures = measure(kinds)
    except (WorldError, ClientError, callgrind.CallgrindError, OSError, subprocess.SubprocessError) as error:
        print(f"not measured: {error}")
        print("0 passed, 1 failed")
        return 1
    verdict = judge(figures, budgets)
    print(f"{verdict.passed} passed, {verdict.failed} failed")
    return 1 if verdict.failed else 0


if __name__ == "__main__":
    sys.exit(main())
