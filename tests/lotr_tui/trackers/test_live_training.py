"""Trackers that follow a training of the command line, also when it is stopped and resumed."""

import signal
import subprocess
import sys
import time

import pytest

from engine.runs.metrics import read_current_rows
from lotr_tui.trackers.send_state import read_state
from tests.support.small_corpora import write_corpus
from tests.support.tracker_readers import read_tensorboard

OPTIONS = ("--preset", "tiny", "--set", "hidden_size=8", "--set", "embedding_size=8", "--threads", "1")


def recorded_steps(run_dir, event):
    return [row["step"] for row in read_current_rows(run_dir / "metrics.jsonl") if row["event"] == event]


def test_tracker_follows_a_training_that_is_stopped_and_resumed(home, tmp_path, command):
    pytest.importorskip("tensorboard")
    csv = tmp_path / "lines.csv"
    write_corpus(csv, 2000)
    arguments = ["train", "--no-tui", *OPTIONS, "--csv", str(csv), "--epochs", "500", "--run", "r"]
    run_dir = home / "runs" / "r"
    process = subprocess.Popen(
        [sys.executable, "-m", "lotr_tui", *arguments, "--log", "tensorboard"], stdout=subprocess.PIPE, text=True
    )
    for line in process.stdout:
        if "epoch   2" in line:
            break
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    state = read_state(run_dir, "tensorboard")
    assert not state.is_complete
    assert state.last_steps["step"] == recorded_steps(run_dir, "step")[-1]

    resumed = subprocess.Popen([sys.executable, "-m", "lotr_tui", "train", "--no-tui", "--resume", "r"])
    deadline = time.monotonic() + 60
    while recorded_steps(run_dir, "step")[-1] <= state.last_steps["step"] + 50:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert command("stop", "r").returncode == 0
    assert resumed.wait(60) == 0
    stored = read_tensorboard(run_dir)
    assert list(stored.metrics["valid_perplexity"]) == recorded_steps(run_dir, "evaluated")
    assert set(recorded_steps(run_dir, "step")) <= set(stored.metrics["train_perplexity"])
    assert stored.counts["valid_perplexity"] == len(stored.metrics["valid_perplexity"])


def test_console_says_how_to_see_the_run(home, tmp_path, command):
    pytest.importorskip("tensorboard")
    write_corpus(tmp_path / "lines.csv")
    done = command(
        "train", "--no-tui", *OPTIONS, "--csv", "lines.csv", "--epochs", "1", "--run", "r", "--log", "tensorboard"
    )
    assert done.returncode == 0, done.stderr
    assert f"tensorboard: tensorboard --logdir {home / 'runs'}" in done.stderr
    assert read_state(home / "runs" / "r", "tensorboard").is_complete
