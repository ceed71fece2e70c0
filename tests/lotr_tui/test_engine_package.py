"""Tests of the start beside another package named `engine`, and on Windows: one line in place of a traceback."""

import base64
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lotr_tui.monitor.background import resume_in_background
from tests.support.files import CHECKOUT, write_run

FAKE_PACKAGES = {
    "an empty package": {"engine/__init__.py": ""},
    "a package with a module of the same name": {"engine/__init__.py": "", "engine/errors.py": "class Error: pass"},
    "a module": {"engine.py": "power = 1"},
    "a package that shares our modules but one": {
        "engine/__init__.py": f"__path__.append({str(CHECKOUT / 'engine')!r})",
        "engine/config.py": "",
    },
}
INSTALLED_FILES = ("lotr_tui/__init__.py", "lotr_tui/engine_package.py", "engine/__init__.py", "engine/errors.py")
DESCRIBE = "from lotr_tui.engine_package import describe_engine_problem; print(describe_engine_problem())"


def run_python(*arguments: str, folder: Path, path: str) -> subprocess.CompletedProcess[str]:
    """Run Python in `folder`, with `path` as PYTHONPATH."""
    environment = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**environment, "PYTHONPATH": path, "LOTR_TUI_HOME": str(folder / "home")},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def write_files(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def write_distribution(site: Path, name: str, files: list[str]) -> None:
    """Write the metadata of an installed distribution with the digests of its files."""
    rows = []
    for file in files:
        digest = hashlib.sha256((site / file).read_bytes()).digest()
        rows.append(f"{file},sha256={base64.urlsafe_b64encode(digest).rstrip(b'=').decode()},1\n")
    folder = f"{name.replace('-', '_')}-1.0.dist-info"
    write_files(site, {f"{folder}/METADATA": f"Name: {name}\nVersion: 1.0\n", f"{folder}/RECORD": "".join(rows)})


@pytest.fixture
def site(tmp_path):
    """Return a folder as `pip install` writes it, with the modules of lotr-tui that the check needs."""
    site = tmp_path / "site-packages"
    for file in INSTALLED_FILES:
        (site / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(CHECKOUT / file, site / file)
    write_distribution(site, "lotr-tui", list(INSTALLED_FILES))
    return site


def describe(site: Path, folder: Path, path: str = "") -> str:
    process = run_python("-c", DESCRIBE, folder=folder, path=f"{path}{os.pathsep}{site}" if path else str(site))
    assert process.returncode == 0, process.stderr
    return process.stdout.strip()


@pytest.mark.parametrize("files", FAKE_PACKAGES.values(), ids=FAKE_PACKAGES)
def test_another_engine_in_the_working_directory_is_named(tmp_path, files):
    write_files(tmp_path, files)
    process = run_python("-m", "lotr_tui", "train", "--list-settings", folder=tmp_path, path=str(CHECKOUT))
    assert process.returncode == 1
    (line,) = process.stderr.splitlines()
    found = tmp_path / ("engine.py" if "engine.py" in files else "engine")
    assert line.startswith(f"lotr-tui: {found} is imported as engine instead of {CHECKOUT / 'engine'}; run lotr-tui in")


def test_an_installation_without_a_conflict_has_no_problem(site, tmp_path):
    assert describe(site, tmp_path) == ""


def test_an_engine_on_pythonpath_is_named_with_its_folder(site, tmp_path):
    write_files(tmp_path / "other", FAKE_PACKAGES["an empty package"])
    assert describe(site, tmp_path, str(tmp_path / "other")).endswith(f"; remove {tmp_path / 'other'} from PYTHONPATH")


def test_a_distribution_that_installs_into_the_same_folder_is_named(site, tmp_path):
    write_files(site, {"engine/errors.py": "class Error: pass", "engine/pistons.py": ""})
    write_distribution(site, "v8", ["engine/errors.py", "engine/pistons.py"])
    assert describe(site, tmp_path).startswith(f"v8 and lotr-tui both install a package engine in {site / 'engine'}")


@pytest.mark.parametrize("change", ["missing", "changed"])
def test_a_file_that_another_distribution_left_damaged_is_named(site, tmp_path, change):
    file = site / "engine" / "errors.py"
    file.unlink()
    if change == "changed":
        file.write_text("class Error: pass")
    message = f"{file} is missing or was changed after the installation of lotr-tui; pip install --force-reinstall"
    assert describe(site, tmp_path).startswith(message)


def test_a_removed_package_is_named(site, tmp_path):
    shutil.rmtree(site / "engine")
    assert describe(site, tmp_path).startswith(f"the package engine of lotr-tui is missing in {site / 'engine'}; pip")


def test_windows_is_refused_in_one_line_before_any_import(tmp_path):
    code = "import sys; sys.platform = 'win32'; sys.modules['engine'] = None; import lotr_tui.__main__"
    process = run_python("-c", code, folder=tmp_path, path=str(CHECKOUT))
    assert process.returncode == 1
    (line,) = process.stderr.splitlines()
    assert line.startswith("lotr-tui: Windows is not supported")
    assert "WSL" in line


def test_a_training_in_the_background_ignores_an_engine_in_the_working_directory(tmp_path, monkeypatch):
    write_files(tmp_path, FAKE_PACKAGES["an empty package"])
    run = write_run(tmp_path / "run")
    started = []

    def start(command, **options):
        started.append((command, options))
        raise FileNotFoundError

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(subprocess, "Popen", start)
    with pytest.raises(FileNotFoundError):
        resume_in_background(run)
    monkeypatch.undo()
    ((command, options),) = started
    command = [*command[: command.index("lotr_tui")], "lotr_tui", "locate"]
    environment = options["env"] | {"PYTHONPATH": str(CHECKOUT)}
    process = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
