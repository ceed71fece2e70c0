"""Commands import no heavy package that they do not need, and say in one line which one is missing."""

import json
import re
import subprocess
import sys

import pytest

from engine.errors import InvalidInputError, describe_error
from engine.runtime.process import require_package
from tests.support.files import CHECKOUT, sentences, write_csv, write_run
from tests.support.pilot import notices
from tests.support.pretrained import save_llama
from tests.support.random_dialogues import write_dialogue_run

HEAVY_PACKAGES = ("torch", "pandas", "transformers", "tokenizers", "huggingface_hub", "numpy.ma")
"""Packages that take long to import: torch 2 s, pandas 0.4 s, numpy.ma, which some functions of numpy need, 50 ms."""
LIGHT_COMMANDS = (
    "train --help", "train --list-settings", "generate road",
    "generate road --run plain --json --repetition-penalty 1.5", "generate road --run scenes --as FRODO --best-of 2",
    "generate road --run hf:llama --reply", "who road --run scenes", "eval plain --text own.txt",
    "data info small.csv", "runs compare plain base", "status plain",
)  # fmt: skip
REFUSED_COMMANDS = {
    "train --preset tiny --no-tui": "training needs PyTorch",
    "train --resume scenes": "training needs PyTorch",
    "search --trials 2 --set lr=0.002..0.02": "search needs PyTorch",
    "eval --dynamic": "--dynamic needs PyTorch",
    "runs export scenes --csv out": "export to CSV needs pandas",
    "generate hi --run hf:other": "hf:other needs torch",
}
RUN_COMMANDS = """
import json, os, sys
missing, watched, commands = json.load(sys.stdin)
sys.modules.update(dict.fromkeys(missing))
import lotr_tui.cli.main
from lotr_tui.__main__ import main
for command in commands:
    child = os.fork()
    if child == 0:
        for number, name in ((1, "out"), (2, "err")):
            os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        sys.argv = ["lotr-tui", *command.split()]
        try:
            main()
        finally:
            with open("imported", "w") as file:
                json.dump([name for name in watched if sys.modules.get(name)], file)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    print(json.dumps([command, code, open("out").read(), open("err").read(), json.load(open("imported"))]), flush=True)
"""  # program that runs each command in a fork, without the missing packages, and prints what it has imported


@pytest.fixture
def run_python(tmp_path, environment):
    """Return a function that runs Python code in a new process, and returns what it prints as JSON lines."""

    def run(code, *arguments, stdin=None):
        command = [sys.executable, "-c", code, *map(str, arguments)]
        options = {"cwd": tmp_path, "env": environment(tmp_path / "home", PYTHONPATH=str(CHECKOUT)), "timeout": 120}
        process = subprocess.run(
            command, input=json.dumps(stdin), capture_output=True, text=True, check=False, **options
        )
        assert process.returncode == 0, process.stderr
        return [json.loads(line) for line in process.stdout.splitlines()]

    return run


def test_commands_that_need_no_heavy_package_import_none(run_python, tmp_path):
    write_dialogue_run(tmp_path / "home" / "runs" / "scenes")
    write_run(tmp_path / "home" / "runs" / "plain")
    write_csv(tmp_path / "small.csv", sentences(60))
    (tmp_path / "own.txt").write_text("the road and the river")
    save_llama(tmp_path / "llama")
    results = run_python(RUN_COMMANDS, stdin=[[], HEAVY_PACKAGES, LIGHT_COMMANDS])
    for command, code, output, errors, imported in results:
        assert code == 0, (command, errors)
        assert output.strip(), command
        # The bundled model, dialogue runs and models by others have open vocabularies.
        is_open = command == "generate road" or "scenes" in command or "llama" in command
        needed = ["tokenizers"] if is_open else []
        needed = ["numpy.ma"] if command.startswith("data info") else needed
        assert imported == needed, command


