"""Trainings that continue after their terminal is closed, their process is stopped, or their session ends."""

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from engine.presets import PRESETS
from engine.runs.directory import METRICS_FILE, MODEL_FILE, RESUME_FILE, lock_owner, summarize_run
from engine.storage.files import default_runs_dir
from engine.training.job import prepare_job
from lotr_tui.monitor.background import attach_hint
from tests.support.app import FakeJob, finished, make_decoder, training_events
from tests.support.commands import refusal, run_here, wait_until
from tests.support.files import sentences, write_csv
from tests.support.pilot import until

SETTINGS = ("embedding_size=8", "hidden_size=8", "batch_size=10", "bptt=20", "threads=1")
SMALL = ["--preset", "tiny", *(part for setting in SETTINGS for part in ("--set", setting))]


# The plain console


@pytest.mark.slow
def test_signals_save_and_stop(start, small_csv, tmp_path):
    run = tmp_path / "home" / "runs" / "r"
    process = start("train", *SMALL, "--csv", small_csv, "--epochs", "400", "--run", "r", "--no-tui")
    wait_until(lambda: (run / MODEL_FILE).exists())
    process.send_signal(signal.SIGUSR1)
    wait_until((run / RESUME_FILE).exists)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)  # SIGINT does the same, and is tested with the commands
    assert process.wait(30) == 143
    assert summarize_run(run).state == "stopped"


@pytest.mark.slow
def test_detach_starts_the_training_in_the_background(command, small_csv, tmp_path):
    result = command("train", *SMALL, "--csv", small_csv, "--epochs", "2", "--run", "r", "--detach")
    assert result.returncode == 0, result.stderr
    assert "run r continues in the background as process" in result.stdout
    assert "lotr-tui attach r" in result.stdout
    run = tmp_path / "home" / "runs" / "r"
    wait_until(lambda: not lock_owner(run))
    assert summarize_run(run).state == "finished", (run / "console.txt").read_text()
    assert "done after" in (run / "console.txt").read_text()


def test_the_console_log_is_rotated_and_no_other_file(tmp_path):
    program = """
import sys
from pathlib import Path
from lotr_tui.monitor import background
background.MAX_LOG_BYTES = 1000
for number in range(200):
    print(f"line {number}", file=(sys.stdout, sys.stderr)[number % 2], flush=True)
    background.rotate_console_log(Path("another"))
    background.rotate_console_log(Path("link"))
    background.rotate_console_log(Path("run" if sys.argv[1:] else "none"))
"""
    for name in ("run", "another", "link", "none"):
        (tmp_path / name).mkdir()
    (tmp_path / "another" / "console.txt").write_text("of another process")
    (tmp_path / "link" / "console.txt").symlink_to("../output.txt")
    for arguments, path in ((["rotate"], tmp_path / "run" / "console.txt"), ([], tmp_path / "output.txt")):
        with path.open("ab") as console:
            command = [sys.executable, "-c", program, *arguments]
            subprocess.run(command, cwd=tmp_path, stdout=console, stderr=console, check=True)
    assert (tmp_path / "output.txt").read_text().splitlines() == [f"line {number}" for number in range(200)]
    assert sorted(path.name for path in tmp_path.glob("*/*")) == ["console.1.txt", *["console.txt"] * 3]
    texts = [(tmp_path / "run" / name).read_text() for name in ("console.1.txt", "console.txt")]
    assert max(map(len, texts)) < 1100
    lines = "".join(texts).splitlines()
    assert lines == [f"line {number}" for number in range(200 - len(lines), 200)]


def test_a_stopped_run_is_resumed_to_its_end_with_its_own_configuration_and_corpus_only(home, small_csv):
    run = home / "runs" / "r"
    config = PRESETS["tiny"].with_values("epochs=3", *SETTINGS, corpus=str(small_csv))
    events = prepare_job(config, "r", run.parent).events(
        lambda: (run / RESUME_FILE).exists() or (run / MODEL_FILE).exists()
    )
    assert list(events)
    assert summarize_run(run).state == "stopped"
    shutil.copytree(run, run.with_name("copy"))
    resumed = [json.loads(line) for line in run_here(["train", "--resume", "copy", "--json"]).stdout.splitlines()]
    steps = [event["step"] for event in resumed if event["event"] in ("resume", "step")]
    assert steps == sorted(steps)
    assert (resumed[-1]["event"], summarize_run(run.with_name("copy")).state) == ("finished", "finished")

    def refused(*arguments):
        before = (run / METRICS_FILE).read_bytes()
        line = refusal(run_here(["train", "--resume", "r", *arguments]))
        assert (run / METRICS_FILE).read_bytes() == before
        assert not lock_owner(run)
        return line

    assert "omit --preset and --run" in refused("--preset", "tiny")
    assert "started with mode=line and cannot be resumed with mode=stream" in refused("--mode", "stream")
    write_csv(small_csv, [*sentences(120), "one more line that was not there"])
    assert "small.csv has changed since run 'r' was started" in refused()
    small_csv.unlink()
    assert "small.csv does not exist" in refused()


# The app


@pytest.mark.parametrize(("signal_number", "continues"), [(signal.SIGHUP, True), (signal.SIGTERM, False)])
async def test_a_hang_up_continues_the_training_and_a_termination_stops_it(opened, signal_number, continues):
    job = FakeJob([*training_events(), finished(make_decoder())]).release(20)
    async with opened((80, 24), job=job) as (pilot, app):
        await until(pilot, lambda: app.state.training_view is not None and app.state.training_view.evaluations)
        app.handle_signal(signal_number)
        await until(pilot, lambda: app.return_code is not None)
    assert (app.terminal_closed, app.exit_code) == (continues, 0 if continues else 128 + signal_number)
    assert job.stopped.is_set() != continues
    job.release(100)
    if continues:
        job.ends = True
    app.state.finish_training(waits=continues)
    assert app.state.training_view is not None
    assert (app.state.training_view.finished is not None) == continues


async def test_a_user_signal_requests_a_checkpoint_and_a_key_moves_the_training_into_the_background(opened):
    job = FakeJob(training_events()).release(8)
    async with opened((80, 24), job=job) as (pilot, app):
        await until(pilot, lambda: app.state.training_view is not None and app.state.training_view.started)
        app.handle_signal(signal.SIGUSR1)
        assert [command.kind for command in job.command_queue.drain()] == ["checkpoint"]
        assert app.state.is_training
        await pilot.press("d")
        await until(pilot, lambda: app.return_code is not None)
    assert app.state.detached_run == job.run.path


def test_the_hint_to_attach_has_the_path_of_a_run_elsewhere():
    assert "lotr-tui attach mine" in attach_hint(default_runs_dir() / "mine")
    assert "lotr-tui attach /elsewhere/mine" in attach_hint(Path("/elsewhere/mine"))
