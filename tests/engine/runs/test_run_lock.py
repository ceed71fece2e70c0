"""The lock of a run, commands to the process that holds it, deletion, and files in the way of a writer."""

import json
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from engine.control import CommandQueue, ControlCommand
from engine.data.tokenizers.loading import VOCABULARY_FILE
from engine.errors import InvalidInputError, RunError
from engine.runs import manage
from engine.runs.control_files import CommandFileReader, send_command
from engine.runs.directory import (
    COMMANDS_FILE,
    EPOCHS_DIR,
    LOCK_FILE,
    LOG_FILE,
    METRICS_FILE,
    MODEL_FILE,
    SAMPLES_FILE,
    is_locked,
    lock_owner,
)
from engine.runs.locked_run import create_run, reopen_run
from engine.runs.manage import delete_run, rename_run
from engine.runs.summary import is_finished, summarize_run
from engine.runs.writer import record_events
from engine.storage import lock
from engine.storage.lock import FileLock
from tests.support.file_limits import no_file_longer_than
from tests.support.metrics import make_step
from tests.support.runs import CONFIG, CONFIG_WITH_EPOCHS, VOCABULARY, make_events, record_run, record_three_runs


def new_run(folder, name="r", config=CONFIG):
    return create_run(config, VOCABULARY, name, folder)


@pytest.fixture
def stopped(tmp_path):
    return record_run(tmp_path, "r", make_events("stopped"))


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


PROGRAM = """
import sys, time, pathlib
from engine.runs.locked_run import reopen_run
run = reopen_run(pathlib.Path(sys.argv[1]))
print("held", flush=True)
time.sleep(60)
"""


