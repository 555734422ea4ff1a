"""bench/compare: what is measured, in which size, and its table."""

import re
import statistics
from dataclasses import dataclass, field

from . import document
from .contenders import Contender
from .runs import Run


@dataclass(frozen=True)
class Comparable(Run):
    """A run that several servers can be given."""

    shared: bool = True
    """Whether all sessions share a channel."""


def scenarios(sessions: int, quick: bool) -> list[Comparable]:
    """Those of a run with so many idle sessions; the others' sizes follow from it."""
    base, everybody, own = max(1, sessions // 15), max(1, sessions * 2 // 3), max(1, sessions // 15)
    seconds, pause, burst = (2, 1, 50) if quick else (20, 10, 200)
    return [
        Comparable(
            "idle",
            f"{sessions:,} sessions with one subscription of a shared channel, nothing published",
            ["idle", f"--sessions={sessions}", f"--base={base}", f"--pause={pause}"],
            publishes=False,
        ),
        Comparable(
            "steady",
            f"{everybody:,} subscribers of one channel, 10 messages/s of 128 B for {seconds} s",
            ["broadcast", f"--sessions={everybody}", "--rate=10", f"--seconds={seconds}", "--payload=128"],
        ),
        Comparable(
            "burst",
            f"{everybody:,} subscribers of one channel, {burst} messages of 128 B as fast as they are taken",
            ["burst", f"--sessions={everybody}", f"--burst={burst}", "--payload=128"],
        ),
        Comparable(
            "unicast",
            f"{own:,} sessions with a channel each, 200 messages/s of 128 B in all for {seconds} s",
            ["unicast", f"--sessions={own}", "--rate=200", f"--seconds={seconds}", "--payload=128"],
            shared=False,
        ),
    ]


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


LEADS = [
    ("memory per session", "idle", "bytes_per_session"),
    ("CPU per delivery of a broadcast", "steady", "cpu_us_per_delivery"),
    ("CPU per delivery of a burst", "burst", "cpu_us_per_delivery"),
    ("CPU per delivery, a channel each", "unicast", "cpu_us_per_delivery"),
]
"""What Tidegate has to need less of than every peer: the issue of this comparison."""


def verdicts(results: Results, contenders: list[Contender]) -> list[str]:
    """Who needs less than Tidegate of each of LEADS, if anybody does."""
    names = {contender.name: contender.title for contender in contenders}
    own = [name for name in names if name.startswith("tidegate")]
    peers = [name for name in names if name not in own and name != "floor"]
    lines = []
    for what, scenario, figure in LEADS:
        for name in own:
            mine = results.median(scenario, name, figure)
            theirs = {peer: results.median(scenario, peer, figure) for peer in peers}
            measured = {peer: value for peer, value in theirs.items() if value is not None}
            if mine is None or not measured:
                continue
            ratios = ", ".join(f"{names[peer]} takes {value / mine:.1f} x" for peer, value in measured.items())
            ahead = [names[peer] for peer, value in measured.items() if value <= mine]
            verdict = f"**not less than {' and '.join(ahead)}**" if ahead else "less than every peer"
            lines.append(f"- {names[name]}, {what}: {verdict} ({ratios}).")
    return lines


def figures_table(results: Results, contenders: list[Contender]) -> list[str]:
    rows = []
    for row in ROWS:
        cells = [cell(results, row, contender.name) for contender in contenders]
        if any(text != "-" for text in cells):
            rows.append([row.title, *cells, f"{results.spread(row, contenders):.0%}"])
    faults = [f"{results.faults(contender.name):,}" for contender in contenders]
    rows.append(["lost, doubled, out of order or misrouted, all runs", *faults, ""])
    return document.table(["", *(contender.title for contender in contenders), "spread"], rows)


def page(
    results: Results, contenders: list[Contender], runs: list[Comparable], versions: dict[str, str],
    rounds: int, command: str,
) -> str:  # fmt: skip
    """Everything that stands between the markers."""
    parts = [
        document.paragraph(
            f"{document.written_by(command, rounds)} In each round everybody had its turn. *x* is the ratio to the "
            "floor, *spread* the most by which a run differed from its median."
        ),
        "",
        *figures_table(results, contenders),
        "",
        *verdicts(results, contenders),
        "",
        *(f"- {contender.title}: {versions[contender.name]}" for contender in contenders),
        *(f"- {text}" for text in [*results.missing, *results.failures]),
        "",
        *(f"- {scenario.name}: {scenario.what}" for scenario in runs),
        "",
        document.paragraph(NOTES),
        "",
        "The commands, where SERVER and PUBLISH are those of the second list; `bench/peers` has the configurations:",
        "",
        *(f"    tidegate-loadtest run {' '.join(shown(scenario))}" for scenario in runs),
        "",
        *(f"    {contender.title}: {placeholders(contender.arguments(True))}" for contender in contenders),
    ]
    return "\n".join(parts) + "\n"


def shown(scenario: Comparable) -> list[str]:
    publish = ["PUBLISH"] if scenario.publishes else []
    return [*scenario.arguments, "SERVER", *publish, "--server-pid=PID..."]


def placeholders(arguments: list[str]) -> str:
    """`{port}` as PORT, `{redis}` as REDIS_PORT."""
    text = " ".join(arguments).replace("{port}", "PORT")
    return re.sub(r"\{(\w+)\}", lambda name: f"{name[1].upper()}_PORT", text)
