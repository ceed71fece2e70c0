"""The run directory: written, followed by others, loaded again, and everything that may be wrong with one."""

import json
import math
import os
import pickle
import signal
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save, save_file

from engine import files, record, recording, runs, tidying
from engine.config import Config, ModelConfig, TrainingConfig
from engine.decoder import Decoder, weight_shapes
from engine.errors import ConfigError, RunError, UnusableInput
from engine.events import (
    Checkpointed,
    Evaluated,
    Failed,
    Finished,
    Preparing,
    Sampled,
    Started,
    Step,
    TrainingEvent,
    from_record,
)
from engine.record import read_rows
from engine.tensor_file import read_weights
from engine.tidying import remove
from engine.vocabulary import EOS_ID, Vocabulary

VOCABULARY = Vocabulary(("<unk>", "<eos>", "bilbo", "is", "here"))
# The models kept along the way have tests of their own, in test_epochs.py.
CONFIG = Config("tiny", model=ModelConfig(embedding_size=6, hidden_size=6), training=TrainingConfig(keep_epochs=False))


def decoder(seed: int) -> Decoder:
    chance = np.random.default_rng(seed)
    shapes = weight_shapes(CONFIG.model, len(VOCABULARY))
    weights = {name: chance.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    return Decoder(CONFIG.model, VOCABULARY, weights)


def training(finish: str | None = "done", epochs: int = 2) -> list[TrainingEvent]:
    """A training as `train` tells it; the second evaluation is the best."""
    events: list[TrainingEvent] = [
        Preparing("counting"),
        Started("r", "tiny", 99, 5, 100, 10, 40, "cpu", "ab" * 32, 151.0, 94.0),
        Evaluated(0, 0.0, 150.0, True, 0.1, decoder(0)),
        Sampled(0, 0.0, "bilbo is", 'here "é"', 3, 0.7),
        Step(5, 0.5, 120.0, 0.003, math.nan, 1000.0, 1.0, math.inf),
        Step(9, 1.0, 110.0, 0.003, 0.5, 1000.0, 2.0, 3.0),
        Evaluated(9, 1.0, 90.0, True, 2.1, decoder(1)),
        Sampled(9, 1.0, "bilbo is", "here", 3, 0.7),
        Evaluated(18, 2.0, 95.0, False, 4.1, decoder(2)),
    ]
    if finish == "stopped":
        events.append(Finished("stopped", "r", 2.0, 90.0, math.nan, 5.0, decoder(1)))
    elif finish == "done":
        events.append(Finished("done", "r", 2.0, 90.0, 88.0, 5.0, decoder(1)))
    return events


def write(folder: Path, name: str | None, events: Iterable[TrainingEvent]) -> Path:
    run = recording.create(CONFIG, VOCABULARY, name, folder)
    list(recording.record(run, iter(events)))
    return run.path


def rows(path: Path) -> list[dict[str, Any]]:
    """Strict JSON, a line each."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    text = path.read_text(encoding="utf-8")
    assert text.endswith("\n")
    return [json.loads(line, parse_constant=refuse) for line in text.splitlines()]


# --- writing --------------------------------------------------------------------------------------------------


def test_round_trip(tmp_path: Path) -> None:
    path = write(tmp_path / "deep" / "runs", "first", training())
    loaded = runs.load(path)
    assert (loaded.name, loaded.path, loaded.config) == ("first", path, CONFIG)
    assert loaded.decoder.vocabulary == VOCABULARY
    assert (loaded.valid_perplexity, loaded.kneser_ney_perplexity) == (90.0, 94.0)
    assert loaded.corpus_sha256 == "ab" * 32
    best = decoder(1)
    assert all(np.array_equal(loaded.decoder.weights[name], best.weights[name]) for name in best.weights)
    expected, found = (model.advance(model.start(), EOS_ID)[0] for model in (best, loaded.decoder))
    assert np.array_equal(expected, found)


def test_a_text_is_cut_into_words_as_it_was_for_the_training(tmp_path: Path) -> None:
    config = CONFIG.with_values(tokenizer="spaces")
    run = recording.create(config, VOCABULARY, "r", tmp_path)
    list(recording.record(run, iter(training())))
    assert runs.read_start(run.path) == (config, replace(VOCABULARY, tokenizer="spaces"))
    assert runs.load(run.path).decoder.vocabulary.tokenizer == "spaces"


def test_events_pass_through_and_checkpoints_follow_the_best(tmp_path: Path) -> None:
    events = training()
    run = recording.create(CONFIG, VOCABULARY, "r", tmp_path)
    found = list(recording.record(run, iter(events)))
    assert [event for event in found if not isinstance(event, Checkpointed)] == events
    checkpoints = [(found[i - 1], event) for i, event in enumerate(found) if isinstance(event, Checkpointed)]
    assert [(before, event.step) for before, event in checkpoints] == [(events[2], 0), (events[6], 9)]


def test_the_model_file_is_whole_at_every_event_after_the_first_evaluation(tmp_path: Path) -> None:
    run = recording.create(CONFIG, VOCABULARY, "r", tmp_path)
    best: Decoder | None = None
    for event in recording.record(run, iter(training())):
        if isinstance(event, Evaluated) and event.best:
            assert isinstance(event.model, Decoder)
            best = event.model
        if best is not None:
            found = load_file(run.path / runs.MODEL)
            assert all(np.array_equal(found[name], best.weights[name]) for name in best.weights)


def test_every_event_has_its_row(tmp_path: Path) -> None:
    path = write(tmp_path, "r", training())
    metrics, samples = rows(path / runs.METRICS), rows(path / runs.SAMPLES)
    kinds = [row["event"] for row in metrics]
    start = ["preparing", "started", "evaluated", "checkpointed"]
    assert kinds == [*start, "step", "step", "evaluated", "checkpointed", "evaluated", "finished"]
    assert [row["text"] for row in samples] == ['here "é"', "here"]
    read = [from_record(row) for row in metrics if row["event"] != "checkpointed"]
    told = [event for event in training() if not isinstance(event, Sampled)]
    assert [event for event in read if not isinstance(event, Step)] == [e for e in told if not isinstance(e, Step)]
    assert [from_record(row) for row in samples] == [e for e in training() if isinstance(e, Sampled)]


def test_numbers_that_are_not_finite_are_null(tmp_path: Path) -> None:
    path = write(tmp_path, "r", training("stopped"))
    metrics = rows(path / runs.METRICS)
    step = next(row for row in metrics if row["event"] == "step")
    assert step["gradient_norm"] is None
    assert step["eta_seconds"] is None
    assert metrics[-1]["test_perplexity"] is None
    assert runs.summarize(path).test_perplexity is None


def test_rows_are_there_as_soon_as_the_event_is(tmp_path: Path) -> None:
    """A viewer in another terminal sees what the screen has seen."""
    run = recording.create(CONFIG, VOCABULARY, "r", tmp_path)
    seen = 0
    for event in recording.record(run, iter(training())):
        seen += not isinstance(event, Sampled)
        with (run.path / runs.METRICS).open() as file:
            written = len(file.readlines())
        assert seen <= written <= seen + 1  # a checkpoint's row may be there already


def test_a_torn_last_line_is_the_end_and_a_damaged_line_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(
        b'{"event": "a"}\nnot json\n[1, 2]\n{"event": 3}\n{"step": 1}\n\xff\xfe\n{"event": "b"}\n{"event": "c"'
    )
    assert [row["event"] for row in read_rows(path)] == ["a", "b"]
    path.write_bytes(path.read_bytes() + b"}")  # whole by now, but only its newline says so
    assert [row["event"] for row in read_rows(path)] == ["a", "b"]
    path.write_bytes(path.read_bytes() + b"\n")
    assert [row["event"] for row in read_rows(path)] == ["a", "b", "c"]
    assert list(read_rows(tmp_path / "none")) == []


def test_deeply_nested_rows_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text("[" * 200_000 + "\n" + '{"event": "a"}\n')
    assert [row["event"] for row in read_rows(path)] == ["a"]


def test_write_atomically_leaves_the_old_file_or_the_new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    files.write_atomically(path, b"old")
    files.write_atomically(path, b"new")
    assert path.read_bytes() == b"new"

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError, match="No space left"):
        files.write_atomically(path, b"newest")
    assert path.read_bytes() == b"new"
    assert [item.name for item in tmp_path.iterdir()] == ["file"]  # nothing half written stays


# --- names and folders ----------------------------------------------------------------------------------------


def test_a_name_that_is_taken(tmp_path: Path) -> None:
    path = write(tmp_path, "mine", training())
    before = sorted((item.name, item.stat().st_size) for item in path.iterdir())
    with pytest.raises(RunError, match="'mine' exists"):
        recording.create(CONFIG, VOCABULARY, "mine", tmp_path)
    assert sorted((item.name, item.stat().st_size) for item in path.iterdir()) == before


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../up", "a/b", "/abs", "-rf", ".hidden", "a b", "é", "a\n", "x" * 101]
)
def test_names_that_are_no_folder_names(tmp_path: Path, name: str) -> None:
    with pytest.raises(RunError, match="no folder name"):
        recording.create(CONFIG, VOCABULARY, name, tmp_path / "runs")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["latest", "bundled"])
def test_names_that_mean_something_else_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(RunError, match=name):
        recording.create(CONFIG, VOCABULARY, name, tmp_path)


def test_runs_without_a_name_never_collide(tmp_path: Path) -> None:
    made = [recording.create(CONFIG, VOCABULARY, None, tmp_path) for _ in range(4)]
    assert len({run.name for run in made}) == 4
    assert all(run.name.startswith("tiny-") for run in made)
    for run in made:
        run.lock.close()


def test_a_runs_folder_that_cannot_be_written(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    for folder in (blocked, blocked / "runs"):
        with pytest.raises(RunError, match="cannot be written"):
            recording.create(CONFIG, VOCABULARY, "r", folder)
    assert blocked.read_text() == "in the way"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_runs_folder_without_permission(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    try:
        with pytest.raises(RunError, match="cannot be written"):
            recording.create(CONFIG, VOCABULARY, "r", tmp_path / "runs")
    finally:
        tmp_path.chmod(0o755)


def test_the_home_folder_is_the_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOTR_TUI_HOME", str(tmp_path))
    run = recording.create(CONFIG, VOCABULARY, "r")
    run.lock.close()
    assert run.path == tmp_path / "runs" / "r"
    assert runs.resolve("r") == run.path


# --- the lock and the states ----------------------------------------------------------------------------------


def state_seen_elsewhere(path: Path) -> str:
    """The state of a run as another process sees it."""
    code = "import sys, pathlib; from engine import runs; print(runs.summarize(pathlib.Path(sys.argv[1])).state)"
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True, timeout=60
    )
    return done.stdout.strip()


def test_another_process_sees_a_run_going_on_and_then_finished(tmp_path: Path) -> None:
    run = recording.create(CONFIG, VOCABULARY, "r", tmp_path)
    events = recording.record(run, iter(training()))
    for event in events:
        if isinstance(event, Step):
            break
    assert state_seen_elsewhere(run.path) == "running"
    assert runs.summarize(run.path).state == "running"
    with pytest.raises(RunError, match="being trained"):
        remove(run.path, tmp_path)
    list(events)
    assert state_seen_elsewhere(run.path) == "finished"


def test_looking_does_not_take_the_lock(tmp_path: Path) -> None:
    run = recording.create(CONFIG, VOCABULARY, "r", tmp_path)
    events = recording.record(run, iter(training()))
    next(events)
    for _ in range(5):
        assert runs.summarize(run.path).state == "running"
    list(events)
    assert runs.summarize(run.path).state == "finished"


def test_a_killed_process_leaves_a_crashed_run(tmp_path: Path) -> None:
    code = (
        "import sys, time, pathlib\nfrom engine import recording\nfrom engine.config import Config\n"
        "from engine.vocabulary import Vocabulary\n"
        "run = recording.create(Config(), Vocabulary(('<unk>', '<eos>', 'a')), 'r', pathlib.Path(sys.argv[1]))\n"
        "print('made', flush=True)\ntime.sleep(120)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "made\n"
            assert runs.summarize(tmp_path / "r").state == "running"
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait(30)
    assert runs.summarize(tmp_path / "r").state == "crashed"


@pytest.mark.parametrize(("finish", "state"), [("done", "finished"), ("stopped", "stopped"), (None, "crashed")])
def test_states_by_how_it_ended(tmp_path: Path, finish: str | None, state: str) -> None:
    assert runs.summarize(write(tmp_path, "r", training(finish))).state == state


def test_who_trains_is_what_stands_in_the_lock(tmp_path: Path) -> None:
    assert runs.writer(tmp_path) == ""
    (tmp_path / runs.LOCK).write_text("process 7 on moria\n")
    assert runs.writer(tmp_path) == "process 7 on moria"
    (tmp_path / runs.LOCK).write_bytes("Náin \x1b".encode() + b"\xff" + b"x" * 1000)
    assert runs.writer(tmp_path) == "Náin " + 2 * "\N{REPLACEMENT CHARACTER}" + 93 * "x"  # 100 characters


@pytest.mark.parametrize(
    ("rows", "state"),
    [
        ([], "crashed"),
        ([{"event": "evaluated"}], "crashed"),
        ([{"event": "finished", "reason": "done"}], "finished"),
        ([{"event": "finished"}], "finished"),
        ([{"event": "finished", "reason": "stopped"}], "stopped"),
        ([{"event": "finished", "reason": "detached"}], "stopped"),
        ([{"event": "failed"}], "failed"),
        ([{"event": "failed"}, {"event": "evaluated"}], "crashed"),
        ([{"event": "finished"}, {"event": "warned"}, {"event": "checkpointed"}], "finished"),
        ([{"event": "checkpointed"}, {"event": "failed"}, {"event": "checkpointed"}, {"event": "warned"}], "failed"),
    ],
)
def test_states_by_the_last_row_that_is_no_note(tmp_path: Path, rows: list[dict[str, Any]], state: str) -> None:
    run = recording.create(CONFIG, VOCABULARY, "r", tmp_path)
    run.lock.close()
    (run.path / runs.METRICS).write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert runs.summarize(run.path).state == state
    assert runs.is_finished(run.path) == (state == "finished")


def test_an_exception_goes_to_the_record_the_log_and_the_caller(tmp_path: Path) -> None:
    def broken() -> Iterator[TrainingEvent]:
        yield from training(None)
        raise ZeroDivisionError("broken on purpose")

    run = recording.create(CONFIG, VOCABULARY, "r", tmp_path)
    found: list[TrainingEvent] = []
    with pytest.raises(ZeroDivisionError, match="broken on purpose"):
        found.extend(recording.record(run, broken()))
    assert len(found) == len(training(None)) + 2  # and all before it arrived, with two checkpoints
    last = from_record(rows(run.path / runs.METRICS)[-1])
    assert isinstance(last, Failed)
    assert last.message == "ZeroDivisionError: broken on purpose"
    log = (run.path / runs.LOG).read_text()
    assert "Traceback" in log
    assert "broken on purpose" in log
    summary = runs.summarize(run.path)
    assert summary.state == "failed"
    assert summary.valid_perplexity == 90.0
    assert runs.load(run.path).valid_perplexity == 90.0  # what was learnt before is not lost


def test_a_consumer_that_leaves_frees_the_lock(tmp_path: Path) -> None:
    run = recording.create(CONFIG, VOCABULARY, "r", tmp_path)
    events = recording.record(run, iter(training()))
    next(events)
    events.close()  # type: ignore[attr-defined]
    assert state_seen_elsewhere(run.path) == "crashed"


# --- the list -------------------------------------------------------------------------------------------------


def three_runs(folder: Path) -> list[Path]:
    """Runs made an hour apart, not in the order of their names."""
    paths = [write(folder, name, training()) for name in ("beta", "alpha", "gamma")]
    for age, path in zip((3, 2, 1), paths, strict=True):
        at = 1_700_000_000 - 3600 * age
        os.utime(path / runs.CONFIG, (at, at))
    return paths


def test_the_list_is_latest_first_and_passes_over_what_is_no_run(tmp_path: Path) -> None:
    three_runs(tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "empty").mkdir()
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / runs.CONFIG).write_text("{")
    assert [run.name for run in runs.list_runs(tmp_path)] == ["gamma", "alpha", "beta"]
    assert runs.list_runs(tmp_path / "none") == []


def test_a_folder_that_is_closed_to_us_hides_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    three_runs(tmp_path)
    (tmp_path / "theirs").mkdir()
    usual = Path.stat

    def stat(path: Path, **options: Any) -> os.stat_result:
        if path.parent.name == "theirs":
            raise PermissionError(13, "Permission denied")
        return usual(path, **options)

    monkeypatch.setattr(Path, "stat", stat)
    assert [run.name for run in runs.list_runs(tmp_path)] == ["gamma", "alpha", "beta"]
    assert runs.resolve("latest", tmp_path).name == "gamma"


def test_the_latest_is_the_one_begun_last_that_can_be_read(tmp_path: Path) -> None:
    _, alpha, gamma = three_runs(tmp_path)
    os.utime(alpha / runs.CONFIG, (2_000_000_000, 2_000_000_000))
    assert runs.resolve("latest", tmp_path) == alpha
    assert [run.name for run in runs.list_runs(tmp_path)] == ["alpha", "gamma", "beta"]
    (alpha / runs.CONFIG).write_text("{")
    os.utime(alpha / runs.CONFIG, (2_000_000_000, 2_000_000_000))
    assert runs.resolve("latest", tmp_path) == gamma


def test_a_folder_without_a_file_of_settings_is_no_run_to_name(tmp_path: Path) -> None:
    (tmp_path / "alpha" / runs.CONFIG).mkdir(parents=True)
    with pytest.raises(RunError) as caught:
        runs.resolve("alhpa", tmp_path)
    assert str(caught.value) == f"run 'alhpa' is neither in {tmp_path} nor a path. See `lotr-tui runs`"


def test_a_file_that_goes_while_they_are_counted_counts_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path, "r", training())
    before, config, usual = runs.summarize(path).bytes, (path / runs.CONFIG).stat().st_size, Path.lstat

    def lstat(path: Path) -> os.stat_result:
        if path.name == runs.CONFIG:
            raise FileNotFoundError(2, "No such file or directory")
        return usual(path)

    monkeypatch.setattr(Path, "lstat", lstat)
    assert runs.summarize(path).bytes == before - config


@pytest.mark.parametrize(
    "read", [runs.summarize, runs.load, runs.is_finished, lambda path: runs.load(path, 1), runs.kept_epochs]
)
def test_of_a_long_record_little_is_parsed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read: Callable[[Path], object]
) -> None:
    """Of reports one after another the last alone, so that a list of long runs is there at once."""
    reports = [Step(n, n / 500, 120.0, 0.003, 1.0, 1000.0, 1.0, 1.0) for n in range(500)]
    run = recording.create(CONFIG.with_values(keep_epochs=True), VOCABULARY, "r", tmp_path)
    list(recording.record(run, iter([*training()[:3], *reports, Evaluated(500, 1.0, 90.0, True, 2.1, decoder(1))])))
    parsed = []
    usual = record._row
    monkeypatch.setattr(record, "_row", lambda line: parsed.append(line) or usual(line))
    read(run.path)
    assert 5 <= len(parsed) < 30


def test_a_summary(tmp_path: Path) -> None:
    path = write(tmp_path, "r", training())
    found = runs.summarize(path)
    assert (found.name, found.preset, found.corpus, found.mode) == ("r", "tiny", "bundled", "line")
    assert (found.epochs, found.valid_perplexity, found.test_perplexity) == (2.0, 90.0, 88.0)
    assert (found.path, found.started) == (path, (path / runs.CONFIG).stat().st_mtime)
    assert found.bytes == sum(item.stat().st_size for item in path.iterdir())


def test_the_epochs_of_a_run_are_those_done_not_those_planned(tmp_path: Path) -> None:
    events = training(None)
    expected = [0.0, 0.0, 0.0, 0.0, 0.5, 1.0, 1.0, 1.0, 2.0]
    run = recording.create(CONFIG, VOCABULARY, "r", tmp_path)
    found = [
        runs.summarize(run.path).epochs
        for event in recording.record(run, iter(events))
        if not isinstance(event, Checkpointed)
    ]
    assert found == expected
    left = runs.summarize(write(tmp_path, "s", [*events, Finished("stopped", "s", 2.25, 89.0, 88.0, 5.0)]))
    assert (left.epochs, left.valid_perplexity) == (2.25, 89.0)


def test_a_summary_of_damaged_rows(tmp_path: Path) -> None:
    path = write(tmp_path, "r", training(None))
    with (path / runs.METRICS).open("a") as file:
        file.write('{"event": "step", "epoch": "many"}\n{"event": "evaluated", "valid_perplexity": "low"}\n')
        file.write('{"event": "step", "epoch": null}\n')
    found = runs.summarize(path)
    assert (found.epochs, found.valid_perplexity) == (2.0, 90.0)


# --- finding a run --------------------------------------------------------------------------------------------


def test_resolve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = three_runs(tmp_path)
    assert runs.resolve("alpha", tmp_path) == paths[1]
    assert runs.resolve("latest", tmp_path) == paths[2]
    assert runs.resolve(str(paths[0]), tmp_path / "elsewhere") == paths[0]
    monkeypatch.chdir(tmp_path)
    assert runs.resolve("./beta", tmp_path / "elsewhere").resolve() == paths[0].resolve()
    for bundled in (None, "bundled"):
        assert runs.resolve(bundled, tmp_path) == files.assets_folder() / "model"


def test_a_run_that_does_not_exist_names_the_nearest(tmp_path: Path) -> None:
    three_runs(tmp_path)
    with pytest.raises(RunError, match="did you mean alpha"):
        runs.resolve("alhpa", tmp_path)
    with pytest.raises(RunError, match="'zzz' is neither") as caught:
        runs.resolve("zzz", tmp_path)
    assert "did you mean" not in str(caught.value)


def test_latest_passes_over_a_run_that_is_damaged(tmp_path: Path) -> None:
    three_runs(tmp_path)
    newest = runs.resolve("latest", tmp_path)
    (newest / runs.CONFIG).write_text("{")
    assert newest.name == "gamma"
    assert runs.resolve("latest", tmp_path).name == "alpha"


def test_latest_of_no_runs(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no run in"):
        runs.resolve("latest", tmp_path / "none")


def test_a_folder_that_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=runs.CONFIG):
        runs.resolve(str(tmp_path), tmp_path)


@pytest.mark.parametrize("name", ["x" * 3000, "~no-such-user-here/run", "a\0b", "", "..", "\x1b[31mred"], ids=range(6))
def test_odd_names_are_one_clear_line(tmp_path: Path, name: str) -> None:
    with pytest.raises(RunError) as caught:
        runs.resolve(name, tmp_path / "runs")
    assert str(caught.value).isprintable()


def pickled(path: Path) -> None:
    path.write_bytes(pickle.dumps({"weights": [1, 2, 3]}))


def zipped(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:  # what torch.save writes
        archive.writestr("archive/data.pkl", pickle.dumps([1]))


@pytest.mark.parametrize("make", [pickled, zipped])
def test_a_pickle_is_refused_as_a_run_and_as_a_model(tmp_path: Path, make: Any) -> None:
    make(tmp_path / "model.pt")
    with pytest.raises(RunError, match="pickle"):
        runs.resolve(str(tmp_path / "model.pt"), tmp_path)
    path = write(tmp_path, "r", training())
    make(path / runs.MODEL)
    with pytest.raises(RunError, match="pickle"):
        runs.load(path)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_model_whose_header_is_as_long_as_a_pickle_begins_is_loaded(tmp_path: Path, protocol: int) -> None:
    """The file begins with the header's length: 640 bytes, 896 and so on are the first two bytes of a pickle."""
    path, wanted = tmp_path / "model.safetensors", protocol * 256 + 0x80
    values = {"a": np.arange(3, dtype=np.float32)}
    length = int.from_bytes(save(values, metadata={"note": ""})[:8], "little")
    path.write_bytes(save(values, metadata={"note": "x" * (wanted - length)}))
    assert path.read_bytes()[:2] == bytes([0x80, protocol])
    assert read_weights(path, {"a": (3,)})["a"].tolist() == [0, 1, 2]


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_of_any_protocol_is_never_run(tmp_path: Path, protocol: int) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(tmp_path / "pwned"),)

    path = write(tmp_path, "r", training())
    (path / runs.MODEL).write_bytes(pickle.dumps(Evil(), protocol=protocol))
    with pytest.raises(RunError):
        runs.load(path)
    assert not (tmp_path / "pwned").exists()


