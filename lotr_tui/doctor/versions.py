"""Versions that matter for a bug report, found without importing the packages."""

from collections.abc import Callable

from lotr_tui.doctor.environment import Environment
from lotr_tui.doctor.finding import Finding

PACKAGES = ("textual", "numpy", "torch")
NOT_INSTALLED = "not installed"


def list_versions(python: str, machine: str, find_version: Callable[[str], str | None]) -> dict[str, str]:
    """Return the versions of lotr-tui, Python and the packages that matter, and the platform."""
    return {
        "lotr-tui": find_version("lotr-tui") or NOT_INSTALLED,
        "Python": python,
        **{name: find_version(name) or NOT_INSTALLED for name in PACKAGES},
        "platform": machine,
    }


def check_versions(environment: Environment) -> list[Finding]:
    """Report the versions, and an installation without metadata; numpy and torch have checks of their own."""
    versions = list_versions(environment.python, environment.machine, environment.find_version)
    summary = ", ".join(
        [*(f"{name} {versions[name]}" for name in ("lotr-tui", "Python", "textual")), environment.machine]
    )
    if environment.system == "win32":
        return [Finding("versions", "problem", summary, "Windows is not supported; use WSL")]
    if environment.engine_problem:
        problem, _, advice = environment.engine_problem.partition("; ")
        return [Finding("versions", "problem", f"{summary}; {problem}", advice)]
    if versions["lotr-tui"] == NOT_INSTALLED:
        advice = "run from source files; `pip install -e .` records version and extras"
        return [Finding("versions", "warning", summary, advice)]
    return [Finding("versions", "ok", summary)]
