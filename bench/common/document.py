"""Tables, paragraphs, sections of docs/measurements.md."""

import os
import platform
import textwrap
from datetime import date

from .contenders import ROOT

DOCUMENT = ROOT / "docs" / "measurements.md"


def line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def table(heads: list[str], rows: list[list[str]]) -> list[str]:
    return [line(heads), "|---" * len(heads) + "|", *map(line, rows)]


def paragraph(text: str) -> str:
    return textwrap.fill(text, 118, break_long_words=False, break_on_hyphens=False)


def written_by(command: str, rounds: int) -> str:
    """Who made the figures, when, where."""
    processors, kernel = len(os.sched_getaffinity(0)), platform.release().split("-")[0]
    return (
        f"Written by `{command}` on {date.today().isoformat()}: {processors} processors, Linux {kernel}, clients and "
        f"servers on the same machine over loopback. Rounds: {rounds}; servers were started afresh for every run, and "
        "the figures are medians over the rounds."
    )


def write(name: str, text: str) -> None:
    """Puts the text between the document's markers of that name; raises ValueError if they are not there."""
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    before, found, rest = DOCUMENT.read_text().partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise ValueError(f"{DOCUMENT.name} has no {begin} with {end} behind it")
    DOCUMENT.write_text(f"{before}{begin}\n\n{text}\n{end}{after}")
