"""Tests of macOS by simulation: its folders, file names, flushes and clipboard, and what only Linux has."""

import fcntl
import os
import subprocess
import sys

import pytest

from engine.errors import RunError
from engine.runs.locked_run import rename_run
from engine.storage import files
from tests.support.files import CHECKOUT
from tests.support.random_dialogues import write_dialogue_run
from tests.support.terminal import MODEL_READY_TEXT, Terminal


def run_process(command, folder, environment):
    """Run a command in `folder` for at most 60 s, and check that it succeeds."""
    options = {"capture_output": True, "text": True, "timeout": 60, "check": False}
    process = subprocess.run(command, cwd=folder, env=environment, **options)
    assert process.returncode == 0, process.stderr
    return process


PROGRAM = """
import os, select, signal, sys, sysconfig
import psutil  # has one module for each system
sysconfig.get_config_vars()  # of the system that Python was built for
for module, names in (
    (os, ["sched_getaffinity", "sched_setaffinity", "posix_fadvise", "posix_fallocate", "memfd_create", "pipe2",
          "fdatasync", "pidfd_open", "eventfd", "copy_file_range", "splice", "getrandom", "O_TMPFILE", "O_PATH"]),
    (signal, ["SIGSTKFLT", "SIGPWR", "SIGPOLL", "SIGRTMIN", "SIGRTMAX", "sigtimedwait", "sigwaitinfo"]),
    (select, ["epoll"]),
):
    for name in names:
        if hasattr(module, name):
            delattr(module, name)
sys.platform = "darwin"

def refuse_proc(event, arguments):
    if event == "open" and str(arguments[0]).startswith(("/proc", "/sys")):
        raise FileNotFoundError(2, "No such file or directory", arguments[0])

sys.addaudithook(refuse_proc)
from lotr_tui.__main__ import main
main()
"""  # the program without the functions, signals and files that macOS does not have


@pytest.fixture
def ignore_case(monkeypatch):
    def ignoring(look_up):
        def find(path, **options):
            name, folder = os.path.basename(path), os.path.dirname(path) or "."  # noqa: PTH119, PTH120
            same = [sibling for sibling in os.listdir(folder) if sibling.casefold() == name.casefold()]  # noqa: PTH208
            return look_up(os.path.join(folder, same[0]) if same else path, **options)  # noqa: PTH118

        return find

    for name in "stat", "lstat":
        monkeypatch.setattr(os, name, ignoring(getattr(os, name)))


def test_commands_need_nothing_that_only_linux_has_and_use_the_folders_of_macos(tmp_path, environment):
    made = environment("", HOME=str(tmp_path), PYTHONPATH=str(CHECKOUT))
    variables = {name: value for name, value in made.items() if name != "LOTR_TUI_HOME" and not name.startswith("XDG_")}
    runs = tmp_path / "Library" / "Application Support" / "lotr-tui" / "runs"
    write_dialogue_run(runs / "scenes")
    process = run_process(
        [sys.executable, "-c", PROGRAM, "generate", "the road", "--run", "scenes"], tmp_path, variables
    )
    assert process.stdout.strip()


@pytest.mark.slow
def test_a_session_needs_nothing_that_only_linux_has(tmp_path):
    with Terminal([sys.executable, "-c", PROGRAM], 100, 30, tmp_path).spawn() as terminal:
        terminal.read_until(MODEL_READY_TEXT)
        terminal.press(b"Hello, Gandalf.\r", "‹ 1/8 ›")
        terminal.write(b"\x11")
        terminal.read_until_exit()
        assert terminal.exit_status == 0


@pytest.mark.usefixtures("ignore_case")
def test_the_case_of_a_run_can_be_changed_where_case_is_ignored(tmp_path):
    write_dialogue_run(tmp_path / "film")
    write_dialogue_run(tmp_path / "other")
    rename_run("film", "Film", tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["Film", "other"]  # noqa: PTH208
    with pytest.raises(RunError, match="run 'Other' exists"):
        rename_run("Film", "Other", tmp_path)


@pytest.mark.parametrize("is_supported", [True, False])
def test_files_are_flushed_from_the_memory_of_the_disk(tmp_path, monkeypatch, is_supported):
    calls = []

    def control(fd, command):
        calls.append(command)
        if not is_supported:
            raise OSError(45, "Operation not supported")

    monkeypatch.setattr(fcntl, "F_FULLFSYNC", 51, raising=False)
    monkeypatch.setattr(fcntl, "fcntl", control)
    monkeypatch.setattr(os, "fsync", lambda fd: calls.append("fsync"))
    files.write_atomically(tmp_path / "model", b"12345")
    assert calls == ([51, 51] if is_supported else [51, "fsync", 51, "fsync"])  # the file, then its folder
    assert (tmp_path / "model").read_bytes() == b"12345"