def test_a_run_is_running_while_another_process_holds_it_and_crashed_after_sigkill(tmp_path):
    path = record_run(tmp_path, "r", make_events(None))
    with subprocess.Popen([sys.executable, "-c", PROGRAM, str(path)], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "held\n"
        for _ in range(3):  # reading the state does not take the lock
            assert summarize_run(path).state == "running"
        message = rf"'r' is being trained by process {other.pid} on .*; `lotr-tui attach {path}` shows it"
        with pytest.raises(RunError, match=message):
            reopen_run(path)
        for change in (lambda: delete_run(path, tmp_path), lambda: rename_run("r", "s", tmp_path)):
            with pytest.raises(RunError, match="is being trained"):
                change()
        other.send_signal(signal.SIGKILL)
    assert summarize_run(path).state == "crashed"
    reopen_run(path).lock.release()


@pytest.mark.parametrize(
    ("rows", "state"),
    [
        ([], "crashed"),
        ([{"event": "evaluated"}], "crashed"),
        ([{"event": "finished", "reason": "done"}], "finished"),
        ([{"event": "finished"}], "finished"),
        ([{"event": "finished", "reason": "stopped"}], "stopped"),
        ([{"event": "finished", "reason": "detached"}], "stopped"),
        ([{"event": "finished", "reason": "pruned"}], "pruned"),
        ([{"event": "failed"}], "failed"),
        ([{"event": "failed"}, {"event": "evaluated"}], "crashed"),
        ([{"event": "finished", "test_perplexity": 8.0}, {"event": "warned"}, {"event": "checkpointed"}], "finished"),
        ([{"event": "checkpointed"}, {"event": "failed"}, {"event": "checkpointed"}, {"event": "warned"}], "failed"),
    ],
)
def test_the_state_depends_on_the_last_row_about_the_training(tmp_path, rows, state):
    run = new_run(tmp_path)
    (run.path / METRICS_FILE).write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert summarize_run(run.path).state == "running"
    run.lock.release()
    summary = summarize_run(run.path)
    assert (summary.state, summary.test_perplexity) == (state, rows[0].get("test_perplexity") if rows else None)
    assert is_finished(run.path) == (state in ("finished", "pruned"))
    if is_finished(run.path):
        with pytest.raises(RunError, match="'r' is finished; start a new one"):
            reopen_run(run.path)
    else:
        reopen_run(run.path).lock.release()


RACE_PROGRAM = """
import os, sys
from pathlib import Path
from engine.errors import RunError
from engine.runs.locked_run import create_run, reopen_run
from tests.support.runs import CONFIG, VOCABULARY
how, folder = sys.argv[1], Path(sys.argv[2])
children = []
gate, open_gate = os.pipe()
for number in range(8):
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
def test_one_of_many_simultaneous_processes_gets_the_lock(tmp_path, how):
    if how == "reopen":
        record_run(tmp_path, "r", make_events("stopped"))
    command = [sys.executable, "-c", RACE_PROGRAM, how, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as race:
        lines = [race.stdout.readline() for _ in range(8)]
        won = [line for line in lines if line.startswith("won: ")]
        assert len(won) == 1, lines
        assert len([line for line in lines if line.startswith("refused: ")]) == 7, lines
        holder = won[0].removeprefix("won: ").strip()
        assert lock_owner(tmp_path / "r").startswith(f"{holder} on ")
        assert is_locked(tmp_path / "r")
        race.stdin.close()
    assert not is_locked(tmp_path / "r")


def test_a_run_that_finishes_before_the_lock_is_acquired_is_refused(stopped, monkeypatch):
    acquire = FileLock.acquire

    def finish_first(lock):
        with (stopped / METRICS_FILE).open("a") as file:
            file.write('{"event": "finished", "reason": "done"}\n')
        return acquire(lock)

    monkeypatch.setattr(FileLock, "acquire", finish_first)
    with pytest.raises(RunError, match="'r' is finished"):
        reopen_run(stopped)
    assert not is_locked(stopped)


@pytest.mark.parametrize(
    ("text", "owner"),
    [
        (b"", ""),
        (b"process 7 on moria\n", "process 7 on moria"),
        ("Náin \x1b".encode() + b"\xff" + b"x" * 1000, "Náin " + 2 * "\N{REPLACEMENT CHARACTER}" + 93 * "x"),
    ],
)
def test_a_lock_file_that_no_process_holds_is_only_a_text(stopped, text, owner):
    """A run is being trained only if its lock is held, whatever process the lock file names."""
    (stopped / LOCK_FILE).write_bytes(text)
    assert lock_owner(stopped) == owner  # at most 100 printable characters
    assert summarize_run(stopped).state == "stopped"
    with pytest.raises(RunError, match="'r' is not being trained, so there is nothing to stop"):
        send_command(stopped, ControlCommand("stop"))
    assert not (stopped / COMMANDS_FILE).exists()
    run = reopen_run(stopped)
    assert f"process {os.getpid()} " in (stopped / LOCK_FILE).read_text()
    run.lock.release()


def test_commands_arrive_once_and_in_order(stopped, monkeypatch):
    (stopped / COMMANDS_FILE).write_text('{"kind": "stop", "value": ""}\n')  # sent to an earlier training
    commands = [ControlCommand("checkpoint"), ControlCommand("prompt", "the road"), ControlCommand("lr", "0.5")]
    flock, sent = lock.fcntl.flock, []

    def send_at_once(fd, operation):
        flock(fd, operation)
        if operation & lock.fcntl.LOCK_EX and not sent:
            sent.append(commands[0])
            send_command(stopped, commands[0])  # as early as another process could

    monkeypatch.setattr(lock.fcntl, "flock", send_at_once)
    run = reopen_run(stopped)
    for command in commands[1:]:
        send_command(stopped, command)
    queue = CommandQueue([CommandFileReader(run.path, run.commands_offset)])
    queue.send(ControlCommand("pause"))
    assert queue.drain() == [ControlCommand("pause"), *commands]
    assert queue.drain() == []


def test_invalid_commands_are_skipped(tmp_path):
    read_commands = CommandFileReader(tmp_path)
    (tmp_path / COMMANDS_FILE).mkdir()
    assert read_commands() == []
    (tmp_path / COMMANDS_FILE).rmdir()
    lines = [
        "[" * 100_000,
        "{}",
        '{"kind": "rm", "value": "-rf"}',
        '{"kind": "lr", "value": "2"}',
        "\x00",
        '{"kind": 3}',
    ]
    rows = [*lines, json.dumps({"kind": "stop", "value": ""})]
    (tmp_path / COMMANDS_FILE).write_text("\n".join(rows) + '\n{"kind": "pau')
    assert read_commands() + read_commands() == [ControlCommand("stop")]
    with (tmp_path / COMMANDS_FILE).open("a") as file:
        file.write('se", "value": ""}\n')
    assert read_commands() == [ControlCommand("pause")]


@pytest.mark.parametrize(
    ("kind", "value"),
    [("pause", "\x1b]0;title\x07"), ("stop", "\x1b[2J"), ("lr", "0.5\x1c"), ("lr", "\x850.5"), ("prompt", "\u202e")],
)
def test_a_command_with_control_characters_is_refused_and_ignored(tmp_path, kind, value):
    """Commands are printed and recorded."""
    with pytest.raises(InvalidInputError):
        ControlCommand(kind, value)
    (tmp_path / COMMANDS_FILE).write_text(json.dumps({"kind": kind, "value": value}) + "\n")
    assert CommandFileReader(tmp_path)() == []


def test_a_command_on_a_full_disk_does_not_damage_the_next_one(stopped):
    run = reopen_run(stopped)
    with no_file_longer_than(20), pytest.raises(RunError, match=r"cannot write .*commands\.jsonl: File too large"):
        send_command(stopped, ControlCommand("prompt", "the road"))
    send_command(stopped, ControlCommand("stop"))
    assert CommandFileReader(stopped)() == [ControlCommand("stop")]
    run.lock.release()


def test_a_run_is_deleted_and_nothing_else(tmp_path):
    first, second, _ = record_three_runs(tmp_path)
    delete_run(first, tmp_path)
    assert not first.exists()
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").write_text("mine")
    for path, folder in ((tmp_path / "precious", tmp_path), (second, tmp_path / "precious")):
        with pytest.raises(RunError):
            delete_run(path, folder)
        assert path.exists()


def test_the_lock_is_held_while_a_run_is_deleted_or_renamed_and_a_failure_changes_nothing(tmp_path, monkeypatch):
    first, _, _ = record_three_runs(tmp_path)
    locked = []

    def refuse(*_):
        locked.append(is_locked(first))
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(manage.shutil, "rmtree", refuse)
    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(RunError, match=f"{first.name} cannot be deleted: Permission denied"):
        delete_run(first, tmp_path)
    with pytest.raises(RunError, match=f"{first.name}' cannot be renamed: Permission denied"):
        rename_run(first.name, "other", tmp_path)
    assert locked == [True, True]
    assert not is_locked(first)
    assert (first / MODEL_FILE).is_file()


def test_a_missing_epochs_folder_is_created_and_a_file_or_a_link_in_its_place_refused(tmp_path):
    path = new_run(tmp_path, config=CONFIG_WITH_EPOCHS).path
    epochs, outside = path / EPOCHS_DIR, tmp_path / "outside"
    FileLock(path / LOCK_FILE).release()
    epochs.rmdir()
    reopen_run(path).lock.release()
    assert epochs.is_dir()
    (epochs / ".2.safetensors.x7").write_bytes(b"hal")  # of a killed process
    reopen_run(path).lock.release()
    assert list(epochs.iterdir()) == []
    epochs.rmdir()
    epochs.touch()
    with pytest.raises(RunError, match="cannot be written"):
        reopen_run(path)
    epochs.unlink()
    outside.mkdir()
    (outside / ".1.safetensors.other").write_text("precious")
    epochs.symlink_to(outside)
    with pytest.raises(RunError, match="epochs is a link out of the run"):
        reopen_run(path)
    assert (outside / ".1.safetensors.other").read_text() == "precious"
    assert not is_locked(path)


PIPE_NAMES = [VOCABULARY_FILE, METRICS_FILE, SAMPLES_FILE, LOG_FILE, MODEL_FILE, LOCK_FILE, COMMANDS_FILE]
READ_ALL_PROGRAM = """
import signal, sys
from pathlib import Path
from engine.control import ControlCommand
from engine.errors import RunError
from engine.runs.control_files import send_command
from engine.runs.directory import lock_owner
from engine.runs.loading import load_model
from engine.runs.locked_run import reopen_run
from engine.runs.summary import summarize_run
from engine.runs.writer import record_events
record = lambda path: list(record_events(reopen_run(path), iter([])))
readers = [summarize_run, lock_owner, load_model, reopen_run, record]
signal.alarm(30)
for path in map(Path, sys.argv[1:]):
    for reader in (*readers, lambda path: send_command(path, ControlCommand("stop"))):
        try:
            reader(path)
        except RunError as error:
            print(error)
"""


def test_a_pipe_in_place_of_a_file_blocks_no_reader(tmp_path):
    """The readers run in a process that is killed if one of them blocks."""
    paths = []
    for index, name in enumerate(PIPE_NAMES):
        paths.append(record_run(tmp_path, f"r{index}", make_events("stopped")))
        (paths[-1] / name).unlink(missing_ok=True)
        os.mkfifo(paths[-1] / name)
    command = [sys.executable, "-c", READ_ALL_PROGRAM, *map(str, paths)]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (process.returncode, process.stderr) == (0, "")
    for path, name in zip(paths, PIPE_NAMES, strict=True):
        assert stat.S_ISFIFO((path / name).stat().st_mode)
        errors = [line for line in process.stdout.splitlines() if str(path) in line and name in line]
        assert bool(errors) == (name not in (LOCK_FILE, COMMANDS_FILE)), name


@pytest.mark.parametrize("name", [METRICS_FILE, SAMPLES_FILE, LOG_FILE, LOCK_FILE, COMMANDS_FILE])
def test_nothing_is_written_through_a_link(tmp_path, stopped, name):
    target = tmp_path / "target.txt"
    target.write_text("not part of a run\n")
    (stopped / name).unlink(missing_ok=True)
    (stopped / name).symlink_to(target)
    if name == COMMANDS_FILE:
        run = reopen_run(stopped)
        with pytest.raises(RunError, match="cannot write"):
            send_command(stopped, ControlCommand("stop"))
        run.lock.release()
    else:
        with pytest.raises(RunError, match="cannot"):
            list(record_events(reopen_run(stopped), iter([make_step(1)])))
    assert target.read_text() == "not part of a run\n"
