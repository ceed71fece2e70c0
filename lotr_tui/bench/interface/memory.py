"""Memory of a session that plays, beside a bare Textual app."""

from collections.abc import Iterator

from lotr_tui.bench.figures import Figure, paired
from lotr_tui.bench.subjects import BARE_COMMAND, BARE_READY, PROMPT, SESSION_COMMAND, running
from lotr_tui.bench.terminal import Terminal

SAID = "words/s"
"""Shown below a reply that has ended."""


def memory(repeat: int) -> Iterator[Figure]:
    """What would be free if it ended, once the first reply was written: what it shares with others is not counted."""
    yield from paired(
        "memory of the session after a reply", "MB", _session, _bare, "a bare Textual app", repeat, ratio_limit=2.5
    )


def _session() -> float:
    with running(SESSION_COMMAND, 80, 24) as terminal:
        terminal.write(f"{PROMPT}\r".encode())
        terminal.until(SAID)
        terminal.settle(0.5, 3)
        return _own_megabytes(terminal)


def _bare() -> float:
    with running(BARE_COMMAND, 80, 24, BARE_READY) as terminal:
        return _own_megabytes(terminal)


def _own_megabytes(terminal: Terminal) -> float:
    import psutil

    return float(psutil.Process(terminal.pid).memory_full_info().uss) / 1e6
