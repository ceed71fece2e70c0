"""Completion in real shells: the line that a shell makes of a word and a tab is the one that the program gets."""

import pytest

from tests.support.shells import SHELLS, open_shell, path_with, write_program

pytestmark = pytest.mark.slow

NAMES = [
    "alpha-1",
    "z run",
    "c's",
    'd"q',
    "e$HOME",
    "v*?",
    "r:i",
    "j=k",
    "k#l",
    "x\\y",
    "ünï",
    "n!m",
    "o~p",
    "(q)",
    "f`g`",  # the last one: bash begins a command at a backquote before the cursor, even behind a backslash
]
"""Names of runs, each of which its first character completes."""


@pytest.fixture(scope="module", params=SHELLS)
def shell(request, tmp_path_factory):
    """Start a shell whose home has a run of each name, in a folder with files."""
    folder = tmp_path_factory.mktemp(request.param)
    for name in NAMES:
        (folder / "home" / "runs" / name).mkdir(parents=True)
        (folder / "home" / "runs" / name / "config.json").write_text("{}")
    work = folder / "work"
    (work / "data set").mkdir(parents=True)
    for file in ("notes.md", "lines.csv", "data set/more lines.csv"):
        (work / file).write_text("")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", path_with(write_program(folder / "bin")))
        patch.setenv("LC_ALL", "C.UTF-8")
        patch.delenv("PYTHONIOENCODING", raising=False)
        with open_shell(request.param, folder / "home", work) as started:
            yield started


def test_names_are_typed_so_that_the_program_gets_them(shell):
    keys = "".join("\\(\t" if name.startswith("(") else f"{name[0]}\t" for name in NAMES)
    assert shell.complete_and_run(f"lotr-tui eval {keys}") == ["eval", *NAMES]


LINES = [
    ("lotr-tui tr", ["train"]),
    ("lotr-tui train --preset noteb", ["train", "--preset", "notebook"]),
    ("lotr-tui train --set optimizer=adamw --set sched", ["train", "--set", "optimizer=adamw", "--set", "schedule="]),
    ("lotr-tui train --set schedule=pla", ["train", "--set", "schedule=plateau"]),
    ('lotr-tui train --set "schedule=pla', ["train", "--set", "schedule=plateau"]),
    ('lotr-tui attach "z r', ["attach", "z run"]),
    ("lotr-tui attach z\\ r", ["attach", "z run"]),
    ('lotr-tui attach "d', ["attach", 'd"q']),
    ('lotr-tui attach "e', ["attach", "e$HOME"]),
    ("lotr-tui eval --run r:", ["eval", "--run", "r:i"]),
    ("lotr-tui train --csv data\\ set/m", ["train", "--csv", "data set/more lines.csv"]),
    ("lotr-tui train --csv lin", ["train", "--csv", "lines.csv"]),
    ("lotr-tui generate hello --as pale", ["generate", "hello", "--as", "PALE LORD"]),
    ("lotr-tui learn perp", ["learn", "perplexity"]),
]
"""Lines before a tab, and the arguments of the program."""


def test_one_tab_completes_the_word(shell):
    assert [shell.complete_and_run(f"{line}\t") for line, _ in LINES] == [arguments for _, arguments in LINES]
