"""A run that is left and gone on with: its record, what cannot be written, what others ask of it."""

import errno
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.control import Command, Steering
from engine.errors import RunError, UnusableInput
from engine.events import (
    Checkpointed,
    Evaluated,
    Failed,
    Finished,
    Resume,
    Sampled,
    Snapshot,
    Step,
    TrainingEvent,
    Warned,
)
from engine.runs import store, writer
from engine.runs.control_files import Requests, ask
from engine.runs.metrics import current_rows, read_rows
from engine.runs.store import REQUESTS
from engine.storage import files
from tests.support.runs import CONFIG, VOCABULARY, decoder, training, write


def step(number: int, train: float = 100.0) -> Step:
    return Step(number, number / 10, train, 0.01, 1.0, 1000.0, float(number), 9.0)


# --- a snapshot, and going on -----------------------------------------------------------------------------------


def test_a_snapshot_is_the_resume_file_until_the_training_is_done(tmp_path: Path) -> None:
    run = writer.create(CONFIG, VOCABULARY, "r", tmp_path)
    resume, seen = run.path / store.RESUME, []
    events = [*training(None), Snapshot(18, b"one"), Snapshot(20, b"two"), training()[-1]]
    for event in writer.record(run, iter(events)):
        seen.append(event)
        if isinstance(event, Checkpointed) and event.file == store.RESUME:
            assert resume.read_bytes() == {18: b"one", 20: b"two"}[event.step]
    assert not any(isinstance(event, Snapshot) for event in seen)
    written = [event.step for event in seen if isinstance(event, Checkpointed) and event.file == store.RESUME]
    assert written == [18, 20]
    assert not resume.exists()


def test_the_two_latest_snapshots_are_kept_until_the_training_is_done(tmp_path: Path) -> None:
    run = writer.create(CONFIG, VOCABULARY, "r", tmp_path)
    kept = []
    events = [*training(None), *(Snapshot(18 + n, f"{n}".encode()) for n in range(3)), training()[-1]]
    for event in writer.record(run, iter(events)):
        if isinstance(event, Checkpointed) and event.file == store.RESUME:
            paths = [run.path / store.RESUME, run.path / store.PREVIOUS]
            kept.append([path.read_bytes() for path in paths if path.exists()])
    assert kept == [[b"0"], [b"1", b"0"], [b"2", b"1"]]
    assert not list(run.path.glob("resume*"))


def test_what_a_beginning_that_was_killed_has_left_is_removed(tmp_path: Path) -> None:
    (tmp_path / "r").mkdir()
    for name in (store.CONFIG, store.VOCABULARY):
        (tmp_path / "r" / f".{name}.abc").write_bytes(b"hal")
    run = writer.create(CONFIG, VOCABULARY, "r", tmp_path)
    assert not list(run.path.glob(".*"))


def test_a_stopped_run_keeps_it(tmp_path: Path) -> None:
    path = write(tmp_path, "r", [*training(None), Snapshot(18, b"one"), training("stopped")[-1]])
    assert (path / store.RESUME).read_bytes() == b"one"
    assert store.summarize(path).state == "stopped"


def test_what_was_done_again_is_left_out(tmp_path: Path) -> None:
    path = write(tmp_path, "r", [step(1), step(2), step(3, 70.0), Finished("stopped", "r", 1.0, 9.0, 9.0, 1.0)])
    run = writer.reopen(path)
    list(writer.record(run, iter([Resume(3), step(3, 80.0), Sampled(3, 0.3, "a", "b", 0, 0.7), step(4)])))
    assert [
        (row["event"], row.get("step"), row.get("train_perplexity")) for row in current_rows(path / store.METRICS)
    ] == [
        ("step", 1, 100.0),
        ("step", 2, 100.0),
        ("resume", 3, None),
        ("step", 3, 80.0),
        ("step", 4, 100.0),
    ]
    assert len(list(read_rows(path / store.METRICS))) == 7  # nothing is taken out of the file
    assert [row["event"] for row in read_rows(path / store.SAMPLES)] == ["resume", "sampled"]
    assert store.summarize(path).state == "crashed"


