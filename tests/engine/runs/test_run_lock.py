"""The lock of a run, commands to the process that holds it, deletion, and files in the way of a writer."""

import json
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from engine.control import CommandQueue, ControlCommand
from engine.errors import InvalidInputError, RunError
from engine.events import Checkpointed, Evaluated, Failed, Finished, Resume, Warned
from engine.runs import directory
from engine.runs.locked_run import delete_run, parse_command, record_events, rename_run, reopen_run, send_command
from engine.storage.files import lock_file
from tests.support import runs
from tests.support.files import no_file_longer_than

PROGRAM = """
import sys, time, pathlib
from engine.runs.locked_run import reopen_run
run = reopen_run(pathlib.Path(sys.argv[1]))
print("held", flush=True)
time.sleep(60)
"""


EVALUATED, SAVED = Evaluated(1, 0.1, 90.0, True, 1.0), Checkpointed(1, directory.MODEL_FILE)


def finished(reason):
    return Finished(reason, "r", 1.0, 9.0, 8.0, 1.0)


def test_a_run_is_running_while_another_process_holds_it_and_crashed_after_sigkill(tmp_path):
    path = runs.record_run(tmp_path, "r", runs.make_events(None))
    with subprocess.Popen([sys.executable, "-c", PROGRAM, str(path)], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "held\n"
        for _ in range(3):  # reading the state does not take the lock
            assert directory.summarize_run(path).state == "running"
        message = rf"'r' is being trained by process {other.pid} on .*; `lotr-tui attach {path}` shows it"
        with pytest.raises(RunError, match=message):
            reopen_run(path)
        for change in (lambda: delete_run(path, tmp_path), lambda: rename_run("r", "s", tmp_path)):
            with pytest.raises(RunError, match="is being trained"):
                change()
        other.send_signal(signal.SIGKILL)
    assert directory.summarize_run(path).state == "crashed"
    reopen_run(path).lock.close()


@pytest.mark.parametrize(
    ("events", "state"),
    [
        ([], "crashed"), ([EVALUATED], "crashed"), ([finished("done")], "finished"),
        ([finished("patience")], "finished"),
        ([finished("stopped")], "stopped"), ([finished("detached")], "stopped"), ([finished("pruned")], "pruned"),
        ([Failed("x")], "failed"), ([Failed("x"), Resume(1), EVALUATED], "crashed"),
        ([finished("done"), Warned("w"), SAVED], "finished"), ([SAVED, Failed("x"), SAVED, Warned("w")], "failed"),
    ],
)  # fmt: skip
def test_the_state_depends_on_the_last_event_about_the_training(tmp_path, events, state):
    run = runs.new_run(tmp_path)
    runs.append_events(run.path, events)
    assert directory.summarize_run(run.path).state == "running"
    run.lock.close()
    summary = directory.summarize_run(run.path)
    is_done = bool(events) and isinstance(events[0], Finished)
    assert (summary.state, summary.test_perplexity) == (state, 8.0 if is_done else None)
    if state in ("finished", "pruned"):
        with pytest.raises(RunError, match="'r' is finished; start a new one"):
            reopen_run(run.path)
    else:
        reopen_run(run.path).lock.close()


@pytest.mark.parametrize("how", ["create", "reopen"])
def test_one_of_many_simultaneous_writers_gets_the_lock(tmp_path, how):
    if how == "reopen":
        runs.record_run(tmp_path, "r", runs.make_events("stopped"))
    barrier = threading.Barrier(8)

    def attempt(_):
        barrier.wait()
        try:
            return runs.new_run(tmp_path) if how == "create" else reopen_run(tmp_path / "r")
        except RunError:
            return None

    with ThreadPoolExecutor(8) as writers:
        (won,) = filter(None, writers.map(attempt, range(8)))
    assert directory.lock_owner(tmp_path / "r").startswith(f"process {os.getpid()} on ")
    assert directory.lock_owner(tmp_path) == ""
    won.lock.close()
    assert not directory.lock_owner(tmp_path / "r")


@pytest.mark.parametrize(
    ("text", "owner"),
    [
        (b"", "another process"),
        (b"process 7 on moria\n", "process 7 on moria"),
        ("Náin \x1b".encode() + b"\xff" + b"x" * 1000, "Náin " + 2 * "\N{REPLACEMENT CHARACTER}" + 93 * "x"),
    ],
)
def test_a_lock_file_that_no_process_holds_is_only_a_text(stopped, text, owner):
    """A run is being trained only if its lock is held, whatever process the lock file names."""
    (stopped / directory.LOCK_FILE).write_bytes(text)
    assert directory.lock_owner(stopped) == ""
    with lock_file(stopped / directory.LOCK_FILE):
        assert directory.lock_owner(stopped) == owner  # at most 100 printable characters
    assert directory.summarize_run(stopped).state == "stopped"
    with pytest.raises(RunError, match="'r' is not being trained, so there is nothing to stop"):
        send_command(stopped, ControlCommand("stop"))
    assert not (stopped / directory.COMMANDS_FILE).exists()
    run = reopen_run(stopped)
    assert f"process {os.getpid()} " in (stopped / directory.LOCK_FILE).read_text()
    run.lock.close()


def test_commands_arrive_once_and_in_order(stopped):
    (stopped / directory.COMMANDS_FILE).write_text('{"kind": "stop", "value": ""}\n')  # sent to an earlier training
    commands = [ControlCommand("checkpoint"), ControlCommand("prompt", "the road"), ControlCommand("lr", "0.5")]
    run = reopen_run(stopped)
    for command in commands:
        send_command(stopped, command)
    queue = CommandQueue(run.commands.read)
    queue.send(ControlCommand("pause"))
    assert queue.drain() == [ControlCommand("pause"), *commands]
    assert queue.drain() == []


HOSTILE_COMMANDS = [("pause", "\x1b]0;title\x07"), ("lr", "0.5\x1c"), ("lr", "\x850.5"), ("prompt", "\u202e")]


def test_invalid_commands_are_skipped_and_those_with_control_characters_refused(tmp_path):
    """Commands are printed and recorded."""
    read_commands = directory.RecordFollower(tmp_path / directory.COMMANDS_FILE, parse_command).read
    lines = ["[" * 100_000, "{}", '{"kind": "rm", "value": "-rf"}', '{"kind": "lr", "value": "2"}', '{"kind": 3}']
    for kind, value in HOSTILE_COMMANDS:
        with pytest.raises(InvalidInputError):
            ControlCommand(kind, value)
        lines.append(json.dumps({"kind": kind, "value": value}))
    rows = [*lines, json.dumps({"kind": "stop", "value": ""})]
    (tmp_path / directory.COMMANDS_FILE).write_text("\n".join(rows) + '\n{"kind": "pau')
    assert read_commands() + read_commands() == [ControlCommand("stop")]
    with (tmp_path / directory.COMMANDS_FILE).open("a") as file:
        file.write('se", "value": ""}\n')
    assert read_commands() == [ControlCommand("pause")]


def test_a_command_on_a_full_disk_does_not_damage_the_next_one(stopped):
    run = reopen_run(stopped)
    with no_file_longer_than(20), pytest.raises(RunError, match=r"cannot write .*commands\.jsonl: File too large"):
        send_command(stopped, ControlCommand("prompt", "the road"))
    send_command(stopped, ControlCommand("stop"))
    assert run.commands.read() == [ControlCommand("stop")]
    run.lock.close()


def test_a_run_is_deleted_and_nothing_else(tmp_path):
    first, second, _ = runs.record_three_runs(tmp_path)
    delete_run(first, tmp_path)
    assert not first.exists()
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").write_text("mine")
    for path, folder in ((tmp_path / "precious", tmp_path), (second, tmp_path / "precious")):
        with pytest.raises(RunError):
            delete_run(path, folder)
        assert path.exists()


def test_a_missing_epochs_folder_is_created_and_a_file_or_a_link_in_its_place_refused(tmp_path):
    path = runs.new_run(tmp_path, config=runs.CONFIG_WITH_EPOCHS).path
    epochs, outside = path / directory.EPOCHS_DIR, tmp_path / "outside"
    epochs.rmdir()
    reopen_run(path).lock.close()
    assert epochs.is_dir()
    (epochs / ".2.safetensors.x7").write_bytes(b"hal")  # of a killed process
    reopen_run(path).lock.close()
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
    assert not directory.lock_owner(path)


@pytest.mark.parametrize(
    "name", [directory.METRICS_FILE, directory.SAMPLES_FILE, directory.LOCK_FILE, directory.COMMANDS_FILE]
)
def test_nothing_is_written_through_a_link(tmp_path, stopped, name):
    target = tmp_path / "target.txt"
    target.write_text("not part of a run\n")
    (stopped / name).unlink(missing_ok=True)
    (stopped / name).symlink_to(target)
    if name == directory.COMMANDS_FILE:
        run = reopen_run(stopped)
        with pytest.raises(RunError, match="cannot write"):
            send_command(stopped, ControlCommand("stop"))
        run.lock.close()
    else:
        with pytest.raises(RunError, match="cannot"):
            list(record_events(reopen_run(stopped), iter([runs.make_step(1)])))
    assert target.read_text() == "not part of a run\n"
