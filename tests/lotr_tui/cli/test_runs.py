"""`attach`, `status`, `stop` and `runs …` as people and scripts call them."""

import csv
import json
import os
import subprocess
import sys
import time

import pytest

from engine.control import Command
from engine.errors import UnusableInput
from engine.events import Checkpointed, Evaluated, Failed, Finished, Sampled, Started, Step
from engine.runs import writer
from engine.runs.control_files import Requests
from engine.runs.store import RESUME
from lotr_tui.cli import stop
from tests.lotr_tui.conftest import training_events
from tests.lotr_tui.monitor.test_followed_run import write
from tests.support.file_limits import no_file_longer_than
from tests.support.runs import CONFIG, VOCABULARY


def answer(done):
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def make(home):
    """Makes a run of that name with a record; the run directory."""

    def make(name, events=(), lock=False):
        run = writer.create(CONFIG, VOCABULARY, name, home / "runs")
        write(run.path, list(events))
        if not lock:
            run.lock.close()
            return run.path
        return run

    return make


EVENTS = [
    Started("r", "tiny", 99, 5, 100, 10, 40, "cpu", "", 151.0, 94.0),
    Step(4, 0.5, 120.0, 0.003, 0.5, 1234.0, 61.0, 3700.0),
    Evaluated(4, 0.5, 90.0, True, 61.0),
    Sampled(4, 0.5, "bilbo is", "here\x1b[31m [b]now", 0, 0.7),
    Step(8, 1.0, 110.0, 0.002, 0.5, 1300.0, 65.0, 3600.0),
    Evaluated(8, 1.0, 95.0, False, 65.0),
    Checkpointed(8, RESUME),
]


class TestStatus:
    def test_one_screen(self, command, make):
        run = make("r", EVENTS, lock=True)
        (run.path / RESUME).write_bytes(b"")
        saved = time.time() - 125
        os.utime(run.path / RESUME, (saved, saved))
        done = command("status", "r")
        assert done.returncode == 0
        shown = " ".join(done.stdout.split())
        for figure in (
            "r running, by process",
            "epoch 1.0 of 40, update 8",
            "train 110.0",
            "valid 95.0, best 90.0 at epoch 0.5",
            "unigram 151.0, Kneser-Ney 94.0",
            "0.00200, 1,300 tokens/s",
            "1:05, 1:00:00 left",
            '"bilbo is" here�[31m [b]now',
            "saved 2 min ago",
            "watch: lotr-tui attach r",
            "stop: lotr-tui stop r",
        ):
            assert figure in shown
        assert "\x1b" not in done.stdout
        assert len(done.stdout.splitlines()) < 24

    def test_for_programs(self, command, make):
        make("r", [*EVENTS, Finished("done", "r", 1.0, 90.0, 88.0, 70.0)])
        shown = answer(command("status", "--json"))
        assert shown["state"] == "finished"
        assert (shown["valid_perplexity"], shown["best_valid_perplexity"], shown["test_perplexity"]) == (
            95.0,
            90.0,
            88.0,
        )
        assert (shown["eta_seconds"], shown["writer"], shown["saved_seconds_ago"]) == (None, None, None)
        assert shown["sample"]["text"] == "here\x1b[31m [b]now"
        assert shown["step"] == 8

    @pytest.mark.parametrize(
        ("last", "state", "hint"),
        [
            ([], "crashed", "resume:   lotr-tui train --resume r"),
            ([Failed("no room")], "failed", "no room"),
            ([Finished("stopped", "r", 1.0, 90.0, float("nan"), 5.0)], "stopped", "train --resume r"),
        ],
    )
    def test_how_it_ended_and_what_to_do(self, command, make, last, state, hint):
        make("r", [*EVENTS, *last])
        shown = command("status", "r").stdout
        assert shown.startswith(f"r  {state}\n")
        assert hint in shown

    def test_a_run_that_has_only_begun(self, command, make):
        make("r")
        assert answer(command("status", "r", "--json"))["epoch"] == 0
        assert command("status", "r").returncode == 0

    def test_no_such_run_and_none_at_all(self, command, make):
        assert "there is no run in" in command("status").stderr
        make("ring")
        done = command("status", "rng")
        assert done.returncode == 2
        assert "did you mean ring?" in done.stderr


class TestAttach:
    def test_without_a_terminal(self, command, make):
        make("r")
        done = command("attach", "r")
        assert done.returncode == 2
        assert "use `lotr-tui status r` instead" in done.stderr

    def test_no_such_run(self, command):
        assert command("attach", "../x").returncode == 2


# It holds the lock, and obeys once: "save" writes a snapshot, "stop" ends it.
OBEYS = """
import sys, time
from pathlib import Path
from engine.runs import writer
from engine.runs.control_files import Requests
run = writer.reopen(Path(sys.argv[1]))
requests = Requests(run.path)
print("held", flush=True)
while True:
    for command in requests():
        if command.what == "stop":
            sys.exit()
        (run.path / "new").write_bytes(b"")
        (run.path / "new").replace(run.path / "resume.safetensors")
    time.sleep(0.02)
"""


