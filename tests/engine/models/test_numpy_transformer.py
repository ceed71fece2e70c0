"""The numpy Transformer against the Llama of transformers and a plain reference with the same weights."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.data.tokenizers.base import EOS_ID
from engine.errors import ConfigError, InvalidInputError, RunError
from engine.models.numpy_transformer import MAX_TRANSFORMER_WEIGHT, NumpyTransformer
from engine.models.transformer_layout import RMS_NORM_EPS, ROPE_BASE, inner_size
from engine.storage.quantization import Int8Rows, quantize_rows
from tests.support.models import random_ids
from tests.support.numpy_transformer import (
    CONFIGS,
    VOCABULARY,
    VOCABULARY_SIZE,
    make_config,
    make_model,
    random_weights,
    token_by_token,
)
from tests.support.transformer_reference import reference_layers, reference_log_probs


def test_log_probs_match_the_llama_of_transformers():
    transformers = pytest.importorskip("transformers")
    model = make_model()
    llama = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=VOCABULARY_SIZE,
            hidden_size=model.config.embedding_size,
            intermediate_size=inner_size(model.config),
            num_hidden_layers=model.config.num_layers,
            num_attention_heads=model.config.num_heads,
            rms_norm_eps=RMS_NORM_EPS,
            rope_parameters={"rope_type": "default", "rope_theta": ROPE_BASE},
            tie_word_embeddings=True,
        )
    )
    missing, unexpected = llama.load_state_dict(
        {name: torch.from_numpy(weight) for name, weight in model.weights.items()}, strict=False
    )
    assert set(missing) <= {"lm_head.weight"}
    assert not unexpected
    llama.tie_weights()
    tokens = [EOS_ID, *random_ids(199, VOCABULARY_SIZE).tolist()]
    with torch.no_grad():
        expected = torch.log_softmax(llama(torch.tensor([tokens])).logits[0], dim=-1).numpy()
    log_probs, _ = token_by_token(model, tokens)
    assert log_probs.dtype == np.float32
    assert log_probs == pytest.approx(expected, abs=1e-4)
    assert model.predict_tokens(model.start(), tokens)[0] == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("name", CONFIGS)
def test_log_probs_attention_and_layers_match_the_definition(name):
    model, ids = make_model(name), random_ids(20, VOCABULARY_SIZE)
    tokens = np.append(np.int32(EOS_ID), ids)
    outputs, attention = reference_layers(model, tokens)
    expected = reference_log_probs(model, outputs[-1])
    log_probs, _ = token_by_token(model, tokens)
    assert log_probs == pytest.approx(expected, abs=1e-4)
    assert np.exp(log_probs.astype(np.float64)).sum(axis=1) == pytest.approx(1, abs=1e-5)
    record = model.record_attention(ids)
    assert record.weights == pytest.approx(attention, abs=1e-5)
    assert record.layer_outputs == pytest.approx(outputs, abs=1e-4)
    for layer_outputs, exact in zip(record.layer_outputs, outputs, strict=True):
        lens = model.layer_log_probs(layer_outputs)
        assert lens == pytest.approx(reference_log_probs(model, exact), abs=2e-4)


@pytest.mark.parametrize("context_size", [2, 3, 8])
def test_a_full_window_starts_again_with_its_last_half(context_size):
    model, tokens = make_model(context_size=context_size), [EOS_ID, *random_ids(39, VOCABULARY_SIZE).tolist()]
    log_probs, state = token_by_token(model, tokens)
    window = []
    for row, token in zip(log_probs, tokens, strict=True):
        if len(window) == context_size:
            window = window[-(context_size // 2) :]
        window.append(token)
        outputs, _ = reference_layers(model, np.array(window))
        assert row == pytest.approx(reference_log_probs(model, outputs[-1, -1:])[0], abs=1e-4)
    assert model.num_positions(state) == len(window)
    assert model.has_slid(state)
    assert not model.has_slid(token_by_token(model, tokens[:context_size])[1])


@pytest.mark.parametrize(("context_size", "length"), [(2, 17), (16, 0), (16, 16), (16, 700), (300, 700), (600, 700)])
def test_scores_of_a_text_match_token_by_token(context_size, length):
    model, ids = make_model(context_size=context_size), random_ids(length, VOCABULARY_SIZE)
    rows, _ = token_by_token(model, [EOS_ID, *ids])
    expected = rows[np.arange(length), ids]
    output = model.forward_sequence(ids)
    assert output.log_probs == pytest.approx(expected, abs=1e-4)
    assert output.hidden_states.shape == (length, model.config.embedding_size)
    assert model.score_sequence(ids) == pytest.approx(expected, abs=1e-4)
    for row, predicted in zip(model.iter_log_probs(ids), rows, strict=False):
        assert row == pytest.approx(predicted, abs=1e-4)


BRANCHING = make_model(context_size=90)


@settings(max_examples=20, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 1000), st.lists(st.integers(0, VOCABULARY_SIZE - 1), min_size=1, max_size=45)),
        min_size=1,
        max_size=8,
    ),
    st.booleans(),
)
def test_random_branches_equal_texts_read_from_the_start(branches, read_together):
    texts = [([], BRANCHING.start())]
    for choice, tokens in branches:
        history, state = texts[choice % len(texts)]
        if read_together:
            log_probs, state = BRANCHING.advance_tokens(state, tokens)
            texts.append((history + tokens, state))
        else:
            for token in tokens:
                log_probs, state = BRANCHING.advance(state, token)
                history = [*history, token]
                texts.append((history, state))
        expected, _ = BRANCHING.advance_tokens(BRANCHING.start(), texts[-1][0])
        assert log_probs == pytest.approx(expected, abs=1e-4)
    for history, state in texts[1:]:
        again, _ = BRANCHING.advance(state, 2)
        assert again == pytest.approx(BRANCHING.advance_tokens(BRANCHING.start(), [*history, 2])[0], abs=1e-4)


def test_threads_can_continue_the_same_states():
    model, tokens = make_model(context_size=64), random_ids(90, VOCABULARY_SIZE).tolist()
    states = [model.start()]
    for token in tokens[:40]:
        states.append(model.advance(states[-1], token)[1])

    def continuation(number):
        return [(token + number) % VOCABULARY_SIZE for token in tokens[:30]]

    def read(number):
        state = states[4 * number]
        for token in continuation(number):
            log_probs, state = model.advance(state, token)
        return log_probs

    with ThreadPoolExecutor(6) as pool:
        for number, row in zip(range(10), pool.map(read, range(10)), strict=True):
            expected, _ = token_by_token(model, tokens[: 4 * number] + continuation(number))
            assert row == pytest.approx(expected[-1], abs=1e-4)


def test_a_text_longer_than_the_context_cannot_be_recorded():
    model = make_model(context_size=8)
    assert model.record_attention(random_ids(7, VOCABULARY_SIZE)).weights.shape == (2, 3, 8, 8)
    with pytest.raises(InvalidInputError, match=r"8 tokens .* context of 8"):
        model.record_attention(random_ids(8, VOCABULARY_SIZE))


@pytest.mark.parametrize("is_stored", [False, True])
def test_8_bits_are_close_to_single_precision(is_stored):
    config = make_config(embedding_size=48, num_heads=4)
    weights = random_weights(config, scale=0.1)
    exact = NumpyTransformer(config, VOCABULARY, weights)
    tensors = {
        name: quantize_rows(value) if is_stored and value.ndim == 2 else value for name, value in weights.items()
    }
    int8 = NumpyTransformer(config, VOCABULARY, tensors, int8=not is_stored)
    assert int8.has_int8_weights == is_stored
    assert int8.int8 != is_stored
    ids = random_ids(100, VOCABULARY_SIZE)
    difference = int8.score_sequence(ids) - exact.score_sequence(ids)
    assert 0 < np.abs(difference).max() < 0.1
    assert token_by_token(int8, ids)[0] == pytest.approx(int8.predict_tokens(int8.start(), ids.tolist())[0], abs=0.02)
    for name, tensor in int8.tensors.items():
        expected = tensors[name]
        if isinstance(expected, Int8Rows):
            assert np.array_equal(tensor.values, expected.values)
            assert np.array_equal(tensor.scales, expected.scales)
        else:
            assert np.array_equal(tensor, expected)


def test_damaged_missing_and_unknown_tensors_are_refused():
    config, weights = make_config(), random_weights(make_config())
    norm = weights["model.norm.weight"]
    for name in ("model.norm.weight", "model.layers.1.mlp.up_proj.weight"):
        for value in (np.nan, -np.inf, 2 * MAX_TRANSFORMER_WEIGHT):
            damaged = weights[name].copy()
            damaged.flat[3] = value
            with pytest.raises(RunError, match=f"{name} .*the run is damaged"):
                NumpyTransformer(config, VOCABULARY, weights | {name: damaged})
    with pytest.raises(RunError, match=r"lm_head\.weight"):
        NumpyTransformer(config, VOCABULARY, weights | {"lm_head.weight": norm})
    del weights["model.norm.weight"]
    with pytest.raises(RunError, match=r"lacks model\.norm\.weight"):
        NumpyTransformer(config, VOCABULARY, weights)
    with pytest.raises(ConfigError, match="num_heads=5"):
        NumpyTransformer(make_config(num_heads=5), VOCABULARY, weights)


@pytest.mark.filterwarnings("ignore:overflow")
@pytest.mark.parametrize("name", CONFIGS)
def test_the_largest_weights_that_are_accepted_give_finite_log_probs(name):
    config, rng = make_config(name, context_size=8), np.random.default_rng(0)
    weights = {
        name: np.copysign(np.float32(MAX_TRANSFORMER_WEIGHT), rng.standard_normal(weight.shape, np.float32))
        for name, weight in random_weights(config).items()
    }
    model = NumpyTransformer(config, VOCABULARY, weights)
    ids = random_ids(20, VOCABULARY_SIZE)
    assert np.isfinite(token_by_token(model, ids)[0]).all()
    assert np.isfinite(model.score_sequence(ids)).all()
