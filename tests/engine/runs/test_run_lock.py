"""The lock of a run: one training at a time, even if many processes start at the same moment."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from engine.control import ControlCommand
from engine.errors import RunError
from engine.events import Finished
from engine.runs import locked_run
from engine.runs.control_files import CommandFileReader, send_command
from engine.runs.directory import COMMANDS_FILE, LOCK_FILE, METRICS_FILE, is_locked, lock_owner
from engine.runs.locked_run import create_run, reopen_run
from engine.runs.manage import delete_run, rename_run
from engine.runs.summary import summarize_run
from engine.storage import lock
from engine.storage.lock import FileLock
from tests.support.runs import CONFIG, VOCABULARY, make_events, record_run

PROCESSES = 8
RACE_PROGRAM = """
import os, sys
from pathlib import Path
from engine.errors import RunError
from engine.runs.locked_run import create_run, reopen_run
from tests.support.runs import CONFIG, VOCABULARY
how, folder = sys.argv[1], Path(sys.argv[2])
children = []
gate, open_gate = os.pipe()
for number in range(int(sys.argv[3])):
    child = os.fork()
    if child == 0:
        os.close(open_gate)
        os.read(gate, 1)  # blocks until all processes exist
        try:
            if how == "create":
                run = create_run(CONFIG, VOCABULARY, "r", folder)
            else:
                run = reopen_run(folder / "r")
        except RunError as error:
            os.write(1, f"refused: {error}\\n".encode())
            os._exit(0)
        except BaseException as error:
            os.write(1, f"broke: {error!r}\\n".encode())
            os._exit(1)
        os.write(1, f"won: process {os.getpid()}\\n".encode())
        sys.stdin.read()  # holds the lock until all processes have reported
        os._exit(0)
    children.append(child)
os.close(open_gate)
for child in children:
    os.waitpid(child, 0)
"""


@pytest.mark.parametrize("how", ["create", "reopen"])
def test_one_of_many_simultaneous_processes_gets_the_lock(tmp_path: Path, how: str) -> None:
    if how == "reopen":
        record_run(tmp_path, "r", make_events("stopped"))
    with subprocess.Popen(
        [sys.executable, "-c", RACE_PROGRAM, how, str(tmp_path), str(PROCESSES)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as race:
        assert race.stdout is not None
        assert race.stdin is not None
        lines = [race.stdout.readline() for _ in range(PROCESSES)]
        won = [line for line in lines if line.startswith("won: ")]
        assert len(won) == 1, lines
        holder = won[0].removeprefix("won: ").strip()
        assert lock_owner(tmp_path / "r").startswith(f"{holder} on ")
        assert is_locked(tmp_path / "r")
        if how == "reopen":
            assert all(f"is being trained by {holder} on" in line for line in lines if line not in won), lines
        race.stdin.close()
    assert not is_locked(tmp_path / "r")


def test_a_directory_that_another_process_is_creating_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The directory and the lock exist already, the configuration does not."""
    (tmp_path / "r").mkdir()
    other = FileLock(tmp_path / "r" / LOCK_FILE)
    assert other.acquire()
    other.write_owner("another process")
    text = (tmp_path / "r" / LOCK_FILE).read_text()
    monkeypatch.setattr(locked_run, "LOCK_RETRY_INTERVAL", 0)
    with pytest.raises(RunError, match="'r' exists"):
        create_run(CONFIG, VOCABULARY, "r", tmp_path)
    assert (tmp_path / "r" / LOCK_FILE).read_text() == text
    assert sorted(item.name for item in (tmp_path / "r").iterdir()) == [LOCK_FILE]


def test_a_run_that_finishes_before_the_lock_is_acquired_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = record_run(tmp_path, "r", make_events("stopped"))
    acquire = FileLock.acquire

    def finish_first(lock: FileLock) -> bool:
        with (path / METRICS_FILE).open("a") as metrics:
            metrics.write('{"event": "finished", "reason": "done"}\n')
        return acquire(lock)

    monkeypatch.setattr(FileLock, "acquire", finish_first)
    with pytest.raises(RunError, match="'r' is finished"):
        reopen_run(path)
    assert not is_locked(path)


# --- commands ---------------------------------------------------------------------------------------------------


def test_commands_sent_right_after_the_lock_is_acquired_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = record_run(tmp_path, "r", make_events("stopped"))
    (path / COMMANDS_FILE).write_text('{"kind": "stop", "value": ""}\n')  # sent to an earlier training
    flock, sent = lock.fcntl.flock, []

    def send_at_once(fd: int, operation: int) -> None:
        flock(fd, operation)
        if operation & lock.fcntl.LOCK_EX and not sent:
            sent.append(ControlCommand("checkpoint"))
            send_command(path, sent[0])  # as early as another process could

    monkeypatch.setattr(lock.fcntl, "flock", send_at_once)
    run = reopen_run(path)
    assert sent
    assert CommandFileReader(path, run.commands_offset)() == sent


def test_a_new_run_reads_all_commands(tmp_path: Path) -> None:
    run = create_run(CONFIG, VOCABULARY, "r", tmp_path)
    send_command(run.path, ControlCommand("stop"))
    assert CommandFileReader(run.path, run.commands_offset)() == [ControlCommand("stop")]


# --- lock files with wrong content -----------------------------------------------------------------------------


def test_a_process_named_in_a_stale_lock_file_is_left_alone(tmp_path: Path) -> None:
    """A run is being trained only if its lock is held, whatever process the lock file names."""
    path = record_run(tmp_path, "r", make_events("stopped"))
    with subprocess.Popen(["sleep", "60"]) as other_process:
        (path / LOCK_FILE).write_text(f"process {other_process.pid} on {os.uname().nodename}\n")
        assert not is_locked(path)
        assert summarize_run(path).state == "stopped"
        with pytest.raises(RunError, match="not being trained"):
            send_command(path, ControlCommand("stop"))
        run = reopen_run(path)
        assert f"process {os.getpid()} " in (path / LOCK_FILE).read_text()
        (path / LOCK_FILE).write_text(f"process {other_process.pid} on {os.uname().nodename}\n")
        send_command(path, ControlCommand("stop"))  # through a file, not a signal
        for change_run in (lambda: delete_run(path, tmp_path), lambda: rename_run("r", "s", tmp_path)):
            with pytest.raises(RunError, match="is being trained"):
                change_run()
        run.lock.release()
        assert other_process.poll() is None
        other_process.kill()


@pytest.mark.parametrize("text", ["", "\x00\x1b[31m" * 100, "process -1 on nowhere", "9" * 1000, "\udcff"])
def test_any_content_of_the_lock_file_is_tolerated(tmp_path: Path, text: str) -> None:
    path = record_run(tmp_path, "r", make_events("stopped"))
    (path / LOCK_FILE).write_bytes(text.encode("utf-8", "surrogateescape"))
    assert summarize_run(path).state == "stopped"
    assert lock_owner(path).isprintable()
    reopen_run(path).lock.release()


def test_rows_after_the_finished_row_do_not_change_the_state(tmp_path: Path) -> None:
    path = record_run(tmp_path, "r", [*make_events(None), Finished("done", "r", 2.0, 90.0, 88.0, 5.0)])
    with (path / METRICS_FILE).open("a") as file:
        file.write('{"event": "warned", "message": "no room"}\n{"event": "checkpointed", "step": 1, "file": "x"}\n')
    assert summarize_run(path).state == "finished"
    assert summarize_run(path).test_perplexity == 88.0
