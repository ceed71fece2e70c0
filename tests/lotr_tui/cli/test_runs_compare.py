"""Command `runs compare`: its table, its JSON, and runs that lack files."""

import json
import re
import shutil

import pytest

from engine.events import Checkpointed, Evaluated, Finished, Started, Step
from engine.runs.directory import MODEL_FILE
from engine.runs.imported import ImportSource, write_imported_run
from engine.runs.locked_run import create_run
from tests.support.commands import json_output
from tests.support.metrics import append_events
from tests.support.runs import CONFIG, VOCABULARY


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return the home of the finished runs a, b and c with different learning rates and perplexities."""
    folder = tmp_path_factory.mktemp("home")
    for name, lr, perplexity, speed in (("a", 0.01, 64.0, 500.0), ("b", 0.02, 48.0, 400.0), ("c", 0.02, 80.0, 500.0)):
        run = create_run(CONFIG.with_values(lr=lr), VOCABULARY, name, folder / "runs")
        run.lock.release()
        events = [
            Started("r", "tiny", 99, 5, 100, 10, 2, "cpu", "ab", 151.0, 94.0, 1, 50, 7.0),
            Step(1, 0.5, 90.0, lr, 1.0, speed, 1.0, 0.0),
            Evaluated(2, 1.0, perplexity, True, 2.0),
            Checkpointed(2, MODEL_FILE),
        ]
        if name != "c":
            events.append(Finished("done", "r", 1.0, perplexity, perplexity + 1, 10.0))
        append_events(run.path, events)
    return folder


def words(text):
    return re.sub(" +", " ", text)


def test_table_has_settings_that_differ_results_and_differences(lotr):
    done = lotr("runs", "compare", "a", "b", "c")
    assert done.stderr == ""
    shown = words(done.stdout)
    assert "different settings a b c\nlr 0.01 0.02 0.02\n\nresults a b c\n" in shown
    assert "valid ↓ 64.0 48.0* 80.0\n -16.0 -25 % +16.0 +25 %\n" in shown
    assert "test ↓ 65.0 49.0* -\n" in shown
    assert "tokens/s ↑ 500* 400 500*\n" in shown
    assert "baseline a\n" in shown
    assert "Choose a run by its validation figures" in shown
    assert "\x1b" not in done.stdout


def test_baseline_may_be_any_run(lotr):
    shown = words(lotr("runs", "compare", "a", "b", "--baseline", "b").stdout)
    assert "valid ↓ 64.0 48.0*\n +16.0 +33 %\n" in shown
    assert "results c a b\n" in words(lotr("runs", "compare", "a", "b", "--baseline", "c").stdout)
    assert json_output(lotr("runs", "compare", "a", "--baseline", "c", "--json"))["baseline"] == "c"


def test_json_has_settings_figures_differences_and_best_runs(lotr, folder):
    report = json_output(lotr("runs", "compare", "a", "b", "c", "--json"))
    assert list(report) == ["baseline", "runs", "best", "comparable", "notes"]
    assert report["baseline"] == "a"
    a, b, c = report["runs"]
    assert (b["run"], b["path"], b["state"]) == ("b", str(folder / "runs" / "b"), "finished")
    assert [run["settings"] for run in report["runs"]] == [{"lr": 0.01}, {"lr": 0.02}, {"lr": 0.02}]
    assert (b["valid_perplexity"], b["test_perplexity"], b["parameters"], b["seconds"]) == (48, 49, 99, 10)
    assert b["valid_bits_per_character"] < a["valid_bits_per_character"]
    assert b["difference"]["valid_perplexity"] == {"absolute": -16, "percent": -25}
    assert a["difference"]["valid_perplexity"] == {"absolute": 0, "percent": 0}
    assert (c["state"], c["test_perplexity"], c["difference"]["test_perplexity"]) == ("crashed", None, None)
    assert report["best"] == {
        "valid_perplexity": "b",
        "test_perplexity": "b",
        "valid_bits_per_character": "b",
        "seconds": None,
        "tokens_per_second": "a",
        "parameters": None,
        "size_bytes": report["best"]["size_bytes"],
    }
    assert report["comparable"] == dict.fromkeys(
        ("valid_perplexity", "test_perplexity", "valid_bits_per_character"), True
    )


def test_other_vocabulary_is_not_compared(lotr, folder, tmp_path):
    other = shutil.copytree(folder / "runs" / "b", tmp_path / "b")
    (other / "vocabulary.json").write_text('["<unk>", "<eos>", "frodo"]')
    done = lotr("runs", "compare", "b", other, "--json")
    report = json_output(done)
    assert [run["run"] for run in report["runs"]] == [str(folder / "runs" / "b"), str(other)]  # not "b" twice
    assert report["comparable"] == {
        "valid_perplexity": False,
        "test_perplexity": False,
        "valid_bits_per_character": True,
    }
    assert report["best"]["valid_perplexity"] is None
    assert report["runs"][1]["difference"]["valid_perplexity"] is None
    assert "other vocabulary" in " ".join(report["notes"])


@pytest.mark.parametrize("content", ["{", json.dumps({"preset": "tiny"})])
def test_damaged_configuration_is_unknown(lotr, folder, tmp_path, content):
    damaged = shutil.copytree(folder / "runs" / "c", tmp_path / "damaged")
    (damaged / "config.json").write_text(content)
    (damaged / "metrics.jsonl").write_text('{"event": "finished", "valid_perplexity": NaN}\n\x00\n{"event": "step"}')
    done = lotr("runs", "compare", "a", "b", damaged)
    assert "lr 0.01 0.02 ?\n" in words(done.stdout)
    assert "valid ↓ 64.0 48.0* -\n" in words(done.stdout)
    report = json_output(lotr("runs", "compare", "a", "b", damaged, "--json"))
    assert report["runs"][2]["settings"] == {"lr": None}
    assert report["runs"][2]["valid_perplexity"] is None


def test_imported_curves_are_shown_and_not_compared(lotr, folder):
    events = [Evaluated(n, float(n), 60.0 - n, True, float(n)) for n in range(3)]
    write_imported_run(folder / "runs", "other", ImportSource("TensorBoard", "/logs", "val"), events, 1e9)
    done = lotr("runs", "compare", "a", "b", "other")
    assert "lr 0.01 0.02 ?\n" in words(done.stdout)
    assert "valid ↓ 64.0 48.0 58.0\n -16.0 -25 %\n" in words(done.stdout)
    assert "Trained by other programs, with unknown settings: other." in done.stdout
    assert "not comparable with a: unknown corpus, split, mode and vocabulary." in done.stdout
    assert "config.json" not in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a"], "runs compare needs two different runs, and got only a; name another one, see `lotr-tui runs`"),
        (["a", "a", "--baseline", "a"], "needs two different runs, and got only a"),
        (["a", "bb"], "run 'bb' is neither in"),
        (["a", "b", "--baseline", "none"], "run 'none' is neither in"),
        ([], "RUN is missing; see `lotr-tui runs compare --help`"),
    ],
)
def test_fewer_than_two_runs_and_unknown_runs_are_refused_in_one_line(lotr, arguments, message):
    done = lotr("runs", "compare", *arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
