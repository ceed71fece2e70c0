"""Training by `torchrun -m lotr_tui train`: several processes, one run."""

import json
import signal
import subprocess
from contextlib import contextmanager

import psutil
import pytest

from engine.events import Failed, Resume, Started, Step
from engine.runs.directory import LOCK_FILE, METRICS_FILE, drop_superseded, lock_owner, read_events
from tests.support.commands import wait_until
from tests.support.files import CHECKOUT, TORCHRUN

pytestmark = pytest.mark.slow

TIMEOUT = 120.0  # seconds after which a process counts as hanging
TINY = ("--preset", "tiny", "--set", "embedding_size=16", "--set", "hidden_size=16", "--set", "epochs=100000")


@contextmanager
def two_processes(home, environment, *arguments):
    """Run a training by two processes, and terminate it at the end of the context."""
    with subprocess.Popen(
        [*TORCHRUN, "lotr_tui", "train", *map(str, arguments)],
        cwd=home,
        env=environment(home, PYTHONPATH=str(CHECKOUT)),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.terminate()  # torchrun ends its child processes


def recorded_steps(path):
    return [event.step for event in drop_superseded(read_events(path / METRICS_FILE)) if isinstance(event, Step)]


def test_run_of_two_processes_is_stopped_and_resumed(home, small_csv, command, environment):
    home.mkdir()
    path = home / "runs" / "both"
    with two_processes(home, environment, "--csv", small_csv, "--run", "both", *TINY) as processes:
        wait_until(lambda: len(recorded_steps(path)) > 1)
        status = json.loads(command("status", "both", "--json").stdout)
        assert (status["state"], status["run"]) == ("running", "both")
        stop = command("stop", "both")
        assert (stop.returncode, processes.wait(TIMEOUT)) == (0, 0), stop.stderr
        output = processes.stdout.read()
    assert output.count("run both in") == output.count("stopped after") == 1, "only the main process prints"
    assert [item.name for item in path.parent.iterdir()] == ["both"]
    steps_before = recorded_steps(path)
    assert steps_before == sorted(set(steps_before))
    (started,) = (event for event in drop_superseded(read_events(path / METRICS_FILE)) if isinstance(event, Started))
    assert started.world_size == 2

    single = command("train", "--resume", "both")
    assert single.returncode == 2
    assert single.stderr.strip() == (
        "lotr-tui: run 'both' was trained by 2 processes and cannot be resumed by 1; use "
        "torchrun --nproc-per-node 2 -m lotr_tui train --resume both"
    )

    with two_processes(home, environment, "--resume", "both") as processes:
        wait_until(lambda: len(recorded_steps(path)) > len(steps_before) + 1)
        processes.send_signal(signal.SIGTERM)
        processes.wait(TIMEOUT)
    events = drop_superseded(read_events(path / METRICS_FILE))
    assert [event.step for event in events if isinstance(event, Resume)] == [steps_before[-1] + 1]
    assert events[-1].reason == "stopped"
    assert recorded_steps(path) == sorted(set(recorded_steps(path)))
    assert not lock_owner(path)


def test_other_processes_end_when_one_is_killed(home, small_csv, environment):
    home.mkdir()
    path = home / "runs" / "both"
    with two_processes(home, environment, "--csv", small_csv, "--run", "both", *TINY) as processes:
        wait_until(lambda: len(recorded_steps(path)) > 1)
        writer = int((path / LOCK_FILE).read_text().split()[1])
        (second,) = (child for child in psutil.Process(processes.pid).children() if child.pid != writer)
        second.kill()
        assert processes.wait(TIMEOUT) == 1
        assert "another process of this training has ended" in processes.stdout.read()
    assert not lock_owner(path)
    assert isinstance(drop_superseded(read_events(path / METRICS_FILE))[-1], Failed)
