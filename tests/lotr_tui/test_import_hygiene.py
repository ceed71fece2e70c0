"""What a command does not need, it does not import: torch takes 2 s, pandas 0.4 s."""

import json
import subprocess
import sys

import pytest

from tests.conftest import write_run

HEAVY = ("torch", "pandas")
NOT_YET = (
    *HEAVY,
    "numpy",
    "orjson",
    "safetensors",
    "psutil",
    "engine.config",
    "engine.runs.store",
    "lotr_tui.monitor.training_view",
)
"""What is not needed before the first paint of the session."""

COMMAND = """
import sys
from lotr_tui.__main__ import main
sys.argv = ["lotr-tui", *sys.argv[1:]]
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
"""

FIRST_PAINT = """
import asyncio, pathlib, sys
from engine.runs.store import load
from lotr_tui.session.player import Player
from lotr_tui.app import LotrApp

async def paint():
    app = LotrApp(player=Player.of(load(pathlib.Path(sys.argv[1]))))
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.pause()
        assert app.screen.children

asyncio.run(paint())
"""

BEFORE_THE_MODEL = """
import asyncio, sys, threading
from lotr_tui.cli.launch import LotrApp

async def paint():
    from lotr_tui.screens.session.frame import SessionFrame
    painted = threading.Event()

    async def opens_nothing(screen):
        painted.set()

    SessionFrame._open_behind = opens_nothing
    app = LotrApp(opening=lambda: None)
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("x")
        assert painted.is_set()
        assert app.screen.query_one("#prompt").text == "x"

asyncio.run(paint())
"""

DRAWN = """
import numpy as np
from lotr_tui.monitor.hardware_history import Tile
from lotr_tui.widgets.charts.plotting import decimate, draw_curve
x = np.linspace(0, 10, 5000)
draw_curve(*decimate(x, np.sin(x), (0, 10), 80), (0, 10), (-1, 1), 5, 40)
Tile("", "tokens/s", "1", 8, x, x).shape(10)
"""


@pytest.fixture
def heavy(tmp_path, environment):
    """Runs Python code in a new process: which of the heavy packages were imported by its end."""

    def run(code, *arguments, packages=HEAVY):
        report = (
            f"import json, sys; print(json.dumps([m for m in {packages} if m in sys.modules]), file=sys.__stderr__)"
        )
        done = subprocess.run(
            [sys.executable, "-c", f"{code}\n{report}", *map(str, arguments)],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env=environment(tmp_path / "home"),
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stderr.splitlines()[-1])

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
        ["status", "untrained"],
        ["runs", "export", "untrained", "--csv", "out"],
        ["locate"],
    ],
)
def test_commands_import_neither(heavy, untrained_run, arguments):
    assert heavy(COMMAND, *arguments) == []


def test_the_bundled_model_is_played_without_either(heavy):
    assert heavy(COMMAND, "generate", "the road") == []


def test_scoring_a_text_imports_neither(heavy, untrained_run, tmp_path):
    (tmp_path / "own.txt").write_text("the road and the river")
    assert heavy(COMMAND, "eval", "untrained", "--text", "own.txt") == []


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
def test_modules_of_the_session_import_neither(heavy, module):
    assert heavy(f"import {module}") == []


def test_the_first_paint_imports_neither(heavy, tmp_path):
    assert heavy(FIRST_PAINT, write_run(tmp_path / "run")) == []


def test_before_its_model_the_session_is_painted_and_typed_into_without_numpy(heavy):
    assert heavy(BEFORE_THE_MODEL, packages=NOT_YET) == []


def test_the_dashboard_draws_without_numpy_ma(heavy):
    """What some of numpy's functions bring in: 50 ms, in which the first paint would wait."""
    assert heavy(DRAWN, packages=("numpy.ma",)) == []


def test_words_are_repeated_less_without_numpy_ma(heavy, untrained_run):
    asked = ("generate", "the road", "--run", "untrained", "--repetition-penalty", "1.5")
    assert heavy(COMMAND, *asked, packages=("numpy.ma",)) == []


def test_a_csv_needs_pandas_but_not_torch(heavy, small_csv):
    assert heavy(COMMAND, "data", "info", small_csv) == ["pandas"]
