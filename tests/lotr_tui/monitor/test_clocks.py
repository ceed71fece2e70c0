"""Jumps of the system clock by hours change no durations, and no age is negative."""

import os
import time
from pathlib import Path
from typing import Any

import pytest

from engine.events import Finished, Snapshot, Step
from engine.training.run import train
from tests.support.files import write_run
from tests.support.training import events_of, make_config, make_dataset

HOUR = 3600.0


def test_durations_of_a_training_are_correct_while_the_clock_jumps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Elapsed time, remaining time, tokens per second and the time of checkpoints use a monotonic clock."""
    plain, jumps = time.time, iter(range(10**9))

    def jumping_time() -> float:
        return plain() + (-1) ** next(jumps) * 5 * HOUR

    monkeypatch.setattr(time, "time", jumping_time)
    started_at = time.perf_counter()
    events = list(train(make_config(epochs=2, checkpoint_seconds=HOUR), make_dataset(tmp_path), "r", lambda: False))
    duration = time.perf_counter() - started_at
    steps = events_of(Step, events)
    assert all(0 < step.seconds <= duration and 0 <= step.eta_seconds < HOUR for step in steps)
    assert [step.seconds for step in steps] == sorted(step.seconds for step in steps)
    assert all(step.tokens_per_second > 0 for step in steps)
    assert events_of(Finished, events)[0].seconds <= duration
    assert not events_of(Snapshot, events)  # an hour has not passed


@pytest.mark.parametrize("jump", [-5 * HOUR, 5 * HOUR, -1e9])
def test_no_age_is_negative_after_a_jump(command: Any, home: Path, jump: float) -> None:
    run = write_run(home / "runs" / "r")
    (run / "resume.safetensors").touch()
    modified_at = time.time() - jump  # as if the clock had jumped since then
    for name in ("config.json", "resume.safetensors"):
        os.utime(run / name, (modified_at, modified_at))
    age = {-5 * HOUR: "0 s", 5 * HOUR: "5 h", -1e9: "0 s"}[jump]
    assert f" {age} " in command("runs").stdout
    assert f"{age} ago" in command("status", "r").stdout
    shown = command("status", "r", "--json")
    assert '"saved_seconds_ago": -' not in shown.stdout
