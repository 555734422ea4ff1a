"""bench/budgets: every budget of the design and its first bounds, with the run that shows each."""

import statistics
from collections.abc import Callable
from dataclasses import dataclass

from .runs import Run

Figures = dict[str, dict[str, float]]
"""The figures of each run of a round, by the run's name."""


@dataclass(frozen=True)
class Budget:
    """`value` takes the figures of a round; `unit` is for the table. Without a bound the figure is only reported."""

    title: str
    value: Callable[[Figures], float]
    unit: str
    decimals: int
    at_most: float | None = None
    at_least: float | None = None

    def held(self, value: float) -> bool:
        return (self.at_most is None or value <= self.at_most) and (self.at_least is None or value >= self.at_least)

    def show(self, value: float) -> str:
        return f"{value:,.{self.decimals}f}{self.unit}"

    def bound(self) -> str:
        if self.at_most is not None:
            return f"<= {self.show(self.at_most)}"
        return "" if self.at_least is None else f">= {self.show(self.at_least)}"


def runs(quick: bool) -> list[Run]:
    """In the order in which they are made; all sizes are the budgets' own unless this is a quick look."""
    size, own, pause, long, seconds = (600, 60, 1, 3, 2) if quick else (15_000, 1_000, 10, 60, 20)
    most, burst, rate = size * 2 // 3, 50 if quick else 200, 2_000 if quick else 50_000
    base = size // 15

    def idle(name: str, what: str, *more: str, sessions: int = size, pause: int = pause) -> Run:
        arguments = ["idle", f"--sessions={sessions}", f"--base={base}", f"--pause={pause}", *more]
        return Run(name, f"{sessions:,} sessions, {what}", arguments, publishes=False)

    return [
        idle("idle", "one subscription of a shared channel"),
        idle("idle-tcp", "the same over raw TCP"),
        idle("further-subscriptions", "101 subscriptions each, of channels that all share", "--subscriptions=101"),
        idle("further-channels", "11 subscriptions each, of channels of their own", "--subscriptions=11", "--own-channels"),
        idle("heartbeats", f"a pause of {long} s, pings every 25 s", sessions=most, pause=long),
        Run(
            "floor",
            f"{most:,} subscribers of one channel, 10 messages/s of 128 B, then {burst} as fast as they are taken, to the "
            "node and to the floor in turns",
            ["compare-floor", f"--sessions={most}", "--rate=10", f"--seconds={seconds}", f"--burst={burst}", "--payload=128",
             f"--rounds={1 if quick else 3}"],
        ),
        Run(
            "unicast",
            f"{own:,} sessions with a channel each, 200 messages/s of 128 B in all",
            ["unicast", f"--sessions={own}", "--rate=200", f"--seconds={seconds}", "--payload=128"],
        ),
        Run(
            "unicast-many",
            f"{most:,} sessions with a channel each, {rate:,} messages/s of 128 B in all",
            ["unicast", f"--sessions={most}", f"--rate={rate}", f"--seconds={seconds // 2}", "--payload=128"],
        ),
        Run("hot", f"a flooded channel of {most:,} beside 100 small ones", ["hot", f"--sessions={most}"]),
        Run("storm", f"{size:,} connects at once", ["storm", f"--sessions={size}"], publishes=False),
        Run(
            "slow",
            "10 of 100 readers of a flooded channel stop",
            ["slow", "--require-code=3008", "--metrics=127.0.0.1:{operator}"],
        ),
    ]  # fmt: skip


def highest(quick: bool) -> Run:
    """The highest rate that is held; once, because it looks for it by itself."""
    sessions, rate = (400, 2_000) if quick else (10_000, 50_000)
    return Run(
        "highest",
        f"{sessions:,} sessions with a channel each, at rising rates",
        ["unicast", f"--sessions={sessions}", f"--rate={rate}", "--seconds=5", "--payload=128", "--find-max-rate"],
    )


def figure(run: str, name: str, divisor: float = 1) -> Callable[[Figures], float]:
    return lambda figures: figures[run][name] / divisor


def further(run: str, count: int) -> Callable[[Figures], float]:
    """What each of so many more subscriptions of a session takes."""
    return lambda figures: (figures[run]["bytes_per_session"] - figures["idle"]["bytes_per_session"]) / count


def faults(*runs: str) -> Callable[[Figures], float]:
    names = ["lost", "doubled", "out_of_order", "misrouted"]
    return lambda figures: sum(figures[run].get(name, 0) for run in runs for name in names)


BUDGETS = [
    Budget("idle session, WebSocket, one shared channel: user memory", figure("idle", "bytes_per_session"), " B", 0, 512),
    Budget("the same over raw TCP", figure("idle-tcp", "bytes_per_session"), " B", 0, 512),
    Budget("each further subscription of a session", further("further-subscriptions", 100), " B", 0, 64),
    Budget("each further channel with one subscriber", further("further-channels", 10), " B", 0, 640),
    Budget("one delivery, one message per turn: CPU over the floor's", figure("floor", "cpu_over_floor"), " x", 2, 1.15),
    Budget("one delivery, saturated: CPU over the floor's", figure("floor", "burst_cpu_over_floor"), " x", 2, 2),
    Budget("the same: deliveries/s", figure("floor", "burst_deliveries_per_second", 1e6), " M", 2, None, 4),
    Budget("publish to socket, idle node: p50", figure("unicast", "p50_us"), " us", 0, 250),
    Budget("the same: p99", figure("unicast", "p99_us"), " us", 0, 1000),
    Budget("unicast, 50,000 messages/s to 10,000 sessions: p99", figure("unicast-many", "p99_us", 1000), " ms", 1, 20),
    Budget("small channel beside a flooded one: p99 more by", figure("hot", "p99_shift_ms"), " ms", 1, 10),
    Budget("connect and subscribe: CPU", figure("idle", "connect_cpu_us"), " us", 0, 30),
    Budget("15,000 connects at once: until the last is served", figure("storm", "connect_seconds"), " s", 2, 3),
    Budget("the same: refused", figure("storm", "refused"), "", 0, 0),
    Budget("idle: CPU for 10,000 sessions", figure("heartbeats", "idle_cpu_percent_per_10000"), " % of a core", 2, 0.4),
    Budget("a reader that stops, of 1 MiB of queue: memory", figure("slow", "bytes_per_stalled", 1024), " KiB", 0, 1280),
    Budget("the same: p99 of the others more by", figure("slow", "p99_shift_ms"), " ms", 1, 10),
    Budget("lost, doubled, out of order or misrouted", faults("floor", "unicast", "unicast-many", "hot"), "", 0, 0),
]


def row(budget: Budget, rounds: list[Figures]) -> tuple[list[str], bool]:
    """A line of the table, and whether the median holds the budget. A round in which a run failed has no value."""
    values = []
    for figures in rounds:
        try:
            values.append(budget.value(figures))
        except KeyError:
            continue
    if not values:
        return [budget.title, "not measured", "", budget.bound(), "**no**"], False
    median = statistics.median(values)
    held = budget.held(median)
    range_ = f"{budget.show(min(values))} to {budget.show(max(values))}"
    return [budget.title, budget.show(median), range_, budget.bound(), "yes" if held else "**no**"], held
