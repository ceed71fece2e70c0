"""The command `lotr-tui learn`: list of chapters, refused options, and the class in a terminal."""

import sys
import time

import pytest

from lotr_tui.learn.chapters import CHAPTERS
from lotr_tui.learn.progress import Progress, ProgressStore, progress_file
from tests.support.files import sentences, write_csv
from tests.support.terminal import Terminal

LEARN = [sys.executable, "-m", "lotr_tui", "learn"]


def test_list_without_progress(lotr, home):
    process = lotr("learn", "--list")
    assert process.returncode == 0
    lines = [line.split(maxsplit=2) for line in process.stdout.splitlines()]
    assert lines == [[str(number), chapter.name, chapter.title] for number, chapter in enumerate(CHAPTERS, 1)]
    assert not home.exists()


def test_list_with_progress(lotr, home):
    home.mkdir()
    progress_file().write_text(Progress(("memory", "tokens"), "memory").to_json())
    lines = lotr("learn", "--list").stdout.splitlines()
    assert [line.split()[2] for line in lines if "done" in line] == ["tokens", "memory"]
    assert len({line.index(chapter.title) for line, chapter in zip(lines, CHAPTERS, strict=True)}) == 1


@pytest.mark.slow
def test_class_in_a_terminal_ends_with_escape(tmp_path):
    arguments = ["--csv", str(write_csv(tmp_path / "own.csv", sentences(120)))]
    with Terminal([*LEARN, "1", "--theme", "shire-light", *arguments], 120, 35, tmp_path).spawn() as terminal:
        terminal.read_until("Text becomes numbers")
        terminal.read_until("held-out words unknown")
        terminal.read_until_quiet(0.3, 3)
        terminal.write(b"\x1b")
        terminal.read_until_exit()
        deadline = time.monotonic() + 10
        while not terminal.has_exited() and time.monotonic() < deadline:
            time.sleep(0.02)
    assert terminal.exit_status == 0
    assert ProgressStore(tmp_path / "learn.json").current == Progress((), "tokens")
