"""Run directories: names, the list of runs and their states, locks, commands, deletion, and files in the way."""

import errno
import os
from pathlib import Path

import pytest

from engine.errors import RunError
from engine.events import Checkpointed, Evaluated, Finished, Step
from engine.models.pretrained.names import BASE_FILE
from engine.runs import directory, locked_run
from engine.runs.directory import (
    CONFIG_FILE,
    METRICS_FILE,
    MODEL_FILE,
    bundled_runs,
    find_run,
    find_run_dirs,
    list_runs,
    resolve_run,
    run_word,
    summarize_run,
)
from engine.runs.loading import load_model
from engine.runs.locked_run import delete_run, record_events
from engine.storage.files import assets_dir
from tests.support.files import write_run
from tests.support.runs import CONFIG_WITH_EPOCHS, make_decoder, make_events, new_run, record_run, record_three_runs


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../up", "a/b", "/abs", "-rf", ".hidden", "a b", "é", "a\n", "r@4", "x" * 101]
)
def test_names_that_are_not_plain_are_refused(tmp_path, name):
    with pytest.raises(RunError, match="is not allowed; start with a letter or digit"):
        new_run(tmp_path / "runs", name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["latest", "bundled", "lstm", "base", "smollm2"])
def test_reserved_names_are_refused(tmp_path, name):
    with pytest.raises(RunError, match=f"'{name}' is reserved"):
        new_run(tmp_path, name)


def test_a_taken_name_is_refused_and_what_is_there_unchanged(tmp_path):
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


def test_a_new_run_removes_folders_of_killed_processes_only(tmp_path):
    killed, new, of_the_user = ".a.0123456789ab", ".b.0123456789ab", ".backup.2026"
    for name in (killed, new, of_the_user):
        (tmp_path / name).mkdir()
    for name in (killed, of_the_user):
        os.utime(tmp_path / name, (0, 0))
    gone = tmp_path / ".c.0123456789ab"  # as a folder that its process renames meanwhile
    gone.symlink_to("gone")
    new_run(tmp_path, "r")
    assert {path.name for path in tmp_path.iterdir()} == {new, of_the_user, gone.name, "r"}


def test_default_names_never_collide(tmp_path, monkeypatch):
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


def test_the_default_runs_folder_is_in_the_home(home):
    assert new_run(None).path == home / "runs" / "r"
    assert resolve_run("r") == home / "runs" / "r"
    assert run_word(home / "runs" / "r") == "r"  # as commands that are printed name it
    for path in (home / "runs" / "latest", home / "runs" / "-r", home / "r"):
        assert run_word(path) == str(path)


def test_a_run_appears_complete_or_not_at_all(tmp_path, monkeypatch):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "notes.txt").touch()
    with pytest.raises(RunError, match="exists"):
        new_run(tmp_path, "notes")
    write = locked_run.files.write_atomically

    def check_and_write(path, content):
        assert find_run_dirs(tmp_path) == []
        if path.name == CONFIG_FILE:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(locked_run.files, "write_atomically", check_and_write)
        with pytest.raises(RunError, match="No space left on device"):
            new_run(tmp_path)
    assert [path.name for path in tmp_path.rglob("*")] == ["notes", "notes.txt"]
    (tmp_path / "r").mkdir()  # an empty folder is no run
    assert find_run_dirs(tmp_path) == [] != [new_run(tmp_path).path]


def test_a_run_is_resolved_from_its_name_or_path(tmp_path, monkeypatch):
    paths = record_three_runs(tmp_path)
    assert resolve_run("alpha", tmp_path) == paths[1]
    assert resolve_run("latest", tmp_path) == paths[2]
    assert resolve_run(str(paths[0]), tmp_path / "elsewhere") == paths[0]
    monkeypatch.chdir(tmp_path)
    assert resolve_run("./beta", tmp_path / "elsewhere").resolve() == paths[0].resolve()
    assert resolve_run("bundled", tmp_path) == assets_dir() / "model"


def test_the_default_is_the_small_lstm_until_smollm2_is_fetched(tmp_path, home, monkeypatch):
    monkeypatch.setattr(directory.files, "assets_dir", lambda: tmp_path)
    for folder in ("model", "lstm"):
        write_run(tmp_path / folder)
    assert resolve_run(None) == tmp_path / "lstm"
    (home / "models" / "smollm2").mkdir(parents=True)
    (home / "models" / "smollm2" / BASE_FILE).touch()
    assert resolve_run(None) == tmp_path / "model"


def test_a_folder_with_an_odd_name_is_found_as_it_is_printed(tmp_path):
    names = ["my run", "café", "a\x1bb"]
    paths = [write_run(tmp_path / name) for name in names]
    for shown, path in zip(["my run", "café", "a\N{REPLACEMENT CHARACTER}b"], paths, strict=True):
        assert resolve_run(shown, tmp_path) == path
    (tmp_path / "my run" / "runs").mkdir()
    for name in ("..", str(paths[0])):  # they lead to a run, but are no names
        assert find_run(name, tmp_path / "my run" / "runs") is None


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("alhpa", r"run 'alhpa' is neither in .* nor a path; did you mean alpha\?"),
        ("zzz", "run 'zzz' is neither in .* nor a path. See `lotr-tui runs`$"),
        ("", "^--run . is a folder without config.json"),
        ("hf:some/model", "is a model by others, not a run of lotr-tui; generate, eval and --init can use it$"),
        ("PATH", f"is a folder without {CONFIG_FILE}; a run has {CONFIG_FILE}, a tokenizer and {MODEL_FILE}"),
        ("..", f"is a folder without {CONFIG_FILE}"), ("x" * 3000, "nor a path"),
        ("~no-such-user-here/run", "nor a path"), ("a\0b", "nor a path"), ("~\ud800/x", "nor a path"),
        ("\x1b[31mred", "nor a path"),
    ],
    ids=range(11),
)  # fmt: skip
def test_the_error_for_an_unknown_run_is_one_printable_line(tmp_path, name, message):
    record_three_runs(tmp_path)
    with pytest.raises(RunError, match=message) as error:
        resolve_run(str(tmp_path) if name == "PATH" else name, tmp_path)
    assert str(error.value).isprintable()


