"""Tests of an installation without PyTorch and pandas: it plays, and says in one line what it cannot do."""

import json
import re
import subprocess
import sys
import tomllib

import pytest

from engine.errors import InvalidInputError, describe_error
from engine.runtime.packages import install_command, require_package
from tests.support.dialogue_runs import write_dialogue_run
from tests.support.files import CHECKOUT
from tests.support.pilot import notices

COMMANDS_WITHOUT_PACKAGES = """
import json, os, sys
sys.modules["torch"] = sys.modules["pandas"] = None
import numpy, engine.training.job
from lotr_tui.__main__ import main
from lotr_tui.cli.main import cli
for arguments in json.load(sys.stdin):
    child = os.fork()
    if child == 0:
        for number, name in ((1, "out"), (2, "err")):
            os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        sys.argv = ["lotr-tui", *arguments]
        main()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    print(json.dumps([arguments, code, open("out").read(), open("err").read()]), flush=True)
"""
"""Program that reads a list of commands and runs each in a fork that finds neither package."""

REFUSED = {
    "train --preset tiny --no-tui": "training needs PyTorch",
    "train --preset tiny --detach": "training needs PyTorch",
    "train --resume scenes": "training needs PyTorch",
    "ablate --preset tiny": "ablation needs PyTorch",
    "search --trials 2 --set lr=0.002..0.02": "search needs PyTorch",
    "eval --dynamic": "--dynamic needs PyTorch",
    "runs export scenes --csv out": "export to CSV needs pandas",
    "generate hi --run hf:owner/name": "hf:owner/name needs torch",
}
PLAYED = (
    "generate road --run scenes",
    "generate --scene --turns 2 --run scenes",
    "eval scenes --text own.txt",
    "who road --run scenes",
    "tokenize road --run scenes",
    "runs show scenes",
    "status scenes",
    "train --list-settings",
    "learn --list",
)


@pytest.fixture
def run_commands(tmp_path, environment):
    """Return a function that runs commands without the packages, and yields their exit codes and output."""
    write_dialogue_run(tmp_path / "home" / "runs" / "scenes")
    (tmp_path / "own.txt").write_text("the road and the river")

    def run(commands):
        process = subprocess.run(
            [sys.executable, "-c", COMMANDS_WITHOUT_PACKAGES],
            input=json.dumps([command.split() for command in commands]),
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env=environment(tmp_path / "home", PYTHONPATH=str(CHECKOUT)),
            timeout=120,
            check=False,
        )
        assert process.returncode == 0, process.stderr
        results = [json.loads(line) for line in process.stdout.splitlines()]
        assert len(results) == len(commands)
        return results

    return run


def test_a_command_that_needs_a_missing_package_says_so_in_one_line(run_commands, tmp_path):
    for (arguments, code, output, errors), message in zip(run_commands(REFUSED), REFUSED.values(), strict=True):
        assert code == 2, (arguments, errors)
        assert re.fullmatch(f"lotr-tui: {message}.*; pip install .*\n", errors), (arguments, errors)
        assert not output
    assert [path.name for path in (tmp_path / "home" / "runs").iterdir()] == ["scenes"]  # nothing was begun


def test_a_command_that_plays_needs_no_missing_package(run_commands):
    for arguments, code, output, errors in run_commands(PLAYED):
        assert code == 0, (arguments, errors)
        assert output.strip(), arguments


async def test_new_training_without_torch_is_refused_before_the_dialog(monkeypatch, make_app):
    monkeypatch.setitem(sys.modules, "torch", None)
    app = make_app()
    async with app.run_test(size=(100, 30)) as pilot:
        await pilot.press("ctrl+t")
        await pilot.pause()
        assert notices(app) == "training needs PyTorch; pip install torch"
        assert len(app.screen_stack) == 1


@pytest.mark.parametrize(
    ("marker", "command"),
    [
        ("", "pip install torch"),
        ("uv-receipt.toml", "uv tool install --reinstall lotr-tui"),
        ("pipx_metadata.json", "pipx inject lotr-tui torch"),
    ],
)
def test_the_remedy_fits_the_tool_that_installed_the_program(monkeypatch, tmp_path, marker, command):
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    if marker:
        (tmp_path / marker).touch()
    assert install_command("torch") == command


def test_a_package_that_nothing_checks_for_is_named_in_one_line():
    with pytest.raises(InvalidInputError, match="plotting needs no_such_package; pip install"):
        require_package("no_such_package", "plotting")
    assert describe_error(ModuleNotFoundError("No module named 'numkong'", name="numkong")) == (
        "the package numkong is not installed; pip install numkong"
    )
    # Other names of modules may be those of other packages.
    other = ModuleNotFoundError("No module named 'yaml'", name="yaml")
    assert describe_error(other) == "ModuleNotFoundError: No module named 'yaml'"


def test_install_guide_lists_the_dependencies_of_a_light_installation():
    metadata = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())
    required = {re.match(r"[\w-]+", dependency)[0] for dependency in metadata["project"]["dependencies"]}
    guide = (CHECKOUT / "assets" / "docs" / "install.md").read_text()
    command = re.search(r"pip install (numpy .*?)(?<!\\\\)\n", guide)[1]
    assert {re.match(r"[\w-]+", word.strip("'"))[0] for word in command.split()} == required - {"torch", "pandas"}
