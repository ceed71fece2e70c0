"""Tests that commands import no heavy package that they do not need: torch takes 2 s, pandas 0.4 s."""

import json
import subprocess
import sys

import pytest

from tests.support.dialogue_runs import write_dialogue_run
from tests.support.files import write_run

HEAVY_PACKAGES = ("torch", "pandas")
NOT_IN_FIRST_PAINT = (
    *HEAVY_PACKAGES,
    "numpy",
    "safetensors",
    "tokenizers",
    "psutil",
    "engine.config",
    "engine.runs.directory",
    "lotr_tui.monitor.training_view",
)
"""Packages and modules that the first paint of the session must not import."""

COMMAND = """
import sys
from lotr_tui.__main__ import main
sys.argv = ["lotr-tui", *sys.argv[1:]]
try:
    main()
except SystemExit as error:
    assert not error.code, error.code
"""

FIRST_PAINT_WITH_MODEL = """
import asyncio, pathlib, sys
from engine.runs.loading import load_model
from lotr_tui.session.session_model import SessionModel
from lotr_tui.app import LotrApp

async def paint():
    app = LotrApp(session_model=SessionModel.from_loaded(load_model(pathlib.Path(sys.argv[1]))))
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.pause()
        assert app.screen.children

asyncio.run(paint())
"""

FIRST_PAINT_WITHOUT_MODEL = """
import asyncio, sys, threading
from lotr_tui.cli.launch import LotrApp

async def paint():
    from lotr_tui.screens.session.frame import BaseSessionScreen
    painted = threading.Event()

    async def do_not_open(screen):
        painted.set()

    BaseSessionScreen._open_in_background = do_not_open
    app = LotrApp(load_session_model=lambda: None)
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("x")
        assert painted.is_set()
        assert app.screen.query_one("#prompt").text == "x"

asyncio.run(paint())
"""

FIRST_PAINT_OF_CLASS = """
import asyncio
from lotr_tui.cli.launch import LotrApp

async def paint():
    from lotr_tui.screens.learn.screen import ChapterScreen
    painted = []
    ChapterScreen._load_chapter = lambda screen: painted.append(screen)
    app = LotrApp(make_class_screen=lambda: ChapterScreen(lambda: None, exit_on_close=True))
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.pause()
        assert painted == [app.screen]
        assert "Task" in str(app.screen.query_one("#task").render())

asyncio.run(paint())
"""

DRAW_CHARTS = """
import numpy as np
from lotr_tui.monitor.hardware_history import MetricTile
from lotr_tui.widgets.charts.plotting import braille_curve, decimate
x = np.linspace(0, 10, 5000)
braille_curve(*decimate(x, np.sin(x), (0, 10), 80), (0, 10), (-1, 1), 5, 40)
MetricTile("", "tokens/s", "1", 8, x, x).resample(10)
"""


@pytest.fixture
def imported_packages(tmp_path, environment):
    """Return a function that runs Python code in a new process and returns the heavy packages that it imported."""

    def run(code, *arguments, packages=HEAVY_PACKAGES):
        report = (
            f"import json, sys; print(json.dumps([m for m in {packages} if m in sys.modules]), file=sys.__stderr__)"
        )
        process = subprocess.run(
            [sys.executable, "-c", f"{code}\n{report}", *map(str, arguments)],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env=environment(tmp_path / "home"),
            timeout=60,
            check=False,
        )
        assert process.returncode == 0, process.stderr
        return json.loads(process.stderr.splitlines()[-1])

    return run


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--version"],
        ["train", "--help"],
        ["train", "--list-settings"],
        ["generate", "the road", "--run", "untrained"],
        ["generate", "the road", "--run", "untrained", "--json"],
        ["runs"],
        ["runs", "show", "untrained"],
        ["runs", "compare", "untrained", "base"],
        ["status", "untrained"],
        ["locate"],
        ["learn", "--list"],
        ["learn", "--help"],
        ["search", "--help"],
    ],
)
def test_command_imports_neither_torch_nor_pandas(imported_packages, untrained_run, arguments):
    assert imported_packages(COMMAND, *arguments) == []


def test_export_to_csv_imports_pandas_only(imported_packages, untrained_run):
    assert imported_packages(COMMAND, "runs", "export", "untrained", "--csv", "out") == ["pandas"]


def test_a_model_of_words_does_not_import_the_tokenizers_of_open_vocabularies(imported_packages, untrained_run):
    packages = ("tokenizers", "huggingface_hub")
    assert imported_packages(COMMAND, "generate", "the road", "--run", "untrained", packages=packages) == []


def test_generate_with_the_bundled_model_imports_neither(imported_packages):
    assert imported_packages(COMMAND, "generate", "the road") == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["generate", "the road", "--as", "FRODO", "--best-of", "2"],
        ["generate", "--scene", "--turns", "2", "--json"],
        ["who", "the road"],
    ],
)
def test_commands_about_dialogues_import_neither(imported_packages, tmp_path, arguments):
    run = write_dialogue_run(tmp_path / "scenes")
    assert imported_packages(COMMAND, *arguments, "--run", run) == []


def test_eval_of_a_text_imports_neither(imported_packages, untrained_run, tmp_path):
    (tmp_path / "own.txt").write_text("the road and the river")
    assert imported_packages(COMMAND, "eval", "untrained", "--text", "own.txt") == []


@pytest.mark.parametrize(
    "module",
    [
        "lotr_tui.app",
        "lotr_tui.cli.attach",
        "lotr_tui.commands",
        "lotr_tui.screens.session.screen",
        "lotr_tui.screens.runs.screen",
        "lotr_tui.screens.dialogs.sessions",
        "lotr_tui.screens.dashboard.screen",
        "lotr_tui.widgets.sampler_panel",
    ],
)
def test_session_module_imports_neither(imported_packages, module):
    assert imported_packages(f"import {module}") == []


def test_first_paint_imports_neither(imported_packages, tmp_path):
    assert imported_packages(FIRST_PAINT_WITH_MODEL, write_run(tmp_path / "run")) == []


def test_first_paint_without_a_model_imports_no_numpy(imported_packages):
    assert imported_packages(FIRST_PAINT_WITHOUT_MODEL, packages=NOT_IN_FIRST_PAINT) == []


def test_first_paint_of_the_class_imports_no_numpy(imported_packages):
    packages = (*NOT_IN_FIRST_PAINT, "pygments", "lotr_tui.learn.material")
    assert imported_packages(FIRST_PAINT_OF_CLASS, packages=packages) == []


def test_drawing_charts_does_not_import_numpy_ma(imported_packages):
    """Some functions of numpy import numpy.ma, which delays the first paint by 50 ms."""
    assert imported_packages(DRAW_CHARTS, packages=("numpy.ma",)) == []


def test_repetition_penalty_does_not_import_numpy_ma(imported_packages, untrained_run):
    arguments = ("generate", "the road", "--run", "untrained", "--repetition-penalty", "1.5")
    assert imported_packages(COMMAND, *arguments, packages=("numpy.ma",)) == []


def test_reading_a_csv_imports_neither_torch_nor_pandas(imported_packages, small_csv):
    assert imported_packages(COMMAND, "data", "info", small_csv) == []
