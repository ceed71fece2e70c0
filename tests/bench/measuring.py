"""The core of the benchmark: runs in new processes, and figures of several runs.

`python -m tests.bench.measuring MODULE FUNCTION ARGUMENTS`, with a JSON list, prints what a function returns as JSON.
This module and those with groups import no large package at their top, so that the process that measures stays small.
"""

import importlib
import json
import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

CHECKOUT = Path(__file__).resolve().parents[2]


class Skip(Exception):
    """What this machine lacks for a group."""


@dataclass(frozen=True)
class Figure:
    """A measured value, and the runs that it is computed from."""

    name: str
    unit: str
    runs: tuple[float, ...]
    percent: int = 50

    @property
    def value(self):
        """The median of the runs, or the nearest rank of another percentile."""
        if self.percent == 50:
            return statistics.median(self.runs)
        return sorted(self.runs)[max(1, -(-self.percent * len(self.runs) // 100)) - 1]

    def __str__(self):
        spread = f"({min(self.runs):,.4g} to {max(self.runs):,.4g})"
        name = self.name if self.percent == 50 else f"{self.name}, p{self.percent}"
        return f"{self.value:10,.4g} {self.unit:8} {spread:22} {name}"


def milliseconds(name, seconds, percent=50):
    return Figure(name, "ms", tuple(1000 * value for value in seconds), percent)


def alternate(repeat, *functions, warm_up=False):
    """Call functions in turn, so that all see the same load, and return `repeat` results of each.

    The order alternates too. With `warm_up`, a first call of each is not counted: it reads files from the disk.
    """
    results = [[] for _ in functions]
    for number in range(repeat + warm_up):
        order = list(zip(functions, results, strict=True))
        for function, values in order[:: -1 if number % 2 else 1]:
            values.append(function())
    return [values[warm_up:] for values in results]


def compare(name, peer_name, unit, runs, peer_runs):
    """Yield the figures of a candidate and of a peer, and that of their ratio within each round."""
    yield Figure(name, unit, tuple(runs))
    yield Figure(peer_name, unit, tuple(peer_runs))
    ratios = tuple(ours / peer for ours, peer in zip(runs, peer_runs, strict=True))
    yield Figure(f"ratio of {name} to {peer_name}", "", ratios)


def seconds_of(function):
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def tokens_per_second(generate, min_seconds=1.0):
    """Return tokens per second of CPU time, which other processes disturb less; `generate` returns its tokens."""
    generate()
    num_tokens, started = 0, time.process_time()
    while (seconds := time.process_time() - started) < min_seconds or not num_tokens:
        num_tokens += generate()
    return num_tokens / seconds


def run(command, home=None, threads=1, stop_at="", **environment):
    """Run a command, until it has printed a line with `stop_at` if that is given; return its output and usage.

    Linux starts the peak memory of a command at that of this process.
    """
    variables = {name: str(threads) for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}
    variables |= {"LOTR_TUI_HOME": str(home)} if home else {}
    started, lines = time.perf_counter(), []
    command, variables = [*map(str, command)], os.environ | variables | environment
    with subprocess.Popen(command, env=variables, cwd=CHECKOUT, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            lines.append(line)
            if stop_at and stop_at in line:
                process.kill()
                break
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode and not (stop_at and lines and stop_at in lines[-1]):
        raise RuntimeError(f"{' '.join(command[:6])} … ended with exit code {process.returncode}")
    megabytes = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6
    seconds = time.perf_counter() - started
    cpu_seconds = usage.ru_utime + usage.ru_stime
    return SimpleNamespace(output="".join(lines), seconds=seconds, cpu_seconds=cpu_seconds, megabytes=megabytes)


def call(module, function, *arguments, threads=1, home=None):
    """Call a function of a module of this package in a new process, and return its result, and the usage."""
    name = [f"{__package__}.{module}", function, json.dumps(arguments)]
    usage = run([sys.executable, "-m", f"{__package__}.measuring", *name], home, threads)
    return json.loads(usage.output.splitlines()[-1]), usage


def all_cores():
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


if __name__ == "__main__":
    module, name, arguments = sys.argv[1:]
    print(json.dumps(getattr(importlib.import_module(module), name)(*json.loads(arguments))))
