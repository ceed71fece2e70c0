"""Run directories: names, the list of runs and their states, locks, commands, deletion, and files in the way."""

import errno
import json
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from engine.control import CommandQueue, ControlCommand
from engine.errors import InvalidInputError, RunError
from engine.events import Checkpointed, Evaluated, Failed, Finished, Resume, Step, Warned
from engine.models.pretrained.names import BASE_FILE
from engine.runs import directory, locked_run
from engine.runs.loading import load_model
from engine.runs.locked_run import delete_run, parse_command, record_events, rename_run, reopen_run, send_command
from engine.storage.files import assets_dir, lock_file
from tests.support import runs
from tests.support.files import no_file_longer_than, write_run
from tests.support.runs import CONFIG_WITH_EPOCHS, make_decoder, make_events, new_run, record_run, record_three_runs


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


class TestNames:
    @pytest.mark.parametrize(
        "name", ["", "..", "../up", "a/b", "/abs", "-rf", ".a", "a b", "é", "a\n", "r@4", "x" * 101]
    )
    def test_names_that_are_not_plain_are_refused(self, tmp_path, name):
        with pytest.raises(RunError, match="is not allowed; start with a letter or digit"):
            new_run(tmp_path / "runs", name)
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("name", ["latest", "bundled", "lstm", "base", "smollm2"])
    def test_reserved_names_are_refused(self, tmp_path, name):
        with pytest.raises(RunError, match=f"'{name}' is reserved"):
            new_run(tmp_path, name)

    def test_a_taken_name_is_refused_and_what_is_there_unchanged(self, tmp_path):
        path = record_run(tmp_path, "mine", make_events())
        before = content(path)
        (tmp_path / "file").write_text("mine")
        for name in ("mine", "file"):
            with pytest.raises(RunError, match=f"'{name}' exists"):
                new_run(tmp_path, name)
        assert content(path) == before
        assert (tmp_path / "file").read_text() == "mine"
        for folder in (tmp_path / "file", tmp_path / "file" / "runs"):
            with pytest.raises(RunError, match="cannot be written"):
                new_run(folder)

    def test_a_new_run_removes_folders_of_killed_processes_only(self, tmp_path):
        killed, new, of_the_user = ".a.0123456789ab", ".b.0123456789ab", ".backup.2026"
        for name in (killed, new, of_the_user):
            (tmp_path / name).mkdir()
        for name in (killed, of_the_user):
            os.utime(tmp_path / name, (0, 0))
        gone = tmp_path / ".c.0123456789ab"  # as a folder that its process renames meanwhile
        gone.symlink_to("gone")
        new_run(tmp_path, "r")
        assert {path.name for path in tmp_path.iterdir()} == {new, of_the_user, gone.name, "r"}

    def test_default_names_never_collide(self, tmp_path, monkeypatch):
        runs = [new_run(tmp_path, None) for _ in range(4)]
        assert len({run.path for run in runs}) == 4
        assert all(run.path.name.startswith("tiny-") for run in runs)
        tried = []

        def rename(_, path):
            tried.append(path.name)
            raise FileExistsError(errno.EEXIST, "File exists")

        monkeypatch.setattr(Path, "rename", rename)
        with pytest.raises(RunError, match=r"run 'tiny-.*-999' exists in .*; choose another --run name"):
            new_run(tmp_path / "none", None)
        assert len(set(tried)) == len(tried) > 900

    def test_the_default_runs_folder_is_in_the_home(self, home):
        assert new_run(None).path == home / "runs" / "r"
        assert directory.resolve_run("r") == home / "runs" / "r"
        assert directory.run_word(home / "runs" / "r") == "r"  # as commands that are printed name it
        for path in (home / "runs" / "latest", home / "runs" / "-r", home / "r"):
            assert directory.run_word(path) == str(path)

    def test_a_run_appears_complete_or_not_at_all(self, tmp_path, monkeypatch):
        (tmp_path / "notes").mkdir()
        (tmp_path / "notes" / "notes.txt").touch()
        with pytest.raises(RunError, match="exists"):
            new_run(tmp_path, "notes")
        write = locked_run.files.write_atomically

        def check_and_write(path, content):
            assert directory.find_run_dirs(tmp_path) == []
            if path.name == directory.CONFIG_FILE:
                raise OSError(errno.ENOSPC, "No space left on device")
            write(path, content)

        with monkeypatch.context() as patch:
            patch.setattr(locked_run.files, "write_atomically", check_and_write)
            with pytest.raises(RunError, match="No space left on device"):
                new_run(tmp_path)
        assert [path.name for path in tmp_path.rglob("*")] == ["notes", "notes.txt"]
        (tmp_path / "r").mkdir()  # an empty folder is no run
        assert directory.find_run_dirs(tmp_path) == [] != [new_run(tmp_path).path]


