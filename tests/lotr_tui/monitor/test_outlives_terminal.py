"""Trainings that outlive what they were started from: terminal, process, session."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from engine.control import Command
from engine.events import Finished, Resume, Sampled, Started, to_record
from engine.runs.control_files import ask
from engine.runs.metrics import current_rows
from engine.runs.store import METRICS, MODEL, RESUME, is_written, summarize
from lotr_tui.app import LotrApp
from lotr_tui.monitor.training_view import TrainingView
from lotr_tui.widgets.keys_footer import KeysFooter
from tests.conftest import sentences, write_csv
from tests.lotr_tui.conftest import FakeJob, finished, make_decoder, training_events
from tests.lotr_tui.screens.session.test_session_screen import until

MakeApp = Callable[..., LotrApp]
SMALL = ["--preset", "tiny", "--threads", "1"] + [
    part
    for setting in ("embedding_size=8", "hidden_size=8", "batch_size=10", "window=20")
    for part in ("--set", setting)
]


def wait_for(true: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.02)


@pytest.fixture
def start(environment: Any, tmp_path: Path) -> Any:
    """Starts `lotr-tui` and returns at once; what still runs at the end is killed."""
    started = []

    def begin(*arguments: object) -> "subprocess.Popen[str]":
        command = [sys.executable, "-m", "lotr_tui", *map(str, arguments)]
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(tmp_path / "home")
        )
        started.append(process)
        return process

    yield begin
    for process in started:
        process.kill()
        process.communicate()


# --- the console ------------------------------------------------------------------------------------------------


def test_a_signal_saves_and_stops_and_the_run_is_gone_on_with(
    start: Any, command: Any, small_csv: Path, tmp_path: Path
) -> None:
    run = tmp_path / "home" / "runs" / "r"
    process = start("train", *SMALL, "--csv", small_csv, "--epochs", "400", "--run", "r", "--no-tui")
    wait_for(lambda: (run / MODEL).exists())
    process.send_signal(signal.SIGUSR1)
    wait_for((run / RESUME).exists)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)  # SIGINT does the same; test_cli has it
    assert process.wait(30) == 130
    assert summarize(run).state == "stopped"
    before = [row for row in current_rows(run / METRICS) if row["event"] == "step"]
    done = command("train", "--resume", "r", "--json", "--set", "lr=0.7")
    assert done.returncode == 2
    assert "'r' was begun with lr=0.012 and is gone on with as it is, not with lr=0.7" in done.stderr
    process = start("train", "--resume", "r", "--json")
    for line in process.stdout:
        event = json.loads(line)
        if event["event"] == "resume":
            assert event["step"] == before[-1]["step"] + 1
        if event["event"] == "step":
            assert event["step"] > before[-1]["step"]
            break
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)


def test_detached_from_another_terminal_it_goes_on_in_the_background(
    start: Any, small_csv: Path, tmp_path: Path
) -> None:
    run = tmp_path / "home" / "runs" / "r"
    process = start("train", *SMALL, "--csv", small_csv, "--epochs", "60", "--run", "r", "--no-tui")
    wait_for(lambda: (run / MODEL).exists())
    ask(run, Command("detach"))
    assert process.wait(60) == 0
    assert "run r goes on in the background" in process.stderr.read()
    wait_for(lambda: not is_written(run))
    rows = [row for row in current_rows(run / METRICS) if row["event"] == "step"]
    assert summarize(run).state == "finished", (run / "console.txt").read_text()
    assert [row["step"] for row in rows] == sorted({row["step"] for row in rows})


def test_whoever_reads_goes_and_what_there_was_is_saved(start: Any, small_csv: Path, tmp_path: Path) -> None:
    process = start("train", *SMALL, "--csv", small_csv, "--epochs", "400", "--run", "r", "--no-tui")
    process.stdout.readline()
    process.stdout.close()
    process.stdout = None
    assert process.wait(30) == 0
    assert summarize(tmp_path / "home" / "runs" / "r").state == "stopped"
    assert (tmp_path / "home" / "runs" / "r" / RESUME).exists()


def test_in_the_background_from_the_start(command: Any, small_csv: Path, tmp_path: Path) -> None:
    done = command("train", *SMALL, "--csv", small_csv, "--epochs", "2", "--run", "r", "--detach")
    assert done.returncode == 0, done.stderr
    assert "run r goes on in the background, as process" in done.stdout
    assert "lotr-tui attach r" in done.stdout
    run = tmp_path / "home" / "runs" / "r"
    wait_for(lambda: not is_written(run))
    assert summarize(run).state == "finished", (run / "console.txt").read_text()
    assert "done after" in (run / "console.txt").read_text()


def test_what_is_printed_in_the_background_has_a_bound(tmp_path: Path) -> None:
    program = """
