"""Run files that cannot be written, are deleted, or are not regular files: nothing is lost without a warning."""

import errno
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.control import ControlCommand
from engine.data.tokenizers.loading import VOCABULARY_FILE
from engine.errors import RunError
from engine.events import Checkpointed, Evaluated, Finished, Resume, Snapshot, Step, TrainingEvent, Warned
from engine.runs import directory
from engine.runs.control_files import CommandFileReader, send_command
from engine.runs.directory import EPOCHS_DIR, METRICS_FILE, MODEL_FILE, RESUME_FILE, SAMPLES_FILE
from engine.runs.loading import load_model
from engine.runs.locked_run import create_run, reopen_run
from engine.runs.metrics import read_rows
from engine.runs.summary import is_finished, summarize_run
from engine.runs.writer import record_events
from engine.storage import files
from tests.support import runs
from tests.support.file_limits import no_file_longer_than
from tests.support.metrics import make_step
from tests.support.runs import CONFIG, VOCABULARY, make_decoder, make_events, record_run


class Disk:
    """Simulated disk; if it is full, whole files cannot be written because `fsync` fails."""

    full = False


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    disk = Disk()
    monkeypatch.setattr(files.os, "fsync", lambda file: runs.raise_disk_full() if disk.full else None)
    return disk


def recorded_checkpoints(path: Path) -> list[tuple[int, str]]:
    return [(row["step"], row["file"]) for row in read_rows(path / METRICS_FILE) if row["event"] == "checkpointed"]


def evaluated(number: int) -> Evaluated:
    return Evaluated(number, number / 10, 100.0 - number, True, 1.0, make_decoder(number))


def evaluate_on_full_disk(disk: Disk) -> Iterator[TrainingEvent]:
    disk.full = True
    yield evaluated(3)
    disk.full = False


def test_a_checkpoint_that_is_written_late_is_reported_with_its_own_step(tmp_path: Path, disk: Disk) -> None:
    run = create_run(CONFIG, VOCABULARY, "r", tmp_path)

    def events() -> Iterator[TrainingEvent]:
        disk.full = True
        yield evaluated(3)
        yield Snapshot(3, b"three")
        yield make_step(4)
        disk.full = False
        yield Snapshot(5, b"five")

    checkpoints = [event for event in record_events(run, events()) if isinstance(event, Checkpointed)]
    assert [(event.step, event.file) for event in checkpoints] == [(3, MODEL_FILE), (5, RESUME_FILE)]
    assert recorded_checkpoints(run.path) == [(3, MODEL_FILE), (5, RESUME_FILE)]
    assert (run.path / RESUME_FILE).read_bytes() == b"five"
    assert (load_model(run.path).decoder.weights["output.bias"] == make_decoder(3).weights["output.bias"]).all()


def test_space_at_the_end_is_used_before_the_end_is_reported(tmp_path: Path, disk: Disk) -> None:
    run = create_run(CONFIG, VOCABULARY, "r", tmp_path)

    def events() -> Iterator[TrainingEvent]:
        yield from evaluate_on_full_disk(disk)
        yield Finished("done", "r", 1.0, 97.0, 96.0, 5.0)

    seen = list(record_events(run, events()))
    assert [type(event).__name__ for event in seen] == ["Warned", "Evaluated", "Checkpointed", "Finished"]
    assert recorded_checkpoints(run.path) == [(3, MODEL_FILE)]
    assert summarize_run(run.path).state == "finished"


def test_a_summary_has_the_perplexity_of_the_saved_model(tmp_path: Path, disk: Disk) -> None:
    run = create_run(CONFIG, VOCABULARY, "r", tmp_path)

    def events() -> Iterator[TrainingEvent]:
        yield evaluated(1)
        disk.full = True
        yield evaluated(3)
        yield make_step(4)
        disk.full = False
        yield Snapshot(5, b"five")
        disk.full = True
        yield evaluated(6)

    seen = []

    def observe() -> None:
        for event in record_events(run, events()):
            if isinstance(event, (Evaluated, Checkpointed)):
                seen.append((event.step, summarize_run(run.path).valid_perplexity))

    with pytest.raises(RunError, match="not saved"):
        observe()
    assert seen == [(1, 99.0), (1, 99.0), (3, 99.0), (3, 97.0), (5, 97.0), (6, 97.0)]
    assert load_model(run.path).valid_perplexity == summarize_run(run.path).valid_perplexity == 97.0
    assert (load_model(run.path).decoder.weights["output.bias"] == make_decoder(3).weights["output.bias"]).all()


