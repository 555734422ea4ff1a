"""Medians, and the table for docs/measurements.md."""

import os
import platform
import re
import statistics
import textwrap
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

from .contenders import Contender
from .scenarios import Scenario

BEGIN, END = "<!-- compare:begin -->", "<!-- compare:end -->"

FAULTS = ["lost", "doubled", "out_of_order", "misrouted"]

NOTES = """CPU is that of all processes of a server, user and system. The floor and Tidegate take their messages from a
Redis, whose CPU is not in their figures: against the others' unicast, hold the column without it (embedded broker,
HTTP API). Mosquitto speaks MQTT over TCP, the others WebSocket. Idle CPU: Tidegate pings each session every 25 s,
Nchan never, NATS every two minutes, and MQTT sessions ask for no keep-alive. The floor has one channel for everybody,
so it has no unicast."""


@dataclass(frozen=True)
class Row:
    """A figure of a report; with `over_floor`, its ratio to the floor's median stands behind it."""

    scenario: str
    figure: str
    title: str
    decimals: int
    over_floor: bool = False
    divisor: float = 1


ROWS = [
    Row("idle", "bytes_per_session", "idle session: user memory, B", 0),
    Row("idle", "kernel_bytes_per_session", "idle session: kernel memory, both ends, B", 0),
    Row("idle", "connect_cpu_us", "connect and subscribe: CPU, us", 1, over_floor=True),
    Row("idle", "idle_cpu_percent_per_10000", "10,000 idle sessions: CPU, % of a core", 2),
    Row("steady", "cpu_us_per_delivery", "steady: CPU per delivery, us", 2, over_floor=True),
    Row("steady", "p50_us", "steady: p50, ms", 1, divisor=1000),
    Row("steady", "p99_us", "steady: p99, ms", 1, divisor=1000),
    Row("burst", "cpu_us_per_delivery", "burst: CPU per delivery, us", 3, over_floor=True),
    Row("burst", "deliveries_per_second", "burst: million deliveries/s", 2, divisor=1e6),
    Row("unicast", "cpu_us_per_delivery", "unicast: CPU per delivery, us", 1),
    Row("unicast", "p50_us", "unicast: p50, us", 0),
    Row("unicast", "p99_us", "unicast: p99, us", 0),
]


@dataclass
class Results:
    """The reports of all runs, and what could not be measured."""

    reports: dict[tuple[str, str], list[dict]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)

    def add(self, scenario: str, contender: str, report: dict) -> None:
        self.reports.setdefault((scenario, contender), []).append(report)

    def values(self, scenario: str, contender: str, figure: str) -> list[float]:
        figures = [report["figures"].get(figure) for report in self.reports.get((scenario, contender), [])]
        return [value for value in figures if value is not None]

    def median(self, scenario: str, contender: str, figure: str) -> float | None:
        values = self.values(scenario, contender, figure)
        return statistics.median(values) if values else None

    def faults(self, contender: str) -> int:
        """Messages of all runs that did not arrive once and in order."""
        of_contender = [reports for (_, name), reports in self.reports.items() if name == contender]
        figures = [report["figures"] for reports in of_contender for report in reports]
        return sum(int(figure.get(fault, 0)) for figure in figures for fault in FAULTS)

    def spread(self, row: Row, contenders: list[Contender]) -> float:
        """The most that a run's figure differs from its median, as a part of the median."""
        spread = 0.0
        for contender in contenders:
            values = self.values(row.scenario, contender.name, row.figure)
            middle = statistics.median(values) if values else 0
            spread = max([spread, *(abs(value / middle - 1) for value in values)]) if middle else spread
        return spread


def cell(results: Results, row: Row, contender: str) -> str:
    value = results.median(row.scenario, contender, row.figure)
    if value is None:
        return "-"
    text = f"{value / row.divisor:,.{row.decimals}f}"
    floor = results.median(row.scenario, "floor", row.figure)
    return f"{text} ({value / floor:.2f} x)" if row.over_floor and floor and contender != "floor" else text


def line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def table(results: Results, contenders: list[Contender]) -> list[str]:
    lines = [line(["", *(contender.title for contender in contenders), "spread"])]
    lines.append("|---" * (len(contenders) + 2) + "|")
    for row in ROWS:
        cells = [cell(results, row, contender.name) for contender in contenders]
        if any(text != "-" for text in cells):
            lines.append(line([row.title, *cells, f"{results.spread(row, contenders):.0%}"]))
    faults = [f"{results.faults(contender.name):,}" for contender in contenders]
    lines.append(line(["lost, doubled, out of order or misrouted, all runs", *faults, ""]))
    return lines


def page(
    results: Results, contenders: list[Contender], scenarios: list[Scenario], versions: dict[str, str],
    rounds: int, command: str,
) -> str:  # fmt: skip
    """Everything that stands between the markers."""
    processors, kernel = len(os.sched_getaffinity(0)), platform.release().split("-")[0]
    parts = [
        paragraph(
            f"Written by `{command}` on {date.today().isoformat()}: {processors} processors, Linux {kernel}, clients "
            f"and servers on the same machine over loopback. Rounds: {rounds}; in each everybody had its turn, with "
            "servers started afresh. The figures are medians over the rounds; *x* is the ratio to the floor, *spread* "
            "the most by which a run differed from its median."
        ),
        "",
        *table(results, contenders),
        "",
        *(f"- {contender.title}: {versions[contender.name]}" for contender in contenders),
        *(f"- {text}" for text in [*results.missing, *results.failures]),
        "",
        *(f"- {scenario.name}: {scenario.what}" for scenario in scenarios),
        "",
        paragraph(NOTES),
        "",
        "The commands, where SERVER and PUBLISH are those of the second list; `bench/peers` has the configurations:",
        "",
        *(f"    tidegate-loadtest run {' '.join(shown(scenario))}" for scenario in scenarios),
        "",
        *(f"    {contender.title}: {placeholders(contender.arguments(True))}" for contender in contenders),
    ]
    return "\n".join(parts) + "\n"


def shown(scenario: Scenario) -> list[str]:
    publish = ["PUBLISH"] if scenario.publishes else []
    return [*scenario.arguments, "SERVER", *publish, "--server-pid=PID..."]


def placeholders(arguments: list[str]) -> str:
    """`{port}` as PORT, `{redis}` as REDIS_PORT."""
    text = " ".join(arguments).replace("{port}", "PORT")
    return re.sub(r"\{(\w+)\}", lambda name: f"{name[1].upper()}_PORT", text)


def paragraph(text: str) -> str:
    return textwrap.fill(text, 118, break_long_words=False, break_on_hyphens=False)


def write(page_text: str, document: Path) -> None:
    """Puts the page between the document's markers; raises ValueError if they are not there."""
    before, begin, rest = document.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{document.name} has no {BEGIN} with {END} behind it")
    document.write_text(f"{before}{BEGIN}\n\n{page_text}\n{END}{after}")
