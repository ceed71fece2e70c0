"""Records of runs that are stopped and resumed, also on a full disk."""

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.data.tokenizers.loading import VOCABULARY_FILE
from engine.errors import RunError
from engine.events import Checkpointed, Evaluated, Finished, Resume, Sampled, Snapshot, Step, TrainingEvent, Warned
from engine.runs import directory
from engine.runs.directory import CONFIG_FILE, METRICS_FILE, RESUME_FILE
from engine.runs.loading import load_model
from engine.runs.locked_run import create_run, reopen_run
from engine.runs.metrics import read_current_rows, read_rows
from engine.runs.summary import summarize_run
from engine.runs.writer import record_events
from engine.storage import files
from tests.support.runs import CONFIG, VOCABULARY, make_decoder, make_events, record_run


def step(number: int, train: float = 100.0) -> Step:
    return Step(number, number / 10, train, 0.01, 1.0, 1000.0, float(number), 9.0)


# --- checkpoints and resumes -------------------------------------------------------------------------------------


def test_a_snapshot_is_written_to_the_resume_file_until_the_training_is_done(tmp_path: Path) -> None:
    run = create_run(CONFIG, VOCABULARY, "r", tmp_path)
    resume, recorded = run.path / RESUME_FILE, []
    events = [*make_events(None), Snapshot(18, b"one"), Snapshot(20, b"two"), make_events()[-1]]
    for event in record_events(run, iter(events)):
        recorded.append(event)
        if isinstance(event, Checkpointed) and event.file == RESUME_FILE:
            assert resume.read_bytes() == {18: b"one", 20: b"two"}[event.step]
    assert not any(isinstance(event, Snapshot) for event in recorded)
    written = [event.step for event in recorded if isinstance(event, Checkpointed) and event.file == RESUME_FILE]
    assert written == [18, 20]
    assert not resume.exists()


def test_the_two_latest_checkpoints_are_kept_until_the_training_is_done(tmp_path: Path) -> None:
    run = create_run(CONFIG, VOCABULARY, "r", tmp_path)
    contents = []
    events = [*make_events(None), *(Snapshot(18 + n, f"{n}".encode()) for n in range(3)), make_events()[-1]]
    for event in record_events(run, iter(events)):
        if isinstance(event, Checkpointed) and event.file == RESUME_FILE:
            paths = [run.path / RESUME_FILE, run.path / directory.PREVIOUS_RESUME_FILE]
            contents.append([path.read_bytes() for path in paths if path.exists()])
    assert contents == [[b"0"], [b"1", b"0"], [b"2", b"1"]]
    assert not list(run.path.glob("resume*"))


def test_temporary_files_of_a_killed_start_are_removed(tmp_path: Path) -> None:
    (tmp_path / "r").mkdir()
    for name in (CONFIG_FILE, VOCABULARY_FILE, directory.INITIAL_FILE):
        (tmp_path / "r" / f".{name}.abc").write_bytes(b"hal")
    run = create_run(CONFIG, VOCABULARY, "r", tmp_path)
    assert not list(run.path.glob(".*"))


def test_a_stopped_run_keeps_its_checkpoint(tmp_path: Path) -> None:
    path = record_run(tmp_path, "r", [*make_events(None), Snapshot(18, b"one"), make_events("stopped")[-1]])
    assert (path / RESUME_FILE).read_bytes() == b"one"
    assert summarize_run(path).state == "stopped"


def test_superseded_rows_are_left_out_after_a_resume(tmp_path: Path) -> None:
    path = record_run(tmp_path, "r", [step(1), step(2), step(3, 70.0), Finished("stopped", "r", 1.0, 9.0, 9.0, 1.0)])
    run = reopen_run(path)
    list(record_events(run, iter([Resume(3), step(3, 80.0), Sampled(3, 0.3, "a", "b", 0, 0.7), step(4)])))
    assert [
        (row["event"], row.get("step"), row.get("train_perplexity")) for row in read_current_rows(path / METRICS_FILE)
    ] == [
        ("step", 1, 100.0),
        ("step", 2, 100.0),
        ("resume", 3, None),
        ("step", 3, 80.0),
        ("step", 4, 100.0),
    ]
    assert len(list(read_rows(path / METRICS_FILE))) == 7  # nothing is removed from the file
    assert [row["event"] for row in read_rows(path / directory.SAMPLES_FILE)] == ["resume", "sampled"]
    assert summarize_run(path).state == "crashed"


def test_a_torn_last_line_is_repaired_on_resume(tmp_path: Path) -> None:
    path = record_run(tmp_path, "r", [step(1)])
    with (path / METRICS_FILE).open("a") as file:
        file.write('{"event": "step", "st')
    list(record_events(reopen_run(path), iter([Resume(2), step(2)])))
    assert [row.get("step") for row in read_current_rows(path / METRICS_FILE)] == [1, 2, 2]


