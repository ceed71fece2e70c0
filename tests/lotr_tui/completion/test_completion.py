"""What Typer answers to a shell, also with hostile names, and the line that real shells make of it."""

import os
import re
import shutil
import subprocess
import sys
import time

import pytest

from engine.runs.directory import resolve_run
from lotr_tui.cli.main import run_command
from tests.support.files import CHECKOUT
from tests.support.terminal import Terminal

REQUEST = {"_LOTR_TUI_COMPLETE": "complete_fish", "_TYPER_COMPLETE_FISH_ACTION": "get-args", "COLUMNS": "999"}


@pytest.fixture
def complete(home, monkeypatch, capsys):
    """Return a function that lists what can be typed at the end of `lotr-tui LINE`."""
    for name, value in REQUEST.items():
        monkeypatch.setenv(name, value)

    def complete(line):
        monkeypatch.setenv("_TYPER_COMPLETE_ARGS", f"lotr-tui {line}")
        with pytest.raises(SystemExit) as exit:
            run_command()
        assert exit.value.code == 0
        return [row.partition("\t")[0] for row in capsys.readouterr().out.splitlines() if row]

    return complete


def write_runs(folder, *names):
    for name in names:
        (folder / name).mkdir(parents=True)
        (folder / name / "config.json").write_text("{}")


class TestTyper:
    def test_commands_options_and_values(self, complete):
        assert complete("run") == ["runs"]
        assert set(complete("runs ")) >= {"show", "rm", "rename", "export"}
        assert complete("train --tok") == ["--tokenizer"]
        assert "--set" in complete("train --seed 1 --set lr=1 --")
        assert complete("train --preset noteb") == ["notebook"]
        assert complete("train --device c") == complete("train --device=c") == ["cpu", "cuda"]
        assert complete("train --set sched") == ["schedule="]
        assert complete("train --set optimizer=ad") == ["optimizer=adamw", "optimizer=adam"]
        assert complete("train --log w") == ["wandb"]
        assert complete("--theme shire-") == ["shire-light"]
        assert complete("learn perp") == ["perplexity"]
        assert complete("completion f") == ["fish"]
        assert complete("generate --as gand") == ["gandalf"]
        assert complete("who x --cast SAM,FRO") == ["SAM,FRODO"]
        assert complete("generate --run base --as G") == complete("train --csv ") == complete("train --set x=") == []

    @pytest.mark.parametrize("command", ["train", "generate", "eval", "search", "serve", "runs export"])
    def test_every_option_is_on_a_line_of_its_own(self, complete, command):
        assert all(row.startswith("--") for row in complete(f"{command} --"))

    def test_runs_of_the_folder_that_is_typed(self, complete, home, tmp_path):
        write_runs(home / "runs", "second", "first")
        (home / "runs" / "no-run").mkdir()
        write_runs(tmp_path / "my runs", "elsewhere")
        bundled = ["latest", "bundled", "lstm", "base", "smollm2"]
        assert complete("attach ") == [*bundled, "first", "second", "hf:", "gguf:"]
        assert complete(f"attach --runs-dir '{tmp_path}/my runs' e") == ["elsewhere"]

    @pytest.mark.parametrize("name", ["a b", "it's", "new\nline", "esc\x1b[31m", "tab\there", "ünï", "$(reboot)"])
    def test_a_hostile_name_is_printable_and_still_names_the_run(self, complete, home, name):
        write_runs(home / "runs", name)
        (row,) = [row for row in complete("attach ")[5:] if not row.endswith(":")]
        assert row.isprintable()
        assert resolve_run(row) == home / "runs" / name

    def test_a_key_press_loads_neither_torch_nor_screens_and_writes_nothing(self, home, environment):
        code = """
import sys
from lotr_tui.__main__ import main
try:
    main()
finally:
    print([name for name in ("torch", "textual", "pandas", "transformers", "optuna") if name in sys.modules])
"""
        request = REQUEST | {"PYTHONPATH": str(CHECKOUT), "_TYPER_COMPLETE_ARGS": "lotr-tui attach la"}
        options = {"capture_output": True, "text": True, "cwd": CHECKOUT, "env": environment(home, **request)}
        done = subprocess.run([sys.executable, "-c", code], timeout=60, check=False, **options)
        assert done.stdout == "latest\n[]\n", done.stderr
        assert not home.exists()


