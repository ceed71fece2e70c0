"""Run all steps, each in a process of its own with a time limit, and print a table: see `tests/gpu.sh`."""

import argparse
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from tests.support.files import CHECKOUT
from tests.support.gpu.steps import STEPS, Step

TOTAL_SECONDS = 585.0
"""Time limit of all steps together; the start of this program takes the rest of ten minutes."""
NAME_WIDTH = 14


@dataclass(frozen=True)
class StepResult:
    """Outcome of one step."""

    name: str
    passed: bool
    seconds: float
    lines: tuple[str, ...]
    """What the step measured, or why it failed."""


def step_command(step: Step, folder: Path, device: str, seconds: float) -> list[str]:
    """Return the command that runs a step."""
    return [sys.executable, "-m", "tests.support.gpu.steps", step.name, str(folder), device, f"{seconds:.0f}"]


def run_step(step: Step, folder: Path, device: str, seconds: float) -> StepResult:
    """Run a step in a new process group, which is killed after `seconds`; its output goes to FOLDER/NAME.log."""
    log_path, started = folder / f"{step.name}.log", time.monotonic()
    command = step_command(step, folder, device, seconds)
    environment = os.environ | {"LOTR_TUI_HOME": str(folder / "home")}
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, start_new_session=True
        )
        try:
            exit_code = process.wait(seconds)
        except subprocess.TimeoutExpired:
            exit_code = None
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    elapsed, result_path = time.monotonic() - started, folder / f"{step.name}.result"
    if exit_code == 0:
        return StepResult(step.name, True, elapsed, tuple(result_path.read_text().splitlines()))
    if exit_code is None:
        return StepResult(step.name, False, elapsed, (f"not done after {seconds:.0f} s; see {log_path.name}",))
    output = log_path.read_text(errors="replace").strip().splitlines() or [f"exit code {exit_code}"]
    errors = [line for line in output if line.startswith("lotr-tui: ")] or output
    return StepResult(step.name, False, elapsed, (f"{errors[-1][:300]} (see {log_path.name})",))


def run_steps(steps: list[Step], folder: Path, device: str) -> list[StepResult]:
    """Run steps one after the other, print each result, and write the table into `folder`."""
    deadline, results = time.monotonic() + TOTAL_SECONDS, []
    for step in steps:
        remaining = deadline - time.monotonic()
        seconds = min(step.limit(remaining, device), remaining)
        if seconds < 1:
            result = StepResult(step.name, False, 0.0, ("no time left",))
        else:
            result = run_step(step, folder, device, seconds)
        results.append(result)
        word, (first, *rest) = "ok" if result.passed else "FAILED", result.lines or ("",)
        print(f"{word:<7}{result.seconds:5.0f} s  {result.name:<{NAME_WIDTH}}{first}", flush=True)
        for line in rest:
            print(" " * (16 + NAME_WIDTH) + line, flush=True)
        (folder / "table.md").write_text(to_markdown(results))
    return results


def to_markdown(results: list[StepResult]) -> str:
    """Return the results as a table in Markdown."""
    rows = [
        f"| {result.name} | {'passed' if result.passed else '**failed**'} | {result.seconds:.0f} s | "
        f"{'<br>'.join(line.replace('|', '/') for line in result.lines)} |"
        for result in results
    ]
    return "\n".join(["| step | | time | result |", "| --- | --- | --- | --- |", *rows]) + "\n"


def main() -> int:
    """Read the options, run the steps, and return the exit code."""
    parser = argparse.ArgumentParser(prog="tests/gpu.sh", description="Checks everything that needs a GPU.")
    parser.add_argument("folder", type=Path, help="new or empty folder for logs and results")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu: tiny budgets, to try the steps")
    parser.add_argument("--only", action="append", choices=[step.name for step in STEPS], help="repeatable")
    arguments = parser.parse_args()
    if arguments.device == "cuda" and not torch.cuda.is_available():
        print(f"tests/gpu.sh: PyTorch {torch.__version__} finds no GPU; --device cpu tries the steps", file=sys.stderr)
        return 2
    folder: Path = arguments.folder
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        print(f"tests/gpu.sh: {folder} is not empty; give a new folder", file=sys.stderr)
        return 2
    os.chdir(CHECKOUT)
    started = time.monotonic()
    steps = [step for step in STEPS if not arguments.only or step.name in arguments.only]
    results = run_steps(steps, folder, arguments.device)
    failed = [result.name for result in results if not result.passed]
    outcome = f"{len(failed)} of {len(results)} steps failed: {', '.join(failed)}" if failed else "all steps passed"
    print(f"{outcome}; {time.monotonic() - started:.0f} s; logs and table.md are in {folder}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
