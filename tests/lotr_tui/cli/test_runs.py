"""Commands `attach`, `status`, `stop` and `runs …`."""

import csv
import json
import os
import re
import subprocess
import sys
import time

import pytest

from engine.config import Config
from engine.control import ControlCommand
from engine.errors import InvalidInputError
from engine.events import Checkpointed, Evaluated, Failed, Finished, Sampled, Started, Step
from engine.models.transformer_layout import TRANSFORMER_VALUES
from engine.runs.control_files import CommandFileReader
from engine.runs.directory import RESUME_FILE
from engine.runs.locked_run import create_run
from lotr_tui.cli import stop
from tests.support.app import training_events
from tests.support.commands import json_output
from tests.support.file_limits import no_file_longer_than
from tests.support.files import write_random_run
from tests.support.metrics import append_events
from tests.support.runs import CONFIG, VOCABULARY


@pytest.fixture
def make_run(home):
    """Return a function that writes a run, and returns its directory, or the locked run itself with `lock`."""

    def make(name, events=(), lock=False):
        run = create_run(CONFIG, VOCABULARY, name, home / "runs")
        append_events(run.path, list(events))
        if not lock:
            run.lock.release()
            return run.path
        return run

    return make


@pytest.fixture
def transformer_run(home):
    """Return the directory of a run of a Transformer."""
    sizes = {"embedding_size": 8, "num_layers": 1, "num_heads": 2}
    config = Config("gpt-tiny").with_values(
        architecture="transformer", tokenizer="words", **TRANSFORMER_VALUES, **sizes
    )
    return write_random_run(home / "runs" / "gpt", config, VOCABULARY)


EVENTS = [
    Started("r", "tiny", 99, 5, 100, 10, 40, "cpu", "", 151.0, 94.0),
    Step(4, 0.5, 120.0, 0.003, 0.5, 1234.0, 61.0, 3700.0),
    Evaluated(4, 0.5, 90.0, True, 61.0),
    Sampled(4, 0.5, "bilbo is", "here\x1b[31m [b]now", 0, 0.7),
    Step(8, 1.0, 110.0, 0.002, 0.5, 1300.0, 65.0, 3600.0),
    Evaluated(8, 1.0, 95.0, False, 65.0),
    Checkpointed(8, RESUME_FILE),
]


def test_list_states_the_architecture(command, make_run, transformer_run):
    make_run("words")
    runs = json_output(command("runs", "--json"))
    assert {run["name"]: run["architecture"] for run in runs} == {"gpt": "transformer", "words": "lstm"}
    assert re.search(r"gpt +.* transformer ", command("runs").stdout)


