"""Instructions and allocations of a scenario, counted by callgrind.

A scenario runs twice, with N and with 2 N rounds; the difference is the cost of N rounds, whatever the start takes.
Valgrind counts the instructions that the program executes in user space: no clock, so no noise from other processes.
What remains is half a percent or less: hash maps have seeds of their own in each run, and where the allocator puts a
buffer decides which way a long copy goes.
"""

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

DEADLINE = 120
"""Seconds for one run."""

ALLOCATING = {f"_rjem_{name}" for name in ("malloc", "calloc", "mallocx", "aligned_alloc", "realloc", "rallocx")}
"""The functions of jemalloc that the program calls for memory, new or larger."""

NAME = re.compile(r"^c?fn=\((\d+)\)(?: (.+))?$")
RECURSION = re.compile(r"'\d+$")


class CallgrindError(Exception):
    """A run failed; the message holds what the program or valgrind said."""


@dataclass(frozen=True)
class Scenario:
    """`rounds` to count with, of so many `units` each."""

    name: str
    rounds: int
    units: int


@dataclass(frozen=True)
class Count:
    """What something cost."""

    instructions: float
    allocations: float


def scenarios(program: Path) -> list[Scenario]:
    """What the program can run."""
    listing = subprocess.run([program, "scenarios"], capture_output=True, text=True, check=True, timeout=DEADLINE)
    lines = (line.split() for line in listing.stdout.splitlines())
    return [Scenario(name, int(rounds), int(units)) for name, rounds, units in lines]


def measure(program: Path, scenario: Scenario, directory: Path) -> Count:
    """The cost of one unit."""
    once = run(program, scenario.name, scenario.rounds, directory)
    twice = run(program, scenario.name, 2 * scenario.rounds, directory)
    units = scenario.rounds * scenario.units
    return Count(
        (twice.instructions - once.instructions) / units,
        (twice.allocations - once.allocations) / units,
    )


def run(program: Path, name: str, rounds: int, directory: Path) -> Count:
    """The cost of a whole run."""
    profile = directory / f"{name}-{rounds}.callgrind"
    command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={profile}", program, "run", name, str(rounds)]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, check=False)
    except FileNotFoundError:
        raise CallgrindError("valgrind is missing: install it (tests/install tools)") from None
    except subprocess.TimeoutExpired:
        raise CallgrindError(f"{name} with {rounds} rounds took longer than {DEADLINE} s") from None
    if result.returncode != 0:
        raise CallgrindError(f"{name} with {rounds} rounds failed: {result.stderr[-2000:]}")
    with profile.open(errors="replace") as lines:
        return read(lines)


def read(lines) -> Count:
    """Reads a profile (<https://valgrind.org/docs/manual/cl-format.html>): the total, and the calls that allocate.

    A function's name stands only where it first occurs; later its number stands for it.
    """
    names: dict[str, str] = {}
    called, allocations, instructions = "", 0, None
    for line in lines:
        if found := NAME.match(line.rstrip("\n")):
            number, name = found.groups()
            if name:
                names[number] = RECURSION.sub("", name)
            called = names[number]
        elif line.startswith("calls=") and called in ALLOCATING:
            allocations += int(line[6:].split()[0])
        elif line.startswith(("summary:", "totals:")):
            instructions = int(line.split()[1])
    if instructions is None:
        raise CallgrindError("callgrind's output has no total")
    return Count(instructions, allocations)
