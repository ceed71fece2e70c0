"""Recording of a training: weights and rows are complete after every event, and are read back unchanged."""

import os
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from engine.data.tokenizers.base import EOS_ID
from engine.data.tokenizers.words import WordTokenizer
from engine.errors import RunError
from engine.events import Checkpointed, Evaluated, Sampled, Step, event_from_dict
from engine.models.numpy_lstm import NumpyLSTM
from engine.runs.directory import METRICS_FILE, MODEL_FILE, SAMPLES_FILE, read_config_and_tokenizer
from engine.runs.loading import load_model
from engine.runs.locked_run import create_run
from engine.runs.metrics import read_rows
from engine.runs.summary import summarize_run
from engine.runs.writer import record_events
from engine.storage import files
from tests.support.runs import CONFIG, VOCABULARY, make_decoder, make_events, read_strict_rows, record_run


def test_a_recorded_run_is_loaded_unchanged(tmp_path: Path) -> None:
    path = record_run(tmp_path / "deep" / "runs", "first", make_events())
    loaded = load_model(path)
    assert (loaded.name, loaded.path, loaded.config) == ("first", path, CONFIG)
    assert loaded.decoder.tokenizer == VOCABULARY
    assert (loaded.valid_perplexity, loaded.kneser_ney_perplexity) == (90.0, 94.0)
    assert loaded.corpus_sha256 == "ab" * 32
    best = make_decoder(1)
    assert all(np.array_equal(loaded.decoder.weights[name], best.weights[name]) for name in best.weights)
    expected, actual = (model.advance(model.start(), EOS_ID)[0] for model in (best, loaded.decoder))
    assert np.array_equal(expected, actual)


def test_a_loaded_run_uses_the_tokenizer_of_its_training(tmp_path: Path) -> None:
    config = CONFIG.with_values(tokenizer="whitespace")
    run = create_run(config, VOCABULARY, "r", tmp_path)
    list(record_events(run, iter(make_events())))
    assert read_config_and_tokenizer(run.path) == (config, WordTokenizer(VOCABULARY.tokens, "whitespace"))
    assert load_model(run.path).decoder.tokenizer.name == "whitespace"


def test_events_pass_through_and_checkpoints_follow_the_best_evaluations(tmp_path: Path) -> None:
    events = make_events()
    run = create_run(CONFIG, VOCABULARY, "r", tmp_path)
    recorded = list(record_events(run, iter(events)))
    assert [event for event in recorded if not isinstance(event, Checkpointed)] == events
    checkpoints = [(recorded[i - 1], event) for i, event in enumerate(recorded) if isinstance(event, Checkpointed)]
    assert [(before, event.step) for before, event in checkpoints] == [(events[2], 0), (events[6], 9)]


def test_the_weights_are_complete_at_every_event_after_the_first_evaluation(tmp_path: Path) -> None:
    run = create_run(CONFIG, VOCABULARY, "r", tmp_path)
    best: NumpyLSTM | None = None
    for event in record_events(run, iter(make_events())):
        if isinstance(event, Evaluated) and event.is_best:
            assert isinstance(event.model, NumpyLSTM)
            best = event.model
        if best is not None:
            weights = load_file(run.path / MODEL_FILE)
            assert all(np.array_equal(weights[name], best.weights[name]) for name in best.weights)


def test_every_event_is_recorded_as_a_row(tmp_path: Path) -> None:
    path = record_run(tmp_path, "r", make_events())
    metrics, samples = read_strict_rows(path / METRICS_FILE), read_strict_rows(path / SAMPLES_FILE)
    kinds = [row["event"] for row in metrics]
    start = ["preparing", "started", "evaluated", "checkpointed"]
    assert kinds == [*start, "step", "step", "evaluated", "checkpointed", "evaluated", "finished"]
    assert [row["text"] for row in samples] == ['here "é"', "here"]
    read = [event_from_dict(row) for row in metrics if row["event"] != "checkpointed"]
    expected = [event for event in make_events() if not isinstance(event, Sampled)]
    assert [event for event in read if not isinstance(event, Step)] == [e for e in expected if not isinstance(e, Step)]
    assert [event_from_dict(row) for row in samples] == [e for e in make_events() if isinstance(e, Sampled)]


def test_numbers_that_are_not_finite_are_recorded_as_null(tmp_path: Path) -> None:
    path = record_run(tmp_path, "r", make_events("stopped"))
    metrics = read_strict_rows(path / METRICS_FILE)
    step = next(row for row in metrics if row["event"] == "step")
    assert step["gradient_norm"] is None
    assert step["eta_seconds"] is None
    assert metrics[-1]["test_perplexity"] is None
    assert summarize_run(path).test_perplexity is None


def test_a_row_is_written_before_its_event_is_yielded(tmp_path: Path) -> None:
    """A viewer in another terminal sees everything that the screen shows."""
    run = create_run(CONFIG, VOCABULARY, "r", tmp_path)
    seen = 0
    for event in record_events(run, iter(make_events())):
        seen += not isinstance(event, Sampled)
        with (run.path / METRICS_FILE).open() as file:
            written = len(file.readlines())
        assert seen <= written <= seen + 1  # the row of a checkpoint may be written already


def test_a_torn_last_line_is_ignored_and_damaged_lines_are_skipped(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(
        b'{"event": "a"}\nnot json\n[1, 2]\n{"event": 3}\n{"step": 1}\n\xff\xfe\n{"event": "b"}\n{"event": "c"'
    )
    assert [row["event"] for row in read_rows(path)] == ["a", "b"]
    path.write_bytes(path.read_bytes() + b"}")  # complete JSON, but without a newline
    assert [row["event"] for row in read_rows(path)] == ["a", "b"]
    path.write_bytes(path.read_bytes() + b"\n")
    assert [row["event"] for row in read_rows(path)] == ["a", "b", "c"]
    assert list(read_rows(tmp_path / "none")) == []


def test_deeply_nested_rows_are_skipped(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text("[" * 200_000 + "\n" + '{"event": "a"}\n')
    assert [row["event"] for row in read_rows(path)] == ["a"]


def test_write_atomically_leaves_the_old_or_the_new_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    files.write_atomically(path, b"old")
    files.write_atomically(path, b"new")
    assert path.read_bytes() == b"new"

    def fail(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(RunError, match="No space left"):
        files.write_atomically(path, b"newest")
    assert path.read_bytes() == b"new"
    assert [item.name for item in tmp_path.iterdir()] == ["file"]  # no temporary file is left
