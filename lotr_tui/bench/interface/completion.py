"""Time of a key press that completes, with 10,000 runs to complete from."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from engine.runs.directory import CONFIG_FILE
from lotr_tui.bench.measurement import Measurement, SkippedMeasurement, latency_percentile, median_of_runs
from lotr_tui.bench.terminal import BenchError, Terminal
from lotr_tui.completion import COMPLETE
from lotr_tui.completion.shell_scripts import completion_script

NUM_RUNS = 10_000
MAX_MILLISECONDS = 100.0
"""Limit on a key press: a longer one feels slow."""
PRESSES = 8
"""Key presses per repetition."""
WORD_BREAKS = " \t\n\"'@><=;|&(:"
"""Value of `COMP_WORDBREAKS` in bash."""
LINES = {"a preset": "train --preset noteb", "a run": "attach run-0123", "any of the runs": "attach "}
"""Completed word, and the line of the command."""
_COMMANDS = {"bash": ["--norc", "--noprofile", "-i"], "zsh": ["-f", "-i"], "fish": ["--no-config", "-i"]}
_LOAD = {
    "bash": "source {script}",
    "zsh": "autoload -Uz compinit; compinit -u -D; source {script}",
    "fish": "source {script}",
}
_READY = "shell-is-ready"


def measure_completion(repeat: int) -> Iterator[Measurement | SkippedMeasurement]:
    """Measure the command that shells run at a key press, and key presses in the shells that are installed."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        write_runs(home / "runs", NUM_RUNS)
        for what, line in LINES.items():
            times = [_command_seconds(home, line) for _ in range(repeat * PRESSES)]
            yield from _summarize(f"completion of {what}", [elapsed for elapsed, _ in times])
            yield median_of_runs(f"completion of {what}, CPU time", "ms", [1000 * cpu for _, cpu in times])
        for shell in _COMMANDS:
            name = f"tab in {shell} to the run"
            if (program := shutil.which(shell)) is None:
                yield SkippedMeasurement(name, f"{shell} is not installed")
            else:
                yield from _summarize(name, _shell_seconds(shell, program, home, repeat * PRESSES))


def write_runs(folder: Path, number: int) -> None:
    """Write folders that completion takes for runs: `run-00000` and so on, and one called `single`."""
    for name in ["single", *(f"run-{index:05}" for index in range(number - 1))]:
        (folder / name).mkdir(parents=True)
        (folder / name / CONFIG_FILE).touch()


def _summarize(name: str, seconds: list[float]) -> Iterator[Measurement]:
    yield median_of_runs(name, "ms", [1000 * value for value in seconds], MAX_MILLISECONDS)
    yield latency_percentile(name, seconds, MAX_MILLISECONDS)


def _command_seconds(home: Path, line: str) -> tuple[float, float]:
    """Return the elapsed seconds and the CPU time of the command that bash runs at a key press."""
    command = [_program(), COMPLETE, "bash", f"lotr-tui {line}", WORD_BREAKS]
    started = time.perf_counter()
    with subprocess.Popen(command, env=os.environ | {"LOTR_TUI_HOME": str(home)}, stdout=subprocess.DEVNULL) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    elapsed = time.perf_counter() - started
    if process.returncode:
        raise BenchError(f"`lotr-tui {COMPLETE}` failed with exit code {process.returncode}")
    return elapsed, usage.ru_utime + usage.ru_stime


def _shell_seconds(shell: str, program: str, home: Path, number: int) -> list[float]:
    """Return the seconds from pressing tab in a shell until the name of the run is complete on the screen."""
    script = home / f"lotr-tui.{shell}"
    script.write_text(completion_script(shell, _program()))
    terminal = Terminal([program, *_COMMANDS[shell]], 120, 30, home)
    seconds = []
    with terminal.spawn():
        terminal.read_until_quiet(0.5, 10)
        terminal.write(f"{_LOAD[shell].format(script=script)}; echo shell-is-'ready'\r".encode())
        terminal.read_until(_READY)
        for _ in range(number):
            terminal.read_until_quiet(0.2, 5)
            terminal.write(b"lotr-tui attach si")
            terminal.read_until_quiet(0.2, 5)
            seconds.append(terminal.press(b"\t", "ngle"))
            terminal.write(b"\x15")  # empties the line
    return seconds


def _program() -> str:
    """Return the installed program, which shells find in the search path and this one beside Python.

    Raises:
        BenchError: If it is not installed.
    """
    path = shutil.which("lotr-tui", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    if path is None:
        raise BenchError("completion runs the installed program; install it: pip install -e .")
    return path
