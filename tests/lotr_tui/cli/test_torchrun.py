"""`torchrun -m lotr_tui train`: one run, written by one process, steered and gone on with as any other."""

import json
import signal
import subprocess
import time
from contextlib import contextmanager

import psutil
import pytest

from engine.runs.metrics import current_rows
from engine.runs.store import LOCK, LOG, METRICS, is_written
from engine.runtime.process import torchrun
from tests.conftest import CHECKOUT

SECONDS = 120.0
"""After which something counts as hanging."""
TINY = ("--preset", "tiny", "--set", "embedding_size=16", "--set", "hidden_size=16", "--set", "epochs=100000")


@contextmanager
def several(home, environment, *arguments):
    """Two processes that train; stopped the hard way if they still do at the end."""
    with subprocess.Popen(
        [*torchrun(2), "lotr_tui", "train", *map(str, arguments)],
        cwd=home,
        env=environment(home, PYTHONPATH=str(CHECKOUT)),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.terminate()  # torchrun ends those that it started


def place_of(processes):
    """What torchrun tells the first of so many."""
    return {"RANK": "0", "WORLD_SIZE": str(processes), "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": str(processes)}


def wait_until(true):
    """Wait for what another process does."""
    deadline = time.monotonic() + SECONDS
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def steps(path):
    """Those that the record tells of."""
    rows = current_rows(path / METRICS) if (path / METRICS).exists() else []
    return [row["step"] for row in rows if row["event"] == "step"]


def test_one_run_that_is_steered_and_gone_on_with(home, small_csv, command, environment):
    home.mkdir()
    path = home / "runs" / "both"
    with several(home, environment, "--csv", small_csv, "--run", "both", *TINY) as processes:
        wait_until(lambda: len(steps(path)) > 1)
        status = json.loads(command("status", "both", "--json").stdout)
        assert (status["state"], status["run"]) == ("running", "both")
        stop = command("stop", "both")
        assert (stop.returncode, processes.wait(SECONDS)) == (0, 0), stop.stderr
        printed = processes.stdout.read()
    assert printed.count("run both in") == printed.count("stopped after") == 1, "the first process alone prints"
    assert [item.name for item in path.parent.iterdir()] == ["both"]
    first = steps(path)
    assert first == sorted(set(first))
    (started,) = (row for row in current_rows(path / METRICS) if row["event"] == "started")
    assert started["processes"] == 2

    alone = command("train", "--resume", "both")
    assert alone.returncode == 2
    assert alone.stderr.strip() == (
        "lotr-tui: run 'both' was trained by 2 processes and is gone on with by as many, not by 1: "
        "torchrun --nproc-per-node 2 -m lotr_tui train --resume both"
    )

    three = command("train", "--resume", "both", **place_of(3))
    assert three.returncode == 2
    assert "by 2 processes and is gone on with by as many, not by 3" in three.stderr

    with several(home, environment, "--resume", "both") as processes:
        wait_until(lambda: len(steps(path)) > len(first) + 1)
        processes.send_signal(signal.SIGTERM)
        processes.wait(SECONDS)
    rows = current_rows(path / METRICS)
    assert [row["step"] for row in rows if row["event"] == "resume"] == [first[-1] + 1]
    assert rows[-1]["reason"] == "stopped", (path / LOG).read_text()
    assert steps(path) == sorted(set(steps(path)))
    assert not is_written(path)


@pytest.mark.parametrize(("columns", "good"), [(20, "18 or 21"), (2, "3")])
def test_columns_that_cannot_be_shared_are_refused(command, small_csv, columns, good):
    refused = command("train", "--csv", small_csv, "--set", f"batch_size={columns}", **place_of(3))
    assert refused.returncode == 2
    assert refused.stderr == (
        f"lotr-tui: batch_size={columns}: 3 processes cannot share so many columns evenly; "
        f"use --set batch_size={good}\n"
    )


def test_when_one_process_is_killed_the_others_end(home, small_csv, environment):
    home.mkdir()
    path = home / "runs" / "both"
    with several(home, environment, "--csv", small_csv, "--run", "both", *TINY) as processes:
        wait_until(lambda: len(steps(path)) > 1)
        writer = int((path / LOCK).read_text().split()[1])
        (second,) = (child for child in psutil.Process(processes.pid).children() if child.pid != writer)
        second.kill()
        assert processes.wait(SECONDS) == 1
        assert "another process of this training has ended" in processes.stdout.read()
    assert not is_written(path)
    assert current_rows(path / METRICS)[-1]["event"] == "failed"
