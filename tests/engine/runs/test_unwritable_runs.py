"""Runs whose files cannot be written, are deleted or are no files while they are trained: nothing is lost silently."""

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

from engine.control import Command
from engine.errors import RunError
from engine.events import Checkpointed, Evaluated, Finished, Snapshot, Step, TrainingEvent, Warned
from engine.runs import store, writer
from engine.runs.control_files import Requests, ask
from engine.runs.metrics import read_rows
from engine.storage import files
from tests.engine.runs.test_saved_epochs import KEEPS
from tests.engine.training.test_resume import no_room, step
from tests.support.file_limits import no_file_longer_than
from tests.support.runs import CONFIG, VOCABULARY, decoder, training, write


class Disk:
    """Full, or not; then whole files cannot be written, as `fsync` says."""

    full = False


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    disk = Disk()
    monkeypatch.setattr(files.os, "fsync", lambda file: no_room() if disk.full else None)
    return disk


def checkpoints(path: Path) -> list[tuple[int, str]]:
    return [(row["step"], row["file"]) for row in read_rows(path / store.METRICS) if row["event"] == "checkpointed"]


def evaluated(number: int) -> Evaluated:
    return Evaluated(number, number / 10, 100.0 - number, True, 1.0, decoder(number))


def test_a_file_that_is_written_late_is_told_with_the_update_it_is_of(tmp_path: Path, disk: Disk) -> None:
    run = writer.create(CONFIG, VOCABULARY, "r", tmp_path)

    def events() -> Iterator[TrainingEvent]:
        disk.full = True
        yield evaluated(3)
        yield Snapshot(3, b"three")
        yield step(4)
        disk.full = False
        yield Snapshot(5, b"five")

    told = [event for event in writer.record(run, events()) if isinstance(event, Checkpointed)]
    assert [(event.step, event.file) for event in told] == [(3, store.MODEL), (5, store.RESUME)]
    assert checkpoints(run.path) == [(3, store.MODEL), (5, store.RESUME)]
    assert (run.path / store.RESUME).read_bytes() == b"five"
    assert (store.load(run.path).decoder.weights["output.bias"] == decoder(3).weights["output.bias"]).all()


def test_room_that_there_is_at_the_end_is_used_before_it_is_told(tmp_path: Path, disk: Disk) -> None:
    run = writer.create(CONFIG, VOCABULARY, "r", tmp_path)

    def events() -> Iterator[TrainingEvent]:
        disk.full = True
        yield evaluated(3)
        disk.full = False
        yield Finished("done", "r", 1.0, 97.0, 96.0, 5.0)

    seen = list(writer.record(run, events()))
    assert [type(event).__name__ for event in seen] == ["Warned", "Evaluated", "Checkpointed", "Finished"]
    assert checkpoints(run.path) == [(3, store.MODEL)]
    assert store.summarize(run.path).state == "finished"


def test_what_a_resume_needs_stays_until_the_model_is_written(tmp_path: Path, disk: Disk) -> None:
    run = writer.create(CONFIG, VOCABULARY, "r", tmp_path)

    def events() -> Iterator[TrainingEvent]:
        yield Snapshot(2, b"two")
        disk.full = True
        yield evaluated(3)
        yield Finished("done", "r", 1.0, 97.0, 96.0, 5.0)

    with pytest.raises(RunError, match="the end of the training is not saved"):
        list(writer.record(run, events()))
    assert (run.path / store.RESUME).read_bytes() == b"two"
    assert store.summarize(run.path).state == "failed"
    writer.reopen(run.path).lock.close()


