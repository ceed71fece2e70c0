"""Everything that the checks ask of the machine, so that tests can simulate other machines."""

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from lotr_tui.engine_package import describe_engine_problem

RUN_TIMEOUT = 60.0
"""Seconds that a program may take to answer, such as Python while it imports torch from a network file system."""


@dataclass(frozen=True)
class ProgramOutput:
    """Result of a program that was run."""

    exit_code: int
    """Exit code; negative if a signal ended the program, or it took too long."""
    output: str
    errors: str


@dataclass(frozen=True)
class Environment:
    """The machine, the terminal and the installation that are checked."""

    variables: Mapping[str, str]
    system: str
    """Name of the platform as in `sys.platform`: linux, darwin, win32."""
    machine: str
    """Name, release and processor architecture of the platform, for people."""
    python: str
    streams: tuple[bool, bool, bool]
    """True for each of stdin, stdout and stderr that is a terminal."""
    size: tuple[int, int] | None
    """Columns and rows of the terminal; None if there is none."""
    encoding: str
    """Encoding of standard output."""
    cores: tuple[int, int]
    """Number of cores of the machine, and number of cores that this process may use."""
    user_home: Path
    find_program: Callable[[str], str | None]
    run: Callable[[Sequence[str]], ProgramOutput | None]
    """Run a program and return its output; None if it cannot be started."""
    find_version: Callable[[str], str | None]
    """Return the version of an installed distribution; None if it is not installed."""
    requirements: Sequence[str]
    """Requirements of lotr-tui, as its metadata lists them."""
    engine_problem: str = ""
    """Conflict of the package `engine` with another one, and its remedy; "" if there is none."""

    def shorten(self, path: Path) -> str:
        """Return a path with ~ in place of the home folder, whose name may be the name of a person."""
        with suppress(ValueError):
            return str(Path("~") / path.relative_to(self.user_home))
        return str(path)


def find_version(name: str) -> str | None:
    """Return the version of an installed distribution, without importing it; None if it is not installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def describe_platform() -> str:
    """Return the name of the operating system, its release and the architecture of the processor."""
    return " ".join(filter(None, (platform.system(), platform.release(), platform.machine())))


def this_environment() -> Environment:
    """Return the environment of this process."""
    return Environment(
        variables=os.environ,
        system=sys.platform,
        machine=describe_platform(),
        python=platform.python_version(),
        streams=(sys.stdin.isatty(), sys.stdout.isatty(), sys.stderr.isatty()),
        size=_terminal_size(),
        encoding=sys.stdout.encoding,
        cores=_count_cores(),
        user_home=Path.home(),
        find_program=shutil.which,
        run=_run,
        find_version=find_version,
        requirements=metadata.requires("lotr-tui") or () if find_version("lotr-tui") else (),
        engine_problem=describe_engine_problem(),
    )


def _terminal_size() -> tuple[int, int] | None:
    for stream in (sys.stdout, sys.stderr, sys.stdin):
        with suppress(OSError, ValueError):
            size = os.get_terminal_size(stream.fileno())
            return size.columns, size.lines
    return None


def _count_cores() -> tuple[int, int]:
    total = os.cpu_count() or 1
    return total, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else total


def _run(command: Sequence[str]) -> ProgramOutput | None:
    try:
        process = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=RUN_TIMEOUT, check=False
        )
    except subprocess.TimeoutExpired:
        return ProgramOutput(-1, "", f"no answer within {RUN_TIMEOUT:.0f} s")
    except (OSError, ValueError):
        return None
    return ProgramOutput(
        process.returncode, *(text.decode("utf-8", "replace") for text in (process.stdout, process.stderr))
    )
