"""Every parser before mutations of valid files; those that reach code not reached before are mutated in turn.

    python -m tests.faults.fuzz --parser all --seconds 60
    python -m tests.faults.fuzz --parser session --input FILE    # what becomes of one that was found

Fine is what returns or is refused by a `LotrError` of one printable line, within 5 s of the processor and 200 MB.
All else is written to a file, as small as it can be made. The suite runs a short form of it, and `fuzz_atheris` is the
same with libFuzzer choosing.
"""

import argparse
import hashlib
import random
import resource
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

from engine.errors import MOST_SAID, LotrError
from tests.conftest import CHECKOUT
from tests.faults.mutations import Mutations
from tests.faults.parsers import ENGINE_PARSERS, Parser
from tests.faults.terminal_parsers import TERMINAL_PARSERS

PARSERS = ENGINE_PARSERS | TERMINAL_PARSERS
SECONDS = 5.0
"""Of the processor, for one input."""
MOST_MB = 200
"""That one input may add to the most memory so far."""
ADDRESS_SPACE = 4_000_000_000
"""Beyond what there is at the start."""
MOST_BYTES = 10_000
"""Of an input: what small ones do not reach, `hostile_files` does."""
SMALLER_SECONDS = 5.0
"""For making a finding smaller."""
FOUND = Path(tempfile.gettempdir()) / "lotr-tui-found"
"""Where what is found goes."""
_OURS = (str(CHECKOUT / "engine"), str(CHECKOUT / "lotr_tui"))

Place = tuple[str, int]
"""A file and a line of it."""


class TooLong(BaseException):
    """An input takes more of the processor than it may."""


class Edges:
    """Which lines were run, and after which other ones."""

    def __init__(self, code: tuple[str, ...]) -> None:
        """Of code in these folders or files."""
        self._code = code
        self.found: set[tuple[Place, Place]] = set()
        self._last: Place = ("", 0)

    @property
    def lines(self) -> int:
        """How many were run."""
        return len({line for _, line in self.found})

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Watch what is done in the block."""
        self._last, before = ("", 0), sys.gettrace()
        if self._code:
            sys.settrace(self._called)
        try:
            yield
        finally:
            sys.settrace(before)

    def _called(self, frame: FrameType, event: str, value: Any) -> Callable[..., Any] | None:
        return self._ran if frame.f_code.co_filename.startswith(self._code) else None

    def _ran(self, frame: FrameType, event: str, value: Any) -> Callable[..., Any]:
        if event == "line":
            here = (frame.f_code.co_filename, frame.f_lineno)
            self.found.add((self._last, here))
            self._last = here
        return self._ran


@dataclass(frozen=True)
class Problem:
    """What one input did that it may not."""

    kind: str
    """Those of one kind are one finding: the exception, and where in the package it came from."""
    text: str


@dataclass
class Findings:
    """What came of many inputs of one parser."""

    parser: str
    inputs: int = 0
    refused: int = 0
    seconds: float = 0.0
    kept: int = 0
    edges: int = 0
    edges_of_seeds: int = 0
    lines: int = 0
    problems: dict[str, tuple[Path, Problem]] = field(default_factory=dict)

    def __str__(self) -> str:
        return (
            f"{self.parser}: {self.inputs:,} inputs, {self.inputs / max(self.seconds, 1e-9):,.0f} a second, "
            f"{self.refused:,} refused, {self.kept:,} kept; {self.lines:,} lines, {self.edges:,} edges "
            f"({self.edges_of_seeds:,} by valid files), {len(self.problems)} problems"
        )


class Fuzzer:
    """Makes inputs for one parser."""

    def __init__(self, name: str, parser: Parser, folder: Path, seed: int, code: tuple[str, ...] = _OURS) -> None:
        """Work in `folder`, which is empty; inputs are kept that reach more of `code`."""
        self.findings = Findings(name)
        self._parser, self._folder = parser, folder
        self._chance = random.Random(seed)
        self._edges = Edges(code)
        self.mutations = Mutations(parser.seeds, self._chance)

    def run(self, goes_on: Callable[[Findings], bool], found: Path) -> Findings:
        """Try one input after the other as long as that says so; what is found goes to the folder `found`."""
        findings, corpus, began = self.findings, self.mutations.corpus, time.perf_counter()
        for content in self._parser.seeds:
            self.read(content, found)
        findings.edges_of_seeds = len(self._edges.found)
        while goes_on(findings):
            # Those of late more often.
            some = corpus if self._chance.random() < 0.5 else corpus[-20:]
            content = self.mutations.of(self._chance.choice(some), MOST_BYTES)
            before = len(self._edges.found)
            self.read(content, found)
            if len(self._edges.found) > before:
                corpus.append(content)
        findings.seconds = time.perf_counter() - began
        findings.kept, findings.edges, findings.lines = len(corpus), len(self._edges.found), self._edges.lines
        return findings

    def problem_of(self, content: bytes) -> Problem | None:
        """Read one input; None where all is well."""
        before = _most_memory()
        try:
            with _time_limit(), self._edges.watched():
                self._parser.read(content, self._folder)
        except LotrError as error:
            self.findings.refused += 1
            if not str(error).isprintable() or not 0 < len(str(error)) <= MOST_SAID:
                return Problem(f"says {_place(error)}", f"says {str(error)!r}")
        except (Exception, TooLong) as error:
            return Problem(f"{type(error).__name__} {_place(error)}", "".join(traceback.format_exception(error)))
        added = _most_memory() - before
        return Problem("memory", f"takes {added:.0f} MB") if added > MOST_MB else None

    def read(self, content: bytes, found: Path) -> None:
        """Try one input; what it does that it may not is noted, and the input goes to the folder `found`."""
        problem = self.problem_of(content)
        self.findings.inputs += 1
        if problem is None or problem.kind in self.findings.problems:
            return
        content, problem = self._smaller(content, problem)
        found.mkdir(parents=True, exist_ok=True)
        path = found / f"{self.findings.parser}-{hashlib.sha256(content).hexdigest()[:8]}"
        path.write_bytes(content)
        self.findings.problems[problem.kind] = path, problem
        again = f"python -m tests.faults.fuzz --parser {self.findings.parser} --input {path}"
        print(f"{problem.text}\n  {again}", flush=True)

    def _smaller(self, content: bytes, problem: Problem) -> tuple[bytes, Problem]:
        """The input without what it does the same without."""
        end = time.perf_counter() + SMALLER_SECONDS
        size = len(content) // 2
        while size:
            begin = 0
            while begin < len(content) and time.perf_counter() < end:
                shorter = content[:begin] + content[begin + size :]
                its = self.problem_of(shorter)
                if its is not None and its.kind == problem.kind:
                    content, problem = shorter, its
                else:
                    begin += size
            size //= 2
        return content, problem


@contextmanager
def _time_limit() -> Iterator[None]:
    """Raises: TooLong: the block takes too much of the processor; what others take of it does not count."""

    def end(number: int, frame: FrameType | None) -> None:
        raise TooLong(f"takes over {SECONDS:g} s")

    before = signal.signal(signal.SIGVTALRM, end)
    signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def _most_memory() -> float:
    """MB that this process had at once so far; what `getrusage` tells may be of whoever started it."""
    with open("/proc/self/status", "rb") as status:  # noqa: PTH123 - thousands of times a second
        return int(status.read().partition(b"VmHWM:")[2].split(maxsplit=1)[0]) / 1000


def _place(error: BaseException) -> str:
    """The last line of the package, or of what is fuzzed, that an error came through."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if frame.filename.startswith((*_OURS, str(CHECKOUT / "tests")))]
    return f"at {Path(ours[-1].filename).name}:{ours[-1].lineno}" if ours else "nowhere"


