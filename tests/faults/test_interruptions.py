"""Short form of `python -m tests.faults.interruptions`."""

from pathlib import Path

from tests.faults.interruptions import run_trials


def test_training_ends_bit_exact_after_sigkill_and_without_its_terminal(tmp_path: Path) -> None:
    assert len(list(run_trials(kills=1, closes=1, home=tmp_path, seed=1538))) >= 3
