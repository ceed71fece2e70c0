"""The command `lotr-tui learn`: list of chapters, refused options, and the class in a terminal."""

import sys
import time
from pathlib import Path

import pytest

from lotr_tui.learn.chapters import CHAPTERS
from lotr_tui.learn.progress import Progress, ProgressStore, progress_file
from tests.support.files import sentences, write_csv
from tests.support.terminal import Terminal

LEARN = [sys.executable, "-m", "lotr_tui", "learn"]


def test_list_without_progress(command, home):
    process = command("learn", "--list")
    assert process.returncode == 0
    lines = [line.split(maxsplit=2) for line in process.stdout.splitlines()]
    assert lines == [[str(number), chapter.name, chapter.title] for number, chapter in enumerate(CHAPTERS, 1)]
    assert not home.exists()


def test_list_with_progress(command, home):
    home.mkdir()
    progress_file().write_text(Progress(("memory", "tokens"), "memory").to_json())
    lines = command("learn", "--list").stdout.splitlines()
    assert [line.split()[2] for line in lines if "done" in line] == ["tokens", "memory"]
    assert len({line.index(chapter.title) for line, chapter in zip(lines, CHAPTERS, strict=True)}) == 1


def test_list_with_damaged_progress_says_so(command, home):
    home.mkdir()
    progress_file().write_text("{")
    process = command("learn", "--list")
    assert process.returncode == 0
    assert len(process.stdout.splitlines()) == len(CHAPTERS)
    (line,) = process.stderr.splitlines()
    assert line.startswith(f"lotr-tui: {progress_file()} cannot be used")


def test_help_names_the_options(command):
    text = " ".join(command("learn", "--help").stdout.replace("│", " ").split())
    assert all(option in text for option in ("[CHAPTER]", "--run", "--csv", "--text", "--list", "--theme"))
    assert "lotr-tui learn perplexity" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the class needs a terminal; `lotr-tui learn --list` prints its chapters"),
        (["3"], "the class needs a terminal"),
        (["perplexty"], "there is no chapter 'perplexty'; did you mean perplexity?"),
        (["9"], "there is no chapter '9'"),
        (["1", "--csv", "nowhere.csv"], "nowhere.csv does not exist"),
        (["--text", "nowhere.txt"], "nowhere.txt does not exist"),
        (["--run", "nowhere"], "nowhere"),
        (["--run", "hf:/nowhere"], "/nowhere"),
        (["--run", "latest", "--csv", "a.csv"], "--run, --csv and --text exclude one another"),
        (["--theme", "shyre"], "shire"),
    ],
)
def test_bad_input_is_refused_in_one_line(refused, arguments, message):
    assert message in refused("learn", *arguments)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("char,dialog\nSAM,a sentence long enough to be kept\n", "1 usable lines cannot be split"),
        ("char,text\nSAM,a sentence long enough to be kept\n", "no column 'dialog'; its columns: char, text"),
        ("", "is empty"),
    ],
)
def test_corpus_that_cannot_be_used_is_refused_in_one_line(refused, tmp_path, content, message):
    path = tmp_path / "corpus.csv"
    path.write_text(content)
    assert message in refused("learn", "1", "--csv", path)


def test_text_column_is_used(refused, tmp_path):
    path = write_csv(tmp_path / "corpus.csv", sentences(40))
    path.write_text(path.read_text().replace("dialog", "said", 1))
    assert "no column 'dialog'" in refused("learn", "--csv", path)
    assert "needs a terminal" in refused("learn", "--csv", path, "--text-column", "said")


def test_run_whose_corpus_is_gone_is_reported_in_the_chapter(tmp_path, untrained_run):
    config = untrained_run / "config.json"
    config.write_text(config.read_text().replace('"bundled"', '"/nowhere.csv"'))
    with Terminal([*LEARN, "tokens", "--run", str(untrained_run)], 120, 35, tmp_path).spawn() as terminal:
        terminal.read_until("/nowhere.csv does not exist")


@pytest.mark.parametrize("corpus", [False, True])
def test_class_in_a_terminal_ends_with_escape(tmp_path: Path, corpus: bool) -> None:
    arguments = ["--csv", str(write_csv(tmp_path / "own.csv", sentences(120)))] if corpus else []
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