def test_a_run_is_played_in_8_bits_where_that_is_asked_for(tmp_path: Path) -> None:
    write(tmp_path, "r", training())
    exact, rounded = (runs.load_named("r", tmp_path, precision) for precision in ("fp32", "int8"))
    assert (exact.decoder.int8, rounded.decoder.int8) == (False, True)
    assert rounded == replace(exact, decoder=rounded.decoder)
    assert (rounded.decoder.config, rounded.decoder.vocabulary) == (exact.decoder.config, exact.decoder.vocabulary)
    assert all(
        np.array_equal(rounded.decoder.weights[name], exact.decoder.weights[name]) for name in decoder(1).weights
    )


def test_a_precision_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnusableInput) as caught:
        runs.load_named("r", tmp_path, "fp16")
    assert str(caught.value) == "--precision fp16 is unknown; a model is played in fp32 or int8"


# --- damaged runs ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("keep", [0, 4, 8, 100, -1])
def test_a_cut_off_model_is_refused(tmp_path: Path, keep: int) -> None:
    path = write(tmp_path, "r", training())
    content = (path / runs.MODEL).read_bytes()
    (path / runs.MODEL).write_bytes(content[:keep])
    with pytest.raises(RunError, match=runs.MODEL):
        runs.load(path)


def test_noise_and_impossible_headers_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path, "r", training())
    header = b'{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,9999]}}'
    for content in (
        np.random.default_rng(0).bytes(5000),
        b"\xff" * 8,
        (2**62).to_bytes(8, "little") + b"{}",
        len(header).to_bytes(8, "little") + header,
        b"just text",
    ):
        (path / runs.MODEL).write_bytes(content)
        with pytest.raises(RunError, match=runs.MODEL):
            runs.load(path)


