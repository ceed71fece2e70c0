"""Clocks that jump by hours: only clocks that never go back time anything; ages are never below nothing."""

import ast
import os
import time
from pathlib import Path
from typing import Any

import pytest

import engine
import lotr_tui
from engine.events import Finished, Snapshot, Step
from engine.training.run import train
from tests.conftest import write_run
from tests.support.training import config_of, of, small_dataset

HOUR = 3600.0
OF_DAYS = {
    "engine/data/preparation.py": "how old a corpus in the cache is, half made or used",
    "lotr_tui/cli/reports.py": "the age of a run",
    "lotr_tui/monitor/run_list.py": "the age of a run",
    "lotr_tui/cli/status.py": "how long ago it was saved",
    "lotr_tui/session/session_file.py": "when a session was begun",
}
"""Where the clock on the wall is asked, and what for: a day and time for people to read, or since then."""


def test_the_clock_on_the_wall_is_asked_for_days_alone() -> None:
    asking = set()
    for package in (engine, lotr_tui):
        folder = Path(str(package.__file__)).parent
        for path in folder.rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Attribute) and ast.unparse(node) in ("time.time", "time.time_ns"):
                    asking.add(path.relative_to(folder.parent).as_posix())
    assert asking == set(OF_DAYS)


def test_a_training_is_timed_as_ever_while_the_clock_jumps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Time so far, time left, words a second, and when it is saved."""
    plain, jumps = time.time, iter(range(10**9))

    def jumping() -> float:
        return plain() + (-1) ** next(jumps) * 5 * HOUR

    monkeypatch.setattr(time, "time", jumping)
    began = time.perf_counter()
    events = list(train(config_of(epochs=2, checkpoint_seconds=HOUR), small_dataset(tmp_path), "r", lambda: False))
    took = time.perf_counter() - began
    steps = of(Step, events)
    assert all(0 < step.seconds <= took and 0 <= step.eta_seconds < HOUR for step in steps)
    assert [step.seconds for step in steps] == sorted(step.seconds for step in steps)
    assert all(step.tokens_per_second > 0 for step in steps)
    assert of(Finished, events)[0].seconds <= took
    assert not of(Snapshot, events)  # an hour has not passed


@pytest.mark.parametrize("jump", [-5 * HOUR, 5 * HOUR, -1e9])
def test_ages_after_a_jump(command: Any, home: Path, jump: float) -> None:
    run = write_run(home / "runs" / "r")
    (run / "resume.safetensors").touch()
    then = time.time() - jump  # as if the clock had jumped since
    for name in ("config.json", "resume.safetensors"):
        os.utime(run / name, (then, then))
    age = {-5 * HOUR: "0 s", 5 * HOUR: "5 h", -1e9: "0 s"}[jump]
    assert f" {age} " in command("runs").stdout
    assert f"{age} ago" in command("status", "r").stdout
    shown = command("status", "r", "--json")
    assert '"saved_seconds_ago": -' not in shown.stdout
