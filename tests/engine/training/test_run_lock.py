"""One training a run: many processes at one moment, and what tells that it goes on."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from engine.control import Command
from engine.errors import RunError
from engine.events import Finished
from engine.runs import store, writer
from engine.runs.control_files import Requests, ask
from engine.runs.manage import remove, rename
from engine.runs.store import LOCK, METRICS, REQUESTS
from tests.support.runs import CONFIG, VOCABULARY, training, write

PROCESSES = 8
AT_ONE_MOMENT = """
import os, sys
from pathlib import Path
from engine.runs import writer
from engine.errors import RunError
from tests.support.runs import CONFIG, VOCABULARY
how, folder = sys.argv[1], Path(sys.argv[2])
children = []
gate, open_gate = os.pipe()
for number in range(int(sys.argv[3])):
    child = os.fork()
    if child == 0:
        os.close(open_gate)
        os.read(gate, 1)  # all go on when it is closed
        try:
            if how == "create":
                run = writer.create(CONFIG, VOCABULARY, "r", folder)
            else:
                run = writer.reopen(folder / "r")
        except RunError as error:
            os.write(1, f"refused: {error}\\n".encode())
            os._exit(0)
        except BaseException as error:
            os.write(1, f"broke: {error!r}\\n".encode())
            os._exit(1)
        os.write(1, f"won: process {os.getpid()}\\n".encode())
        sys.stdin.read()  # holds it until all have said how it went
        os._exit(0)
    children.append(child)
os.close(open_gate)
for child in children:
    os.waitpid(child, 0)
"""


@pytest.mark.parametrize("how", ["create", "reopen"])
def test_of_many_that_begin_at_one_moment_one_wins(tmp_path: Path, how: str) -> None:
    if how == "reopen":
        write(tmp_path, "r", training("stopped"))
    with subprocess.Popen(
        [sys.executable, "-c", AT_ONE_MOMENT, how, str(tmp_path), str(PROCESSES)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as all_of_them:
        assert all_of_them.stdout is not None
        assert all_of_them.stdin is not None
        said = [all_of_them.stdout.readline() for _ in range(PROCESSES)]
        won = [line for line in said if line.startswith("won: ")]
        assert len(won) == 1, said
        holder = won[0].removeprefix("won: ").strip()
        assert store.writer(tmp_path / "r").startswith(f"{holder} on ")
        assert store.is_written(tmp_path / "r")
        if how == "reopen":
            assert all(f"is being trained by {holder} on" in line for line in said if line not in won), said
        all_of_them.stdin.close()
    assert not store.is_written(tmp_path / "r")


def test_a_folder_that_another_process_is_making_is_not_taken_from_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder and the lock are there already, the configuration not yet."""
    (tmp_path / "r").mkdir()
    other = writer._open_lock(tmp_path / "r")
    assert writer._lock(other, tmp_path / "r") == 0
    text = (tmp_path / "r" / LOCK).read_text()
    monkeypatch.setattr(writer, "LOCK_SECONDS", 0)
    with pytest.raises(RunError, match="'r' exists"):
        writer.create(CONFIG, VOCABULARY, "r", tmp_path)
    assert (tmp_path / "r" / LOCK).read_text() == text
    assert sorted(item.name for item in (tmp_path / "r").iterdir()) == [LOCK]


def test_who_had_the_lock_before_may_have_come_to_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, "r", training("stopped"))
    lock = writer._lock

    def another_one_was_faster(file: object, path: Path) -> int | None:
        with (path / METRICS).open("a") as metrics:
            metrics.write('{"event": "finished", "reason": "done"}\n')
        return lock(file, path)  # type: ignore[arg-type]

    monkeypatch.setattr(writer, "_lock", another_one_was_faster)
    with pytest.raises(RunError, match="'r' is finished"):
        writer.reopen(path)
    assert not store.is_written(path)


# --- what is asked of it ----------------------------------------------------------------------------------------


def test_from_the_moment_that_it_is_seen_to_go_on_it_hears_what_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path, "r", training("stopped"))
    (path / REQUESTS).write_text('{"what": "stop", "value": ""}\n')  # of the training that is over
    flock, asked = writer.fcntl.flock, []

    def ask_at_once(file: int, how: int) -> None:
        flock(file, how)
        if how & writer.fcntl.LOCK_EX and not asked:
            asked.append(Command("checkpoint"))
            ask(path, asked[0])  # as early as another process can

    monkeypatch.setattr(writer.fcntl, "flock", ask_at_once)
    run = writer.reopen(path)
    assert asked
    assert Requests(path, run.asked_before)() == asked


def test_a_new_run_hears_all_that_is_asked(tmp_path: Path) -> None:
    run = writer.create(CONFIG, VOCABULARY, "r", tmp_path)
    ask(run.path, Command("stop"))
    assert Requests(run.path, run.asked_before)() == [Command("stop")]


# --- a process of somebody else ---------------------------------------------------------------------------------


def test_a_process_that_has_the_number_now_is_left_alone(tmp_path: Path) -> None:
    """Whoever is named in the lock file: what counts is whether the lock is taken."""
    path = write(tmp_path, "r", training("stopped"))
    with subprocess.Popen(["sleep", "60"]) as stranger:
        (path / LOCK).write_text(f"process {stranger.pid} on {os.uname().nodename}\n")
        assert not store.is_written(path)
        assert store.summarize(path).state == "stopped"
        with pytest.raises(RunError, match="not being trained"):
            ask(path, Command("stop"))
        run = writer.reopen(path)
        assert f"process {os.getpid()} " in (path / LOCK).read_text()
        (path / LOCK).write_text(f"process {stranger.pid} on {os.uname().nodename}\n")
        ask(path, Command("stop"))  # by a file, not by a signal
        for refused in (lambda: remove(path, tmp_path), lambda: rename("r", "s", tmp_path)):
            with pytest.raises(RunError, match="is being trained"):
                refused()
        run.lock.close()
        assert stranger.poll() is None
        stranger.kill()


@pytest.mark.parametrize("text", ["", "\x00\x1b[31m" * 100, "process -1 on nowhere", "9" * 1000, "\udcff"])
def test_whatever_stands_in_the_lock_file(tmp_path: Path, text: str) -> None:
    path = write(tmp_path, "r", training("stopped"))
    (path / LOCK).write_bytes(text.encode("utf-8", "surrogateescape"))
    assert store.summarize(path).state == "stopped"
    assert store.writer(path).isprintable()
    writer.reopen(path).lock.close()


def test_what_is_told_behind_the_end_does_not_undo_it(tmp_path: Path) -> None:
    path = write(tmp_path, "r", [*training(None), Finished("done", "r", 2.0, 90.0, 88.0, 5.0)])
    with (path / METRICS).open("a") as file:
        file.write('{"event": "warned", "message": "no room"}\n{"event": "checkpointed", "step": 1, "file": "x"}\n')
    assert store.summarize(path).state == "finished"
    assert store.summarize(path).test_perplexity == 88.0