def test_a_foreign_safetensors_file_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, "r", training())
    save_file({"transformer.wte.weight": np.zeros((5, 6), np.float32)}, path / runs.MODEL)
    with pytest.raises(RunError, match="lacks"):
        runs.load(path)


@pytest.mark.parametrize("dtype", ["F16", "BF16", "F64", "I32"])
def test_a_model_of_another_type_of_number_is_refused(tmp_path: Path, dtype: str) -> None:
    import torch
    from safetensors.torch import save_file as save_torch

    kind = {"F16": torch.float16, "BF16": torch.bfloat16, "F64": torch.float64, "I32": torch.int32}[dtype]
    path = write(tmp_path, "r", training())
    tensors = {name: torch.from_numpy(value).to(kind) for name, value in load_file(path / runs.MODEL).items()}
    save_torch(tensors, path / runs.MODEL)
    with pytest.raises(RunError, match=r"model\.safetensors"):
        runs.load(path)


def test_values_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path, "r", training())
    tensors = load_file(path / runs.MODEL)
    tensors["output.bias"][2] = math.nan
    save_file(tensors, path / runs.MODEL)
    with pytest.raises(RunError, match=r"output\.bias"):
        runs.load(path)


def test_a_vocabulary_of_another_size_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, "r", training())
    (path / runs.VOCABULARY).write_text(json.dumps([*VOCABULARY.words, "more"]))
    with pytest.raises(RunError, match=r"embedding\.weight"):
        runs.load(path)


