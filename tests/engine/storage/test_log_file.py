"""The log of a run stays bounded, and survives a full disk and a deleted folder."""

import logging
import os
from pathlib import Path

import pytest

from engine.events import Warned
from engine.runs.directory import LOG_FILE
from engine.runs.locked_run import create_run
from engine.runs.writer import record_events
from engine.storage.log_file import LogFileHandler
from tests.support.file_limits import no_file_longer_than
from tests.support.runs import CONFIG, VOCABULARY, make_events


def make_logger(path: Path, max_bytes: int = 10_000) -> logging.Logger:
    logger = logging.Logger("test")
    logger.addHandler(LogFileHandler(path, max_bytes))
    return logger


def test_a_long_training_has_a_log_of_two_bounded_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.runs.writer.LogFileHandler", lambda path: LogFileHandler(path, 10_000))
    run = create_run(CONFIG, VOCABULARY, "r", tmp_path)
    warnings = [Warned(f"message number {number} {'x' * 50}") for number in range(1000)]
    for _ in record_events(run, iter([*make_events(None), *warnings, make_events()[-1]])):
        pass
    rotated, latest = ((run.path / name).read_text().splitlines() for name in ("log.1.txt", LOG_FILE))
    assert sum(path.stat().st_size for path in run.path.glob("log*")) < 21_000
    lines = [line for line in [*rotated, *latest] if "message number" in line]
    numbers = [int(line.split("message number ")[1].split()[0]) for line in lines]
    assert numbers == list(range(1000 - len(lines), 1000))


def test_a_log_whose_folder_was_deleted_raises_nothing(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    logger = make_logger(tmp_path / "run" / "log.txt", max_bytes=10)
    for name in ("log.txt", ""):
        logger.info("one line that is longer than the limit")
        path = tmp_path / "run" / name
        path.unlink() if path.is_file() else [path.unlink() for path in path.iterdir()]
    (tmp_path / "run").rmdir()
    logger.info("two")
    logger.info("three")
    logger.handlers[0].close()


def test_lines_wait_while_the_disk_is_full_and_nothing_is_printed(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "log.txt"
    logger = make_logger(path)
    logger.info("first")
    with no_file_longer_than(9):
        logger.info("second")
        logger.info("third")
    assert path.read_text() == "first\nsec"
    logger.info("fourth")
    assert path.read_text() == "first\nsecond\nthird\nfourth\n"
    assert capfd.readouterr() == ("", "")


def test_a_torn_last_line_is_ended_before_the_next_line(tmp_path: Path) -> None:
    path = tmp_path / "log.txt"
    path.write_text("whole\ntor")
    make_logger(path).info("next")
    assert path.read_text() == "whole\ntor\nnext\n"


def test_a_log_that_cannot_be_rotated_grows(tmp_path: Path) -> None:
    path = tmp_path / "log.txt"
    (tmp_path / "log.1.txt").mkdir()
    logger = make_logger(path, max_bytes=10)
    for number in range(5):
        logger.info("a line of text %d", number)
    assert path.read_text().splitlines() == [f"a line of text {number}" for number in range(5)]


@pytest.mark.parametrize("kind", ["pipe", "link"])
def test_only_a_regular_file_is_opened(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "log.txt"
    os.mkfifo(path) if kind == "pipe" else path.symlink_to("other.txt")
    with pytest.raises(OSError, match=r"not a regular file|symbolic links|log\.txt"):
        LogFileHandler(path)
    assert not (tmp_path / "other.txt").exists()
