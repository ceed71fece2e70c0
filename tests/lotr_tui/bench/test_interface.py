"""Files and programs for the measurements of the interface."""

from pathlib import Path

import numpy as np
import pytest

from engine.models.numpy_transformer import NumpyTransformer
from engine.presets import get_preset
from engine.runs.loading import load_model
from lotr_tui.bench.interface import attach, start_up
from lotr_tui.bench.interface.attach import NUM_EVALUATIONS, AttachResult, attach_once, measure_attach, write_long_run
from lotr_tui.bench.interface.slider import write_random_run
from lotr_tui.bench.interface.transcript import write_session
from lotr_tui.bench.measurement import Measurement
from lotr_tui.monitor.training_view import TrainingView
from lotr_tui.session.session_file import load_session


def test_written_session_can_be_loaded(tmp_path: Path) -> None:
    write_session(tmp_path, 7)
    (path,) = tmp_path.iterdir()
    session = load_session(path)
    assert len(session.replies) == 7
    assert len({reply.text for reply in session.replies}) == 7
    assert all(reply.prompt and len(reply.tokens) == 60 for reply in session.replies)


def test_random_run_has_the_default_size_and_can_be_loaded(tmp_path: Path) -> None:
    model = load_model(write_random_run(tmp_path / "random", 700)).decoder
    assert (model.config.hidden_size, len(model.tokenizer)) == (400, 700)
    assert all(word in model.tokenizer for word in ("aaa", "aab", "aac"))
    log_probs, _ = model.advance(model.start(), 2)
    assert np.exp(log_probs).sum() == pytest.approx(1, abs=1e-4)


def test_first_word_of_a_transformer_is_timed(tmp_path: Path) -> None:
    config = get_preset("gpt-tiny").with_values(num_layers=1, embedding_size=16)
    run = write_random_run(tmp_path / "random", 100, config)
    assert isinstance(load_model(run).decoder, NumpyTransformer)
    assert start_up._first_word_seconds("aaa aab", run) > 0


def test_ratio_to_the_import_of_torch_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(start_up, "_first_word_seconds", lambda prompt, run: 0.3)
    monkeypatch.setattr(start_up, "_import_torch_seconds", lambda: 1.2)
    *_, ratio = start_up.measure_transformer_startup(1)
    assert (ratio.value, ratio.upper_limit) == (0.25, 0.333)


def test_long_run_is_a_complete_record(tmp_path: Path) -> None:
    path = tmp_path / "long"
    write_long_run(path, 3 * NUM_EVALUATIONS)
    view = TrainingView.from_run(path)
    assert len(view.steps) == 3 * NUM_EVALUATIONS
    assert len(view.evaluations) == len(view.samples) == NUM_EVALUATIONS == view.epochs
    assert view.finished is not None


def test_attach_is_measured_until_the_whole_curve_is_shown(tmp_path: Path) -> None:
    """Attach to a short run in a terminal."""
    path = tmp_path / "runs" / "long"
    write_long_run(path, 20_000)
    result = attach_once(path)
    assert 0 < result.first_paint <= result.whole_curve
    assert 0 < result.max_event_loop_delay < result.whole_curve
    assert result.peak_megabytes is None or 10 < result.peak_megabytes < 300


def test_longest_event_loop_delay_is_the_maximum_of_all_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    results = [AttachResult(1, 2, 0.03, 100), AttachResult(3, 4, 0.09, 120), AttachResult(5, 6, 0.04, 110)]
    monkeypatch.setattr(attach, "attach_once", lambda _: results.pop())
    measurements = [measurement for measurement in measure_attach(3, 1000) if isinstance(measurement, Measurement)]
    assert [measurement.value for measurement in measurements] == pytest.approx([3, 4, 90, 110])
    assert [measurement.upper_limit for measurement in measurements] == [0.8, 5, 100, 300]
