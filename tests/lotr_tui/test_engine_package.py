"""Start beside another package named `engine`, and on Windows: one line in place of a traceback."""

import base64
import hashlib
import os
import shutil
import subprocess
import sys

import pytest

from engine.errors import TrainingError
from lotr_tui.monitor.background import resume_in_background
from tests.support.files import CHECKOUT

INSTALLED_FILES = ("lotr_tui/__init__.py", "lotr_tui/engine_package.py", "engine/__init__.py", "engine/errors.py")
DESCRIBE = "from lotr_tui.engine_package import describe_engine_problem; print(describe_engine_problem())"
ANOTHER_ENGINE = {"engine/__init__.py": "", "engine/errors.py": "class Error: pass"}


def run_python(*arguments, folder, path):
    """Run Python in `folder`, with `path` as PYTHONPATH."""
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(path), "LOTR_TUI_HOME": str(folder / "home")}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def write_files(folder, files):
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def write_distribution(site, name, files):
    """Write the metadata of an installed distribution with the digests of its files."""
    digests = {file: hashlib.sha256((site / file).read_bytes()).digest() for file in files}
    rows = [
        f"{file},sha256={base64.urlsafe_b64encode(digest).rstrip(b'=').decode()},1\n"
        for file, digest in digests.items()
    ]
    folder = f"{name.replace('-', '_')}-1.0.dist-info"
    write_files(site, {f"{folder}/METADATA": f"Name: {name}\nVersion: 1.0\n", f"{folder}/RECORD": "".join(rows)})


def overwrite(site):
    write_files(site, ANOTHER_ENGINE)
    write_distribution(site, "v8", list(ANOTHER_ENGINE))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda site: None, ""),
        (overwrite, "v8 and lotr-tui both install a package engine in {site}/engine"),
        (
            lambda site: (site / "engine" / "errors.py").unlink(),
            "{site}/engine/errors.py is missing; pip install --force",
        ),
        (
            lambda site: shutil.rmtree(site / "engine"),
            "the package engine of lotr-tui is missing in {site}/engine; pip",
        ),
    ],
    ids=["intact", "overwritten", "changed", "removed"],
)
def test_an_installation_whose_engine_is_damaged_says_what_to_do(tmp_path, change, message):
    site = tmp_path / "site-packages"  # as pip writes it, with the modules that the check needs
    write_files(site, {file: (CHECKOUT / file).read_text() for file in INSTALLED_FILES})
    write_distribution(site, "lotr-tui", INSTALLED_FILES)
    change(site)
    process = run_python("-c", DESCRIBE, folder=tmp_path, path=site)
    assert process.stdout.startswith(message.format(site=site)), process.stderr
    assert bool(process.stdout.strip()) == bool(message)


@pytest.mark.parametrize("files", [ANOTHER_ENGINE, {"engine.py": "power = 1"}], ids=["package", "module"])
@pytest.mark.parametrize("is_on_path", [False, True])
def test_another_engine_in_the_working_directory_or_on_pythonpath_is_named(tmp_path, files, is_on_path):
    other = tmp_path / "other"
    write_files(other, files)
    folder, path = (tmp_path, f"{other}{os.pathsep}{CHECKOUT}") if is_on_path else (other, CHECKOUT)
    process = run_python("-m", "lotr_tui", "train", "--list-settings", folder=folder, path=path)
    assert process.returncode == 1
    (line,) = process.stderr.splitlines()
    found = other / next(iter(files)).removesuffix("/__init__.py")
    advice = f"remove {other} from PYTHONPATH" if is_on_path else "run lotr-tui in"
    assert line.startswith(f"lotr-tui: {found} is imported as engine instead of {CHECKOUT / 'engine'}; {advice}")


def test_windows_is_refused_in_one_line_before_any_import(tmp_path):
    code = "import sys; sys.platform = 'win32'; sys.modules['engine'] = None; import lotr_tui.__main__"
    process = run_python("-c", code, folder=tmp_path, path=CHECKOUT)
    assert process.returncode == 1
    (line,) = process.stderr.splitlines()
    assert line.startswith("lotr-tui: Windows is not supported")


def test_a_training_in_the_background_ignores_an_engine_in_the_working_directory(tmp_path, monkeypatch):
    write_files(tmp_path, ANOTHER_ENGINE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(CHECKOUT))
    (tmp_path / "run").mkdir()
    with pytest.raises(TrainingError, match="did not start in the background"):
        resume_in_background(tmp_path / "run")
    assert "config.json" in (tmp_path / "run" / "console.txt").read_text()
