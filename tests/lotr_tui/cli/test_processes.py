"""Commands in processes of their own: exit codes, standard streams, signals, broken pipes and terminals."""

import json
import re
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from lotr_tui.cli import main as cli
from lotr_tui.cli.console import print_json
from tests.support.commands import refusal
from tests.support.files import KNOWN_WORDS, sentences, write_run
from tests.support.random_dialogues import write_dialogue_run
from tests.support.terminal import Terminal, strip_control_sequences

needs_full_device = pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
FULL_MESSAGE = "lotr-tui: standard output cannot be written: No space left on device"
COMMANDS = {
    "version": "--version",
    "status": "status r",
    "generate": "generate the --run r",
    "scene as JSON": "generate --scene --run d --json",
}
TRAIN = "train --preset tiny --csv small.csv --run new --set embedding_size=8 --set hidden_size=8 --set epochs=1"
LONG_NAME = "a-run-with-a-name-that-is-longer-than-any-terminal-" + "x" * 40


@pytest.fixture
def files(home):
    write_run(home / "runs" / "r")
    write_dialogue_run(home / "runs" / "d")


@pytest.fixture
def shell(files, home, tmp_path, environment):
    def run(command):
        return subprocess.run(
            ["sh", "-c", f'exec "{sys.executable}" -m lotr_tui {command}'],
            cwd=tmp_path,
            env=environment(home),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    return run


@pytest.fixture
def start(files, start):
    """Return the function `start`, in a folder with the files."""
    return start


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize(
    ("command_line", "message"),
    [
        ("", "needs a terminal; use `lotr-tui generate"),
        ("trian", "unknown command 'trian'; did you mean `lotr-tui train`?"),
        ("--zzz", "unknown option --zzz; see `lotr-tui --help`"),
        ("train --csv none.csv", "none.csv does not exist"),
        ("attach r", "attach needs a terminal; use `lotr-tui status r` instead"),
        ("stop r", "not being trained"),
        ("generate the --temperature 3", "temperature 3.0 is out of range"),
        ("runs rm bundled --yes", "bundled model"),
        ("tokenize a --run bundled --tokenizer bpe", "leave out --run or --tokenizer"),
        ("learn perplexty", "there is no chapter 'perplexty'; did you mean perplexity?"),
        ("completion bahs", "SHELL bahs is not one of bash, zsh, fish; did you mean bash?"),
    ],
)
def test_a_refusal_is_one_line_on_stderr_and_exit_code_2(command, command_line, message):
    assert message in refusal(command(*command_line.split()))


def test_the_traceback_is_shown_on_request_only(command):
    done = command("eval", "ring", LOTR_TUI_DEBUG="1")
    assert done.returncode == 2
    assert "Traceback" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("lotr-tui: run 'ring' is neither in")


class TestStreams:
    @needs_full_device
    @pytest.mark.parametrize("name", COMMANDS)
    def test_full_standard_output_is_one_line_and_exit_code_1(self, shell, name):
        done = shell(f"{COMMANDS[name]} >/dev/full")
        assert (done.returncode, done.stderr.splitlines()) == (1, [FULL_MESSAGE])

    def test_closed_standard_output_counts_as_the_null_device(self, shell):
        done = shell("generate the --run r >&-")
        assert done.returncode == 0
        assert done.stderr.startswith("seed ")
        assert "lotr-tui:" not in done.stderr

    @pytest.mark.parametrize("redirection", ["2>&-", pytest.param("2>/dev/full", marks=needs_full_device)])
    def test_unusable_standard_error_loses_only_its_messages(self, shell, redirection):
        done = shell(f"generate the --run r --seed 3 {redirection}")
        assert done.returncode == 0
        assert set(done.stdout.split()) <= set(KNOWN_WORDS)
        assert shell(f"status nowhere {redirection}").returncode == 2

    def test_closed_standard_input_is_an_empty_text(self, shell):
        done = shell("generate - --run r <&-")
        assert done.returncode == 2
        assert done.stderr.startswith("lotr-tui: the prompt is empty")

    @needs_full_device
    @pytest.mark.slow
    @pytest.mark.usefixtures("small_csv")
    def test_training_without_a_usable_standard_output_finishes(self, shell, home):
        done = shell(f"{TRAIN} <&- >&-")
        assert (done.returncode, done.stderr) == (0, "")
        assert (home / "runs" / "new" / "model.safetensors").is_file()
        done = shell(f"{TRAIN} --json >/dev/full".replace("--run new", "--run full"))
        assert done.returncode == 1
        assert done.stderr.splitlines() == [f"{FULL_MESSAGE}; the training continues, see `lotr-tui attach full`"]
        last = json.loads((home / "runs" / "full" / "metrics.jsonl").read_text().splitlines()[-1])
        assert (last["event"], last["reason"]) == ("finished", "done")


class TestEnds:
    @pytest.mark.parametrize(
        "arguments", ["generate the --run r --count 5000", "generate --scene --run d --turns 9999"]
    )
    def test_a_broken_pipe_ends_quietly(self, start, arguments):
        process = start(*arguments.split())
        process.stdout.readline()
        process.stdout.close()
        errors = process.stderr.read()
        assert process.wait(timeout=60) == 0
        assert all(line.startswith("seed ") for line in errors.splitlines())

    @pytest.mark.parametrize("option", ["--temperature=1", "--jsonl"])
    def test_ctrl_c_keeps_what_was_written(self, start, option):
        process = start("generate", "--scene", "--turns", "10000", "--max-tokens", "1000", "--run", "d", option)
        lines = [process.stdout.readline() for _ in range(3)]
        process.send_signal(signal.SIGINT)
        # Not `communicate`, which would lose what `readline` has read ahead.
        shown, errors = "".join(lines) + process.stdout.read(), process.stderr.read()
        assert process.wait(timeout=60) == 130
        assert "Traceback" not in errors
        assert shown.endswith("\n")
        if option == "--jsonl":
            turns = [json.loads(line) for line in shown.splitlines()]
            assert [turn["turn"] for turn in turns] == list(range(len(turns)))
            assert "cancelled" not in [turn["reason"] for turn in turns[:-1]]

    def test_sigint_stops_a_training_with_plain_lines_and_saves_it(self, start, home, tmp_path):
        (tmp_path / "small.txt").write_text("\n".join(sentences(120)))
        options = "--preset tiny --threads 1 --set embedding_size=8 --mode stream --set epochs=100000 --no-tui"
        process = start("train", "--text", "small.txt", *options.split(), "--run", "long")
        shown = ""
        for line in process.stdout:
            shown += line
            if re.match(r"epoch +1\.0", line):
                process.send_signal(signal.SIGINT)
                break
        rest, errors = process.communicate(timeout=60)
        shown += rest
        assert (process.returncode, errors) == (130, "")
        result, hint = shown.splitlines()[-2:]
        assert re.match(r"stopped after .*: valid perplexity \d+\.\d\b", result)
        assert hint == "resume it: lotr-tui train --resume long"
        assert "nan" not in shown
        config = json.loads((home / "runs" / "long" / "config.json").read_text())
        assert (config["data"]["mode"], config["data"]["corpus_format"]) == ("stream", "text")
        assert (home / "runs" / "long" / "model.safetensors").stat().st_size > 0


class TestWidth:
    def test_without_a_terminal_one_row_is_one_line(self, lotr, home):
        names = [f"{LONG_NAME}-1", f"{LONG_NAME}-2"]
        for name in names:
            write_run(home / "runs" / name)
        lines = lotr("runs", COLUMNS="60").stdout.splitlines()
        assert len(lines) == 3
        assert sorted(line.split()[0] for line in lines[1:]) == names

    def test_names_are_folded_in_a_narrow_terminal(self, home):
        write_run(home / "runs" / LONG_NAME)
        with Terminal([sys.executable, "-m", "lotr_tui", "runs"], 60, 24, home).spawn() as terminal:
            lines = strip_control_sequences(terminal.read_until_exit()).splitlines()
        assert max(map(len, lines)) <= 60
        assert "".join(line.split()[0] for line in lines[1:]) == LONG_NAME


def test_lone_surrogates_and_infinite_numbers_are_replaced_in_json(capsys):
    print_json({"a\udcff": ["\ud83d\ude00", float("nan"), (float("inf"), 1.5)], "b": None})
    print_json("😀 \\udcff é")
    text, other = capsys.readouterr().out.splitlines()
    assert text.isascii()
    assert json.loads(text) == {"a\ufffd": ["\ufffd\ufffd", None, [None, 1.5]], "b": None}
    assert json.loads(other) == "😀 \\udcff é"


@pytest.mark.parametrize(
    ("closed", "variables", "expected"),
    [
        ("", {"TERM": "xterm-256color"}, True),
        ("", {"TERM": "xterm-256color", "CI": "true"}, False),
        ("", {"TERM": "xterm-256color", "CI": "0"}, True),
        ("", {"TERM": "dumb"}, False),
        ("", {}, False),
        *((name, {"TERM": "xterm-256color"}, False) for name in ("stdin", "stdout", "stderr")),
    ],
)
def test_screen_is_drawn_only_in_an_interactive_terminal(closed, variables, expected, monkeypatch):
    for name in ("TERM", "CI"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    for name in ("stdin", "stdout", "stderr"):
        monkeypatch.setattr(f"sys.{name}", SimpleNamespace(isatty=lambda name=name: name != closed))
    result = cli.has_terminal()
    monkeypatch.undo()
    assert result == expected