@pytest.mark.parametrize("name", [runs.CONFIG, runs.VOCABULARY, runs.MODEL])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    path = write(tmp_path, "r", training())
    (path / name).unlink()
    with pytest.raises(RunError, match=name):
        runs.load(path)


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "null", '{"preset": 3}', "[" * 100_000, "\udcff", '{"preset": "x", "data": []}']
)
@pytest.mark.parametrize("name", [runs.CONFIG, runs.VOCABULARY])
def test_damaged_json_is_named(tmp_path: Path, name: str, content: str) -> None:
    path = write(tmp_path, "r", training())
    (path / name).write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises((RunError, ConfigError), match=name):
        runs.load(path)


@pytest.mark.parametrize("words", [["<unk>", "<eos>"], ["a", "b", "c"], ["<unk>", "<eos>", "a", "a", "b"]])
def test_lists_that_are_no_vocabulary(tmp_path: Path, words: list[str]) -> None:
    path = write(tmp_path, "r", training())
    (path / runs.VOCABULARY).write_text(json.dumps(words))
    with pytest.raises(RunError, match=runs.VOCABULARY):
        runs.load(path)


@pytest.mark.parametrize("word", ["\x1b[31m", "two words", "<b>", "[red]", "", 3, None])
def test_words_that_are_no_words_never_reach_a_terminal(tmp_path: Path, word: Any) -> None:
    path = write(tmp_path, "r", training())
    (path / runs.VOCABULARY).write_text(json.dumps(["<unk>", "<eos>", "bilbo", "is", word]))
    with pytest.raises(RunError, match="no words"):
        runs.load(path)


