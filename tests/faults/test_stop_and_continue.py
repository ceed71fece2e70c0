"""Test of the short form of the stopped and continued programs."""

import random
import signal
from pathlib import Path

from tests.faults.stop_and_continue import stop_and_continue, terminate_and_continue


def test_session_that_was_stopped_or_terminated_restores_the_terminal(tmp_path: Path) -> None:
    rng = random.Random(1)
    stopped = stop_and_continue("session", tmp_path, signal.SIGSTOP, rng, with_shell=True)
    terminated = terminate_and_continue("session", tmp_path, rng)
    assert not set(stopped.problems + terminated.problems) - {"slow"}  # the machine may be busy
