"""`runs …`, `status`, `stop`, `attach` and `locate`: lists, tables, JSON, and what is written, renamed and deleted."""

import csv
import os
import re
import subprocess
import sys
import time

import pytest

from engine.control import ControlCommand
from engine.events import Checkpointed, CommandApplied, Diagnosed, Evaluated, Failed, Finished, Sampled, Started, Step
from engine.runs.directory import COMMANDS_FILE, METRICS_FILE, MODEL_FILE, RESUME_FILE, RecordFollower
from engine.runs.locked_run import create_run, parse_command
from lotr_tui.monitor import run_follower
from tests.support.app import attached, training_events
from tests.support.commands import json_output
from tests.support.files import write_run
from tests.support.pilot import dashboard_text, text_of, until
from tests.support.runs import CONFIG, VOCABULARY, append_events

EVENTS = [
    Started("r", "tiny", 99, 5, 100, 10, 40, "cpu", "", 151.0, 94.0),
    Step(4, 0.5, 120.0, 0.003, 0.5, 1234.0, 61.0, 3700.0), Evaluated(4, 0.5, 90.0, True, 61.0),
    Sampled(4, 0.5, "bilbo is", "here\x1b[31m [b]now", 0, 0.7),
    Step(8, 1.0, 110.0, 0.002, 0.5, 1300.0, 65.0, 3600.0), Evaluated(8, 1.0, 95.0, False, 65.0),
    Checkpointed(8, RESUME_FILE),
]  # fmt: skip
FINISHED = Finished("done", "r", 1.0, 90.0, 88.0, 70.0)


@pytest.fixture
def make_run(home):
    """Return a function that writes a run, and returns its directory, or the locked run itself with `lock`."""

    def make(name, events=(), lock=False, **settings):
        run = create_run(CONFIG.with_values(**settings), VOCABULARY, name, home / "runs")
        append_events(run.path, list(events))
        if not lock:
            run.lock.close()
            return run.path
        return run

    return make


def test_locate_prints_paths_without_creating_them(lotr, home):
    shown = dict(line.split(maxsplit=1) for line in lotr("locate").stdout.splitlines())
    assert shown["home"] == str(home)
    names = {"runs": "runs", "settings": "settings.json", "history": "history.jsonl", "sessions": "sessions"}
    assert {name: shown[name] for name in names} == {name: str(home / file) for name, file in names.items()}
    assert not home.exists()


class TestList:
    def test_state_perplexity_and_architecture_of_each_run(self, lotr, home, make_run):
        make_run("mine", [*EVENTS, FINISHED])
        (home / "runs" / "junk").mkdir()
        (home / "runs" / "file").write_text("x")
        (write_run(home / "runs" / "broken") / "config.json").write_text("{}")
        rows = {row["name"]: row for row in json_output(lotr("runs", "--json"))}
        assert list(rows) == ["mine"]
        names = ("state", "valid_perplexity", "preset", "architecture")
        assert [rows["mine"][name] for name in names] == ["finished", 90.0, "tiny", "lstm"]
        done = lotr("runs")
        assert re.search(r"mine +finished +tiny +lstm +line +1\.0 ", done.stdout)
        assert done.stderr == "run broken cannot be read; see `lotr-tui runs show broken`\n"

    def test_a_run_whose_best_model_is_the_one_before_the_first_step_has_learned_nothing(self, lotr, home):
        run = write_run(home / "runs" / "early")
        append_events(run, [Evaluated(0, 0.0, 150.0, True, 0.1), Checkpointed(0, MODEL_FILE), *EVENTS[:2]])
        line = "nothing learned yet: step 0, plain random weights"
        assert f"early: {line}\n" in lotr("runs").stdout
        assert json_output(lotr("runs", "show", "early"))["nothing_learned"] == line
        for command in (["generate", "the", "--run", "early"], ["eval", "early"]):
            assert f"note: early: {line}\n" in lotr(*command).stderr
        append_events(run, [Checkpointed(8, MODEL_FILE)])
        assert "nothing learned" not in lotr("runs").stdout

    def test_list_without_runs_is_empty(self, lotr):
        done = lotr("runs")
        assert (done.returncode, done.stdout) == (0, "")
        assert "no runs yet" in done.stderr
        assert json_output(lotr("runs", "--json")) == []

    def test_show_finds_a_run_by_name_and_path(self, lotr, make_run):
        path = make_run("mine", EVENTS)
        for name in ("mine", "latest", path):
            row = json_output(lotr("runs", "show", name))
            assert row["path"] == str(path)
            assert row["config"]["model"]["embedding_size"] == 6
            assert [evaluation[1] for evaluation in row["evaluations"]] == [0.5, 1.0]