def test_a_resumed_training_does_not_take_back_the_saved_model(tmp_path: Path) -> None:
    run = create_run(CONFIG, VOCABULARY, "r", tmp_path)
    list(record_events(run, iter([evaluated(1), Snapshot(2, b"two"), evaluated(3)])))
    reopened = reopen_run(run.path)
    events = record_events(reopened, iter([Resume(3), make_step(4)]))
    next(events)
    assert summarize_run(run.path).valid_perplexity == load_model(run.path).valid_perplexity == 97.0
    list(events)


def finish_on_full_disk(disk: Disk, before_end: Callable[[], object] = lambda: None) -> Iterator[TrainingEvent]:
    """Yield a checkpoint and then, on a full disk, an evaluation and the end."""
    yield Snapshot(2, b"two")
    disk.full = True
    yield evaluated(3)
    before_end()
    yield Finished("done", "r", 1.0, 97.0, 96.0, 5.0)


def test_the_resume_checkpoint_is_kept_until_the_model_is_written(tmp_path: Path, disk: Disk) -> None:
    run = create_run(CONFIG, VOCABULARY, "r", tmp_path)
    with pytest.raises(RunError, match="the end of the training is not saved"):
        list(record_events(run, finish_on_full_disk(disk)))
    assert (run.path / RESUME_FILE).read_bytes() == b"two"
    assert summarize_run(run.path).state == "failed"
    reopen_run(run.path).lock.release()


