"""Completion in real shells: the line that a shell makes of a word and a tab is the one that the program gets."""

import os
import re
import shutil
import stat
import sys
import time
from contextlib import contextmanager

import pytest

from tests.support.terminal import Terminal

pytestmark = pytest.mark.slow

COMMANDS = {"bash": ["--norc", "--noprofile", "-i"], "zsh": ["-f", "-i"], "fish": ["--no-config", "-i"]}
SHELLS = [
    pytest.param(name, marks=pytest.mark.skipif(shutil.which(name) is None, reason=f"{name} is not installed"))
    for name in COMMANDS
]
LOAD = {
    "bash": 'eval "$(lotr-tui completion bash)"; bind "set bell-style none"; lotr-tui() { printf "<%s>" "$@"; echo; }',
    "zsh": 'autoload -Uz compinit; compinit -u -D; setopt no_beep; eval "$(lotr-tui completion zsh)"; '
    'lotr-tui() { printf "<%s>" "$@"; echo; }',
    "fish": "lotr-tui completion fish | source; function lotr-tui; printf '<%s>' $argv; echo; end",
}  # commands that load the completion, and then replace `lotr-tui` by a function that prints its arguments
READY = "shell-is-ready"


def write_program(folder):
    """Write a program `lotr-tui` that runs this checkout, and return its folder."""
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / "lotr-tui"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m lotr_tui "$@"\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return folder


class Shell:
    """A shell in a terminal, in which `lotr-tui ARGUMENTS` prints the arguments that it gets."""

    def __init__(self, terminal):
        self._terminal = terminal

    def complete_and_run(self, keys):
        """Type a line, in which each tab completes a word, press enter, and return the arguments of the program."""
        for part in keys.split("\t")[:-1]:
            self._terminal.write(part.encode())
            self._terminal.read_until_quiet(0.05, 5)
            self._terminal.write(b"\t")  # a tab with keys behind it would count as pasted text
            self._terminal.read(5)
            self._terminal.read_until_quiet(0.05, 5)
        self._terminal.write(keys.rpartition("\t")[2].encode() + b"\r")
        output, deadline = b"", time.monotonic() + 30
        while not (match := re.search(rb"[\r\n](?:\x1b[^\r\n<>]*)?(<[^\r\n]*>)\r\n", output)):
            assert time.monotonic() < deadline, f"the program did not run after {keys!r}: {output!r}"
            output += self._terminal.read(1)
        self._terminal.read_until_quiet(0.1, 5)
        return re.findall(r"<(.*?)>", match[1].decode())


@contextmanager
def open_shell(name, home, folder):
    """Start a shell in `folder`, with the completion of lotr-tui and `home` as `LOTR_TUI_HOME`."""
    program = shutil.which(name)
    assert program
    terminal = Terminal([program, *COMMANDS[name]], 120, 30, home)
    with terminal.spawn():
        terminal.read_until_quiet(0.5, 10)
        terminal.write(f"cd '{folder}'; {LOAD[name]}; echo shell-is-'ready'\r".encode())
        terminal.read_until(READY)
        terminal.read_until_quiet(0.3, 5)
        yield Shell(terminal)


NAMES = ["alpha-1", "z run", "c's", 'd"q', "e$HOME", "v*?", "r:i", "j=k", "k#l", "x\\y", "ünï", "n!m", "o~p", "(q)"]
NAMES.append("f`g`")  # the last one: bash begins a command at a backquote before the cursor, even behind a backslash
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
    for file in ("notes.md", "lines.csv", "model.gguf", "data set/more lines.csv"):
        (work / file).write_text("")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{write_program(folder / 'bin')}{os.pathsep}{os.environ['PATH']}")
        patch.setenv("LC_ALL", "C.UTF-8")
        patch.delenv("PYTHONIOENCODING", raising=False)
        with open_shell(request.param, folder / "home", work) as started:
            yield started


LINES = [
    ("lotr-tui train --preset noteb", ["train", "--preset", "notebook"]),
    ("lotr-tui train --set optimizer=adamw --set sched", ["train", "--set", "optimizer=adamw", "--set", "schedule="]),
    ("lotr-tui train --set schedule=pla", ["train", "--set", "schedule=plateau"]),
    ('lotr-tui attach "z r', ["attach", "z run"]),
    ("lotr-tui attach z\\ r", ["attach", "z run"]),
    ("lotr-tui eval --run r:", ["eval", "--run", "r:i"]),
    ("lotr-tui eval --run=r:", ["eval", "--run=r:i"]),
    ("lotr-tui train --csv=lin", ["train", "--csv=lines.csv"]),
    ("lotr-tui train --csv data\\ set/m", ["train", "--csv", "data set/more lines.csv"]),
    ("lotr-tui eval gguf:m", ["eval", "gguf:model.gguf"]),
    ("lotr-tui generate hello --as pale", ["generate", "hello", "--as", "pale lord"]),
]  # lines before a tab, and the arguments of the program


def test_a_tab_completes_the_word_so_that_the_program_gets_it(shell):
    keys = "".join("\\(\t" if name.startswith("(") else f"{name[0]}\t" for name in NAMES)
    assert shell.complete_and_run(f"lotr-tui eval {keys}") == ["eval", *NAMES]
    assert [shell.complete_and_run(f"{line}\t") for line, _ in LINES] == [arguments for _, arguments in LINES]