class TestLookup:
    def test_a_run_is_resolved_from_its_name_or_path(self, tmp_path, monkeypatch):
        paths = record_three_runs(tmp_path)
        assert directory.resolve_run("alpha", tmp_path) == paths[1]
        assert directory.resolve_run("latest", tmp_path) == paths[2]
        assert directory.resolve_run(str(paths[0]), tmp_path / "elsewhere") == paths[0]
        monkeypatch.chdir(tmp_path)
        assert directory.resolve_run("./beta", tmp_path / "elsewhere").resolve() == paths[0].resolve()
        assert directory.resolve_run("bundled", tmp_path) == assets_dir() / "model"

    def test_the_default_is_the_small_lstm_until_smollm2_is_fetched(self, tmp_path, home, monkeypatch):
        monkeypatch.setattr(directory.files, "assets_dir", lambda: tmp_path)
        for folder in ("model", "lstm"):
            write_run(tmp_path / folder)
        assert directory.resolve_run(None) == tmp_path / "lstm"
        (home / "models" / "smollm2").mkdir(parents=True)
        (home / "models" / "smollm2" / BASE_FILE).touch()
        assert directory.resolve_run(None) == tmp_path / "model"

    def test_a_folder_with_an_odd_name_is_found_as_it_is_printed(self, tmp_path):
        names = ["my run", "café", "a\x1bb"]
        paths = [write_run(tmp_path / name) for name in names]
        for shown, path in zip(["my run", "café", "a\N{REPLACEMENT CHARACTER}b"], paths, strict=True):
            assert directory.resolve_run(shown, tmp_path) == path
        (tmp_path / "my run" / "runs").mkdir()
        for name in ("..", str(paths[0])):  # they lead to a run, but are no names
            assert directory.find_run(name, tmp_path / "my run" / "runs") is None

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("alhpa", r"run 'alhpa' is neither in .* nor a path; did you mean alpha\?"),
            ("zzz", "run 'zzz' is neither in .* nor a path. See `lotr-tui runs`$"),
            ("", "^--run . is a folder without config.json"),
            ("hf:some/model", "is a model by others, not a run of lotr-tui; generate, eval and --init can use it$"),
            ("PATH", r"is a folder without config\.json; a run has config\.json, a tokenizer and model\.safetensors$"),
            ("..", r"is a folder without config\.json; "), ("x" * 3000, "nor a path"),
            ("~no-such-user-here/run", "nor a path"), ("a\0b", "nor a path"), ("~\ud800/x", "nor a path"),
            ("\x1b[31mred", "nor a path"),
        ],
        ids=range(11),
    )  # fmt: skip
    def test_the_error_for_an_unknown_run_is_one_printable_line(self, tmp_path, name, message):
        record_three_runs(tmp_path)
        with pytest.raises(RunError, match=message):
            directory.resolve_run(str(tmp_path) if name == "PATH" else name, tmp_path)

    def test_base_is_the_bundled_pre_trained_model(self, tmp_path, monkeypatch):
        assets, runs = tmp_path / "assets", tmp_path / "runs"
        monkeypatch.setattr(directory.files, "assets_dir", lambda: assets)
        write_run(runs / "base")  # the name is reserved, so this run is only found by its path
        assert directory.bundled_runs() == {}
        for folder in ("base", "model", "lstm"):
            write_run(assets / folder)
        assert directory.resolve_run("base", runs) == assets / "base"
        assert list(directory.bundled_runs().values()) == ["bundled", "lstm", "base"]
        for folder, name in (("base", "base"), ("model", "bundled")):
            assert load_model(assets / folder).name == name
            with pytest.raises(RunError, match=f"the bundled model '{name}' is part of lotr-tui"):
                delete_run(assets / folder, assets)
            assert (assets / folder / directory.MODEL_FILE).is_file()