def test_a_run_without_metrics_still_plays(tmp_path: Path) -> None:
    path = write(tmp_path, "r", training())
    (path / runs.METRICS).unlink()
    loaded = runs.load(path)
    assert loaded.valid_perplexity is None
    assert loaded.kneser_ney_perplexity is None
    assert loaded.corpus_sha256 == ""


def test_a_model_is_played_in_a_precision_that_there_is(tmp_path: Path) -> None:
    pytest.importorskip("numkong")
    path = write(tmp_path, "r", training())
    exact, rounded = (runs.load_named("r", tmp_path, precision) for precision in ("fp32", "int8"))
    assert (exact.decoder.int8, rounded.decoder.int8) == (False, True)
    assert (rounded.path, rounded.valid_perplexity) == (path, 90.0)
    assert all((rounded.decoder.weights[name] == value).all() for name, value in exact.decoder.weights.items())
    with pytest.raises(UnusableInput, match="--precision fp8 is unknown; a model is played in fp32 or int8"):
        runs.load_named("r", tmp_path, "fp8")


# --- removing -------------------------------------------------------------------------------------------------


def test_remove(tmp_path: Path) -> None:
    first, second, _ = three_runs(tmp_path)
    remove(first, tmp_path)
    assert not first.exists()
    assert second.exists()