COMMANDS = {"bash": ["--norc", "--noprofile", "-i"], "zsh": ["-f", "-i"], "fish": ["--no-config", "-i"]}
LOAD = {
    "bash": 'eval "$(lotr-tui completion bash)"; bind "set bell-style none"; lotr-tui() { printf "<%s>" "$@"; echo; }',
    "zsh": 'autoload -Uz compinit; compinit -u -D; setopt no_beep; eval "$(lotr-tui completion zsh)"; '
    'lotr-tui() { printf "<%s>" "$@"; echo; }',
    "fish": "lotr-tui completion fish | source; function lotr-tui; printf '<%s>' $argv; echo; end",
}  # commands that load the completion, and then replace `lotr-tui` by a function that prints its arguments

NAMES = ["alpha-1", "z run", "c's", 'd"q', "e$HOME", "v*?", "r:i", "j=k", "k#l", "x\\y", "ünï", "n!m", "o~p", "(q)"]
NAMES.append("f`g`")  # the last one: bash begins a command at a backquote before the cursor, even behind a backslash
"""Names of runs, each of which its first character completes."""


@pytest.fixture(scope="module", params=COMMANDS)
def shell(request, tmp_path_factory):
    """Start a shell whose home has a run of each name, in a folder with files and this checkout as `lotr-tui`."""
    program = shutil.which(request.param) or pytest.skip(f"{request.param} is not installed")
    folder = tmp_path_factory.mktemp(request.param)
    write_runs(folder / "home" / "runs", *NAMES)
    (folder / "data set").mkdir()
    for file in ("notes.md", "lines.csv", "model.gguf", "data set/more lines.csv"):
        (folder / file).write_text("")
    (folder / "bin").mkdir()
    (folder / "bin" / "lotr-tui").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m lotr_tui "$@"\n')
    (folder / "bin" / "lotr-tui").chmod(0o700)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}")
        patch.setenv("LC_ALL", "C.UTF-8")
        patch.delenv("PYTHONIOENCODING", raising=False)
        with Terminal([program, *COMMANDS[request.param]], 120, 30, folder / "home").spawn() as terminal:
            terminal.read_until_quiet(0.5, 10)
            terminal.write(f"cd '{folder}'; {LOAD[request.param]}; echo shell-is-'ready'\r".encode())
            terminal.read_until("shell-is-ready")
            terminal.read_until_quiet(0.3, 5)
            yield terminal


def complete_and_run(shell, keys):
    """Type a line, in which each tab completes a word, press enter, and return the arguments of the program."""
    for part in keys.split("\t")[:-1]:
        shell.write(part.encode())
        shell.read_until_quiet(0.05, 5)
        shell.write(b"\t")  # a tab with keys behind it would count as pasted text
        shell.read(5)
        shell.read_until_quiet(0.05, 5)
    shell.write(keys.rpartition("\t")[2].encode() + b"\r")
    output, deadline = b"", time.monotonic() + 30
    while not (match := re.search(rb"[\r\n](?:\x1b[^\r\n<>]*)?(<[^\r\n]*>)\r\n", output)):
        assert time.monotonic() < deadline, f"the program did not run after {keys!r}: {output!r}"
        output += shell.read(1)
    shell.read_until_quiet(0.1, 5)
    return re.findall(r"<(.*?)>", match[1].decode())


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


@pytest.mark.slow
def test_a_tab_completes_the_word_so_that_the_program_gets_it(shell):
    keys = "".join("\\(\t" if name.startswith("(") else f"{name[0]}\t" for name in NAMES)
    assert complete_and_run(shell, f"lotr-tui eval {keys}") == ["eval", *NAMES]
    assert [complete_and_run(shell, f"{line}\t") for line, _ in LINES] == [arguments for _, arguments in LINES]