def fuzz(name: str, seed: int, found: Path, goes_on: Callable[[Findings], bool]) -> Findings:
    """Fuzz one parser as long as `goes_on` says; what is found is written to the folder `found`."""
    with tempfile.TemporaryDirectory() as folder:
        return Fuzzer(name, PARSERS[name], Path(folder), seed).run(goes_on, found)


def limit_memory() -> None:
    """Have an input that asks for gigabytes fail, not the machine."""
    there = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (there + ADDRESS_SPACE, there + ADDRESS_SPACE))


def _until(seconds: float, inputs: int) -> Callable[[Findings], bool]:
    end = time.monotonic() + seconds
    return lambda findings: findings.inputs < inputs if inputs else time.monotonic() < end


def main() -> None:
    """The long form."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parser", action="append", choices=["all", *PARSERS], help="all, if none is named")
    parser.add_argument("--seconds", type=float, default=60, help="for each parser")
    parser.add_argument("--inputs", type=int, default=0, help="so many for each parser instead: the same every time")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--found", type=Path, default=FOUND)
    parser.add_argument("--input", type=Path, help="read this one alone")
    options = parser.parse_args()
    limit_memory()
    names = [*PARSERS] if not options.parser or "all" in options.parser else options.parser
    if options.input:
        with tempfile.TemporaryDirectory() as folder:
            for name in names:
                problem = Fuzzer(name, PARSERS[name], Path(folder), 0).problem_of(options.input.read_bytes())
                print(f"{name}: {problem.text if problem else 'fine'}")
        return
    broken = False
    for name in names:
        findings = fuzz(name, options.seed, options.found, _until(options.seconds, options.inputs))
        print(findings, flush=True)
        broken = broken or bool(findings.problems)
    sys.exit(1 if broken else 0)


if __name__ == "__main__":
    main()
