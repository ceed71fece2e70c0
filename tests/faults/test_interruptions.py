"""The short form of `python -m tests.faults.interruptions`."""

from pathlib import Path

from tests.faults.interruptions import trials


def test_killed_and_left_without_a_terminal_it_ends_with_the_same_bits(tmp_path: Path) -> None:
    assert len(list(trials(kills=1, closes=1, home=tmp_path, seed=1538))) >= 3
