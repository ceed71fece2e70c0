"""Candidates for a line: commands, options, runs, settings, speakers and paths, also with hostile names."""

import os
import shlex
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.runs.directory import resolve_run
from lotr_tui.cli.completion.tree_file import describe_program
from lotr_tui.completion.answer import complete_in_bash, complete_in_fish, complete_in_zsh
from lotr_tui.completion.bash_line import parse_line, quote_text
from lotr_tui.completion.command_tree import TREE_FILE, read_command_tree
from lotr_tui.completion.runs import open_run_folder
from tests.support.files import CHECKOUT

WORD_BREAKS = " \t\n\"'@><=;|&(:"
WORDS = st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=6), max_size=5)


@given(WORDS)
def test_quoted_words_are_read_as_a_shell_reads_them(words):
    line = parse_line(" ".join(["lotr-tui", *map(shlex.quote, words)]) + " ")
    assert line.words == ("lotr-tui", *words)
    assert line.current.value == ""


@given(st.text(st.characters(exclude_characters="\0\n", exclude_categories=["Cs"]), min_size=1, max_size=10))
@pytest.mark.parametrize("quote", ["", '"', "'"])
def test_a_quoted_text_has_its_value(quote, text):
    typed = parse_line("x " + quote + quote_text(text, quote, at_start=True) + quote)
    assert typed.current.value == text
    assert typed.current.quote == ""


def complete(line, word_breaks=" \t\n"):
    """Return the texts that bash inserts after `lotr-tui LINE`."""
    return [text.rstrip() for text in complete_in_bash(f"lotr-tui {line}", word_breaks)[0]]


def write_runs(folder, *names):
    for index, name in enumerate(names):
        (folder / name).mkdir(parents=True)
        (folder / name / "config.json").write_text("{}")
        os.utime(folder / name / "config.json", (1e9 + index, 1e9 + index))


@pytest.fixture
def runs(home):
    write_runs(home / "runs", "first", "second", "third")
    (home / "runs" / "no-run").mkdir()
    (home / "runs" / "file").write_text("")
    (home / "runs" / "second" / "epochs").mkdir()
    for name in ("1", "2", "16", "x"):
        (home / "runs" / "second" / "epochs" / f"{name}.safetensors").write_text("")
    return home / "runs"


def test_an_imported_run_is_offered_but_is_never_the_latest(runs):
    (runs / "theirs").mkdir()
    (runs / "theirs" / "imported.json").write_text("{}")
    assert complete("runs compare th") == ["theirs", "third"]
    folder = open_run_folder(read_command_tree(), None)
    assert folder.find("theirs") == runs / "theirs"
    assert folder.find("latest") == runs / "third"


class TestOptions:
    def test_commands_options_settings_and_speakers(self, home):
        assert complete("run") == ["runs"]
        assert set(complete("runs ")) >= {"show", "rm", "rename", "export", "compact"}
        assert complete("train --device ") == ["auto", "cpu", "cuda", "mps"]
        assert complete("train --device=c") == ["--device=cpu", "--device=cuda"]
        assert complete("train --device=c", WORD_BREAKS) == ["cpu", "cuda"]
        assert complete("train --tok") == ["--tokenizer"]
        assert complete("train --seed 1 --see") == []  # once, unless it is repeatable
        assert complete("train --set seed=1 --se") == ["--seed", "--set"]
        assert complete("--run train learn perp") == ["perplexity"]  # a value is no command
        assert complete("frobnicate ") == []
        assert complete("attach -- --") == []
        assert complete("train --set optimizer=ad", WORD_BREAKS) == ["adamw", "adam"]
        assert complete("generate --scene --cast SAM,fro") == ["SAM,FRODO"]


class TestRuns:
    def test_runs_are_offered_latest_first_without_other_folders(self, runs):
        assert complete("attach ") == ["latest", "third", "second", "first"]
        others = ["latest", "bundled", "lstm", "base", "smollm2", "third", "second", "first", "hf:", "gguf:"]
        assert complete("generate x --run ") == others

    def test_epochs_of_a_run(self, runs):
        assert complete("eval second@") == ["second@1", "second@2", "second@16"]
        assert complete("eval second@1", WORD_BREAKS) == ["1", "16"]
        assert complete("eval none@") == []

    def test_the_folder_of_the_runs_is_the_one_that_is_typed(self, runs, tmp_path):
        write_runs(tmp_path / "my runs", "elsewhere")
        assert complete(f"attach --runs-dir '{tmp_path}/my runs' e") == ["elsewhere"]
        assert complete(f"attach --runs-dir={tmp_path}/my\\ runs ") == ["latest", "elsewhere"]
        after = ["attach", "", "--runs-dir", str(tmp_path / "my runs")]
        assert [line.partition(":")[0] for line in complete_in_zsh(1, after)] == ["clatest", "celsewhere"]

    @pytest.mark.parametrize("name", ["a b", "it's", "new\nline", "esc\x1b[31m", "tab\there", "ünï", "$(reboot)"])
    def test_a_hostile_name_is_printable_and_still_names_the_run(self, home, name):
        write_runs(home / "runs", name)
        lines = complete_in_zsh(1, ["attach", ""])
        text = lines[1][1:].rpartition(":started")[0]
        assert text.isprintable()
        assert resolve_run(text) == home / "runs" / name
        assert all(line.isprintable() for line in complete_in_bash("lotr-tui attach ", WORD_BREAKS)[0])
        assert complete_in_fish(1, ["attach", ""])[0][1].count("\t") == 1


class TestPaths:
    @pytest.fixture(autouse=True)
    def folder(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        (tmp_path / "data").mkdir()
        for name in ("lines.csv", "notes.md", "a b.csv", "model.gguf", ".hidden.csv", "bad\nname.csv"):
            (tmp_path / name).write_text("")

    def test_files_of_the_right_kind_come_alone(self):
        assert complete("train --csv ") == ["a\\ b.csv", "data/", "lines.csv"]
        assert complete("train --csv no") == ["notes.md"]
        assert complete("eval gguf:", WORD_BREAKS) == ["data/", "model.gguf"]

    def test_a_path_with_a_variable_is_left_to_the_shell(self):
        assert complete_in_bash("lotr-tui train --csv $HOME/", WORD_BREAKS) == ([], 3)
        assert complete_in_zsh(1, ["eval", "gguf:m"]) == ["f5 -g *.(gguf)(-.)"]
        assert complete_in_zsh(1, ["train", "--csv=m"]) == ["f6 -g *.(csv|tsv)(-.)"]


HEAVY = ("typer", "numpy", "msgspec", "textual", "rich", "torch", "tempfile", "dataclasses", "engine.config")


def test_a_key_press_imports_nothing_heavy_and_writes_nothing(home, environment, tmp_path):
    code = f"""
import os, sys
before = set(sys.modules)  # coverage imports some of them
sys.argv = ["lotr-tui", "__complete", "bash", "lotr-tui attach ", ""]
os._exit = lambda code: print([name for name in {HEAVY} if name in sys.modules and name not in before], code)
from lotr_tui.__main__ import main
try:
    main()
except SystemExit:
    pass
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=CHECKOUT,
        env=environment(home, PYTHONPATH=str(CHECKOUT)),
        timeout=60,
        check=False,
    )
    assert "latest \n" in done.stdout
    assert "[] 0\n" in done.stdout
    assert not home.exists()


def test_the_file_is_that_of_the_commands():
    assert TREE_FILE.read_text(encoding="utf-8") == describe_program(), (
        "a command or setting changed; run `python -m lotr_tui.cli.completion`"
    )
