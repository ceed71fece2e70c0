"""The short form of `python -m tests.faults.fuzz`."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.errors import UnusableInput
from tests.conftest import CHECKOUT
from tests.faults import fuzz
from tests.faults.fuzz import PARSERS, Fuzzer
from tests.faults.parsers import Parser

LONG_ONLY = ("resume",)
"""It waits for torch."""


def test_parsers_take_or_refuse_whatever_they_are_given(tmp_path: Path) -> None:
    """In a process of its own, whose memory is limited."""
    options = [f"--parser={name}" for name in PARSERS if name not in LONG_ONLY]
    command = [sys.executable, "-m", "tests.faults.fuzz", *options, "--inputs=25", "--seed=3", f"--found={tmp_path}"]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(" 25 inputs, ") == len(options)


def test_what_lies_behind_three_conditions_is_found_and_made_small(tmp_path: Path) -> None:
    """An input meets one of them once in hundreds: all three are met since those that meet one are kept."""

    def breaks(content: bytes, folder: Path) -> None:
        if b"true" in content:  # noqa: SIM102
            if b"null" in content:  # noqa: SIM102
                if b"-1" in content:
                    raise ValueError(content)

    fuzzer = Fuzzer("conditions", Parser(breaks, (b"the road goes on",)), tmp_path, seed=1, code=(__file__,))
    findings = fuzzer.run(lambda findings: findings.inputs < 20_000 and not findings.problems, tmp_path / "found")
    ((path, problem),) = findings.problems.values()
    assert problem.kind.startswith("ValueError at test_fuzz.py:")
    content = path.read_bytes()
    assert len(content) == len(b"true") + len(b"null") + len(b"-1")
    assert problem.text.endswith(f"ValueError: {content!r}\n")


@pytest.mark.parametrize(
    ("limit", "value", "parser", "kind"),
    [
        ("MOST_MB", -1, lambda: None, "memory"),
        ("SECONDS", 0.1, lambda: max(10**9 for _ in range(10**9)), "TooLong"),
    ],
)
def test_an_input_may_take_so_much(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, value: float, parser: Callable[[], object], kind: str
) -> None:
    monkeypatch.setattr(fuzz, limit, value)
    problem = Fuzzer("takes", Parser(lambda content, folder: parser(), ()), tmp_path, 0).problem_of(b"")
    assert problem is not None
    assert problem.kind.startswith(kind)


@pytest.mark.parametrize("said", ["", "x"])
def test_a_refusal_is_no_problem(tmp_path: Path, said: str) -> None:
    def refuses(content: bytes, folder: Path) -> None:
        raise UnusableInput(said)

    problem = Fuzzer("refuses", Parser(refuses, (b"",)), tmp_path, 0).problem_of(b"")
    assert (problem is None) == bool(said)