def test_base_is_the_bundled_pre_trained_model(tmp_path, monkeypatch):
    assets, runs = tmp_path / "assets", tmp_path / "runs"
    monkeypatch.setattr(directory.files, "assets_dir", lambda: assets)
    write_run(runs / "base")  # the name is reserved, so this run is only found by its path
    assert bundled_runs() == {}
    for folder in ("base", "model", "lstm"):
        write_run(assets / folder)
    assert resolve_run("base", runs) == assets / "base"
    assert list(bundled_runs().values()) == ["bundled", "lstm", "base"]
    for folder, name in (("base", "base"), ("model", "bundled")):
        assert load_model(assets / folder).name == name
        with pytest.raises(RunError, match=f"the bundled model '{name}' is part of lotr-tui"):
            delete_run(assets / folder, assets)
        assert (assets / folder / MODEL_FILE).is_file()


def test_the_list_is_latest_first_and_skips_folders_that_are_not_readable_runs(tmp_path, monkeypatch):
    _, alpha, _ = record_three_runs(tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    for name in ("empty", "damaged", "theirs"):
        (tmp_path / name).mkdir()
    (tmp_path / "damaged" / CONFIG_FILE).write_text("{")
    (tmp_path / "zebra" / CONFIG_FILE).mkdir(parents=True)  # neither listed nor suggested
    plain_stat, denied = Path.stat, {tmp_path / "theirs" / CONFIG_FILE}
    deleted_while_read = write_run(tmp_path / "short") / CONFIG_FILE

    def deny(path, **options):
        if path in denied:
            raise PermissionError(13, "Permission denied")
        if path == deleted_while_read:
            denied.add(path)
        return plain_stat(path, **options)

    monkeypatch.setattr(Path, "stat", deny)
    assert [run.name for run in list_runs(tmp_path)] == ["gamma", "alpha", "beta"]
    assert resolve_run("latest", tmp_path).name == "gamma"
    os.utime(alpha / CONFIG_FILE, (2_000_000_000, 2_000_000_000))
    assert [run.name for run in list_runs(tmp_path)] == ["alpha", "gamma", "beta"]
    assert resolve_run("latest", tmp_path) == alpha
    (alpha / CONFIG_FILE).write_text("{")
    os.utime(alpha / CONFIG_FILE, (2_000_000_000, 2_000_000_000))
    assert resolve_run("latest", tmp_path).name == "gamma"
    with pytest.raises(RunError, match=r"nor a path\. See"):
        resolve_run("zebro", tmp_path)
    assert list_runs(tmp_path / "none") == []
    with pytest.raises(RunError, match="there is no run in"):
        resolve_run("latest", tmp_path / "none")


def test_a_summary_contains_settings_and_results(tmp_path, monkeypatch):
    path = record_run(tmp_path, "r", make_events())
    summary = summarize_run(path)
    assert (summary.name, summary.preset, summary.corpus, summary.mode) == ("r", "tiny", "bundled", "line")
    assert (summary.epochs, summary.valid_perplexity, summary.test_perplexity) == (2.0, 90.0, 88.0)
    assert (summary.path, summary.started_at) == (path, (path / CONFIG_FILE).stat().st_mtime)
    assert (summary.state, summary.architecture) == ("finished", "lstm")
    (path / "epochs").mkdir()
    (path / "epochs" / "1.safetensors").write_bytes(bytes(1000))
    assert summarize_run(path).size_bytes == summary.size_bytes + 1000
    assert summary.size_bytes == sum(item.stat().st_size for item in path.iterdir() if item.is_file())
    with (path / METRICS_FILE).open("a") as file:  # damaged rows are skipped
        file.write('{"event": "step", "epoch": "many"}\n{"event": "evaluated", "valid_perplexity": "low"}\n')
        file.write('{"event": "step", "epoch": null}\n{"event": "evaluated", "valid_perplexity": 5.0}\n')
    assert (summarize_run(path).epochs, summarize_run(path).valid_perplexity) == (2.0, 90.0)
    plain_lstat, config_size = Path.lstat, (path / CONFIG_FILE).stat().st_size

    def lstat(path):
        if path.name == CONFIG_FILE:  # deleted while sizes are added
            raise FileNotFoundError(2, "No such file or directory")
        return plain_lstat(path)

    size = summarize_run(path).size_bytes
    monkeypatch.setattr(Path, "lstat", lstat)
    assert summarize_run(path).size_bytes == size - config_size


def test_the_epochs_of_a_summary_are_the_completed_ones(tmp_path):
    run, events = new_run(tmp_path), make_events(None)
    epochs = [
        summarize_run(run.path).epochs
        for event in record_events(run, iter(events))
        if not isinstance(event, Checkpointed)
    ]
    assert epochs == [0.0, 0.0, 0.0, 0.0, 0.5, 1.0, 1.0, 1.0, 2.0]
    stopped = summarize_run(record_run(tmp_path, "s", [*events, Finished("stopped", "s", 2.25, 89.0, 88.0, 5.0)]))
    assert (stopped.epochs, stopped.valid_perplexity) == (2.25, 89.0)


@pytest.mark.parametrize(
    "read", [summarize_run, lambda path: load_model(path).valid_perplexity, lambda path: load_model(path, 1)]
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
