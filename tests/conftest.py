"""Fixtures for all tests: corpora, a run to load, and the command line in a process of its own."""

import os

# Tests run in parallel: with two threads each, trainings in tests were measured to be six times slower.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Tests start hundreds of processes, and each would compile the program anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

import gc
import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.support.files import CHECKOUT, sentences, write_csv, write_run

sys.dont_write_bytecode = False

# The time of an example depends on the machine only, and mutmut runs a test several times in one process. CI uses the
# same examples every time; other runs find new ones.
settings.register_profile(
    "lotr-tui",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.differing_executors],
    derandomize="CI" in os.environ,
)
settings.load_profile("lotr-tui")

USER_SETTINGS = ("LOTR_TUI_DEBUG", "LOTR_TUI_HOME", "PYTHONIOENCODING", "FORCE_COLOR")


LONG_FILES = ("test_snapshots.py", "test_every_binding.py", "test_faults.py", "test_processes.py")
"""Files that take a minute or more. One worker runs a whole file, so the others would wait for it at the end."""


def pytest_collection_modifyitems(items):
    """Run the longest files first, in an order that is the same in all workers."""
    items.sort(key=lambda item: item.path.name not in LONG_FILES)


def pytest_collection_finish():
    """Take the modules out of the garbage collection, which they would slow down during every test."""
    gc.collect()
    gc.freeze()


def pytest_terminal_summary(terminalreporter):
    """Say once why the tests in a browser were skipped; the reasons of single tests are not printed."""
    reasons = {str(report.longrepr[2]) for report in terminalreporter.stats.get("skipped", [])}
    for reason in sorted(reasons):
        if "browser tests skipped" in reason:
            terminalreporter.write_line(reason.removeprefix("Skipped: "))


def pytest_sessionfinish():
    """Save coverage before xdist kills a worker that does not end in time."""
    coverage = sys.modules.get("coverage")
    measuring = coverage and coverage.Coverage.current()
    if measuring:
        measuring.save()


@pytest.fixture(scope="session")
def lotr_csv():
    """Return the path of the real dialogues, which are not part of the repository."""
    shared = os.environ.get("LOTR_TUI_SHARED") or CHECKOUT.parent / "shared"
    path = Path(shared) / "data" / "lotr_scripts.csv"
    if not path.is_file():
        pytest.skip("needs ../shared/data/lotr_scripts.csv beside the checkout, or LOTR_TUI_SHARED")
    return path


@pytest.fixture
def small_csv(tmp_path):
    """Return the path of a CSV with 120 lines and the columns `char` and `dialog`."""
    return write_csv(tmp_path / "small.csv", sentences(120))


@pytest.fixture
def home(tmp_path, monkeypatch):
    """Set LOTR_TUI_HOME to a folder that does not exist yet, and return its path."""
    path = tmp_path / "home"
    monkeypatch.setenv("LOTR_TUI_HOME", str(path))
    return path


@pytest.fixture
def untrained_run(tmp_path):
    """Return a run outside the runs folder, with random weights and the vocabulary `KNOWN_WORDS`."""
    return write_run(tmp_path / "untrained")


@pytest.fixture(scope="session")
def environment():
    """Return a function that makes the environment of a subprocess, without the user's own settings."""

    def make(home, **more):
        clean = {name: value for name, value in os.environ.items() if name not in USER_SETTINGS}
        return {**clean, "LOTR_TUI_HOME": str(home), "COLUMNS": "120", "NO_COLOR": "1", **more}

    return make


@pytest.fixture(scope="session")
def server():
    script = Path(__file__).parent / "support" / "command_server.py"
    with subprocess.Popen(
        [sys.executable, "-P", str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd="/"
    ) as process:
        yield process
        process.stdin.close()


@pytest.fixture
def command(server, home, tmp_path, environment):
    """Return a function that runs `lotr-tui` in a process of its own, in a folder outside the checkout."""
    files = tmp_path / ".command"
    files.mkdir()

    def run(*arguments, stdin=b"", **more):
        paths = {name: files / name for name in ("stdin", "stdout", "stderr")}
        paths["stdin"].write_bytes(stdin)
        arguments = [str(argument) for argument in arguments]
        order = {
            "arguments": arguments,
            "environment": environment(home, **more),
            "folder": str(tmp_path),
            **{name: str(path) for name, path in paths.items()},
        }
        server.stdin.write(json.dumps(order) + "\n")
        server.stdin.flush()
        code = int(server.stdout.readline())
        return subprocess.CompletedProcess(arguments, code, paths["stdout"].read_text(), paths["stderr"].read_text())

    return run


@pytest.fixture
def start(home, tmp_path, environment):
    """Return a function that starts `lotr-tui` and returns at once; processes that still run at the end are killed."""
    processes = []

    def start_process(*arguments):
        command = [sys.executable, "-m", "lotr_tui", *map(str, arguments)]
        options = {"text": True, "cwd": tmp_path, "env": environment(home)}
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)
        processes.append(process)
        return process

    yield start_process
    for process in processes:
        process.kill()
        process.communicate()