def test_a_command_that_needs_a_missing_package_says_so_in_one_line(run_python, tmp_path):
    write_dialogue_run(tmp_path / "home" / "runs" / "scenes")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text('{"model_type": "gpt_neox"}')
    results = run_python(RUN_COMMANDS, stdin=[["torch", "pandas"], [], [*REFUSED_COMMANDS, "generate road"]])
    *refused, (_, code, output, errors, _) = results
    assert code == 0, errors
    assert output.strip()
    for command, code, output, errors, _ in refused:
        assert code == 2, (command, errors)
        assert re.fullmatch(f"lotr-tui: {REFUSED_COMMANDS[command]}.*; pip install .*\n", errors), (command, errors)
        assert not output
    assert [path.name for path in (tmp_path / "home" / "runs").iterdir()] == ["scenes"]  # nothing was begun


FIRST_PAINT = """
import asyncio, json, pathlib, sys, threading
from textual.screen import Screen
from lotr_tui.cli.launch import LotrApp

watched = json.load(sys.stdin)
reports = []
def report_imports(screen=None, work=None, **_):
    reports.append([name for name in watched if name in sys.modules])
Screen.run_worker = report_imports  # with the work that follows the first paint
start = threading.Thread.start
threading.Thread.start = lambda thread: (thread.name == "run-in-thread" and report_imports(), start(thread))

async def paint(**options):
    async with LotrApp(**options).run_test(size=(80, 24)) as pilot:
        await pilot.press("x")
    report_imports()
    print(json.dumps(reports[0]))
"""
SESSION_WITHOUT_MODEL = "asyncio.run(paint())"
SESSION_WITH_MODEL = """
import lotr_tui.screens.dashboard.screen, lotr_tui.screens.runs.screen
from engine.runs.loading import load_model
from lotr_tui.session.session_model import SessionModel
asyncio.run(paint(session_model=SessionModel.from_loaded(load_model(pathlib.Path(sys.argv[1])))))
"""
CLASS = """
from lotr_tui.screens.learn.screen import ChapterScreen
asyncio.run(paint(make_screen=lambda: ChapterScreen(lambda: None, exit_on_close=True)))
"""
NOT_BEFORE_THE_MODEL = (
    "torch", "pandas", "transformers", "numpy", "safetensors", "tokenizers", "psutil", "pygments", "engine.config",
    "engine.runs.directory", "lotr_tui.monitor.training_view", "lotr_tui.learn.material",
)  # fmt: skip


@pytest.mark.parametrize(
    ("program", "watched"),
    [
        (SESSION_WITHOUT_MODEL, NOT_BEFORE_THE_MODEL),
        (CLASS, NOT_BEFORE_THE_MODEL),
        (SESSION_WITH_MODEL, HEAVY_PACKAGES),
    ],
    ids=["session", "class", "session with a model, dashboard and runs"],
)
def test_first_paint_imports_no_heavy_package(run_python, tmp_path, program, watched):
    run = write_run(tmp_path / "run")
    assert run_python(FIRST_PAINT + program, run, stdin=watched) == [[]]


async def test_new_training_without_torch_is_refused_before_the_dialog(monkeypatch, opened):
    monkeypatch.setitem(sys.modules, "torch", None)
    async with opened((100, 30)) as (pilot, app):
        await pilot.press("ctrl+t")
        await pilot.pause()
        assert notices(app) == "training needs PyTorch; pip install torch"
        assert len(app.screen_stack) == 1


@pytest.mark.parametrize(
    ("marker", "command"),
    [
        ("", "pip install sauron"),
        ("uv-receipt.toml", "uv tool install --reinstall lotr-tui"),
        ("pipx_metadata.json", "pipx inject lotr-tui sauron"),
    ],
)
def test_the_remedy_fits_the_tool_that_installed_the_program(monkeypatch, tmp_path, marker, command):
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    if marker:
        (tmp_path / marker).touch()
    with pytest.raises(InvalidInputError, match=f"^training needs sauron; {command}$"):
        require_package("sauron")


def test_a_package_that_nothing_checks_for_is_named_in_one_line():
    missing = ModuleNotFoundError("No module named 'numkong'", name="numkong")
    assert describe_error(missing) == "the package numkong is not installed; pip install numkong"