class TestStatus:
    def test_status_fits_one_screen(self, command, make_run):
        run = make_run("r", EVENTS, lock=True)
        (run.path / RESUME_FILE).write_bytes(b"")
        saved = time.time() - 125
        os.utime(run.path / RESUME_FILE, (saved, saved))
        done = command("status", "r")
        assert done.returncode == 0
        shown = " ".join(done.stdout.split())
        for text in (
            "r running, by process",
            "epoch 1.0 of 40, step 8",
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
            assert text in shown
        assert "\x1b" not in done.stdout
        assert len(done.stdout.splitlines()) < 24

    def test_json_has_all_figures_and_null_for_unknown_ones(self, command, make_run):
        make_run("r", [*EVENTS, Finished("done", "r", 1.0, 90.0, 88.0, 70.0)])
        shown = json_output(command("status", "--json"))
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
    def test_state_and_suggested_command_are_shown(self, command, make_run, last, state, hint):
        make_run("r", [*EVENTS, *last])
        shown = command("status", "r").stdout
        assert shown.startswith(f"r  {state}\n")
        assert hint in shown

    def test_run_without_events_has_a_status(self, command, make_run):
        make_run("r")
        assert json_output(command("status", "r", "--json"))["epoch"] == 0
        assert command("status", "r").returncode == 0

    def test_unknown_run_suggests_the_nearest(self, command, make_run):
        assert "there is no run in" in command("status").stderr
        make_run("ring")
        done = command("status", "rng")
        assert done.returncode == 2
        assert "did you mean ring?" in done.stderr


class TestAttach:
    def test_attach_without_a_terminal_is_refused(self, command, make_run):
        make_run("r")
        done = command("attach", "r")
        assert done.returncode == 2
        assert "use `lotr-tui status r` instead" in done.stderr

    def test_attach_to_an_unknown_run_is_refused(self, command):
        assert command("attach", "../x").returncode == 2


# Program that holds the lock of a run: "checkpoint" makes it write a checkpoint, "stop" ends it.
WRITER_PROGRAM = """
import sys, time
from pathlib import Path
from engine.runs.locked_run import reopen_run
from engine.runs.control_files import CommandFileReader
run = reopen_run(Path(sys.argv[1]))
read_commands = CommandFileReader(run.path)
print("held", flush=True)
while True:
    for command in read_commands():
        if command.kind == "stop":
            sys.exit()
        (run.path / "new").write_bytes(b"")
        (run.path / "new").replace(run.path / "resume.safetensors")
    time.sleep(0.02)
"""


@pytest.fixture
def running(make_run):
    """Return the path of a run that another process holds and saves or stops on command."""
    path = make_run("r", EVENTS)
    with subprocess.Popen(
        [sys.executable, "-c", WRITER_PROGRAM, str(path)], stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout.readline() == "held\n"
        yield path
        writer.kill()


class TestStop:
    def test_checkpoint_and_stop_wait_for_the_training(self, command, running):
        done = command("stop", "r", "--checkpoint")
        assert (done.returncode, done.stdout) == (0, "run r is saved\n")
        done = command("stop", "r")
        assert done.returncode == 0
        assert done.stdout == "run r has stopped; resume it: lotr-tui train --resume r\n"
        done = command("stop", "r")
        assert done.returncode == 2
        assert "not being trained" in done.stderr

    def test_no_wait_returns_at_once(self, command, make_run):
        run = make_run("r", EVENTS, lock=True)
        requests = CommandFileReader(run.path)
        assert command("stop", "r", "--no-wait").stdout == "run r was asked to save and stop\n"
        assert command("stop", "r", "--no-wait", "--checkpoint").stdout == "run r was asked to save\n"
        assert requests() == [ControlCommand("stop"), ControlCommand("checkpoint")]

    def test_training_that_does_not_react_in_time_is_an_error(self, make_run, monkeypatch):
        run = make_run("r", EVENTS, lock=True)
        monkeypatch.setattr(stop, "TIMEOUT", 0.05)
        monkeypatch.setattr(stop, "POLL_INTERVAL", 0.01)
        for request, outcome in ((stop.request_stop, "stopped"), (stop.request_checkpoint, "saved")):
            with pytest.raises(stop.LotrError, match=f"has not {outcome} within"):
                request(run.path)


class TestRename:
    def test_run_has_its_new_name(self, command, make_run, home):
        make_run("old", EVENTS)
        assert command("runs", "rename", "old", "new").stdout == "run old is now new\n"
        assert [path.name for path in (home / "runs").iterdir()] == ["new"]

    @pytest.mark.parametrize(
        "name", ["../x", "-rf", "a/b", "a\nb", "x" * 300, "", "latest", "bundled", "base", ".hidden", "a@1"]
    )
    def test_invalid_new_name_is_refused(self, command, make_run, home, name):
        make_run("old")
        done = command("runs", "rename", "--", "old", name)
        assert done.returncode == 2
        assert len(done.stderr.splitlines()) == 1
        assert [path.name for path in (home / "runs").iterdir()] == ["old"]

    def test_existing_name_and_running_run_are_refused(self, command, make_run, home):
        make_run("old")
        make_run("other", lock=False)
        assert "exists in" in command("runs", "rename", "old", "other").stderr
        (home / "runs" / "dangling").symlink_to("nowhere")
        assert "exists in" in command("runs", "rename", "old", "dangling").stderr
        _locked_run = make_run("held", lock=True)
        assert "being trained; stop it first" in command("runs", "rename", "held", "new").stderr

    def test_run_outside_the_runs_folder_is_refused(self, command, make_run, untrained_run):
        make_run("old")
        done = command("runs", "rename", str(untrained_run), "new")
        assert "only runs of that folder can be renamed" in done.stderr
        assert untrained_run.is_dir()
        assert command("runs", "rename", "bundled", "mine").returncode == 2


class TestCompact:
    def test_copy_plays_like_the_run_and_the_sizes_are_printed(self, command, untrained_run, tmp_path):
        done = command("runs", "compact", str(untrained_run), "small")
        assert (done.returncode, done.stderr) == (0, "")
        assert re.fullmatch(
            r"small: model\.safetensors \d+ (k?B) → \d+ k?B \(int8\), \d+ k?B with all files\n", done.stdout
        )
        texts = [command("generate", "bilbo", "--run", run, "--seed", "3").stdout for run in (untrained_run, "./small")]
        assert texts[0] == texts[1] != ""
        assert json_output(command("generate", "bilbo", "--run", "./small", "--json"))["run"] == "small"

    @pytest.mark.parametrize("target", ["mine.txt", "folder", "no/such/folder"])
    def test_nothing_is_overwritten_and_no_folder_is_created(self, command, untrained_run, tmp_path, target):
        (tmp_path / "mine.txt").write_text("x")
        (tmp_path / "folder").mkdir()
        before = {path for path in tmp_path.rglob("*") if ".command" not in path.parts}
        done = command("runs", "compact", str(untrained_run), target, "--precision", "fp16")
        assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
        assert target in done.stderr
        assert {path for path in tmp_path.rglob("*") if ".command" not in path.parts} == before

    def test_unknown_precision_and_run_are_refused(self, command, untrained_run, tmp_path):
        done = command("runs", "compact", str(untrained_run), "small", "--precision", "int4")
        assert (done.returncode, "--precision int4 is not one of fp16, int8" in done.stderr) == (2, True)
        assert "'gone' is neither in" in command("runs", "compact", "gone", "small").stderr
        assert not (tmp_path / "small").exists()


class TestExport:
    def test_csv_export_writes_one_table_per_event_type(self, command, make_run, tmp_path):
        make_run("r", [*EVENTS, Step(9, 1.1, 109.0, 0.001, float("nan"), 1.0, 66.0, 1.0)])
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

    def test_export_overwrites_no_file(self, command, make_run, tmp_path):
        make_run("r", EVENTS)
        (tmp_path / "mine.txt").write_text("x")
        done = command("runs", "export", "r", "--csv", ".")
        assert done.returncode == 2
        assert "is not empty" in done.stderr
        assert "File exists" in command("runs", "export", "r", "--csv", "mine.txt").stderr
        assert (tmp_path / "mine.txt").read_text() == "x"

    def test_full_disk_leaves_no_part_of_an_export(self, make_run, tmp_path):
        from lotr_tui.monitor.export import export_csv

        run = make_run("r", EVENTS)
        with no_file_longer_than(100), pytest.raises(InvalidInputError, match=r"cannot write to .*out: File too large"):
            export_csv(run, tmp_path / "out")
        assert not (tmp_path / "out").exists()
        (tmp_path / "empty").mkdir()
        with no_file_longer_than(100), pytest.raises(InvalidInputError, match="File too large"):
            export_csv(run, tmp_path / "empty")
        assert list((tmp_path / "empty").iterdir()) == []

    def test_export_needs_exactly_one_format(self, command, make_run):
        make_run("r")
        assert (
            "give one of --csv DIR, --tensorboard DIR, --hf DIR and --log TRACKER"
            in command("runs", "export", "r").stderr
        )
        assert command("runs", "export", "r", "--csv", "a", "--tensorboard", "b").returncode == 2

    def test_transformer_is_exported_for_transformers(self, command, transformer_run, tmp_path):
        pytest.importorskip("tokenizers")
        done = command("runs", "export", "gpt", "--hf", "exported")
        assert done.returncode == 0, done.stderr
        config = json.loads((tmp_path / "exported" / "config.json").read_text())
        assert (config["model_type"], config["hidden_size"], config["vocab_size"]) == ("llama", 8, len(VOCABULARY))
        assert "nothing is overwritten" in command("runs", "export", "gpt", "--hf", "exported").stderr

    def test_export_names_the_package_if_tensorboard_is_missing(self, make_run, tmp_path, monkeypatch):
        from lotr_tui.monitor.export import export_tensorboard

        monkeypatch.setitem(sys.modules, "tensorboard", None)
        with pytest.raises(InvalidInputError, match=r"pip install 'lotr-tui\[tensorboard\]'"):
            export_tensorboard(make_run("r", EVENTS), tmp_path / "logs")
        assert not (tmp_path / "logs").exists()

    def test_tensorboard_reads_the_export(self, make_run, tmp_path):
        accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
        from lotr_tui.monitor.export import export_tensorboard

        export_tensorboard(make_run("r", training_events(models=False)), tmp_path / "logs")
        events = accumulator.EventAccumulator(str(tmp_path / "logs"))
        events.Reload()
        steps = [event.step for event in training_events(models=False) if isinstance(event, Step)]
        assert [scalar.step for scalar in events.Scalars("train_perplexity")] == steps
        assert len(events.Scalars("valid_perplexity")) == 13
