"""Control commands sent to a run through a file of its directory."""

import json
from pathlib import Path

import pytest

from engine.control import CommandQueue, ControlCommand
from engine.errors import RunError
from engine.runs.control_files import CommandFileReader, send_command
from engine.runs.directory import COMMANDS_FILE
from engine.runs.locked_run import reopen_run
from tests.support.runs import make_events, record_run


def test_commands_arrive_once_and_in_order(tmp_path: Path) -> None:
    path = record_run(tmp_path, "r", make_events("stopped"))
    (path / COMMANDS_FILE).write_text('{"kind": "stop", "value": ""}\n')  # sent to an earlier training
    run = reopen_run(path)
    commands = [ControlCommand("checkpoint"), ControlCommand("prompt", "the road"), ControlCommand("lr", "0.5")]
    for command in commands:  # after the lock is acquired, before a reader exists
        send_command(run.path, command)
    queue = CommandQueue([CommandFileReader(run.path, run.commands_offset)])
    queue.send(ControlCommand("pause"))
    assert queue.drain() == [ControlCommand("pause"), *commands]
    assert queue.drain() == []


def test_a_run_that_is_not_being_trained_takes_no_commands(tmp_path: Path) -> None:
    path = record_run(tmp_path, "r", make_events())
    with pytest.raises(RunError, match="'r' is not being trained"):
        send_command(path, ControlCommand("stop"))
    assert not (path / COMMANDS_FILE).exists()


def test_a_directory_in_place_of_the_commands_file_is_ignored(tmp_path: Path) -> None:
    read_commands = CommandFileReader(tmp_path)
    (tmp_path / COMMANDS_FILE).mkdir()
    assert read_commands() == []
    (tmp_path / COMMANDS_FILE).rmdir()
    (tmp_path / COMMANDS_FILE).write_text('{"kind": "stop", "value": ""}\n')
    assert read_commands() == [ControlCommand("stop")]


def test_invalid_commands_are_skipped(tmp_path: Path) -> None:
    read_commands = CommandFileReader(tmp_path)
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
