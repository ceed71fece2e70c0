"""`lotr-tui doctor`: what works on this machine."""

from dataclasses import asdict

from lotr_tui.cli.options import JsonOption


def doctor(as_json: JsonOption = False) -> int:
    """Show what works on this machine and what to do about the rest, on one screen for a bug report."""
    from lotr_tui.cli.console import print_json
    from lotr_tui.cli.doctor_report import print_findings
    from lotr_tui.doctor.checks import run_checks
    from lotr_tui.doctor.environment import this_environment

    findings = list(run_checks(this_environment()))
    problems = sum(finding.state == "problem" for finding in findings)
    if as_json:
        print_json({"ok": not problems, "findings": [asdict(finding) for finding in findings]}, indent=2)
    else:
        print_findings(findings)
    return 1 if problems else 0
