"""Start beside another package named `engine`, and on Windows: one line in place of a traceback."""

import os
import subprocess
import sys

import pytest

from engine.errors import TrainingError
from lotr_tui.monitor.background import resume_in_background
from tests.support.files import CHECKOUT

INSTALLED_FILES = ("lotr_tui/__init__.py", "lotr_tui/__main__.py", "lotr_tui/engine_package.py", "engine/__init__.py")
ANOTHER_ENGINE = {"engine/__init__.py": "", "engine/errors.py": "class Error: pass"}


def refusal_of_python(*arguments, folder, path):
    """Run Python in `folder`, with `path` as PYTHONPATH, and return its one line of error."""
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(path), "LOTR_TUI_HOME": str(folder / "home")}
    command = [sys.executable, *arguments]
    process = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert process.returncode == 1
    (line,) = process.stderr.splitlines()
    return line


def write_files(folder, files):
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


@pytest.mark.parametrize("files", [ANOTHER_ENGINE, {}], ids=["overwritten", "incomplete"])
def test_an_installation_whose_engine_is_damaged_says_what_to_do(tmp_path, files):
    site = tmp_path / "site-packages"
    write_files(site, {file: (CHECKOUT / file).read_text() for file in INSTALLED_FILES})
    write_files(site, files)
    line = refusal_of_python("-m", "lotr_tui", folder=tmp_path, path=site)
    assert line.startswith(f"lotr-tui: {site}/engine is incomplete, or another package has overwritten it (")
    assert "pip install --force-reinstall" in line


@pytest.mark.parametrize("files", [ANOTHER_ENGINE, {"engine.py": "power = 1"}], ids=["package", "module"])
@pytest.mark.parametrize("is_on_path", [False, True])
def test_another_engine_in_the_working_directory_or_on_pythonpath_is_named(tmp_path, files, is_on_path):
    other = tmp_path / "other"
    write_files(other, files)
    folder, path = (tmp_path, f"{other}{os.pathsep}{CHECKOUT}") if is_on_path else (other, CHECKOUT)
    line = refusal_of_python("-m", "lotr_tui", "train", "--list-settings", folder=folder, path=path)
    found = other / next(iter(files)).removesuffix("/__init__.py")
    advice = f"remove {other} from PYTHONPATH" if is_on_path else "run lotr-tui in"
    assert line.startswith(f"lotr-tui: {found} is imported as engine instead of {CHECKOUT / 'engine'}; {advice}")


def test_windows_is_refused_in_one_line_before_any_import(tmp_path):
    code = "import sys; sys.platform = 'win32'; sys.modules['engine'] = None; import lotr_tui.__main__"
    line = refusal_of_python("-c", code, folder=tmp_path, path=CHECKOUT)
    assert line.startswith("lotr-tui: Windows is not supported")


def test_a_training_in_the_background_ignores_an_engine_in_the_working_directory(tmp_path, monkeypatch):
    write_files(tmp_path, ANOTHER_ENGINE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(CHECKOUT))
    (tmp_path / "run").mkdir()
    with pytest.raises(TrainingError, match="did not start in the background"):
        resume_in_background(tmp_path / "run")
    assert "config.json" in (tmp_path / "run" / "console.txt").read_text()
