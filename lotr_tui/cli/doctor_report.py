"""Report of `lotr-tui doctor`: one line per finding, with its advice."""

import re
import textwrap
from collections.abc import Sequence

from rich.text import Text

from engine.errors import printable
from lotr_tui.cli.console import make_console, terminal_width
from lotr_tui.doctor.finding import Finding

STATE_WIDTH, NAME_WIDTH = 8, 10
"""Cells of the first two columns."""
MAX_WIDTH = 100
STYLES = {"ok": "green", "warning": "yellow", "problem": "bold red"}


def print_findings(findings: Sequence[Finding]) -> None:
    """Print each finding with its advice below it, and the number of problems and warnings."""
    console = make_console()
    width = min(terminal_width(), MAX_WIDTH) - STATE_WIDTH - NAME_WIDTH
    for finding in findings:
        advice = _wrap(finding.advice, width - 2)
        lines = _wrap(finding.summary, width)
        lines += [f"{'→' if number == 0 else ' '} {line}" for number, line in enumerate(advice)]
        for number, line in enumerate(lines):
            state, name = (finding.state, finding.name) if number == 0 else ("", "")
            text = Text.assemble((state.ljust(STATE_WIDTH), STYLES[finding.state]), name.ljust(NAME_WIDTH), line)
            console.print(text, soft_wrap=True)
    counts = [(state, sum(finding.state == state for finding in findings)) for state in ("problem", "warning")]
    parts = [f"{count or 'no'} {state}{'' if count == 1 else 's'}" for state, count in counts]
    console.print(f"{len(findings)} checks: {', '.join(parts)}")


def _wrap(text: str, width: int) -> list[str]:
    """Return the lines of a text, in which a command in backquotes is not split."""
    joined = re.sub("`[^`]*`", lambda command: command[0].replace(" ", "\N{NO-BREAK SPACE}"), printable(text))
    lines = textwrap.wrap(joined, width, break_on_hyphens=False)
    return [line.replace("\N{NO-BREAK SPACE}", " ") for line in lines]