class TestStatus:
    def test_status_fits_one_screen(self, lotr, make_run):
        run = make_run("r", EVENTS, lock=True)
        (run.path / RESUME_FILE).write_bytes(b"")
        saved = time.time() - 125
        os.utime(run.path / RESUME_FILE, (saved, saved))
        done = lotr("status", "r")
        assert done.returncode == 0
        shown = " ".join(done.stdout.split())
        for text in (
            "r running, by process", "epoch 1.0 of 40, step 8", "train 110.0", "valid 95.0, best 90.0 at epoch 0.5",
            "unigram 151.0, Kneser-Ney 94.0", "0.00200, 1,300 tokens/s", "1:05, 1:00:00 left",
            '"bilbo is" here�[31m [b]now', "saved 2 min ago", "watch: lotr-tui attach r", "stop: lotr-tui stop r",
        ):  # fmt: skip
            assert text in shown
        assert "\x1b" not in done.stdout
        assert len(done.stdout.splitlines()) < 24
        append_events(run.path, [Diagnosed(8, 1.0, "rising_validation", "it rose", "lotr-tui stop r keeps the best")])
        assert re.search(r"remedy +lotr-tui stop r keeps", lotr("status", "r").stdout)
        append_events(run.path, [FINISHED])
        run.lock.close()
        assert re.search(r"advised +lotr-tui stop r keeps", lotr("status", "r").stdout)  # there is nothing to stop now

    def test_json_has_all_figures_and_null_for_unknown_ones(self, lotr, make_run):
        make_run("r", [*EVENTS, FINISHED])
        shown = json_output(lotr("status", "--json"))
        assert (shown["state"], shown["step"]) == ("finished", 8)
        names = ("valid_perplexity", "best_valid_perplexity", "test_perplexity")
        assert [shown[name] for name in names] == [95.0, 90.0, 88.0]
        assert (shown["eta_seconds"], shown["writer"], shown["saved_seconds_ago"]) == (None, None, None)
        assert shown["sample"]["text"] == "here\x1b[31m [b]now"

    def test_state_and_suggested_command_are_shown(self, lotr, make_run):
        for name, last, state, hint in (
            ("a", [], "crashed", "resume:   lotr-tui train --resume a"),
            ("b", [Failed("no room")], "failed", "no room"),
            ("c", [Finished("stopped", "c", 1.0, 90.0, float("nan"), 5.0)], "stopped", "train --resume c"),
        ):
            make_run(name, [*EVENTS, *last])
            shown = lotr("status", name).stdout
            assert shown.startswith(f"{name}  {state}\n")
            assert hint in shown

    def test_suggested_command_can_be_copied_to_a_shell(self, lotr, home, tmp_path):
        write_run(home / "runs" / "my run")
        assert "lotr-tui --run 'my run'\n" in lotr("status", "my run").stdout
        run = write_run(tmp_path / "elsewhere" / "r")
        assert f"lotr-tui --run {run}\n" in lotr("status", "r", "--runs-dir", tmp_path / "elsewhere").stdout


# Program that holds the lock of a run: "checkpoint" makes it write a checkpoint, "stop" ends it.
WRITER_PROGRAM = """
import sys, time
from pathlib import Path
from engine.runs.locked_run import reopen_run
run = reopen_run(Path(sys.argv[1]))
read_commands = run.commands.read
print("held", flush=True)
while True:
    for command in read_commands():
        if command.kind == "stop":
            sys.exit()
        (run.path / "new").write_bytes(b"")
        (run.path / "new").replace(run.path / "resume.safetensors")
    time.sleep(0.02)
"""