@pytest.mark.parametrize("reason", ["done", "patience", "pruned"])
def test_a_finished_run_cannot_be_resumed(tmp_path: Path, reason: Any) -> None:
    path = record_run(tmp_path, "r", [*make_events(None), Finished(reason, "r", 2.0, 90.0, 88.0, 5.0, make_decoder(1))])
    with pytest.raises(RunError, match="'r' is finished; start a new one"):
        reopen_run(path)


def test_an_abandoned_directory_is_reused(tmp_path: Path) -> None:
    for name in ("r/epochs", "s"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("r/lock", "r/vocabulary.json", "r/initial.safetensors", "r/.config.json.x7", "s/notes.txt"):
        (tmp_path / name).touch()
    assert create_run(CONFIG, VOCABULARY, "r", tmp_path).path == tmp_path / "r"
    for name in ("r", "s"):  # "r" is a run now, and "s" contains a file of the user
        with pytest.raises(RunError, match="exists"):
            create_run(CONFIG, VOCABULARY, name, tmp_path)
    assert [item.name for item in (tmp_path / "s").iterdir()] == ["notes.txt"]


def test_a_file_in_place_of_the_run_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "r").write_text("mine")
    with pytest.raises(RunError, match="'r' exists"):
        create_run(CONFIG, VOCABULARY, "r", tmp_path)
    assert (tmp_path / "r").read_text() == "mine"


def test_after_a_thousand_names_the_user_must_choose_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[str] = []
    monkeypatch.setattr(Path, "mkdir", lambda path, **_: tried.append(path.name))
    with pytest.raises(RunError, match=r"too many runs tiny-.*; choose a --run name"):
        create_run(CONFIG, VOCABULARY, None, tmp_path)
    assert len(set(tried)) == len(tried) > 900


HOLD_LOCK_PROGRAM = """
import sys, time
from pathlib import Path
from engine.runs.locked_run import reopen_run
run = reopen_run(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(60)
"""


def test_a_second_training_process_is_refused_with_the_name_of_the_first(tmp_path: Path) -> None:
    path = record_run(tmp_path, "r", make_events("stopped"))
    with subprocess.Popen(
        [sys.executable, "-c", HOLD_LOCK_PROGRAM, str(path)], stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        message = rf"'r' is being trained by process {other.pid} on .*; `lotr-tui attach {path}` shows it"
        with pytest.raises(RunError, match=message):
            reopen_run(path)
        other.kill()
    reopen_run(path).lock.release()


# --- full disks -------------------------------------------------------------------------------------------------


def no_room(*_: Any, **__: Any) -> int:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_on_a_full_disk_training_continues_and_data_is_written_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = create_run(CONFIG, VOCABULARY, "r", tmp_path)
    write, full = os.write, False

    def write_or_not(file: int, content: Any) -> int:
        return no_room() if full else write(file, content)

    monkeypatch.setattr(files.os, "write", write_or_not)
    monkeypatch.setattr(files.os, "fsync", lambda file: no_room() if full else None)

    def events() -> Iterator[TrainingEvent]:
        nonlocal full
        yield step(1)
        full = True
        yield step(2)
        yield step(3)
        yield Evaluated(3, 0.3, 50.0, True, 1.0, make_decoder(3))
        yield Snapshot(3, b"three")
        assert not (run.path / directory.MODEL_FILE).exists()
        full = False
        yield step(4)
        yield Snapshot(4, b"four")

    recorded = list(record_events(run, events()))
    warned = [event.message for event in recorded if isinstance(event, Warned)]
    assert all("No space left on device" in message and str(run.path) in message for message in warned)
    assert 1 <= len(warned) <= 3
    assert [row["step"] for row in read_rows(run.path / METRICS_FILE) if row["event"] == "step"] == [1, 2, 3, 4]
    assert (run.path / RESUME_FILE).read_bytes() == b"four"
    loaded = load_model(run.path).decoder.weights
    assert all((loaded[name] == value).all() for name, value in make_decoder(3).weights.items())


def test_data_that_cannot_be_written_at_the_end_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = create_run(CONFIG, VOCABULARY, "r", tmp_path)
    monkeypatch.setattr(files.os, "fsync", no_room)
    with pytest.raises(RunError, match=r"No space left on device.*the end of the training is not saved"):
        list(record_events(run, iter(make_events())))


def test_an_exception_of_the_training_is_recorded_as_a_failed_row(tmp_path: Path) -> None:
    run = create_run(CONFIG, VOCABULARY, "r", tmp_path)

    def events() -> Iterator[TrainingEvent]:
        yield step(1)
        raise RuntimeError("out of luck")

    with pytest.raises(RuntimeError):
        list(record_events(run, events()))
    last = read_current_rows(run.path / METRICS_FILE)[-1]
    assert last["event"] == "failed"
    assert summarize_run(run.path).state == "failed"