def test_without_its_model_a_training_has_not_come_to_its_end_even_where_that_cannot_be_told(
    tmp_path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The row of the end would fit, and the row that it failed would not: then there was nothing to go on with."""
    run = writer.create(CONFIG, VOCABULARY, "r", tmp_path)
    really = os.write

    def write(file: int, content: bytes) -> int:
        return no_room() if b'"failed"' in content else really(file, content)

    def events() -> Iterator[TrainingEvent]:
        yield Snapshot(2, b"two")
        disk.full = True
        yield evaluated(3)
        monkeypatch.setattr(files.os, "write", write)
        yield Finished("done", "r", 1.0, 97.0, 96.0, 5.0)

    with pytest.raises(RunError, match="the end of the training is not saved"):
        list(writer.record(run, events()))
    assert not store.is_finished(run.path)
    assert (run.path / store.RESUME).read_bytes() == b"two"
    writer.reopen(run.path).lock.close()


def test_a_training_that_breaks_leaves_what_could_not_be_written_before(tmp_path: Path, disk: Disk) -> None:
    run = writer.create(CONFIG, VOCABULARY, "r", tmp_path)

    def events() -> Iterator[TrainingEvent]:
        disk.full = True
        yield evaluated(3)
        disk.full = False
        raise RuntimeError("out of luck")

    with pytest.raises(RuntimeError):
        list(writer.record(run, events()))
    assert (run.path / store.MODEL).exists()
    assert store.summarize(run.path).state == "failed"


@pytest.mark.parametrize("gone", ["r", "r/metrics.jsonl"])
def test_a_run_that_is_deleted_while_it_is_trained_says_so_and_does_not_count_as_saved(
    tmp_path: Path, gone: str
) -> None:
    run = writer.create(CONFIG, VOCABULARY, "r", tmp_path)

    def events() -> Iterator[TrainingEvent]:
        yield evaluated(1)
        path = tmp_path / gone
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        yield step(2)
        yield step(3)
        yield Finished("done", "r", 1.0, 99.0, 99.0, 5.0)

    seen: list[TrainingEvent] = []
    with pytest.raises(RunError, match=r"metrics\.jsonl was deleted; the end of the training is not saved"):
        seen.extend(writer.record(run, events()))
    warned = [event.message for event in seen if isinstance(event, Warned)]
    assert len(warned) == 1
    assert "metrics.jsonl was deleted; the training goes on" in warned[0]
    assert sum(isinstance(event, Step) for event in seen) == 2  # it went on
    assert (tmp_path / "r").exists() == (gone != "r")


def test_the_folder_of_epochs_is_made_again_or_refused_before_the_training(tmp_path: Path) -> None:
    run = writer.create(KEEPS, VOCABULARY, "r", tmp_path)
    run.lock.close()
    (run.path / store.EPOCHS).rmdir()
    writer.reopen(run.path).lock.close()
    assert (run.path / store.EPOCHS).is_dir()
    (run.path / store.EPOCHS).rmdir()
    (run.path / store.EPOCHS).touch()
    with pytest.raises(RunError, match="cannot be written"):
        writer.reopen(run.path)
    assert not store.is_written(run.path)


# --- what is no file --------------------------------------------------------------------------------------------

READERS: dict[str, Callable[[Path], Any]] = {
    "summarize": store.summarize,
    "writer": store.writer,
    "load": store.load,
    "reopen": writer.reopen,
    "record": lambda path: list(writer.record(writer.reopen(path), iter([step(1)]))),
    "ask": lambda path: ask(path, Command("stop")),
}
PIPES = [store.VOCABULARY, store.METRICS, store.SAMPLES, store.LOG, store.LOCK, store.MODEL, store.REQUESTS]


@pytest.mark.parametrize("name", PIPES)
def test_a_pipe_in_place_of_a_file_makes_nobody_wait(tmp_path: Path, name: str) -> None:
    """In a process that would be killed if it did."""
    path = write(tmp_path, "r", training("stopped"))
    (path / name).unlink(missing_ok=True)
    os.mkfifo(path / name)
    code = """
import signal, sys
from pathlib import Path
from engine.errors import RunError
from tests.engine.runs.test_unwritable_runs import READERS
signal.alarm(30)
for reader in READERS.values():
    try:
        reader(Path(sys.argv[1]))
    except RunError as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert stat.S_ISFIFO((path / name).stat().st_mode)
    assert (name in done.stdout) == (name in (store.VOCABULARY, store.METRICS, store.SAMPLES, store.LOG, store.MODEL))


@pytest.mark.parametrize("name", [store.METRICS, store.SAMPLES, store.LOG, store.LOCK, store.REQUESTS])
def test_nothing_is_written_through_a_link_that_leads_elsewhere(tmp_path: Path, name: str) -> None:
    path = write(tmp_path, "r", training("stopped"))
    mine = tmp_path / "mine.txt"
    mine.write_text("not of any run\n")
    (path / name).unlink(missing_ok=True)
    (path / name).symlink_to(mine)
    if name == store.REQUESTS:
        held = writer.reopen(path)
        with pytest.raises(RunError, match="cannot write"):
            ask(path, Command("stop"))
        held.lock.close()
    else:
        with pytest.raises(RunError, match="cannot"):
            list(writer.record(writer.reopen(path), iter([step(1)])))
    assert mine.read_text() == "not of any run\n"


def test_a_run_that_may_only_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, "r", training("stopped"))
    plain_open = os.open

    def read_only(file: Any, flags: int, *more: Any, **named: Any) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR) and str(file).startswith(str(tmp_path)):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        return plain_open(file, flags, *more, **named)

    monkeypatch.setattr(files.os, "open", read_only)
    assert store.summarize(path).state == "stopped"
    assert store.load(path).valid_perplexity == 90.0
    with pytest.raises(RunError, match="cannot be written: Read-only file system"):
        writer.reopen(path)
    with pytest.raises(RunError, match="Read-only file system"):
        writer.create(CONFIG, VOCABULARY, "new", tmp_path)


def test_a_question_that_finds_no_room_spoils_no_later_one(tmp_path: Path) -> None:
    path = write(tmp_path, "r", training("stopped"))
    run = writer.reopen(path)
    with no_file_longer_than(20), pytest.raises(RunError, match=r"cannot write .*requests\.jsonl: File too large"):
        ask(path, Command("prompt", "the road"))
    ask(path, Command("stop"))
    assert Requests(path)() == [Command("stop")]
    run.lock.close()


def test_a_folder_that_is_moved_away_is_told_by_its_path_and_written_when_it_is_back(tmp_path: Path) -> None:
    run = writer.create(CONFIG, VOCABULARY, "r", tmp_path)

    def events() -> Iterator[TrainingEvent]:
        yield Snapshot(1, b"one")
        run.path.rename(tmp_path / "away")
        yield Snapshot(2, b"two")
        yield step(3)
        (tmp_path / "away").rename(run.path)
        yield Snapshot(4, b"four")

    seen = list(writer.record(run, events()))
    (message,) = [event.message for event in seen if isinstance(event, Warned)]
    assert message.startswith(f"cannot write {run.path / store.RESUME}: No such file or directory")
    assert checkpoints(run.path) == [(1, store.RESUME), (4, store.RESUME)]
    assert (run.path / store.RESUME).read_bytes() == b"four"
    assert (run.path / store.PREVIOUS).read_bytes() == b"one"
    assert 3 in [row.get("step") for row in read_rows(run.path / store.METRICS)]
