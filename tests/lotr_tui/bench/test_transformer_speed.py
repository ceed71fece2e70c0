"""The baseline of the Transformer's generation computes the same model, and the summary relates the right numbers."""

from typing import Any

import pytest

from lotr_tui.bench.playing import transformer_speed
from lotr_tui.bench.playing.transformer_speed import measure_transformer_generation, summarize_transformer_speeds
from tests.support.models import make_tokenizer
from tests.support.numpy_transformer import random_transformer

SPEEDS = {
    name: value
    for precision, factor in (("fp32", 1), ("int8", 2))
    for name, value in {
        precision: 300.0 * factor,
        f"{precision}_sequential": 280.0 * factor,
        f"{precision}_batched": 1400.0 * factor,
        f"{precision}_branch": 2.0 / factor,
    }.items()
}


def test_the_baseline_is_the_same_model() -> None:
    torch = pytest.importorskip("torch")
    from lotr_tui.bench.playing.torch_decoder import TorchDecoder

    model = random_transformer(make_tokenizer(13))
    decoder = TorchDecoder(model.config, 13)
    decoder.load_state_dict(
        {name.removeprefix("model."): torch.from_numpy(value) for name, value in model.weights.items()}
    )
    state, caches = model.start(), None
    with torch.no_grad():
        for tokens in ([1, 5, 7], [3], [12]):
            log_probs, state = model.advance_tokens(state, tokens)
            logits, caches = decoder(torch.tensor([tokens]), caches)
            assert log_probs == pytest.approx(torch.log_softmax(logits[0], dim=-1).numpy(), abs=1e-4)
        assert decoder.generate(4) == 4


def test_ratios_are_relative_to_the_baseline_of_the_same_run(monkeypatch: pytest.MonkeyPatch) -> None:
    baselines = iter([150.0, 75.0, 150.0])

    def run_module(module: str, env: Any) -> Any:
        return next(baselines) if module.endswith("torch_decoder") else SPEEDS

    monkeypatch.setattr(transformer_speed, "run_module", run_module)
    measurements = {measurement.name: measurement for measurement in measure_transformer_generation(3)}
    name = "Transformer, 6 layers of 320"
    assert measurements[f"{name}, fp32, ratio to the baseline"].runs == (2, 4, 2)
    assert measurements[f"{name}, int8, ratio to the baseline"].value == 4
    assert measurements[f"{name}, fp32, batch of 16 texts, ratio to one after the other"].value == 5
    assert measurements[f"{name}, int8, branch 200 tokens back"].value == 1


@pytest.mark.parametrize(
    ("baseline", "is_within_limits"), [(60.0, (True, True)), (61.0, (False, True)), (121.0, (False, False))]
)
def test_each_precision_has_to_be_five_times_as_fast_as_the_baseline(
    baseline: float, is_within_limits: tuple[bool, bool]
) -> None:
    measurements = summarize_transformer_speeds([SPEEDS | {"baseline": baseline}])
    ratios = [each for each in measurements if each.name.endswith("ratio to the baseline")]
    assert tuple(ratio.is_within_limits for ratio in ratios) == is_within_limits


def test_a_slow_branch_is_over_its_limit() -> None:
    measurements = summarize_transformer_speeds([SPEEDS | {"baseline": 50.0, "int8_branch": 51.0}])
    slow = [measurement.name for measurement in measurements if measurement.is_within_limits is False]
    assert slow == ["Transformer, 6 layers of 320, int8, branch 200 tokens back"]
