"""Run directories from untrusted sources: reading is bounded, and nothing outside the run is written."""

import json
import os

import pytest

from engine.control import ControlCommand
from engine.data.tokenizers.loading import VOCABULARY_FILE
from engine.errors import InvalidInputError, RunError
from engine.events import TrainingEvent
from engine.runs import metrics
from engine.runs.control_files import CommandFileReader
from engine.runs.directory import COMMANDS_FILE, CONFIG_FILE, EPOCHS_DIR, LOG_FILE, resolve_run
from engine.runs.loading import load_model
from engine.runs.locked_run import create_run, reopen_run
from engine.runs.metrics import RecordFollower, read_current_rows, read_rows
from engine.runs.writer import record_events
from engine.storage.files import read_limited
from tests.support.files import write_run, write_sparse_file
from tests.support.runs import CONFIG, VOCABULARY

ESCAPES = "\x1b]0;title\x07\x9b2J\u202e"


# Size limits


def test_a_file_larger_than_its_limit_is_refused(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"12345")
    assert read_limited(path, 5) == b"12345"
    with pytest.raises(OSError, match="larger than the limit of 4 bytes"):
        read_limited(path, 4)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="not a regular file"):
        read_limited(tmp_path / "pipe", 5)


@pytest.mark.parametrize("name", [CONFIG_FILE, VOCABULARY_FILE])
def test_a_run_with_a_file_of_50_gigabytes_is_refused(tmp_path, name):
    path = write_run(tmp_path / "r")
    write_sparse_file(path / name, b"{")
    with pytest.raises(RunError, match=rf"{name} cannot be read: larger than the limit of [0-9,]+ bytes"):
        load_model(path)


def test_metrics_of_gigabytes_are_not_read(tmp_path):
    follower = RecordFollower(write_sparse_file(tmp_path / "metrics.jsonl"))
    assert follower.read_batch(9).rows == []
    assert (follower.at_end, "larger than the limit of 4,000,000,000 bytes" in follower.problem) == (True, True)


def test_the_number_of_lines_that_are_not_steps_is_limited(tmp_path, monkeypatch):
    monkeypatch.setattr(metrics, "MAX_NON_STEP_LINES", 10)
    monkeypatch.setattr(metrics, "READ_CHUNK_BYTES", 100)
    path = tmp_path / "metrics.jsonl"
    steps = b'{"event": "step", "step": 1}\n' * 50
    path.write_bytes(steps + b"\n" * 10)
    assert len(list(read_rows(path))) == 50
    path.write_bytes(steps + b'{"event": "evaluated"}\n' * 10 + steps)
    assert len(list(read_rows(path))) == 110
    for line in (b"\n", b"{}\n", b'{"event": "evaluated"}\n'):
        path.write_bytes(steps + line * 1000)
        follower = RecordFollower(path)
        rows = follower.read_batch(9).rows
        assert len(rows) < 50 + 20
        assert (follower.at_end, follower.problem) == (True, "")
        assert follower.read_batch(9).rows == []
        assert "more than 10 lines are not step rows" in follower.problem


@pytest.mark.parametrize("value", ["[]", "{}", '{"a": [1]}', "[" + "[]," * 1000 + "[]]"])
def test_rows_with_nested_values_are_skipped(tmp_path, value):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"event": "evaluated", "a": %s}\n{"event": "evaluated"}\n' % value)  # noqa: UP031
    assert read_current_rows(path) == [{"event": "evaluated"}]


def test_rows_with_nested_objects_are_skipped_between_invalid_lines(tmp_path):
    """As many lines have no object as objects are nested, so that their number equals the number of lines."""
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"event": "evaluated", "a": {}}\n\n\nnothing\n{"event": "evaluated"}\n')
    assert read_current_rows(path) == [{"event": "evaluated"}]


def test_rows_with_too_many_fields_are_skipped(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text(json.dumps({"event": "evaluated"} | {str(n): 1 for n in range(63)}) + "\n")
    assert len(read_current_rows(path)) == 1
    path.write_text(json.dumps({"event": "evaluated"} | {str(n): 1 for n in range(64)}) + "\n")
    assert read_current_rows(path) == []


@pytest.mark.parametrize("name", ["a\0b", "~\0", "~\ud800/x", "\ud800"])
def test_a_run_with_an_invalid_path_is_refused(tmp_path, name):
    with pytest.raises(RunError, match="nor a path"):
        resolve_run(name, tmp_path)


# Outside the run


def test_a_run_whose_epochs_folder_is_a_link_is_not_resumed(tmp_path):
    """Otherwise files outside the run that look temporary would be deleted, and weights written there."""
    path = create_run(CONFIG, VOCABULARY, "r", tmp_path).path
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / ".1.safetensors.other").write_text("precious")
    (path / EPOCHS_DIR).symlink_to(outside)
    with pytest.raises(RunError, match="epochs is a link out of the run"):
        reopen_run(path)
    assert (outside / ".1.safetensors.other").read_text() == "precious"


# Text for the terminal


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("pause", ESCAPES),
        ("stop", "\x1b[2J"),
        ("resume", "x"),
        ("lr", "0.5\x1c"),
        ("lr", "\x850.5"),
        ("prompt", ESCAPES),
    ],
)
def test_a_command_with_control_characters_is_refused_and_ignored(tmp_path, kind, value):
    """Commands are printed and recorded."""
    with pytest.raises(InvalidInputError):
        ControlCommand(kind, value)
    (tmp_path / COMMANDS_FILE).write_text(json.dumps({"kind": kind, "value": value}) + "\n")
    assert CommandFileReader(tmp_path)() == []


def test_a_traceback_is_logged_without_control_characters(tmp_path):
    def fail():
        raise ValueError(f"over\n  there: {ESCAPES}")
        yield  # makes the function a generator

    run = create_run(CONFIG, VOCABULARY, "r", tmp_path)
    events = fail()
    with pytest.raises(ValueError, match="over"):
        list[TrainingEvent](record_events(run, events))
    log = (run.path / LOG_FILE).read_text()
    assert all(line.isprintable() for line in log.split("\n"))
    assert "\n    raise ValueError(" in log  # indented as in a traceback
    assert "]0;title" in log
