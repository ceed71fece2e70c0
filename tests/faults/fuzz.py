"""Coverage-guided fuzzing of every parser: mutated inputs that reach new code are kept and mutated again.

    python -m tests.faults.fuzz --parser all --seconds 60
    python -m tests.faults.fuzz --parser session --input FILE    # reproduce a finding

A parser must return, or raise a `LotrError` with one printable line, within 5 s of processor time and 200 MB. Any other
input is written to a file, reduced to the smallest size that shows the same problem. The test suite runs a short form,
and `fuzz_atheris` does the same with libFuzzer.
"""

import argparse
import hashlib
import random
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from engine.errors import MAX_MESSAGE_LENGTH, LotrError
from tests.faults.fork_runner import limit_address_space
from tests.faults.mutations import Mutator
from tests.faults.parsers import ENGINE_PARSERS, Parser
from tests.faults.terminal_parsers import TERMINAL_PARSERS
from tests.support.files import CHECKOUT

PARSERS = ENGINE_PARSERS | TERMINAL_PARSERS
CPU_SECONDS = 5.0
"""Maximum processor time for one input."""
MAX_MEGABYTES = 200
"""Maximum memory that one input may add to the peak of this process."""
MAX_INPUT_BYTES = 10_000
"""Maximum size of an input; `hostile_files` tests larger ones."""
REDUCTION_SECONDS = 5.0
"""Maximum time to reduce an input that shows a problem."""
NUM_RECENT_INPUTS = 20
"""Inputs that reached new code last, which are mutated more often than the others."""
FINDINGS_DIR = Path(tempfile.gettempdir()) / "lotr-tui-findings"
PACKAGES = (str(CHECKOUT / "engine"), str(CHECKOUT / "lotr_tui"))

SourceLine = tuple[str, int]
"""File name and line number."""


class TimeLimitError(BaseException):
    """An input takes too much processor time. No `except Exception` of a parser catches this."""