def test_a_line_that_its_writer_did_not_live_to_end(tmp_path: Path) -> None:
    path = write(tmp_path, "r", [step(1)])
    with (path / store.METRICS).open("a") as file:
        file.write('{"event": "step", "st')
    list(writer.record(writer.reopen(path), iter([Resume(2), step(2)])))
    assert [row.get("step") for row in current_rows(path / store.METRICS)] == [1, 2, 2]


@pytest.mark.parametrize("reason", ["done", "patience"])
def test_a_finished_run_is_not_gone_on_with(tmp_path: Path, reason: Any) -> None:
    path = write(tmp_path, "r", [*training(None), Finished(reason, "r", 2.0, 90.0, 88.0, 5.0, decoder(1))])
    with pytest.raises(RunError, match="'r' is finished; nothing is left to train"):
        writer.reopen(path)


def test_a_folder_that_was_begun_in_vain_is_no_obstacle(tmp_path: Path) -> None:
    for name in ("r/epochs", "s"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("r/lock", "r/vocabulary.json", "r/.config.json.x7", "s/notes.txt"):
        (tmp_path / name).touch()
    assert writer.create(CONFIG, VOCABULARY, "r", tmp_path).path == tmp_path / "r"
    for name in ("r", "s"):  # now it is a run; and what is somebody's is not touched
        with pytest.raises(RunError, match="exists"):
            writer.create(CONFIG, VOCABULARY, name, tmp_path)
    assert [item.name for item in (tmp_path / "s").iterdir()] == ["notes.txt"]


def test_a_file_in_place_of_a_folder_is_no_run(tmp_path: Path) -> None:
    (tmp_path / "r").write_text("mine")
    with pytest.raises(RunError, match="'r' exists"):
        writer.create(CONFIG, VOCABULARY, "r", tmp_path)
    assert (tmp_path / "r").read_text() == "mine"


def test_of_a_thousand_runs_of_one_second_the_last_is_told_to_take_a_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[str] = []
    monkeypatch.setattr(writer, "_begin", lambda path: tried.append(path.name))
    with pytest.raises(RunError, match=r"too many runs tiny-.*; choose a --run name"):
        writer.create(CONFIG, VOCABULARY, None, tmp_path)
    assert len(set(tried)) == len(tried) > 900


HOLD = """
import sys, time
from pathlib import Path
from engine.runs import writer
run = writer.reopen(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(60)
"""


def test_a_second_trainer_is_told_who_the_first_is(tmp_path: Path) -> None:
    path = write(tmp_path, "r", training("stopped"))
    with subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(RunError, match=rf"'r' is being trained by process {other.pid} on .*; `lotr-tui attach r`"):
            writer.reopen(path)
        other.kill()
    writer.reopen(path).lock.close()


# --- what cannot be written -------------------------------------------------------------------------------------


def no_room(*_: Any, **__: Any) -> int:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_on_a_full_disk_it_goes_on_says_so_and_writes_once_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = writer.create(CONFIG, VOCABULARY, "r", tmp_path)
    plain_write, full = os.write, False

    def write_or_not(file: int, content: Any) -> int:
        return no_room() if full else plain_write(file, content)

    monkeypatch.setattr(files.os, "write", write_or_not)
    monkeypatch.setattr(files.os, "fsync", lambda file: no_room() if full else None)

    def events() -> Iterator[TrainingEvent]:
        nonlocal full
        yield step(1)
        full = True
        yield step(2)
        yield step(3)
        yield Evaluated(3, 0.3, 50.0, True, 1.0, decoder(3))
        yield Snapshot(3, b"three")
        assert not (run.path / store.MODEL).exists()
        full = False
        yield step(4)
        yield Snapshot(4, b"four")

    seen = list(writer.record(run, events()))
    warned = [event.message for event in seen if isinstance(event, Warned)]
    assert all("No space left on device" in message and str(run.path) in message for message in warned)
    assert 1 <= len(warned) <= 3
    assert [row["step"] for row in read_rows(run.path / store.METRICS) if row["event"] == "step"] == [1, 2, 3, 4]
    assert (run.path / store.RESUME).read_bytes() == b"four"
    loaded = store.load(run.path).decoder.weights
    assert all((loaded[name] == value).all() for name, value in decoder(3).weights.items())


def test_what_is_still_not_written_at_the_end_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = writer.create(CONFIG, VOCABULARY, "r", tmp_path)
    monkeypatch.setattr(files.os, "fsync", no_room)
    with pytest.raises(RunError, match=r"No space left on device.*the end of the training is not saved"):
        list(writer.record(run, iter(training())))


def test_lines_that_wait_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = files.Appender(tmp_path / "a", most_waiting=25)
    with monkeypatch.context() as full:
        full.setattr(files.os, "write", no_room)
        for number in range(9):
            file.write(f"line {number}\n")
        assert "No space left" in file.problem
    file.close()
    assert (tmp_path / "a").read_text() == "line 0\nline 1\nline 2\n"


def test_a_short_write_is_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain_write = os.write
    monkeypatch.setattr(files.os, "write", lambda file, content: plain_write(file, bytes(content)[:3]))
    file = files.Appender(tmp_path / "a")
    file.write("a whole line\n")
    file.close()
    assert (tmp_path / "a").read_text() == "a whole line\n"


# --- what is asked ----------------------------------------------------------------------------------------------


def test_what_another_process_asks_arrives_in_order_and_once(tmp_path: Path) -> None:
    path = write(tmp_path, "r", training("stopped"))
    (path / REQUESTS).write_text('{"what": "stop", "value": ""}\n')  # of an earlier training
    run = writer.reopen(path)
    asked = [Command("checkpoint"), Command("prompt", "the road"), Command("lr", "0.5")]
    for command in asked:  # before anybody listens, but the lock is taken
        ask(run.path, command)
    steering = Steering([Requests(run.path, run.asked_before)])
    steering.send(Command("pause"))
    assert steering.take() == [Command("pause"), *asked]
    assert steering.take() == []


def test_nothing_can_be_asked_of_a_run_that_nobody_trains(tmp_path: Path) -> None:
    path = write(tmp_path, "r", training())
    with pytest.raises(RunError, match="'r' is not being trained"):
        ask(path, Command("stop"))
    assert not (path / REQUESTS).exists()


def test_a_folder_in_place_of_requests_asks_for_nothing(tmp_path: Path) -> None:
    requests = Requests(tmp_path)
    (tmp_path / REQUESTS).mkdir()
    assert requests() == []
    (tmp_path / REQUESTS).rmdir()
    (tmp_path / REQUESTS).write_text('{"what": "stop", "value": ""}\n')
    assert requests() == [Command("stop")]


def test_what_is_no_command_is_passed_over(tmp_path: Path) -> None:
    requests = Requests(tmp_path)
    lines = [
        "[" * 100_000,
        "{}",
        '{"what": "rm", "value": "-rf"}',
        '{"what": "lr", "value": "2"}',
        "\x00",
        '{"what": 3}',
    ]
    rows = [*lines, json.dumps({"what": "stop", "value": ""})]
    (tmp_path / REQUESTS).write_text("\n".join(rows) + '\n{"what": "pau')
    found = requests() + requests()
    assert found == [Command("stop")]
    with (tmp_path / REQUESTS).open("a") as file:
        file.write('se", "value": ""}\n')
    assert requests() == [Command("pause")]


@pytest.mark.parametrize(
    ("what", "value"),
    [
        *(("stpo", ""), ("stop", 7), ("lr", "0"), ("lr", "1.5"), ("lr", "nan"), ("lr", "half")),
        *(("prompt", text) for text in ("", "a\nb", "x" * 201, "\x1b[31m")),
    ],
)
def test_commands_that_no_training_could_obey(what: Any, value: Any) -> None:
    with pytest.raises(UnusableInput):
        Command(what, value)


def test_an_error_of_the_record_is_a_failed_row(tmp_path: Path) -> None:
    run = writer.create(CONFIG, VOCABULARY, "r", tmp_path)

    def events() -> Iterator[TrainingEvent]:
        yield step(1)
        raise RuntimeError("out of luck")

    with pytest.raises(RuntimeError):
        list(writer.record(run, events()))
    last = current_rows(run.path / store.METRICS)[-1]
    assert last["event"] == Failed.__name__.lower()
    assert store.summarize(run.path).state == "failed"
