"""Commands in processes of their own: help, exit codes, streams, signals, broken pipes, terminals, and torchrun."""

import json
import platform
import re
import signal
import subprocess
import sys
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from engine.events import Failed, Resume, Started, Step
from engine.runs.directory import LOCK_FILE, METRICS_FILE, drop_superseded, lock_owner, read_events
from lotr_tui.cli import main as cli
from lotr_tui.cli.console import print_json
from lotr_tui.cli.main import COMMANDS as SUMMARIES
from lotr_tui.learn.chapters import CHAPTERS
from lotr_tui.learn.progress import Progress, ProgressStore, progress_file
from tests.support.commands import refusal, wait_until
from tests.support.files import CHECKOUT, KNOWN_WORDS, TORCHRUN, sentences, write_csv, write_run
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


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize(
    ("command_line", "message"),
    [
        ("", "needs a terminal; use `lotr-tui generate"),
        ("trian", "unknown command 'trian'; did you mean `lotr-tui train`?"),
        ("attach r", "attach needs a terminal; use `lotr-tui status r` instead"),
        ("stop r", "not being trained"),
        ("generate the --temperature 3", "temperature 3.0 is out of range"),
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


@pytest.mark.usefixtures("files")
class TestEnds:
    @pytest.mark.parametrize("arguments", ["the --run r --count 5000", "--scene --run d --turns 9999"])
    def test_a_broken_pipe_ends_quietly(self, start, arguments):
        process = start("generate", *arguments.split())
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


XTERM = {"TERM": "xterm-256color"}


@pytest.mark.parametrize(
    ("closed", "variables", "expected"),
    [
        ("", XTERM, True), ("", XTERM | {"CI": "true"}, False), ("", XTERM | {"CI": "0"}, True),
        ("", {"TERM": "dumb"}, False), ("", {}, False),
        *((name, XTERM, False) for name in ("stdin", "stdout", "stderr")),
    ],
)  # fmt: skip
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


LEARN = [sys.executable, "-m", "lotr_tui", "learn"]


def test_the_chapters_of_the_class_are_listed_with_what_is_done(lotr, home):
    lines = [line.split(maxsplit=2) for line in lotr("learn", "--list").stdout.splitlines()]
    assert lines == [[str(number), chapter.name, chapter.title] for number, chapter in enumerate(CHAPTERS, 1)]
    assert not home.exists()
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
        wait_until(terminal.has_exited, 10)
    assert terminal.exit_status == 0
    assert ProgressStore(tmp_path / "learn.json").current == Progress((), "tokens")


SUBCOMMANDS = ("data info", "fetch tales", "runs show", "runs rm", "runs rename", "runs export")
HELP_COMMANDS = [
    (),
    *((name,) for name in SUMMARIES if name not in ("who", "tokenize")),
]  # whose argument is called TEXT
HELP_COMMANDS += [tuple(name.split()) for name in SUBCOMMANDS]
CONTRACT = {
    "train": "--preset --csv --text --text-column --speaker-column --mode --split-seed --seed --epochs --device "
    "--threads --precision --set --run --runs-dir --resume --restart --detach --no-tui --json --init "
    "--tokenizer --split --teacher --log",
    "generate": "--run --temperature --top-k --top-p --min-p --repetition-penalty --seed --max-tokens --count --reply "
    "--as --to --best-of --scene --cast --turns --json --jsonl",
    "eval": "--split --text --baselines --cache --mixture --by-speaker --json --jsonl",
    "who": "--run --runs-dir --context --by --json",
    "search": "--minutes --set --resume",
    "learn": "--run --csv --text --list --theme",
}


@pytest.mark.parametrize("name", HELP_COMMANDS, ids=" ".join)
def test_help_has_no_types_of_python_and_fits_80_columns(command, name):
    done = command(*name, "--help", COLUMNS="80")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0].startswith(" ".join(["Usage: lotr-tui", *name, "[OPTIONS]"]))
    assert max(map(len, lines)) <= 80
    assert not re.search(r"<(bool|str|int|float|path)|\brange\b|\[\[|\{|TEXT\b|INTEGER|PATH\b", done.stdout)
    assert "--help" in done.stdout


@pytest.mark.parametrize("name", CONTRACT)
def test_help_lists_the_options_that_scripts_rely_on(lotr, name):
    shown = lotr(name, "--help").stdout
    assert [option for option in CONTRACT[name].split() if not re.search(rf"{option}\b", shown)] == []


def test_all_commands_are_listed(lotr):
    shown = lotr("--help").stdout
    listed = re.findall(r"^  ([a-z]+) ", shown.partition("Commands:")[2].partition("\n\n")[0], re.MULTILINE)
    assert listed == list(SUMMARIES)


def test_version_names_the_package_first_and_then_what_matters(lotr):
    lines = lotr("--version").stdout.splitlines()
    assert lines[0] == f"lotr-tui {version('lotr-tui')}"
    assert lines[1] == f"Python {platform.python_version()}"
    assert lines[2:5] == [f"{name} {version(name)}" for name in ("textual", "numpy", "torch")]
    assert lines[5].startswith(f"platform {platform.system()} ")


PROCESS_TIMEOUT = 120.0  # seconds after which a process counts as hanging
ENDLESS = ("--preset", "tiny", "--set", "embedding_size=16", "--set", "hidden_size=16", "--set", "epochs=100000")


@contextmanager
def two_processes(home, environment, *arguments):
    """Run a training by two processes, and terminate it at the end of the context."""
    with subprocess.Popen(
        [*TORCHRUN, "lotr_tui", "train", *map(str, arguments)],
        cwd=home,
        env=environment(home, PYTHONPATH=str(CHECKOUT)),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.terminate()  # torchrun ends its child processes


def recorded_steps(path):
    return [event.step for event in drop_superseded(read_events(path / METRICS_FILE)) if isinstance(event, Step)]


@pytest.mark.slow
def test_run_of_two_processes_is_stopped_and_resumed(home, small_csv, command, environment):
    home.mkdir()
    path = home / "runs" / "both"
    with two_processes(home, environment, "--csv", small_csv, "--run", "both", *ENDLESS) as processes:
        wait_until(lambda: len(recorded_steps(path)) > 1)
        status = json.loads(command("status", "both", "--json").stdout)
        assert (status["state"], status["run"]) == ("running", "both")
        stop = command("stop", "both")
        assert (stop.returncode, processes.wait(PROCESS_TIMEOUT)) == (0, 0), stop.stderr
        output = processes.stdout.read()
    assert output.count("run both in") == output.count("stopped after") == 1, "only the main process prints"
    assert [item.name for item in path.parent.iterdir()] == ["both"]
    steps_before = recorded_steps(path)
    assert steps_before == sorted(set(steps_before))
    (started,) = (event for event in drop_superseded(read_events(path / METRICS_FILE)) if isinstance(event, Started))
    assert started.world_size == 2
    problem = "lotr-tui: run 'both' was trained by 2 processes and cannot be resumed by 1; use torchrun "
    assert refusal(command("train", "--resume", "both")).startswith(problem)
    with two_processes(home, environment, "--resume", "both") as processes:
        wait_until(lambda: len(recorded_steps(path)) > len(steps_before) + 1)
        processes.send_signal(signal.SIGTERM)
        processes.wait(PROCESS_TIMEOUT)
    events = drop_superseded(read_events(path / METRICS_FILE))
    assert [event.step for event in events if isinstance(event, Resume)] == [steps_before[-1] + 1]
    assert events[-1].reason == "stopped"
    assert recorded_steps(path) == sorted(set(recorded_steps(path)))
    assert not lock_owner(path)


@pytest.mark.slow
def test_other_processes_end_when_one_is_killed(home, small_csv, environment):
    home.mkdir()
    path = home / "runs" / "both"
    with two_processes(home, environment, "--csv", small_csv, "--run", "both", *ENDLESS) as processes:
        wait_until(lambda: len(recorded_steps(path)) > 1)
        writer = int((path / LOCK_FILE).read_text().split()[1])
        (second,) = (child for child in psutil.Process(processes.pid).children() if child.pid != writer)
        second.kill()
        assert processes.wait(PROCESS_TIMEOUT) == 1
        assert "another process of this training has ended" in processes.stdout.read()
    assert not lock_owner(path)
    assert isinstance(drop_superseded(read_events(path / METRICS_FILE))[-1], Failed)