def test_nobody_begins_to_train_what_is_being_removed_or_renamed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, _ = three_runs(tmp_path)
    held = []
    monkeypatch.setattr(tidying.shutil, "rmtree", lambda path: held.append(runs.is_written(path)))
    remove(first, tmp_path)
    monkeypatch.setattr(Path, "rename", lambda path, new: held.append(runs.is_written(path)))
    tidying.rename(second.name, "other", tmp_path)
    assert held == [True, True]


def test_what_cannot_be_removed_or_renamed_says_why_and_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, _, _ = three_runs(tmp_path)

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(tidying.shutil, "rmtree", refuse)
    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(RunError, match=f"{first.name} cannot be deleted: Permission denied"):
        remove(first, tmp_path)
    with pytest.raises(RunError, match=f"{first.name}' cannot be renamed: Permission denied"):
        tidying.rename(first.name, "other", tmp_path)
    assert not runs.is_written(first)
    assert (first / runs.MODEL).is_file()


def test_what_is_no_run_is_not_removed(tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").write_text("mine")
    with pytest.raises(RunError):
        remove(tmp_path / "precious", tmp_path)
    assert (tmp_path / "precious" / "file").read_text() == "mine"


def test_the_bundled_model_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, "model", training())
    monkeypatch.setattr(tidying, "assets_folder", lambda: tmp_path)
    with pytest.raises(RunError, match="bundled"):
        remove(path, tmp_path)
    assert (path / runs.MODEL).is_file()
