"""A run as it is written: its model and its rows, whole at every event, and what reads a row back."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from engine.data.vocabulary import EOS_ID
from engine.errors import RunError
from engine.events import Checkpointed, Evaluated, Sampled, Step, from_record
from engine.models.numpy_lstm import Decoder
from engine.runs import store, writer
from engine.runs.metrics import read_rows
from engine.storage import files
from tests.support.runs import CONFIG, VOCABULARY, decoder, rows, training, write


def test_round_trip(tmp_path: Path) -> None:
    path = write(tmp_path / "deep" / "runs", "first", training())
    loaded = store.load(path)
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
    run = writer.create(config, VOCABULARY, "r", tmp_path)
    list(writer.record(run, iter(training())))
    assert store.read_start(run.path) == (config, replace(VOCABULARY, tokenizer="spaces"))
    assert store.load(run.path).decoder.vocabulary.tokenizer == "spaces"


def test_events_pass_through_and_checkpoints_follow_the_best(tmp_path: Path) -> None:
    events = training()
    run = writer.create(CONFIG, VOCABULARY, "r", tmp_path)
    found = list(writer.record(run, iter(events)))
    assert [event for event in found if not isinstance(event, Checkpointed)] == events
    checkpoints = [(found[i - 1], event) for i, event in enumerate(found) if isinstance(event, Checkpointed)]
    assert [(before, event.step) for before, event in checkpoints] == [(events[2], 0), (events[6], 9)]


def test_the_model_file_is_whole_at_every_event_after_the_first_evaluation(tmp_path: Path) -> None:
    run = writer.create(CONFIG, VOCABULARY, "r", tmp_path)
    best: Decoder | None = None
    for event in writer.record(run, iter(training())):
        if isinstance(event, Evaluated) and event.best:
            assert isinstance(event.model, Decoder)
            best = event.model
        if best is not None:
            found = load_file(run.path / store.MODEL)
            assert all(np.array_equal(found[name], best.weights[name]) for name in best.weights)


def test_every_event_has_its_row(tmp_path: Path) -> None:
    path = write(tmp_path, "r", training())
    metrics, samples = rows(path / store.METRICS), rows(path / store.SAMPLES)
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
    metrics = rows(path / store.METRICS)
    step = next(row for row in metrics if row["event"] == "step")
    assert step["gradient_norm"] is None
    assert step["eta_seconds"] is None
    assert metrics[-1]["test_perplexity"] is None
    assert store.summarize(path).test_perplexity is None


def test_rows_are_there_as_soon_as_the_event_is(tmp_path: Path) -> None:
    """A viewer in another terminal sees what the screen has seen."""
    run = writer.create(CONFIG, VOCABULARY, "r", tmp_path)
    seen = 0
    for event in writer.record(run, iter(training())):
        seen += not isinstance(event, Sampled)
        with (run.path / store.METRICS).open() as file:
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
