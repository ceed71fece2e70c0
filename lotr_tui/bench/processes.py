"""Commands that run in new processes: their JSON output, CPU time and memory."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from lotr_tui.bench.terminal import BenchError

SINGLE_THREAD_ENV = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
"""Environment variables that keep matrix products on one core."""


def module_command(module: str, *arguments: object) -> list[str]:
    """Return the command that runs a module with arguments."""
    return [sys.executable, "-m", module, *map(str, arguments)]


def run_module(module: str, *arguments: object, env: Mapping[str, str] | None = None) -> Any:
    """Run a module with additional environment variables, and return the JSON value that it prints."""
    command = module_command(module, *arguments)
    process = subprocess.run(command, env=os.environ | dict(env or {}), capture_output=True, text=True)
    if process.returncode:
        raise BenchError(f"python -m {module} failed with exit code {process.returncode}: {process.stderr[-300:]}")
    return json.loads(process.stdout)


@dataclass(frozen=True)
class CommandUsage:
    """CPU time of all threads, maximum resident memory, and standard output of a finished command."""

    cpu_seconds: float
    peak_megabytes: float
    output: str


def run_with_usage(command: Sequence[str], home: Path, stop_at: str = "") -> CommandUsage:
    """Run a command with one thread, and with `home` as `LOTR_TUI_HOME`, and return its resource usage.

    Linux starts the peak memory of a command at the memory of this process, so this process must stay small.

    Args:
        command: The command and its arguments.
        home: Directory of the command's runs and caches.
        stop_at: Text of an output line at which the command is killed; empty to wait for its end.
    """
    lines = []
    env = os.environ | SINGLE_THREAD_ENV | {"LOTR_TUI_HOME": str(home)}
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line)
            if stop_at and stop_at in line:
                process.kill()
                break
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode and not (stop_at and lines and stop_at in lines[-1]):
        raise BenchError(f"{' '.join(command[:5])} … failed with exit code {process.returncode}")
    bytes_per_unit = 1 if sys.platform == "darwin" else 1024
    return CommandUsage(usage.ru_utime + usage.ru_stime, usage.ru_maxrss * bytes_per_unit / 1e6, "".join(lines))


def cpu_seconds(pid: int) -> float:
    """Return user and system time of a running process, summed over its threads."""
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def unique_megabytes(pid: int) -> float:
    """Return the memory that would be freed if a process ended; memory shared with other processes is not counted."""
    return float(psutil.Process(pid).memory_full_info().uss) / 1e6


def peak_megabytes(pid: int) -> float | None:
    """Return the maximum resident memory of a running process since it started; None without `/proc`.

    `getrusage` would include the memory of the process that started it.
    """
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:")), None)