@pytest.fixture
def trained(make):
    """A run that another process holds, and does as it is asked."""
    path = make("r", EVENTS)
    with subprocess.Popen([sys.executable, "-c", OBEYS, str(path)], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "held\n"
        yield path
        other.kill()


class TestStop:
    def test_saving_and_then_stopping(self, command, trained):
        done = command("stop", "r", "--checkpoint")
        assert (done.returncode, done.stdout) == (0, "run r is saved\n")
        done = command("stop", "r")
        assert done.returncode == 0
        assert done.stdout == "run r has stopped; go on with it: lotr-tui train --resume r\n"
        done = command("stop", "r")
        assert done.returncode == 2
        assert "not being trained" in done.stderr

    def test_without_waiting(self, command, make):
        run = make("r", EVENTS, lock=True)
        requests = Requests(run.path)
        assert command("stop", "r", "--no-wait").stdout == "run r is asked to save and stop\n"
        assert command("stop", "r", "--no-wait", "--checkpoint").stdout == "run r is asked to save\n"
        assert requests() == [Command("stop"), Command("checkpoint")]

    def test_who_does_not_stop_in_time_is_told_of(self, make, monkeypatch):
        run = make("r", EVENTS, lock=True)
        monkeypatch.setattr(stop, "WAIT_SECONDS", 0.05)
        monkeypatch.setattr(stop, "LOOK_SECONDS", 0.01)
        for ask, word in ((stop.ask_to_stop, "stopped"), (stop.ask_to_save, "saved")):
            with pytest.raises(stop.LotrError, match=f"has not {word} within"):
                ask(run.path)


class TestRename:
    def test_a_run(self, command, make, home):
        make("old", EVENTS)
        assert command("runs", "rename", "old", "new").stdout == "run old is now new\n"
        assert [path.name for path in (home / "runs").iterdir()] == ["new"]

    @pytest.mark.parametrize(
        "name", ["../x", "-rf", "a/b", "a\nb", "x" * 300, "", "latest", "bundled", ".hidden", "a@1"]
    )
    def test_names_that_none_can_have(self, command, make, home, name):
        make("old")
        done = command("runs", "rename", "--", "old", name)
        assert done.returncode == 2
        assert len(done.stderr.splitlines()) == 1
        assert [path.name for path in (home / "runs").iterdir()] == ["old"]

    def test_a_name_that_is_taken_and_a_run_being_trained(self, command, make, home):
        make("old")
        make("other", lock=False)
        assert "exists in" in command("runs", "rename", "old", "other").stderr
        (home / "runs" / "dangling").symlink_to("nowhere")
        assert "exists in" in command("runs", "rename", "old", "dangling").stderr
        _held = make("held", lock=True)
        assert "being trained; stop it first" in command("runs", "rename", "held", "new").stderr

    def test_only_in_the_runs_folder(self, command, make, untrained_run):
        make("old")
        done = command("runs", "rename", str(untrained_run), "new")
        assert "only the runs there can be renamed" in done.stderr
        assert untrained_run.is_dir()
        assert command("runs", "rename", "bundled", "mine").returncode == 2


class TestExport:
    def test_as_csv(self, command, make, tmp_path):
        make("r", [*EVENTS, Step(9, 1.1, 109.0, 0.001, float("nan"), 1.0, 66.0, 1.0)])
        done = command("runs", "export", "r", "--csv", "out")
        assert done.stdout == "out\n"
        rows = {path.stem: list(csv.DictReader(path.open(newline=""))) for path in (tmp_path / "out").iterdir()}
        assert set(rows) == {"started", "step", "evaluated", "sampled", "checkpointed"}
        assert [(row["step"], row["train_perplexity"], row["gradient_norm"]) for row in rows["step"]] == [
            ("4", "120.0", "0.5"),
            ("8", "110.0", "0.5"),
            ("9", "109.0", ""),
        ]
        assert [row["valid_perplexity"] for row in rows["evaluated"]] == ["90.0", "95.0"]
        assert rows["sampled"][0]["text"] == "here\N{REPLACEMENT CHARACTER}[31m [b]now"

    def test_nothing_is_overwritten(self, command, make, tmp_path):
        make("r", EVENTS)
        (tmp_path / "mine.txt").write_text("x")
        done = command("runs", "export", "r", "--csv", ".")
        assert done.returncode == 2
        assert "is not empty" in done.stderr
        assert "File exists" in command("runs", "export", "r", "--csv", "mine.txt").stderr
        assert (tmp_path / "mine.txt").read_text() == "x"

    def test_a_full_disk_leaves_no_part_of_a_table(self, make, tmp_path):
        from lotr_tui.monitor.export import export_csv

        run = make("r", EVENTS)
        with no_file_longer_than(100), pytest.raises(UnusableInput, match=r"cannot write to .*out: File too large"):
            export_csv(run, tmp_path / "out")
        for path in (tmp_path / "out").iterdir():  # those that were written before are whole
            assert path.read_text().endswith("\n")
            assert path.stat().st_size <= 100

    def test_one_of_the_two(self, command, make):
        make("r")
        assert "one of them" in command("runs", "export", "r").stderr
        assert command("runs", "export", "r", "--csv", "a", "--tensorboard", "b").returncode == 2

    def test_tensorboard_that_is_not_installed(self, make, tmp_path, monkeypatch):
        from lotr_tui.monitor.export import UnusableInput, export_tensorboard

        monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
        with pytest.raises(UnusableInput, match=r"pip install 'lotr-tui\[tensorboard\]'"):
            export_tensorboard(make("r", EVENTS), tmp_path / "logs")
        assert not (tmp_path / "logs").exists()

    def test_tensorboard_reads_it(self, make, tmp_path):
        accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
        from lotr_tui.monitor.export import export_tensorboard

        export_tensorboard(make("r", training_events(models=False)), tmp_path / "logs")
        events = accumulator.EventAccumulator(str(tmp_path / "logs"))
        events.Reload()
        steps = [event.step for event in training_events(models=False) if isinstance(event, Step)]
        assert [scalar.step for scalar in events.Scalars("train_perplexity")] == steps
        assert len(events.Scalars("valid_perplexity")) == 13