def test_a_training_without_its_model_is_not_finished_even_if_the_failure_cannot_be_recorded(
    tmp_path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The row of the end would fit on the disk and the row of the failure would not."""
    run = create_run(CONFIG, VOCABULARY, "r", tmp_path)
    plain_write = os.write

    def write(fd: int, content: Any) -> int:
        return runs.raise_disk_full() if b'"failed"' in bytes(content) else plain_write(fd, content)

    end = finish_on_full_disk(disk, lambda: monkeypatch.setattr(files.os, "write", write))
    with pytest.raises(RunError, match="the end of the training is not saved"):
        list(record_events(run, end))
    assert not is_finished(run.path)
    assert (run.path / RESUME_FILE).read_bytes() == b"two"
    reopen_run(run.path).lock.release()


def test_a_failed_training_writes_pending_weights(tmp_path: Path, disk: Disk) -> None:
    run = create_run(CONFIG, VOCABULARY, "r", tmp_path)

    def events() -> Iterator[TrainingEvent]:
        yield from evaluate_on_full_disk(disk)
        raise RuntimeError("out of luck")

    with pytest.raises(RuntimeError):
        list(record_events(run, events()))
    assert (run.path / MODEL_FILE).exists()
    assert summarize_run(run.path).state == "failed"


@pytest.mark.parametrize("deleted", ["r", "r/metrics.jsonl"])
def test_a_run_that_is_deleted_during_training_is_reported_and_not_saved(tmp_path: Path, deleted: str) -> None:
    run = create_run(CONFIG, VOCABULARY, "r", tmp_path)

    def events() -> Iterator[TrainingEvent]:
        yield evaluated(1)
        path = tmp_path / deleted
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        yield make_step(2)
        yield make_step(3)
        yield Finished("done", "r", 1.0, 99.0, 99.0, 5.0)

    seen: list[TrainingEvent] = []
    with pytest.raises(RunError, match=r"metrics\.jsonl was deleted; the end of the training is not saved"):
        seen.extend(record_events(run, events()))
    warned = [event.message for event in seen if isinstance(event, Warned)]
    assert len(warned) == 1
    assert "metrics.jsonl was deleted; the training continues" in warned[0]
    assert sum(isinstance(event, Step) for event in seen) == 2  # the training continued
    assert (tmp_path / "r").exists() == (deleted != "r")


def test_a_missing_epochs_folder_is_created_and_a_file_in_its_place_refused(tmp_path: Path) -> None:
    run = create_run(runs.CONFIG_WITH_EPOCHS, VOCABULARY, "r", tmp_path)
    run.lock.release()
    (run.path / EPOCHS_DIR).rmdir()
    reopen_run(run.path).lock.release()
    assert (run.path / EPOCHS_DIR).is_dir()
    (run.path / EPOCHS_DIR).rmdir()
    (run.path / EPOCHS_DIR).touch()
    with pytest.raises(RunError, match="cannot be written"):
        reopen_run(run.path)
    assert not directory.is_locked(run.path)


# Files that are not regular files

PIPE_NAMES = [
    VOCABULARY_FILE,
    METRICS_FILE,
    SAMPLES_FILE,
    directory.LOG_FILE,
    directory.LOCK_FILE,
    MODEL_FILE,
    directory.COMMANDS_FILE,
]


@pytest.mark.parametrize("name", PIPE_NAMES)
def test_a_pipe_in_place_of_a_file_blocks_no_reader(tmp_path: Path, name: str) -> None:
    """The readers run in a process that is killed if one of them blocks."""
    path = record_run(tmp_path, "r", make_events("stopped"))
    (path / name).unlink(missing_ok=True)
    os.mkfifo(path / name)
    code = """
import signal, sys
from pathlib import Path
from engine.errors import RunError
from tests.support.run_readers import READERS
signal.alarm(30)
for reader in READERS.values():
    try:
        reader(Path(sys.argv[1]))
    except RunError as error:
        print(error)
"""
    process = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=False)
    assert (process.returncode, process.stderr) == (0, "")
    assert stat.S_ISFIFO((path / name).stat().st_mode)
    assert (name in process.stdout) == (
        name in (VOCABULARY_FILE, METRICS_FILE, SAMPLES_FILE, directory.LOG_FILE, MODEL_FILE)
    )


@pytest.mark.parametrize(
    "name", [METRICS_FILE, SAMPLES_FILE, directory.LOG_FILE, directory.LOCK_FILE, directory.COMMANDS_FILE]
)
def test_nothing_is_written_through_a_link(tmp_path: Path, name: str) -> None:
    path = record_run(tmp_path, "r", make_events("stopped"))
    target = tmp_path / "target.txt"
    target.write_text("not part of a run\n")
    (path / name).unlink(missing_ok=True)
    (path / name).symlink_to(target)
    if name == directory.COMMANDS_FILE:
        run = reopen_run(path)
        with pytest.raises(RunError, match="cannot write"):
            send_command(path, ControlCommand("stop"))
        run.lock.release()
    else:
        with pytest.raises(RunError, match="cannot"):
            list(record_events(reopen_run(path), iter([make_step(1)])))
    assert target.read_text() == "not part of a run\n"


def test_a_read_only_run_can_be_loaded_and_not_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = record_run(tmp_path, "r", make_events("stopped"))
    plain_open = os.open

    def read_only(file: Any, flags: int, *more: Any, **named: Any) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR) and str(file).startswith(str(tmp_path)):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        return plain_open(file, flags, *more, **named)

    monkeypatch.setattr(files.os, "open", read_only)
    assert summarize_run(path).state == "stopped"
    assert load_model(path).valid_perplexity == 90.0
    with pytest.raises(RunError, match="cannot be written: Read-only file system"):
        reopen_run(path)
    with pytest.raises(RunError, match="Read-only file system"):
        create_run(CONFIG, VOCABULARY, "new", tmp_path)


def test_a_command_on_a_full_disk_does_not_damage_the_next_one(tmp_path: Path) -> None:
    path = record_run(tmp_path, "r", make_events("stopped"))
    run = reopen_run(path)
    with no_file_longer_than(20), pytest.raises(RunError, match=r"cannot write .*commands\.jsonl: File too large"):
        send_command(path, ControlCommand("prompt", "the road"))
    send_command(path, ControlCommand("stop"))
    assert CommandFileReader(path)() == [ControlCommand("stop")]
    run.lock.release()


def test_a_run_that_is_moved_away_is_reported_by_path_and_written_when_it_is_back(tmp_path: Path) -> None:
    run = create_run(CONFIG, VOCABULARY, "r", tmp_path)

    def events() -> Iterator[TrainingEvent]:
        yield Snapshot(1, b"one")
        run.path.rename(tmp_path / "away")
        yield Snapshot(2, b"two")
        yield make_step(3)
        (tmp_path / "away").rename(run.path)
        yield Snapshot(4, b"four")

    seen = list(record_events(run, events()))
    (message,) = [event.message for event in seen if isinstance(event, Warned)]
    assert message.startswith(f"cannot write {run.path / RESUME_FILE}: No such file or directory")
    assert recorded_checkpoints(run.path) == [(1, RESUME_FILE), (4, RESUME_FILE)]
    assert (run.path / RESUME_FILE).read_bytes() == b"four"
    assert (run.path / directory.PREVIOUS_RESUME_FILE).read_bytes() == b"one"
    assert 3 in [row.get("step") for row in read_rows(run.path / METRICS_FILE)]
