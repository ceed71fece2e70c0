"""`lotr-tui doctor`: what works on this machine."""

from dataclasses import asdict

from lotr_tui.cli.options import JsonOption

STYLES = {"ok": "green", "warning": "yellow", "problem": "bold red"}
MAX_WIDTH = 100


def doctor(as_json: JsonOption = False) -> int:
    """Show what works on this machine and what to do about the rest, on one screen for a bug report."""
    from rich.table import Table
    from rich.text import Text

    from engine.errors import printable
    from lotr_tui.cli.console import make_console, print_json, terminal_width
    from lotr_tui.doctor.checks import run_checks

    findings = list(run_checks())
    problems = sum(finding.state == "problem" for finding in findings)
    if as_json:
        print_json({"ok": not problems, "findings": [asdict(finding) for finding in findings]}, indent=2)
        return 1 if problems else 0
    table = Table.grid(padding=(0, 1))
    for finding in findings:
        advice = f"\n→ {finding.advice}" if finding.advice else ""
        text = Text(printable(finding.summary) + advice)
        table.add_row(Text(finding.state, STYLES[finding.state]), Text(finding.name), text)
    console = make_console()
    console.print(table, width=min(terminal_width(), MAX_WIDTH))
    warnings = sum(finding.state == "warning" for finding in findings)
    console.print(f"{len(findings)} checks: {_count(problems, 'problem')}, {_count(warnings, 'warning')}")
    return 1 if problems else 0


def _count(number: int, noun: str) -> str:
    return f"{number or 'no'} {noun}{'' if number == 1 else 's'}"