class TestStop:
    def test_checkpoint_and_stop_wait_for_the_training(self, lotr, make_run):
        path = make_run("r", EVENTS)
        program = [sys.executable, "-c", WRITER_PROGRAM, str(path)]
        with subprocess.Popen(program, stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout.readline() == "held\n"
            done = lotr("stop", "r", "--checkpoint")
            assert (done.returncode, done.stdout) == (0, "run r is saved\n")
            done = lotr("stop", "r")
            assert done.returncode == 0
            assert done.stdout == "run r has stopped; resume it: lotr-tui train --resume r\n"
            writer.kill()


class TestRemoveAndRename:
    def test_rm_asks_for_confirmation(self, lotr, make_run):
        path = make_run("old")
        assert lotr("runs", "rm", "old", stdin=b"n\n").returncode != 0
        unanswered = lotr("runs", "rm", "old")
        assert unanswered.returncode == 2
        assert unanswered.stderr.splitlines()[-1] == "lotr-tui: runs rm old needs a confirmation; give --yes"
        assert path.is_dir()
        assert lotr("runs", "rm", "old", stdin=b"y\n").returncode == 0
        assert not path.exists()

    def test_renamed_run_has_its_new_name(self, lotr, make_run, home):
        make_run("old", EVENTS)
        assert lotr("runs", "rename", "old", "new").stdout == "run old is now new\n"
        assert [path.name for path in (home / "runs").iterdir()] == ["new"]

    def test_existing_name_and_running_run_are_refused(self, refused, make_run, home, untrained_run):
        for name in ("old", "other"):
            make_run(name)
        assert "exists in" in refused("runs", "rename", "old", "other")
        assert "only runs of that folder can be renamed" in refused("runs", "rename", untrained_run, "new")
        _locked_run = make_run("held", lock=True)
        assert "being trained; stop it first" in refused("runs", "rename", "held", "new")


class TestExport:
    def test_csv_export_writes_one_table_per_event_type(self, lotr, make_run, tmp_path):
        make_run("r", [*EVENTS, Step(9, 1.1, 109.0, 0.001, float("nan"), 1.0, 66.0, 1.0)])
        assert lotr("runs", "export", "r", "--csv", "out").stdout == "out\n"
        rows = {path.stem: list(csv.DictReader(path.open(newline=""))) for path in (tmp_path / "out").iterdir()}
        assert set(rows) == {"started", "step", "evaluated", "sampled", "checkpointed"}
        steps = [(row["step"], row["train_perplexity"], row["gradient_norm"]) for row in rows["step"]]
        assert steps == [("4", "120.0", "0.5"), ("8", "110.0", "0.5"), ("9", "109.0", "")]
        assert [row["valid_perplexity"] for row in rows["evaluated"]] == ["90.0", "95.0"]
        assert rows["sampled"][0]["text"] == "here\N{REPLACEMENT CHARACTER}[31m [b]now"


class TestCompare:
    @pytest.fixture(autouse=True)
    def runs(self, make_run):
        """Write the runs a, b and c with different learning rates and perplexities."""
        runs = {"a": (0.01, 64.0, 500.0), "b": (0.02, 48.0, 400.0), "c": (0.02, 80.0, 500.0)}
        for name, (lr, perplexity, speed) in runs.items():
            started = Started("r", "tiny", 99, 5, 100, 10, 2, "cpu", "ab", 151.0, 94.0, 1, 50, 7.0)
            evaluated = Evaluated(2, 1.0, perplexity, True, 2.0)
            step, saved = Step(1, 0.5, 90.0, lr, 1.0, speed, 1.0, 0.0), Checkpointed(2, MODEL_FILE)
            events = [started, step, evaluated, saved]
            if name != "c":
                events.append(Finished("done", "r", 1.0, perplexity, perplexity + 1, 10.0))
            make_run(name, events, lr=lr)

    @pytest.fixture
    def table(self, lotr):
        return lambda *arguments: re.sub(" +", " ", lotr("runs", "compare", *arguments).stdout)

    def test_table_has_settings_that_differ_results_and_differences(self, table):
        shown = table("a", "b", "c")
        assert "different settings a b c\nlr 0.01 0.02 0.02\n \nresults a b c\n" in shown
        assert "valid perplexity ↓ 64.0 *48.0 80.0\n -16.0 -25 % +16.0 +25 %\n" in shown
        assert "test perplexity ↓ 65.0 *49.0 -\n" in shown
        assert "Choose a run by its validation figures" in shown
        assert "valid perplexity ↓ *48.0 64.0\n +16.0 +33 %\n" in table("a", "b", "--baseline", "b")
        assert "results c a b\n" in table("a", "b", "--baseline", "c")

    def test_json_has_settings_figures_differences_and_best_runs(self, lotr, home):
        report = json_output(lotr("runs", "compare", "a", "b", "c", "--json"))
        assert list(report) == ["baseline", "runs", "best", "comparable", "notes"]
        a, b, c = report["runs"]
        assert (report["baseline"], b["run"], b["path"]) == ("a", "b", str(home / "runs" / "b"))
        assert [run["settings"] for run in report["runs"]] == [{"lr": 0.01}, {"lr": 0.02}, {"lr": 0.02}]
        assert (b["valid_perplexity"], b["test_perplexity"], b["parameters"], b["seconds"]) == (48, 49, 99, 10)
        assert b["valid_bits_per_character"] < a["valid_bits_per_character"]
        assert b["difference"]["valid_perplexity"] == {"absolute": -16, "percent": -25}
        assert (c["state"], c["test_perplexity"], c["difference"]["test_perplexity"]) == ("crashed", None, None)
        assert (report["best"]["valid_perplexity"], report["best"]["tokens_per_second"]) == ("b", "a")
        assert all(report["comparable"].values())


TRAINING_EVENTS = training_events(models=False)


@pytest.fixture
def app(tmp_path, monkeypatch):
    """Return the app on a run that this process holds, without a record."""
    monkeypatch.setenv("LOTR_TUI_HOME", str(tmp_path))
    monkeypatch.setattr(run_follower, "POLL_INTERVAL", 0.01)
    run = create_run(CONFIG, VOCABULARY, "r", tmp_path / "runs")
    yield attached(run.path)
    run.lock.close()


async def test_dashboard_follows_the_record_past_damaged_lines_and_sends_commands_except_for_quitting(app, tmp_path):
    path = tmp_path / "runs" / "r"
    requests = RecordFollower(path / COMMANDS_FILE, parse_command).read
    async with app.run_test(size=(160, 45)) as pilot:
        await until(pilot, lambda: "no metrics.jsonl" in text_of(app.screen.query_one("#status")))
        append_events(path, TRAINING_EVENTS[:20])
        await until(pilot, lambda: "epoch 3.0/12" in dashboard_text(app))
        await pilot.press("k")
        await until(pilot, lambda: "saving …" in text_of(app.screen.query_one("#status")))
        assert requests() == [ControlCommand("checkpoint")]
        append_events(path, [CommandApplied(9, 3.0, "checkpoint", "")])
        await until(pilot, lambda: "saving …" not in text_of(app.screen.query_one("#status")))
        with (path / METRICS_FILE).open("ab") as file:
            file.write(b"\x00\xff[\n" + b"[" * 100_000 + b'\n{"event": "step", "step": "many"}\n{"event": "sampled"}\n')
        append_events(path, TRAINING_EVENTS[20:])
        await until(pilot, lambda: "epoch 12.0/12" in dashboard_text(app))
        append_events(path, [Finished("done", "r", 12.0, 72.5, 74.1, 24.0)])
        await until(pilot, lambda: "test 74.1" in dashboard_text(app))
        await pilot.press("escape")
        await until(pilot, lambda: app.return_code == 0)
    assert requests() == []
