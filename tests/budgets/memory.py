"""What sessions, subscriptions and channels cost a real node in user-space memory.

Each figure comes from nodes and a Redis of its own. A node is asked what it uses before and after a lot of sessions, and
the lot's growth is divided by its number, so that what the program takes in any case does not count.
"""

import resource
import time
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

from client import Sessions
from harness.world import Gateway, World, WorldError, wait_until

SETTLED = 5
"""Equal looks in a row after which the memory is taken to have settled."""

LOOK = 0.1
"""Seconds between two looks."""

DEADLINE = 20.0
"""Seconds for the memory to settle."""

TOLERANCE = 8 * 1024
"""Bytes by which looks may differ that count as equal: a node that does nothing still has its timers."""

BASE = 500
"""Sessions that are there before the lot that is counted: they fill what is allocated once."""

SESSIONS = 4000
"""Sessions of the lot for the cost of a session."""

FEW = 500
"""Sessions of the lot for the cost of subscriptions and channels."""

FURTHER = 100
"""Subscriptions of each of them beyond the first; with that one no more than `client.channel_limit` allows."""


class Node(Gateway):
    """A node that pings nobody and sends nobody away while it is measured."""

    def environment(self) -> dict[str, str]:
        return super().environment() | {
            "TIDEGATE_CLIENT_PING_INTERVAL": "10m",
            "TIDEGATE_CLIENT_IDLE_TIMEOUT": "0s",
            "TIDEGATE_CLIENT_PONG_TIMEOUT": "8s",
            # Freed pages go back at once and not after ten seconds: the figure does not depend on when one looks.
            "_RJEM_MALLOC_CONF": "dirty_decay_ms:0,muzzy_decay_ms:0",
        }

    def command(self) -> list[str]:
        # Tables grow shard by shard: two shards, whatever the machine has.
        return super().command() + ["--shards", "2"]

    def resident(self) -> int:
        """Bytes of resident memory."""
        text = Path(f"/proc/{self.process.pid}/smaps_rollup").read_text()
        return next(int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith("Rss:"))

    def settled(self) -> int:
        """Bytes of resident memory once they have stopped changing."""
        looks: list[int] = []

        def steady() -> bool:
            time.sleep(LOOK)
            looks.append(self.resident())
            last = looks[-SETTLED:]
            return len(last) == SETTLED and max(last) - min(last) <= TOLERANCE

        wait_until(steady, DEADLINE, "the resident memory to settle")
        return looks[-1]


@contextmanager
def node(binary: Path, logs: Path):
    """A node with a Redis, and the means to open sessions."""
    world = World(binary, logs)
    world.gateway = Node(binary, world.redis, logs / "gateway.log")
    with world, Sessions(world.gateway.port) as sessions:
        yield world.gateway, sessions


def growth(binary: Path, logs: Path, count: int, channels: Callable[[int], list[str]]) -> int:
    """Bytes by which a node grows with a lot of `count` sessions, the n-th of which has `channels(n)`."""
    with node(binary, logs) as (gateway, sessions):
        sessions.open(channels(n) for n in range(BASE))
        before = gateway.settled()
        sessions.open(channels(n) for n in range(BASE, BASE + count))
        return gateway.settled() - before


def session(binary: Path, logs: Path) -> float:
    """An idle WebSocket session (JSON) with one subscription of a channel that all share."""
    return growth(binary, logs, SESSIONS, lambda _: ["news"]) / SESSIONS


def session_with_own_channel(binary: Path, logs: Path) -> float:
    """An idle session whose one subscription is of a channel of its own."""
    return growth(binary, logs, SESSIONS, lambda n: [f"user-{n:08}"]) / SESSIONS


def further_subscription(binary: Path, logs: Path) -> float:
    """A session's subscription beyond its first, of channels that all share."""
    names = [f"shared-{n:04}" for n in range(1 + FURTHER)]
    return further(binary, logs, lambda _: names)


def further_channel(binary: Path, logs: Path) -> float:
    """A channel with one subscriber that has other channels too, with that subscription."""
    return further(binary, logs, lambda n: [f"user-{n:06}-{k:04}" for k in range(1 + FURTHER)])


def further(binary: Path, logs: Path, channels: Callable[[int], list[str]]) -> float:
    """The difference between sessions with all of their channels and with the first alone."""
    many = growth(binary, logs / "many", FEW, channels)
    one = growth(binary, logs / "one", FEW, lambda n: channels(n)[:1])
    return (many - one) / (FEW * FURTHER)


FIGURES: dict[str, Callable[[Path, Path], float]] = {
    "session": session,
    "session_with_own_channel": session_with_own_channel,
    "further_subscription": further_subscription,
    "further_channel": further_channel,
}
"""By the names that they have in the budget file."""


def raise_descriptor_limit() -> None:
    """Allows this process, and the node that it starts, as many descriptors as it takes. Raises WorldError if it cannot."""
    needed = BASE + SESSIONS + 200
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise WorldError(f"{needed} file descriptors are needed and {hard} allowed: raise the hard limit (ulimit -Hn)")
    if soft != resource.RLIM_INFINITY and soft < needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
