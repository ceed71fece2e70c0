"""Start beside another package named `engine`, and on Windows: one line in place of a traceback."""

import base64
import hashlib
import os
import shutil
import subprocess
import sys

import pytest

from lotr_tui.monitor.background import resume_in_background
from tests.support.files import CHECKOUT, write_run

INSTALLED_FILES = ("lotr_tui/__init__.py", "lotr_tui/engine_package.py", "engine/__init__.py", "engine/errors.py")
DESCRIBE = "from lotr_tui.engine_package import describe_engine_problem; print(describe_engine_problem())"


def run_python(*arguments, folder, path):
    """Run Python in `folder`, with `path` as PYTHONPATH."""
    environment = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**environment, "PYTHONPATH": str(path), "LOTR_TUI_HOME": str(folder / "home")},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def write_files(folder, files):
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def write_distribution(site, name, files):
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


def overwrite(site):
    write_files(site, {"engine/errors.py": "class Error: pass", "engine/pistons.py": ""})
    write_distribution(site, "v8", ["engine/errors.py", "engine/pistons.py"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda site: None, ""),
        (overwrite, "v8 and lotr-tui both install a package engine in {site}/engine"),
        (
            lambda site: (site / "engine" / "errors.py").write_text("class Error: pass"),
            "{site}/engine/errors.py is missing or was changed after the installation of lotr-tui; pip install --force",
        ),
        (
            lambda site: shutil.rmtree(site / "engine"),
            "the package engine of lotr-tui is missing in {site}/engine; pip",
        ),
    ],
    ids=["intact", "overwritten", "changed", "removed"],
)
def test_an_installation_whose_engine_is_damaged_says_what_to_do(site, tmp_path, change, message):
    change(site)
    process = run_python("-c", DESCRIBE, folder=tmp_path, path=site)
    assert process.stdout.startswith(message.format(site=site)), process.stderr
    assert bool(process.stdout.strip()) == bool(message)


@pytest.mark.parametrize(
    "files",
    [
        {"engine/__init__.py": "", "engine/errors.py": "class Error: pass"},
        {"engine.py": "power = 1"},
        {"engine/__init__.py": f"__path__.append({str(CHECKOUT / 'engine')!r})", "engine/config.py": ""},
    ],
    ids=["package", "module", "package that shares our modules but one"],
)
def test_another_engine_in_the_working_directory_is_named(tmp_path, files):
    write_files(tmp_path, files)
    process = run_python("-m", "lotr_tui", "train", "--list-settings", folder=tmp_path, path=CHECKOUT)
    assert process.returncode == 1
    (line,) = process.stderr.splitlines()
    found = tmp_path / ("engine.py" if "engine.py" in files else "engine")
    assert line.startswith(f"lotr-tui: {found} is imported as engine instead of {CHECKOUT / 'engine'}; run lotr-tui in")


def test_an_engine_on_pythonpath_is_named_with_its_folder(site, tmp_path):
    write_files(tmp_path / "other", {"engine/__init__.py": ""})
    process = run_python("-c", DESCRIBE, folder=tmp_path, path=f"{tmp_path / 'other'}{os.pathsep}{site}")
    assert process.stdout.endswith(f"; remove {tmp_path / 'other'} from PYTHONPATH\n"), process.stderr


def test_windows_is_refused_in_one_line_before_any_import(tmp_path):
    code = "import sys; sys.platform = 'win32'; sys.modules['engine'] = None; import lotr_tui.__main__"
    process = run_python("-c", code, folder=tmp_path, path=CHECKOUT)
    assert process.returncode == 1
    (line,) = process.stderr.splitlines()
    assert line.startswith("lotr-tui: Windows is not supported")


def test_a_training_in_the_background_ignores_an_engine_in_the_working_directory(tmp_path, monkeypatch):
    write_files(tmp_path, {"engine/__init__.py": ""})
    started = []

    def start(command, **options):
        started.append((command, options))
        raise FileNotFoundError

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(subprocess, "Popen", start)
    with pytest.raises(FileNotFoundError):
        resume_in_background(write_run(tmp_path / "run"))
    monkeypatch.undo()
    ((command, options),) = started
    command = [*command[: command.index("lotr_tui")], "lotr_tui", "locate"]
    environment = options["env"] | {"PYTHONPATH": str(CHECKOUT)}
    process = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