import sys
from pathlib import Path
from lotr_tui.monitor import background
background.MOST_BYTES = 1000
for number in range(200):
    print(f"line {number}", file=(sys.stdout, sys.stderr)[number % 2], flush=True)
    background.shorten_console(Path())
"""
    with (tmp_path / "console.txt").open("ab") as console:
        process = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, stdout=console, stderr=console)
    assert process.returncode == 0
    texts = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert sorted(texts) == ["console.1.txt", "console.txt"]
    assert max(map(len, texts.values())) < 1100
    lines = (texts["console.1.txt"] + texts["console.txt"]).splitlines()
    assert lines == [f"line {number}" for number in range(200 - len(lines), 200)]


@pytest.mark.parametrize("console", ["another file", "a symbolic link", "none"])
def test_no_other_file_is_shortened(console: str, tmp_path: Path) -> None:
    program = """
from pathlib import Path
from lotr_tui.monitor import background
background.MOST_BYTES = 10
print("a line that is longer", flush=True)
background.shorten_console(Path("run"))
"""
    run = tmp_path / "run"
    run.mkdir()
    if console == "another file":
        (run / "console.txt").write_text("of another")
    elif console == "a symbolic link":
        (run / "console.txt").symlink_to("../output.txt")
    there = sorted(run.iterdir())
    with (tmp_path / "output.txt").open("ab") as output:
        subprocess.run([sys.executable, "-c", program], cwd=tmp_path, stdout=output, check=True)
    assert sorted(run.iterdir()) == there
    assert (tmp_path / "output.txt").read_text() == "a line that is longer\n"


# --- what is refused --------------------------------------------------------------------------------------------


@pytest.fixture
def stopped(start: Any, small_csv: Path, tmp_path: Path) -> Path:
    """A run that was stopped early."""
    run = tmp_path / "home" / "runs" / "r"
    process = start("train", *SMALL, "--csv", small_csv, "--epochs", "400", "--run", "r", "--no-tui")
    wait_for(lambda: (run / MODEL).exists())
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    return run


def test_a_run_is_gone_on_with_as_it_was_begun_or_not_at_all(stopped: Path, command: Any, small_csv: Path) -> None:
    def refused(*arguments: str) -> str:
        before = (stopped / METRICS).read_bytes()
        done = command("train", "--resume", "r", "--no-tui", *arguments)
        assert (done.returncode, done.stdout) == (2, "")
        assert (stopped / METRICS).read_bytes() == before
        assert not is_written(stopped)
        return str(done.stderr)

    assert "leave --preset and --run out" in refused("--preset", "tiny")
    assert "begun with mode=line and is gone on with as it is, not with mode=stream" in refused("--mode", "stream")
    config = json.loads((stopped / "config.json").read_text())
    config["training"]["lr"] = 0.5
    kept = (stopped / "config.json").read_text()
    (stopped / "config.json").write_text(json.dumps(config))
    done = command("train", "--resume", "r", "--no-tui")
    assert "saved with lr=0.012 but the configuration says lr=0.5" in done.stderr
    (stopped / "config.json").write_text(kept)
    write_csv(small_csv, [*sentences(120), "one more line that was not there"])
    assert "small.csv has changed since run 'r' began" in refused()
    (stopped / METRICS).write_text("")  # whose corpus it was is not told any more
    write_csv(small_csv, ["the quick words are all new here"] * 120)
    assert "word 2 was" in refused()
    small_csv.unlink()
    assert "small.csv does not exist" in refused()


# --- the app ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("number", "goes_on"), [(signal.SIGHUP, True), (signal.SIGTERM, False)])
async def test_the_terminal_closes_or_the_process_is_told_to_end(
    make_app: MakeApp, number: signal.Signals, goes_on: bool
) -> None:
    job = FakeJob([*training_events(), finished(make_decoder())]).release(20)
    app = make_app(job=job)
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: app.training is not None and app.training.evaluations)
        app.on_signal(number)
        await until(pilot, lambda: not app.is_running or app._exit)
    assert app.terminal_closed == goes_on
    assert job.stopped.is_set() != goes_on
    job.release(100)
    if goes_on:
        job.ends = True
    app.outlive_terminal()
    assert app.training is not None
    assert (app.training.finished is not None) == goes_on


@pytest.mark.parametrize(("number", "begins"), [(signal.SIGHUP, True), (signal.SIGTERM, False)])
async def test_a_signal_before_there_is_a_screen_is_heard(
    make_app: MakeApp, number: signal.Signals, begins: bool
) -> None:
    job = FakeJob([*training_events(), finished(make_decoder())])
    app = make_app(job=job)
    app.on_signal(number)
    await asyncio.wait_for(app.run_async(headless=True, size=(80, 24)), 20)
    assert app.return_code == 0
    assert (app.training is not None) == begins
    job.release(100)
    job.ends = True
    app.outlive_terminal()
    assert (app.training is not None and app.training.finished is not None) == begins


async def test_a_signal_while_the_screens_are_made_is_no_fault(make_app: MakeApp) -> None:
    for hundredths in range(0, 40, 5):
        app = make_app()
        running = asyncio.create_task(app.run_async(headless=True, size=(80, 24)))
        await asyncio.sleep(hundredths / 100)
        app.on_signal(signal.SIGTERM)
        await asyncio.wait_for(running, 20)
        assert app.return_code == 0, f"after {hundredths / 100} s"


async def test_a_signal_saves_while_the_screen_is_there(make_app: MakeApp) -> None:
    job = FakeJob(training_events()).release(8)
    app = make_app(job=job)
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: app.training is not None and app.training.started)
        app.on_signal(signal.SIGUSR1)
        assert [command.what for command in job.steering.take()] == ["checkpoint"]
        assert app.is_training


async def test_a_dashboard_that_is_detached_ends_and_says_what_is_to_be_gone_on_with(make_app: MakeApp) -> None:
    job = FakeJob(training_events()).release(8)
    app = make_app(job=job)
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: app.training is not None and app.training.started)
        await pilot.press("d")
        await until(pilot, lambda: app._exit)
    assert app.detached == job.run.path


async def test_a_run_that_is_gone_on_with_has_its_whole_curve(
    make_app: MakeApp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    earlier = [event for event in training_events(12, models=False) if not isinstance(event, Sampled)]
    rows = [to_record(event) for event in [*earlier, Finished("stopped", "tiny-test", 12.0, 72.5, 74.1, 24.0)]]
    (tmp_path / METRICS).write_text("".join(json.dumps(row) + "\n" for row in rows))
    again = [event for event in earlier if isinstance(event, Started)]
    job = FakeJob([*again, Resume(100)])
    job.resumes, job.run = True, SimpleNamespace(name="tiny-test", path=tmp_path)  # type: ignore[assignment,misc]
    app = make_app(job=job)
    shown, read = threading.Event(), TrainingView.of_resumed

    def held(path: Path) -> TrainingView:
        assert shown.wait(10), "nothing is shown until the record is read, which may take seconds"
        return read(path)

    monkeypatch.setattr(TrainingView, "of_resumed", held)
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: app.screen.query_one(KeysFooter).shown_keys())
        shown.set()
        await until(pilot, lambda: app.training is not None and app.training.evaluations)
        view = app.training
        assert view is not None
        assert view.active
        assert [event.epoch for event in view.evaluations[:3]] == [0, 1, 2]
        job.release()
        await until(pilot, lambda: view.resumes == 1)
        assert app.training is view
        assert view.active
        assert max(event.step for event in view.evaluations) < 100
        assert int(view.steps.column("step").max()) < 100


def test_outside_tmux_it_is_told_how_to_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    from lotr_tui.monitor.background import dies_with_its_terminal, how_to_come_back

    for name in ("TMUX", "STY"):
        monkeypatch.delenv(name, raising=False)
    assert dies_with_its_terminal()
    monkeypatch.setenv("TMUX", "/tmp/tmux-0/default,1,0")
    assert not dies_with_its_terminal()
    assert "lotr-tui attach mine" in how_to_come_back("mine")
    assert os.environ["TMUX"]
