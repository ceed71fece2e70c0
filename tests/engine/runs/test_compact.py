"""Compact copies of runs, and the reading of weights in half precision and in 8 bits from untrusted files."""

import math
import os
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from engine.errors import RunError
from engine.events import Checkpointed, Evaluated, Resume, Sampled, Step
from engine.models.base import score_sequence
from engine.runs import export
from engine.runs.directory import METRICS_FILE, MODEL_FILE, SAMPLES_FILE, read_config
from engine.runs.export import write_compact_copy
from engine.runs.loading import load_model
from engine.runs.locked_run import create_run, record_events
from engine.runs.metrics import read_events
from engine.runs.summary import summarize_run
from tests.support.files import write_run
from tests.support.runs import append_events, make_events, make_step, record_run
from tests.support.training import make_config

pytest.importorskip("numkong")

MATRICES = {"embedding.weight", "layers.0.weight_ih_l0", "layers.0.weight_hh_l0"}
"""Matrices of `random_run`, without the small ones of its punctuation softmax."""
PRECISIONS = ("fp16", "int8")


@pytest.fixture
def trained_run(tmp_path, dataset, default_events):
    run = create_run(make_config(), dataset.tokenizer, "trained", tmp_path)
    list(record_events(run, iter(default_events)))
    return run.path


@pytest.fixture
def random_run(tmp_path):
    return write_run(tmp_path / "random")


def test_the_perplexity_of_a_trained_model_changes_by_less_than_half_a_percent(trained_run, dataset):
    for precision in PRECISIONS:
        write_compact_copy(trained_run, trained_run.parent / precision, precision)
    models = [load_model(path).decoder for path in (trained_run, *map(trained_run.with_name, PRECISIONS))]
    exact, *rounded = (math.exp(-score_sequence(model, dataset.valid).mean()) for model in models)
    assert exact < 0.2 * len(dataset.tokenizer)  # far better than a model of random weights
    assert rounded == pytest.approx([exact, exact], rel=0.005)
    assert exact not in rounded


def test_matrices_are_stored_in_half_precision_or_in_8_bits_with_a_scale_per_row(random_run):
    exact = load_model(random_run).decoder.weights
    for precision in PRECISIONS:
        write_compact_copy(random_run, random_run.with_name(precision), precision)
    half, bytes8 = (load_file(random_run.with_name(precision) / MODEL_FILE) for precision in PRECISIONS)
    loaded = load_model(random_run.with_name("fp16")).decoder.weights
    assert bytes8.keys() == exact.keys() | {f"{name}.scale" for name in MATRICES}
    for name, weight in exact.items():
        expected = weight.astype(np.float16) if name in MATRICES else weight
        assert half[name].dtype == expected.dtype
        assert np.array_equal(half[name], expected)
        assert loaded[name].dtype == np.float32
        if name not in MATRICES:
            assert np.array_equal(bytes8[name], weight)
        else:
            restored = bytes8[name].astype(np.float64) * bytes8[f"{name}.scale"][:, None]
            half_steps = np.abs(weight).max(axis=1, keepdims=True) / 254
            assert (np.abs(restored - weight) <= 1.001 * half_steps).all()


def test_a_weight_too_large_for_half_precision_is_refused(random_run):
    tensors = load_file(random_run / MODEL_FILE)
    tensors["embedding.weight"][3, 2] = -70_000
    save_file(tensors, random_run / MODEL_FILE)
    with pytest.raises(RunError, match=r"embedding\.weight holds 70000, too large for half precision"):
        write_compact_copy(random_run, random_run.parent / "small", "fp16")
    assert not (random_run.parent / "small").exists()
    write_compact_copy(random_run, random_run.parent / "small", "int8")
    assert load_model(random_run.parent / "small").decoder.weights["embedding.weight"][3, 2] == -70_000


def test_the_copy_is_described_like_the_run(tmp_path):
    path = record_run(tmp_path, "r", make_events())
    os.utime(path / "config.json", (1_700_000_000, 1_700_000_000))
    sizes = write_compact_copy(path, tmp_path / "small", "int8")
    assert read_config(tmp_path / "small") == read_config(path)
    before, after = summarize_run(path), summarize_run(tmp_path / "small")
    for name in ("state", "preset", "epochs", "valid_perplexity", "test_perplexity", "started_at"):
        assert getattr(after, name) == getattr(before, name), name
    loaded = load_model(tmp_path / "small")
    assert (loaded.started.kneser_ney_perplexity, loaded.started.corpus_sha256) == (94.0, "ab" * 32)
    assert sizes == (
        (path / MODEL_FILE).stat().st_size,
        (tmp_path / "small" / MODEL_FILE).stat().st_size,
        after.size_bytes,
    )
    (path / "resume.safetensors").write_bytes(b"x")  # only files that are read are copied
    write_compact_copy(path, tmp_path / "second", "fp16")
    assert {file.name for file in (tmp_path / "second").iterdir()} == {
        "config.json", "vocabulary.json", "metrics.jsonl", "samples.jsonl", "model.safetensors",
    }  # fmt: skip


def test_steps_samples_and_checkpoints_are_thinned_and_all_evaluations_kept(random_run, monkeypatch):
    monkeypatch.setattr(export, "MAX_EVENTS", {Step: 5, Sampled: 2})
    for name in (METRICS_FILE, SAMPLES_FILE):
        (random_run / name).unlink(missing_ok=True)
    started = make_events()[1]
    evaluated = [Evaluated(step, 0.1, 100.0 - step, False, 1.0) for step in range(10)]
    saved = [Checkpointed(step, MODEL_FILE) for step in range(10)]
    samples = [Sampled(step, 0.1, "a", "é", 1, 0.7) for step in range(10)]
    append_events(random_run, [started, *map(make_step, range(100)), *evaluated, *saved, *samples, Resume(9)])
    small = random_run.with_name("small")
    write_compact_copy(random_run, small, "int8")
    first, *kept = read_events(small / METRICS_FILE)
    assert first == started
    assert [event.step for event in kept[:5]] == [0, 25, 50, 74, 99]
    assert kept[5:] == [*evaluated, saved[-1], Resume(9)]
    assert list(read_events(small / SAMPLES_FILE)) == [samples[0], samples[9], Resume(9)]


@pytest.mark.parametrize("kind", ["folder", "file", "dangling link"])
def test_nothing_is_overwritten(random_run, kind):
    target = random_run.with_name("small")
    if kind == "folder":
        target.mkdir()
    elif kind == "file":
        target.write_text("precious")
    else:
        target.symlink_to(random_run.parent / "nowhere")
    with pytest.raises(RunError, match="small exists, and nothing is overwritten; choose a new folder"):
        write_compact_copy(random_run, target, "int8")
    assert {path.name for path in random_run.parent.iterdir()} == {"random", "small"}
    assert kind != "file" or target.read_text() == "precious"


def test_a_failed_write_leaves_nothing(random_run, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", fail)
    with pytest.raises(RunError, match=r"cannot write .*small: No space left on device; choose another folder"):
        write_compact_copy(random_run, random_run.parent / "small", "int8")
    assert [path.name for path in random_run.parent.iterdir()] == ["random"]


# Untrusted files
