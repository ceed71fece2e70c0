"""Every parser before mutations of valid files; those that reach code not reached before are mutated in turn.

    python -m tests.faults.fuzz --parser all --seconds 60
    python -m tests.faults.fuzz --parser session --input FILE    # what becomes of one that was found

Fine is what returns or is refused by a `LotrError` of one printable line, within 5 s of the processor and 200 MB.
All else is written to a file, as small as it can be made. The suite runs a short form of it.
"""

import argparse
import hashlib
import json
import random
import re
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from engine.errors import MOST_SAID, LotrError
from tests.conftest import CHECKOUT
from tests.faults.hostile_content import NUMBERS, OTHERS, RAW, TEXTS, VALUE, mutated
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
_TOKEN = re.compile(rb'"(?:[^"\\\n]|\\.)*"|[\w.-]+|[^\w\s]')
_HOSTILE = [
    token for token in (*RAW, *(json.dumps(it).encode() for it in (*TEXTS, *NUMBERS, *OTHERS))) if len(token) < 2000
]


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
        self._corpus = list(parser.seeds)
        self._tokens = sorted({token for seed in parser.seeds for token in _TOKEN.findall(seed)})
        of_seeds = {value for seed in parser.seeds for value in VALUE.findall(seed)}
        self._values = [*sorted(of_seeds), *(token for token in _HOSTILE if _is_json(token))]

    def run(self, goes_on: Callable[[Findings], bool], found: Path) -> Findings:
        """Try one input after the other as long as that says so; what is found goes to the folder `found`."""
        findings, began = self.findings, time.perf_counter()
        for content in self._parser.seeds:
            self.read(content, found)
        findings.edges_of_seeds = len(self._edges.found)
        while goes_on(findings):
            # Those of late more often.
            some = self._corpus if self._chance.random() < 0.5 else self._corpus[-20:]
            content = self.mutated(self._chance.choice(some), MOST_BYTES)
            before = len(self._edges.found)
            self.read(content, found)
            if len(self._edges.found) > before:
                self._corpus.append(content)
        findings.seconds = time.perf_counter() - began
        findings.kept, findings.edges, findings.lines = len(self._corpus), len(self._edges.found), self._edges.lines
        return findings

    def problem_of(self, content: bytes) -> Problem | None:
        """Read one input; None where all is well."""
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        try:
            with _time_limit(), self._edges.watched():
                self._parser.read(content, self._folder)
        except LotrError as error:
            self.findings.refused += 1
            if not str(error).isprintable() or not 0 < len(str(error)) <= MOST_SAID:
                return Problem(f"says {_place(error)}", f"says {str(error)!r}")
        except (Exception, TooLong) as error:
            return Problem(f"{type(error).__name__} {_place(error)}", "".join(traceback.format_exception(error)))
        added = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1000
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
        print(
            f"{problem.text}\n  python -m tests.faults.fuzz --parser {self.findings.parser} --input {path}", flush=True
        )

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

    def mutated(self, content: bytes, most: int) -> bytes:
        """An input with something done to it, of so many bytes at most."""
        chance = self._chance
        if content[8:9] == b"{" and chance.random() < 0.8:  # else hardly any header has the length that it claims
            with suppress(LookupError, TypeError, ValueError):  # it is no header any more
                content = mutated(content, self._corpus, chance)
        else:
            for _ in range(chance.choice((1, 1, 1, 2, 4))):
                content = chance.choice(_WAYS)(self, content)
        return content[:most]

    def _flip(self, content: bytes) -> bytes:
        place = self._place_in(content)
        return content[:place] + bytes([self._chance.randrange(256)]) + content[place + 1 :]

    def _cut(self, content: bytes) -> bytes:
        begin, end = self._span(content)
        return content[:begin] + content[end:]

    def _repeat(self, content: bytes) -> bytes:
        begin, end = self._span(content)
        return content[:end] + content[begin:end] * self._chance.choice((1, 1, 2, 70)) + content[end:]

    def _splice(self, content: bytes) -> bytes:
        begin, end = self._span(other := self._chance.choice(self._corpus))
        place = self._place_in(content)
        return (
            content[:place]
            + other[begin:end]
            + content[place if self._chance.random() < 0.5 else place + end - begin :]
        )

    def _put_token(self, content: bytes) -> bytes:
        """A token in the place of another one, or in front of it."""
        places = [match.span() for match in _TOKEN.finditer(content)]
        begin, end = self._chance.choice(places) if places else (0, 0)
        token = self._chance.choice(self._tokens if self._chance.random() < 0.7 else _HOSTILE)
        return content[:begin] + token + content[begin if self._chance.random() < 0.2 else end :]

    def _place_in(self, content: bytes) -> int:
        return self._chance.randrange(len(content) + 1)

    def _span(self, content: bytes) -> tuple[int, int]:
        """Most are short."""
        begin = self._place_in(content)
        return begin, min(len(content), begin + self._chance.choice((1, 2, 4, 16, 64, len(content))))

    def _lines(self, content: bytes) -> bytes:
        """A line left out, said twice, or put elsewhere."""
        lines = content.splitlines(keepends=True) or [content]
        line = lines.pop(self._chance.randrange(len(lines)))
        for _ in range(self._chance.randrange(3)):
            lines.insert(self._chance.randrange(len(lines) + 1), line)
        return b"".join(lines)

    def _put_value(self, content: bytes) -> bytes:
        """A JSON value or name in the place of another one."""
        places = [match.span() for match in VALUE.finditer(content)]
        if not places:
            return self._put_token(content)
        begin, end = self._chance.choice(places)
        return content[:begin] + self._chance.choice(self._values) + content[end:]


_WAYS = (
    Fuzzer._flip, Fuzzer._cut, Fuzzer._repeat, Fuzzer._splice, Fuzzer._lines, Fuzzer._put_token,
    *[Fuzzer._put_value] * 6,
)  # fmt: skip


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


def _is_json(token: bytes) -> bool:
    try:
        json.loads(token)
    except ValueError:
        return False
    return True


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