class EdgeCoverage:
    """Edges of the control flow that have been run: pairs of source lines, one run directly after the other."""

    def __init__(self, paths: tuple[str, ...]) -> None:
        """Record the code of these folders or files."""
        self._paths = paths
        self.edges: set[tuple[SourceLine, SourceLine]] = set()
        self._last: SourceLine = ("", 0)

    @property
    def num_lines(self) -> int:
        """Number of lines that have been run."""
        return len({line for _, line in self.edges})

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Record the code that is run in the context."""
        self._last, previous_trace = ("", 0), sys.gettrace()
        if self._paths:
            sys.settrace(self._trace_call)
        try:
            yield
        finally:
            sys.settrace(previous_trace)

    def _trace_call(self, frame: FrameType, event: str, arg: Any) -> Callable[..., Any] | None:
        return self._trace_line if frame.f_code.co_filename.startswith(self._paths) else None

    def _trace_line(self, frame: FrameType, event: str, arg: Any) -> Callable[..., Any]:
        if event == "line":
            line = (frame.f_code.co_filename, frame.f_lineno)
            self.edges.add((self._last, line))
            self._last = line
        return self._trace_line


@dataclass(frozen=True)
class Problem:
    """Violation of the rules by a parser."""

    kind: str
    """Type of the exception and the line that raised it. Problems of one kind are one finding."""
    text: str


@dataclass
class FuzzReport:
    """Statistics and findings of one parser."""

    parser: str
    inputs: int = 0
    refused: int = 0
    seconds: float = 0.0
    corpus_size: int = 0
    edges: int = 0
    edges_of_seeds: int = 0
    lines: int = 0
    problems: dict[str, tuple[Path, Problem]] = field(default_factory=dict)
    """File with the reduced input, and the problem, by kind."""

    def __str__(self) -> str:
        return (
            f"{self.parser}: {self.inputs:,} inputs, {self.inputs / max(self.seconds, 1e-9):,.0f} a second, "
            f"{self.refused:,} refused, {self.corpus_size:,} kept; {self.lines:,} lines, {self.edges:,} edges "
            f"({self.edges_of_seeds:,} by valid files), {len(self.problems)} problems"
        )


class Fuzzer:
    """Fuzzer of one parser."""

    def __init__(self, name: str, parser: Parser, folder: Path, seed: int, paths: tuple[str, ...] = PACKAGES) -> None:
        """Prepare to fuzz a parser.

        Args:
            name: Name of the parser, for the report.
            parser: The parser and its seeds.
            folder: Empty folder for the files that the parser reads.
            seed: Seed of the mutations.
            paths: Folders or files of the code whose coverage decides which inputs are kept.
        """
        self.report = FuzzReport(name)
        self._parser, self._folder = parser, folder
        self._rng = random.Random(seed)
        self._coverage = EdgeCoverage(paths)
        self.mutator = Mutator(parser.seeds, MAX_INPUT_BYTES)

    def run(self, should_continue: Callable[[FuzzReport], bool], findings_dir: Path) -> FuzzReport:
        """Try inputs while `should_continue` returns True, and write the findings to a folder."""
        report, corpus, start_time = self.report, self.mutator.corpus, time.perf_counter()
        for content in self._parser.seeds:
            self.try_input(content, findings_dir)
        report.edges_of_seeds = len(self._coverage.edges)
        while should_continue(report):
            candidates = corpus if self._rng.random() < 0.5 else corpus[-NUM_RECENT_INPUTS:]
            content = self.mutator.mutate(self._rng.choice(candidates), self._rng)
            num_edges = len(self._coverage.edges)
            self.try_input(content, findings_dir)
            if len(self._coverage.edges) > num_edges:
                corpus.append(content)
        report.seconds = time.perf_counter() - start_time
        report.corpus_size, report.edges = len(corpus), len(self._coverage.edges)
        report.lines = self._coverage.num_lines
        return report

    def find_problem(self, content: bytes) -> Problem | None:
        """Parse one input, and return the violation of the rules, if there is one."""
        megabytes_before = _peak_megabytes()
        try:
            with _cpu_time_limit(), self._coverage.recording():
                self._parser.read(content, self._folder)
        except LotrError as error:
            self.report.refused += 1
            if not str(error).isprintable() or not 0 < len(str(error)) <= MAX_MESSAGE_LENGTH:
                return Problem(f"message {_source_of(error)}", f"unsuitable message {str(error)!r}")
        except (Exception, TimeLimitError) as error:
            return Problem(f"{type(error).__name__} {_source_of(error)}", "".join(traceback.format_exception(error)))
        added = _peak_megabytes() - megabytes_before
        return Problem("memory", f"takes {added:.0f} MB") if added > MAX_MEGABYTES else None

    def try_input(self, content: bytes, findings_dir: Path) -> None:
        """Parse one input. If it shows a new problem, reduce it, write it to a folder, and print the problem."""
        problem = self.find_problem(content)
        self.report.inputs += 1
        if problem is None or problem.kind in self.report.problems:
            return
        content, problem = self._reduce(content, problem)
        findings_dir.mkdir(parents=True, exist_ok=True)
        path = findings_dir / f"{self.report.parser}-{hashlib.sha256(content).hexdigest()[:8]}"
        path.write_bytes(content)
        self.report.problems[problem.kind] = path, problem
        command = f"python -m tests.faults.fuzz --parser {self.report.parser} --input {path}"
        print(f"{problem.text}\n  {command}", flush=True)

    def _reduce(self, content: bytes, problem: Problem) -> tuple[bytes, Problem]:
        """Remove parts of an input as long as the kind of the problem stays the same."""
        end = time.perf_counter() + REDUCTION_SECONDS
        size = len(content) // 2
        while size:
            start = 0
            while start < len(content) and time.perf_counter() < end:
                shorter = content[:start] + content[start + size :]
                shorter_problem = self.find_problem(shorter)
                if shorter_problem is not None and shorter_problem.kind == problem.kind:
                    content, problem = shorter, shorter_problem
                else:
                    start += size
            size //= 2
        return content, problem


@contextmanager
def _cpu_time_limit() -> Iterator[None]:
    """Limit the processor time of the context.

    Raises:
        TimeLimitError: If the context takes more than `CPU_SECONDS`.
    """

    def raise_error(number: int, frame: FrameType | None) -> None:
        raise TimeLimitError(f"takes over {CPU_SECONDS:g} s")

    previous_handler = signal.signal(signal.SIGVTALRM, raise_error)
    signal.setitimer(signal.ITIMER_VIRTUAL, CPU_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, previous_handler)


def _peak_megabytes() -> float:
    """Return the peak memory of this process. The value of `getrusage` would include the parent before exec."""
    with open("/proc/self/status", "rb") as status:  # noqa: PTH123 - called thousands of times a second
        return int(status.read().partition(b"VmHWM:")[2].split(maxsplit=1)[0]) / 1000


def _source_of(error: BaseException) -> str:
    """Return the last line of the program or the tests in the traceback of an error."""
    frames = traceback.extract_tb(error.__traceback__)
    frames_here = [frame for frame in frames if frame.filename.startswith((*PACKAGES, str(CHECKOUT / "tests")))]
    return f"at {Path(frames_here[-1].filename).name}:{frames_here[-1].lineno}" if frames_here else "elsewhere"


def _until(seconds: float, inputs: int) -> Callable[[FuzzReport], bool]:
    end = time.monotonic() + seconds
    return lambda report: report.inputs < inputs if inputs else time.monotonic() < end


def main() -> None:
    """Run the long form."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parser", action="append", choices=["all", *PARSERS], help="default: all")
    parser.add_argument("--seconds", type=float, default=60, help="time for each parser")
    parser.add_argument("--inputs", type=int, default=0, help="number of inputs for each parser, in place of --seconds")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--findings", type=Path, default=FINDINGS_DIR, help="folder for inputs that show a problem")
    parser.add_argument("--input", type=Path, help="parse this file only")
    options = parser.parse_args()
    limit_address_space()
    names = [*PARSERS] if not options.parser or "all" in options.parser else options.parser
    has_problems = False
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            fuzzer = Fuzzer(name, PARSERS[name], Path(folder), options.seed)
            if options.input:
                problem = fuzzer.find_problem(options.input.read_bytes())
                print(f"{name}: {problem.text if problem else 'no problem'}")
                continue
            report = fuzzer.run(_until(options.seconds, options.inputs), options.findings)
            print(report, flush=True)
            has_problems = has_problems or bool(report.problems)
    sys.exit(1 if has_problems else 0)


if __name__ == "__main__":
    main()
