"""What is measured, in which size."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Scenario:
    """`arguments` are those of the load generator, without what names the server."""

    name: str
    what: str
    arguments: list[str]
    publishes: bool = True
    shared: bool = True
    """Whether all sessions share a channel."""


def scenarios(sessions: int, quick: bool) -> list[Scenario]:
    """Those of a run with so many idle sessions; the others' sizes follow from it."""
    base, everybody, own = max(1, sessions // 15), max(1, sessions * 2 // 3), max(1, sessions // 15)
    seconds, pause, burst = (2, 1, 50) if quick else (20, 10, 200)
    return [
        Scenario(
            "idle",
            f"{sessions:,} sessions with one subscription of a shared channel, nothing published",
            ["idle", f"--sessions={sessions}", f"--base={base}", f"--pause={pause}"],
            publishes=False,
        ),
        Scenario(
            "steady",
            f"{everybody:,} subscribers of one channel, 10 messages/s of 128 B for {seconds} s",
            ["broadcast", f"--sessions={everybody}", "--rate=10", f"--seconds={seconds}", "--payload=128"],
        ),
        Scenario(
            "burst",
            f"{everybody:,} subscribers of one channel, {burst} messages of 128 B as fast as they are taken",
            ["burst", f"--sessions={everybody}", f"--burst={burst}", "--payload=128"],
        ),
        Scenario(
            "unicast",
            f"{own:,} sessions with a channel each, 200 messages/s of 128 B in all for {seconds} s",
            ["unicast", f"--sessions={own}", "--rate=200", f"--seconds={seconds}", "--payload=128"],
            shared=False,
        ),
    ]