def test_the_list_is_latest_first_and_skips_folders_that_are_not_readable_runs(tmp_path, monkeypatch):
    _, alpha, _ = record_three_runs(tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    for name in ("empty", "damaged", "theirs"):
        (tmp_path / name).mkdir()
    (tmp_path / "damaged" / directory.CONFIG_FILE).write_text("{")
    (tmp_path / "zebra" / directory.CONFIG_FILE).mkdir(parents=True)  # neither listed nor suggested
    plain_stat, denied = Path.stat, {tmp_path / "theirs" / directory.CONFIG_FILE}
    deleted_while_read = write_run(tmp_path / "short") / directory.CONFIG_FILE

    def deny(path, **options):
        if path in denied:
            raise PermissionError(13, "Permission denied")
        if path == deleted_while_read:
            denied.add(path)
        return plain_stat(path, **options)

    monkeypatch.setattr(Path, "stat", deny)
    assert [run.name for run in directory.list_runs(tmp_path)] == ["gamma", "alpha", "beta"]
    assert directory.resolve_run("latest", tmp_path).name == "gamma"
    os.utime(alpha / directory.CONFIG_FILE, (2_000_000_000, 2_000_000_000))
    assert [run.name for run in directory.list_runs(tmp_path)] == ["alpha", "gamma", "beta"]
    assert directory.resolve_run("latest", tmp_path) == alpha
    (alpha / directory.CONFIG_FILE).write_text("{")
    os.utime(alpha / directory.CONFIG_FILE, (2_000_000_000, 2_000_000_000))
    assert directory.resolve_run("latest", tmp_path).name == "gamma"
    with pytest.raises(RunError, match=r"nor a path\. See"):
        directory.resolve_run("zebro", tmp_path)
    assert directory.list_runs(tmp_path / "none") == []
    with pytest.raises(RunError, match="there is no run in"):
        directory.resolve_run("latest", tmp_path / "none")


def test_a_summary_contains_settings_and_results(tmp_path, monkeypatch):
    path = record_run(tmp_path, "r", make_events())
    summary = directory.summarize_run(path)
    assert (summary.name, summary.preset, summary.corpus, summary.mode) == ("r", "tiny", "bundled", "line")
    assert (summary.epochs, summary.valid_perplexity, summary.test_perplexity) == (2.0, 90.0, 88.0)
    assert (summary.path, summary.started_at) == (path, (path / directory.CONFIG_FILE).stat().st_mtime)
    assert (summary.state, summary.architecture) == ("finished", "lstm")
    (path / "epochs").mkdir()
    (path / "epochs" / "1.safetensors").write_bytes(bytes(1000))
    assert directory.summarize_run(path).size_bytes == summary.size_bytes + 1000
    assert summary.size_bytes == sum(item.stat().st_size for item in path.iterdir() if item.is_file())
    with (path / directory.METRICS_FILE).open("a") as file:  # damaged rows are skipped
        file.write('{"event": "step", "epoch": "many"}\n{"event": "evaluated", "valid_perplexity": "low"}\n')
        file.write('{"event": "step", "epoch": null}\n{"event": "evaluated", "valid_perplexity": 5.0}\n')
    assert (directory.summarize_run(path).epochs, directory.summarize_run(path).valid_perplexity) == (2.0, 90.0)
    plain_lstat, config_size = Path.lstat, (path / directory.CONFIG_FILE).stat().st_size

    def lstat(path):
        if path.name == directory.CONFIG_FILE:  # deleted while sizes are added
            raise FileNotFoundError(2, "No such file or directory")
        return plain_lstat(path)

    size = directory.summarize_run(path).size_bytes
    monkeypatch.setattr(Path, "lstat", lstat)
    assert directory.summarize_run(path).size_bytes == size - config_size


def test_the_epochs_of_a_summary_are_the_completed_ones(tmp_path):
    run, events = new_run(tmp_path), make_events(None)
    epochs = [
        directory.summarize_run(run.path).epochs
        for event in record_events(run, iter(events))
        if not isinstance(event, Checkpointed)
    ]
    assert epochs == [0.0, 0.0, 0.0, 0.0, 0.5, 1.0, 1.0, 1.0, 2.0]
    events.append(Finished("stopped", "s", 2.25, 89.0, 88.0, 5.0))
    stopped = directory.summarize_run(record_run(tmp_path, "s", events))
    assert (stopped.epochs, stopped.valid_perplexity) == (2.25, 89.0)


@pytest.mark.parametrize(
    "read", [directory.summarize_run, lambda path: load_model(path).valid_perplexity, lambda path: load_model(path, 1)]
)
def test_few_rows_of_long_metrics_are_parsed(tmp_path, monkeypatch, read):
    """Only the last of consecutive steps is parsed, so that a list of long runs appears at once."""
    run = new_run(tmp_path, config=CONFIG_WITH_EPOCHS)
    steps = [Step(n, n / 500, 120.0, 0.003, 1.0, 1000.0, 1.0, 1.0) for n in range(500)]
    list(record_events(run, iter([*make_events()[:3], *steps, Evaluated(500, 1.0, 90.0, True, 2.1, make_decoder(1))])))
    parsed, parse_line = [], directory.parse_event
    monkeypatch.setattr(directory, "parse_event", lambda line: parsed.append(line) or parse_line(line))
    read(run.path)
    assert 5 <= len(parsed) < 30


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


HOSTILE_COMMANDS = [("pause", "\x1b]0;title\x07"), ("lr", "0.5\x1c"), ("lr", "\x850.5"), ("prompt", "\u202e")]


class TestCommandsAndDeletion:
    def test_commands_arrive_once_and_in_order(self, stopped):
        (stopped / directory.COMMANDS_FILE).write_text('{"kind": "stop", "value": ""}\n')  # sent to an earlier training
        commands = [ControlCommand("checkpoint"), ControlCommand("prompt", "the road"), ControlCommand("lr", "0.5")]
        run = reopen_run(stopped)
        for command in commands:
            send_command(stopped, command)
        queue = CommandQueue(run.commands.read)
        queue.send(ControlCommand("pause"))
        assert queue.drain() == [ControlCommand("pause"), *commands]
        assert queue.drain() == []

    def test_invalid_commands_are_skipped_and_those_with_control_characters_refused(self, tmp_path):
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

    def test_a_command_on_a_full_disk_does_not_damage_the_next_one(self, stopped):
        run = reopen_run(stopped)
        with no_file_longer_than(20), pytest.raises(RunError, match=r"cannot write .*commands\.jsonl: File too large"):
            send_command(stopped, ControlCommand("prompt", "the road"))
        send_command(stopped, ControlCommand("stop"))
        assert run.commands.read() == [ControlCommand("stop")]
        run.lock.close()

    def test_a_run_is_deleted_and_nothing_else(self, tmp_path):
        first, second, _ = runs.record_three_runs(tmp_path)
        delete_run(first, tmp_path)
        assert not first.exists()
        (tmp_path / "precious").mkdir()
        (tmp_path / "precious" / "file").write_text("mine")
        for path, folder in ((tmp_path / "precious", tmp_path), (second, tmp_path / "precious")):
            with pytest.raises(RunError):
                delete_run(path, folder)
            assert path.exists()

    def test_a_missing_epochs_folder_is_created_and_a_file_or_a_link_in_its_place_refused(self, tmp_path):
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
    def test_nothing_is_written_through_a_link(self, tmp_path, stopped, name):
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
