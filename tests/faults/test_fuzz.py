"""Short form of `python -m tests.faults.fuzz`, and tests of the fuzzer."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.errors import InvalidInputError
from tests.faults import fuzz
from tests.faults.fuzz import PARSERS, Fuzzer
from tests.faults.parsers import Parser
from tests.support.files import CHECKOUT

SLOW_PARSERS = ("resume",)
"""Parsers that import PyTorch; only the long form fuzzes them."""


def test_parsers_return_or_refuse_mutated_files(tmp_path: Path) -> None:
    """Run in another process, whose memory is limited."""
    options = [f"--parser={name}" for name in PARSERS if name not in SLOW_PARSERS]
    command = [sys.executable, "-m", "tests.faults.fuzz", *options, "--inputs=25", "--seed=3", f"--findings={tmp_path}"]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(" 25 inputs, ") == len(options)


@pytest.mark.parametrize("name", [name for name in PARSERS if name != "run-name"])
def test_first_seed_of_a_parser_is_valid(tmp_path: Path, name: str) -> None:
    """Mutations of a file that is refused would not reach the code that parses the fields."""
    parser = PARSERS[name]
    parser.read(parser.seeds[0], tmp_path)


def test_fuzzer_finds_an_error_behind_three_conditions_and_reduces_the_input(tmp_path: Path) -> None:
    """One mutation in hundreds meets a condition; all three are met, since inputs that meet one are kept."""

    def parse(content: bytes, folder: Path) -> None:
        if b"true" in content:  # noqa: SIM102
            if b"null" in content:  # noqa: SIM102
                if b"-1" in content:
                    raise ValueError(content)

    fuzzer = Fuzzer("conditions", Parser(parse, (b"the road goes on",)), tmp_path, seed=1, paths=(__file__,))
    report = fuzzer.run(lambda report: report.inputs < 20_000 and not report.problems, tmp_path / "findings")
    ((path, problem),) = report.problems.values()
    assert problem.kind.startswith("ValueError at test_fuzz.py:")
    content = path.read_bytes()
    assert len(content) == len(b"true") + len(b"null") + len(b"-1")
    assert problem.text.endswith(f"ValueError: {content!r}\n")


@pytest.mark.parametrize(
    ("limit", "value", "parse", "kind"),
    [
        ("MAX_MEGABYTES", -1, lambda: None, "memory"),
        ("CPU_SECONDS", 0.1, lambda: max(10**9 for _ in range(10**9)), "TimeLimitError"),
    ],
)
def test_memory_and_time_over_the_limit_are_problems(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, value: float, parse: Callable[[], object], kind: str
) -> None:
    monkeypatch.setattr(fuzz, limit, value)
    problem = Fuzzer("limits", Parser(lambda content, folder: parse(), ()), tmp_path, 0).find_problem(b"")
    assert problem is not None
    assert problem.kind.startswith(kind)


@pytest.mark.parametrize("message", ["", "x"])
def test_refusal_is_a_problem_only_without_a_message(tmp_path: Path, message: str) -> None:
    def refuse(content: bytes, folder: Path) -> None:
        raise InvalidInputError(message)

    problem = Fuzzer("refusal", Parser(refuse, (b"",)), tmp_path, 0).find_problem(b"")
    assert (problem is None) == bool(message)
