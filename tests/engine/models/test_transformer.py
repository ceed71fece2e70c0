"""The Transformer in numpy and in PyTorch, and its adapters, against transformers, PEFT and a plain reference."""

import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch

from engine.config import ModelConfig
from engine.data.tokenizers import EOS_ID
from engine.errors import ConfigError, InvalidInputError, RunError
from engine.models.adapters import Adapter, adapter_shapes, lora_targets
from engine.models.base import forward_sequence, score_sequence
from engine.models.numpy_transformer import MAX_TRANSFORMER_WEIGHT, NumpyTransformer
from engine.models.torch_ops import causal_attention, layer_groups, linear_cross_entropy
from engine.models.transformer import TransformerModel
from engine.models.weights import check_transformer_config, inner_size
from engine.runtime.distributed import SINGLE_PROCESS
from engine.storage.tensor_file import quantize_rows, to_float32
from tests.support.models import random_ids, random_weights
from tests.support.networks import (
    CONFIGS,
    TRANSFORMER,
    VOCABULARY,
    VOCABULARY_SIZE,
    make_transformer,
    make_window,
    random_transformer,
    seeded,
    token_by_token,
    transformer_config,
)
from tests.support.references import reference_layers, reference_log_probs, reference_logits
from tests.support.training import NO_DROPOUT

pytestmark = pytest.mark.usefixtures("one_thread")


WIDE_HEADS = {"embedding_size": 24, "num_heads": 6, "num_kv_heads": 2, "head_size": 8, "tie_weights": False}
LLAMA3 = {"rope_scaling": "llama3", "rope_factor": 8.0, "rope_original_context": 64, "rope_base": 500.0}


@pytest.mark.parametrize(
    ("architecture", "values"),
    [
        ("Llama", {}),
        ("Llama", WIDE_HEADS | LLAMA3),
        ("Llama", WIDE_HEADS | {"rope_scaling": "linear", "rope_factor": 4.0, "qkv_bias": True}),
        ("Mistral", WIDE_HEADS | {"norm_eps": 1e-2}),
        ("Qwen2", {"num_heads": 4, "num_kv_heads": 2, "qkv_bias": True, "rope_base": 1e6}),
    ],
)
def test_log_probs_match_the_models_of_transformers(architecture, values):
    transformers = pytest.importorskip("transformers")
    model = random_transformer(**values)
    config = model.config
    rope_type = "default" if config.rope_scaling == "none" else config.rope_scaling
    rope = {"rope_type": rope_type, "rope_theta": config.rope_base, "factor": config.rope_factor}
    rope |= {"original_max_position_embeddings": config.rope_original_context}
    settings = {
        "vocab_size": VOCABULARY_SIZE, "hidden_size": config.embedding_size, "intermediate_size": inner_size(config),
        "num_hidden_layers": config.num_layers, "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads or config.num_heads, "rms_norm_eps": config.norm_eps,
        "rope_parameters": rope | {"low_freq_factor": 1.0, "high_freq_factor": 4.0},
        "tie_word_embeddings": config.tie_weights,
    }  # fmt: skip
    settings |= {"head_dim": config.head_size} if config.head_size else {}
    settings |= {"attention_bias": config.qkv_bias} if architecture == "Llama" else {}
    settings |= {"sliding_window": None} if architecture == "Mistral" else {}
    reference = getattr(transformers, f"{architecture}ForCausalLM")(
        getattr(transformers, f"{architecture}Config")(**settings)
    )
    weights = {name: torch.from_numpy(weight) for name, weight in model.weights.items()}
    missing, unexpected = reference.load_state_dict(weights, strict=False)
    for name in missing:  # a bias of the output of attention, which Qwen2 does not have, and a tied output layer
        assert name.endswith(("o_proj.bias", "lm_head.weight")), name
        if name.endswith("bias"):
            reference.get_parameter(name).data.zero_()
    assert not unexpected
    reference.tie_weights()
    tokens = [EOS_ID, *random_ids(199, VOCABULARY_SIZE).tolist()]
    with torch.no_grad():
        expected = torch.log_softmax(reference(torch.tensor([tokens])).logits[0], dim=-1).numpy()
    log_probs, _ = token_by_token(model, tokens)
    assert log_probs.dtype == np.float32
    assert log_probs == pytest.approx(expected, abs=1e-4)
    assert model.predict_tokens(model.start(), tokens)[0] == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("name", CONFIGS)
def test_log_probs_attention_and_layers_match_the_definition(name):
    model, ids = random_transformer(name=name), random_ids(20, VOCABULARY_SIZE)
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
    model, tokens = random_transformer(context_size=context_size), [EOS_ID, *random_ids(39, VOCABULARY_SIZE).tolist()]
    log_probs, state = token_by_token(model, tokens)
    window = []
    for row, token in zip(log_probs, tokens, strict=True):
        if len(window) == context_size:
            window = window[-(context_size // 2) :]
        window.append(token)
        outputs, _ = reference_layers(model, np.array(window))
        assert row == pytest.approx(reference_log_probs(model, outputs[-1, -1:])[0], abs=1e-4)
    assert state.num_positions == len(window)
    assert model.has_slid(state)
    assert not model.has_slid(token_by_token(model, tokens[:context_size])[1])


def test_texts_that_share_rows_in_any_order_advance_as_alone():
    model = random_transformer(name="grouped heads", context_size=200)
    roots = [token_by_token(model, random_ids(length, VOCABULARY_SIZE, length))[1] for length in (60, 50)]
    states = [model.advance(roots[root], token)[1] for token, root in enumerate((0, 1, 0, 0, 1), start=2)]
    tokens = [8, 9, 10, 11, 12]
    for state, token, (row, after) in zip(states, tokens, model.advance_batch(states, tokens), strict=True):
        expected, expected_state = model.advance(state, token)
        assert row == pytest.approx(expected, abs=1e-4)
        assert model.advance(after, 3)[0] == pytest.approx(model.advance(expected_state, 3)[0], abs=1e-4)


@pytest.mark.parametrize("has_adapter", [False, True])
def test_in_8_bits_a_text_depends_neither_on_other_texts_nor_on_branches(has_adapter):
    config = make_config(**LLAMA, embedding_size=48, num_heads=4, context_size=300)
    adapters = [Adapter("one", config, random_adapter(config))] * has_adapter
    model = NumpyTransformer(config, VOCABULARY, random_weights(config, VOCABULARY), int8=True, adapters=adapters)
    rng = np.random.default_rng(0)
    texts = [rng.integers(VOCABULARY_SIZE, size=length).tolist() for length in (1, 126, 130, 297)]
    texts += [texts[1], texts[1], texts[2]]
    kept = {id(text): model.predict_tokens(model.start(), text)[1] for text in texts}
    batch = [kept[id(text)] for text in texts]
    alone = [model.predict_tokens(model.start(), text)[1] for text in texts]
    for _ in range(6):
        tokens = rng.integers(VOCABULARY_SIZE, size=len(texts)).tolist()
        together = model.advance_batch(batch, tokens)
        batch = [state for _, state in together]
        for index, token in enumerate(tokens):
            expected, alone[index] = model.advance(alone[index], token)
            assert np.array_equal(together[index][0], expected)
    for state, own in zip(batch, alone, strict=True):
        ids = rng.integers(VOCABULARY_SIZE, size=5).tolist()
        assert np.array_equal(model.predict_tokens(state, ids)[0], model.predict_tokens(own, ids)[0])


def test_threads_can_continue_the_same_states():
    model, tokens = random_transformer(context_size=64), random_ids(40, VOCABULARY_SIZE).tolist()
    _, state = token_by_token(model, tokens)
    texts = [random_ids(30, VOCABULARY_SIZE, seed).tolist() for seed in range(10)]

    def read(text):
        after = state
        for token in text:
            log_probs, after = model.advance(after, token)
        return log_probs

    with ThreadPoolExecutor(6) as pool:
        for text, row in zip(texts, pool.map(read, texts), strict=True):
            assert row == pytest.approx(token_by_token(model, tokens + text)[0][-1], abs=1e-4)


def test_a_text_longer_than_the_context_cannot_be_recorded():
    model = random_transformer(context_size=8)
    assert model.record_attention(random_ids(7, VOCABULARY_SIZE)).weights.shape == (2, 3, 8, 8)
    with pytest.raises(InvalidInputError, match=r"8 tokens .* context of 8"):
        model.record_attention(random_ids(8, VOCABULARY_SIZE))


@pytest.mark.parametrize("large", [1, 1000])
@pytest.mark.parametrize("is_stored", [False, True])
def test_8_bits_are_close_to_single_precision_even_if_a_unit_is_large(is_stored, large):
    config = transformer_config(embedding_size=48, num_heads=4, num_kv_heads=2, qkv_bias=True, tie_weights=False)
    weights = random_weights(config, VOCABULARY, scale=0.1)
    for name, weight in weights.items():
        if name.endswith("norm.weight"):
            weight[7] *= large  # and no product uses the unit, so that the rounding of the others is compared
        elif "embed" not in name and weight.shape[1:] == (48,) and large > 1:
            weight[:, 7] = 0
    exact = NumpyTransformer(config, VOCABULARY, weights)
    tensors = {name: quantize_rows(each) if is_stored and each.ndim == 2 else each for name, each in weights.items()}
    int8 = NumpyTransformer(config, VOCABULARY, tensors, int8=not is_stored)
    assert int8.has_int8_weights
    ids = random_ids(100, VOCABULARY_SIZE)
    difference = score_sequence(int8, ids) - score_sequence(exact, ids)
    assert 0 < np.abs(difference).max() < 0.2
    assert token_by_token(int8, ids)[0] == pytest.approx(int8.predict_tokens(int8.start(), ids.tolist())[0], abs=0.02)


def test_damaged_missing_and_unknown_tensors_are_refused():
    config, weights = transformer_config(), random_weights(transformer_config(), VOCABULARY)
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
    with pytest.raises(RunError, match=r"do not match the configuration \(model\.norm\.weight\)"):
        NumpyTransformer(config, VOCABULARY, weights)
    with pytest.raises(ConfigError, match="num_heads=5"):
        NumpyTransformer(transformer_config(num_heads=5), VOCABULARY, weights)


@pytest.mark.filterwarnings("ignore:overflow")
@pytest.mark.parametrize("name", CONFIGS)
def test_the_largest_weights_that_are_accepted_give_finite_log_probs(name):
    config, rng = transformer_config(name, context_size=8), np.random.default_rng(0)
    weights = {
        name: np.copysign(np.float32(MAX_TRANSFORMER_WEIGHT), rng.standard_normal(weight.shape, np.float32))
        for name, weight in random_weights(config, VOCABULARY).items()
    }
    model = NumpyTransformer(config, VOCABULARY, weights)
    ids = random_ids(20, VOCABULARY_SIZE)
    assert np.isfinite(token_by_token(model, ids)[0]).all()
    assert np.isfinite(score_sequence(model, ids)).all()


def with_large_weights(model):
    """Return `model` with weights so large that attention is far from uniform, and with scales other than 1."""
    generator = seeded(7)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.5)
    return model


def test_logits_equal_the_definition_of_each_part():
    model = with_large_weights(make_transformer())
    decoder = model.to_decoder(VOCABULARY)
    ids = make_window(9, 2)
    logits = model(ids, []).logits
    for column in range(2):
        outputs, _ = reference_layers(decoder, ids[:, column].numpy())
        expected = reference_logits(decoder, outputs[-1])
        np.testing.assert_allclose(logits[:, column].detach().numpy(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["input_dropout", "hidden_dropout", "output_dropout", "embedding_dropout"])
@pytest.mark.parametrize("variational", [True, False])
def test_dropout_comes_from_the_generator_alone(name, variational):
    model = make_transformer(**{name: 0.5, "variational_dropout": variational})
    ids = make_window()
    plain = model(ids, []).logits
    first, same, other = (model(ids, [], seeded(seed)).logits for seed in (1, 1, 2))
    assert torch.equal(first, same)
    assert not torch.allclose(first, other)
    assert not torch.allclose(first, plain)


LENGTHS = [(2, 17), (5, 1), (5, 7), (12, 12), (12, 13), (12, 40), (16, 700), (300, 700), (600, 700)]


@pytest.mark.parametrize(("context_size", "length"), LENGTHS)
def test_scores_of_a_text_are_in_torch_and_in_numpy_those_of_token_by_token(context_size, length):
    network = with_large_weights(make_transformer(context_size=context_size))
    model, ids = network.to_decoder(VOCABULARY), random_ids(length, VOCABULARY_SIZE)
    rows, _ = token_by_token(model, [EOS_ID, *ids])
    for each in (network, model):
        output = forward_sequence(each, ids)
        for scores in (output.log_probs, score_sequence(each, ids)):
            np.testing.assert_allclose(scores, rows[np.arange(length), ids], atol=1e-4)
        assert output.hidden_states.shape == (length, 16)
    assert forward_sequence(model, ids[:0]).hidden_states.shape == (0, 0)


def test_logits_of_some_classes_are_those_of_the_vocabulary():
    model = with_large_weights(make_transformer())
    ids, classes = make_window(), torch.tensor([7, 0, 3])
    torch.testing.assert_close(model(ids, [], class_ids=classes).logits, model(ids, []).logits[..., classes])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"num_heads": 3}, "embedding_size=16 cannot be divided into num_heads=3 heads of an even size"),
        ({"num_heads": 16}, "num_heads=16"),
        ({"weight_drop": 0.5}, "a transformer cannot have weight_drop=0.5; use --set weight_drop=0.0"),
        ({"num_heads": 8, "num_kv_heads": 3}, "num_heads=8 query heads cannot be divided among num_kv_heads=3"),
        ({"head_size": 7}, "head_size=7 is odd; use --set head_size=8"),
        ({"punctuation": True}, "punctuation=true"),
    ],
)
def test_settings_that_a_transformer_cannot_have_are_refused(values, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        check_transformer_config(ModelConfig(**(TRANSFORMER | NO_DROPOUT | values)))


def test_layer_groups_go_from_the_output_down():
    groups = layer_groups(make_transformer())
    assert set(groups[0]) == {"model.embed_tokens.weight", "model.norm.weight"}
    assert all(name.startswith("model.layers.1.") for name in groups[1])
    assert all(name.startswith("model.layers.0.") for name in groups[2])
    assert len(groups) == 3


LLAMA = {"num_kv_heads": 1, "rope_base": 1e5, "norm_eps": 1e-6, "head_size": 6, "feed_forward_size": 40}
QWEN = LLAMA | {"qkv_bias": True, "tie_weights": False, "lora_targets": "v_proj, q_proj,down_proj"}


def make_config(**values):
    return transformer_config(lora_rank=3, lora_alpha=12.0, **({"context_size": 64} | NO_DROPOUT | values))


def random_adapter(config, seed=3):
    rng = np.random.default_rng(seed)
    return {name: rng.normal(0, 0.3, shape).astype(np.float32) for name, shape in adapter_shapes(config).items()}


def adapted_network(config, base, adapter):
    network = TransformerModel(config, VOCABULARY_SIZE, seeded(0), base)
    network.load_weights(adapter)
    return network


def peft_model(config, base, adapter):
    """Return the model of transformers with the weights `base` and the adapter in PEFT."""
    transformers, peft = pytest.importorskip("transformers"), pytest.importorskip("peft")
    family = transformers.Qwen2Config if config.qkv_bias else transformers.LlamaConfig
    settings = family(
        vocab_size=VOCABULARY_SIZE, hidden_size=config.embedding_size, intermediate_size=config.feed_forward_size,
        num_hidden_layers=config.num_layers, num_attention_heads=config.num_heads,
        num_key_value_heads=config.num_kv_heads, head_dim=config.head_size, rms_norm_eps=config.norm_eps,
        rope_parameters={"rope_type": "default", "rope_theta": config.rope_base},
        tie_word_embeddings=config.tie_weights,
    )  # fmt: skip
    model = transformers.AutoModelForCausalLM.from_config(settings)
    model.load_state_dict({name: torch.from_numpy(weight) for name, weight in base.items()}, strict=False)
    model.tie_weights()
    options = peft.LoraConfig(r=config.lora_rank, lora_alpha=config.lora_alpha, target_modules=lora_targets(config))
    adapted = peft.get_peft_model(model, options)
    tensors = {f"base_model.model.{name}": torch.from_numpy(weight) for name, weight in adapter.items()}
    assert not peft.set_peft_model_state_dict(adapted, tensors).unexpected_keys
    return adapted.eval()


@pytest.mark.parametrize("values", [LLAMA, QWEN])
def test_logits_loss_and_gradients_are_those_of_peft(values):
    config = make_config(**values)
    base, adapter = random_weights(config, VOCABULARY), random_adapter(config)
    network, reference = adapted_network(config, base, adapter), peft_model(config, base, adapter)
    ids, targets = make_window(20), make_window(20).roll(-1, 0)
    weights = torch.rand(targets.shape, generator=seeded(4)).round()  # some targets do not count
    logits = reference(ids.T).logits.transpose(0, 1)
    torch.testing.assert_close(network(ids, []).logits, logits, rtol=1e-4, atol=1e-4)
    _, vectors = network.read_window(ids, None, SINGLE_PROCESS)
    loss = linear_cross_entropy(vectors, network.output_weight, targets, weights)
    losses = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none")
    expected = (losses * weights.flatten()).mean()
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=0)
    loss.backward()
    expected.backward()
    gradients = {name.split(".default")[0]: each.grad for name, each in reference.named_parameters() if "lora" in name}
    assert len(gradients) == len(adapter)
    for name, parameter in network.named_parameters():
        # The products of several matrices are one here, whose name is a part of the parameter's.
        parts = [part for part in name.split(".") if part not in ("qkv", "output", "gate_up", "down", "weight")]
        expected_gradient = gradients[f"base_model.model.{'.'.join(parts)}"]
        torch.testing.assert_close(parameter.grad, expected_gradient, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("is_int8", [False, True])
def test_adapters_beside_a_base_predict_as_merged_ones_at_any_strength(is_int8):
    config = make_config(**LLAMA, embedding_size=48, num_heads=4)
    base, ids = random_weights(config, VOCABULARY, scale=0.1), make_window(20, 1)[:, 0].tolist()
    base["model.layers.0.mlp.up_proj.weight"] = quantize_rows(base["model.layers.0.mlp.up_proj.weight"])
    other = replace(config, lora_targets="v_proj,up_proj", lora_rank=2)
    adapters = [Adapter("one", config, random_adapter(config)), Adapter("two", other, random_adapter(other, 5))]
    model = NumpyTransformer(config, VOCABULARY, base, int8=is_int8, adapters=adapters)
    assert model.strengths == {"one": 1, "two": 1}
    network = adapted_network(config, base, adapters[0].tensors)
    expected = torch.log_softmax(network(torch.tensor(ids)[:, None], []).logits[:, 0], -1).detach().numpy()
    for strengths in ({"one": 1, "two": 0}, {"one": 0, "two": 0}, {"one": 0.5, "two": 1.5}):
        merged = {name: to_float32(tensor) for name, tensor in base.items()}
        for adapter in adapters:
            scale = strengths[adapter.name] * adapter.config.lora_alpha / adapter.config.lora_rank
            for name in adapter_shapes(adapter.config):
                if "lora_A" in name:
                    first, second = adapter.tensors[name], adapter.tensors[name.replace("lora_A", "lora_B")]
                    merged[name.replace("lora_A.", "")] = merged[name.replace("lora_A.", "")] + scale * second @ first
        if strengths["one"] != 1:
            expected, _ = token_by_token(NumpyTransformer(config, VOCABULARY, merged), ids)
        at = model.with_strengths(strengths)
        batch, _ = at.predict_tokens(at.start(), ids)
        for log_probs in (token_by_token(at, ids)[0], batch):
            np.testing.assert_allclose(log_probs, expected, atol=0.5 if is_int8 else 1e-4)
        for name, weight in at.weights.items():
            np.testing.assert_allclose(weight, merged[name], atol=1e-5)
    assert model.strengths == {"one": 1, "two": 1}
    as_it_came, _ = token_by_token(model.with_strengths({"one": 0, "two": 0}), ids)
    alone, _ = token_by_token(NumpyTransformer(config, VOCABULARY, base, int8=is_int8), ids)
    np.testing.assert_allclose(as_it_came, alone, atol=1e-5)


def test_another_strength_reads_the_last_token_of_a_text_again():
    config = make_config(**LLAMA, embedding_size=48, num_heads=4)
    adapters = [Adapter("one", config, random_adapter(config))]
    model = NumpyTransformer(config, VOCABULARY, random_weights(config, VOCABULARY, scale=0.1), adapters=adapters)
    weak = model.with_strengths({"one": 0.25})
    for count in (1, 2, 40):
        *earlier, last = ids = random_ids(count, VOCABULARY_SIZE, seed=count).tolist()
        before = model.predict_tokens(model.start(), earlier)[1] if earlier else model.start()
        log_probs, state = model.predict_tokens(model.start(), ids)
        np.testing.assert_allclose(model.read_last_again(state)[0], log_probs[-1], atol=1e-5)
        again, new_state = weak.read_last_again(state)
        np.testing.assert_allclose(again, weak.advance(before, last)[0], atol=1e-5)
        assert abs(again - log_probs[-1]).max() > 0.01
        expected = weak.advance(weak.advance(before, last)[1], 5)[0]
        np.testing.assert_allclose(weak.advance(new_state, 5)[0], expected, atol=1e-5)
        np.testing.assert_allclose(model.advance(state, 5)[0], model.predict_tokens(state, [5, 6])[0][0], atol=1e-5)


def test_the_chunked_loss_has_the_gradients_of_a_trained_output_layer(monkeypatch):
    monkeypatch.setattr("engine.models.torch_ops.CROSS_ENTROPY_ROWS", 4)
    vectors = torch.randn(5, 3, 8, generator=seeded(1), requires_grad=True)
    weight = torch.randn(VOCABULARY_SIZE, 8, generator=seeded(2), requires_grad=True)
    targets = make_window(5)
    plain = torch.nn.functional.cross_entropy((vectors @ weight.T).flatten(0, 1), targets.flatten())
    chunked = linear_cross_entropy(vectors, weight, targets, None)
    torch.testing.assert_close(chunked, plain)
    gradients = (torch.autograd.grad(each, (vectors, weight)) for each in (chunked, plain))
    for actual, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(actual, expected)


def test_attention_in_bfloat16_is_that_of_single_precision():
    heads = [torch.randn(2, 9, num_heads, 8, generator=seeded(num_heads)) for num_heads in (6, 2, 2)]
    results = []
    for dtype in (torch.float32, torch.bfloat16):
        inputs = [each.to(dtype).requires_grad_() for each in heads]
        attended = causal_attention(*inputs)
        gradients = torch.autograd.grad(attended.float().square().sum(), inputs)
        results.append([attended.float(), *(gradient.float() for gradient in gradients)])
    for single, half in zip(*results, strict=True):
        torch.testing.assert_close(half, single, rtol=0.05, atol=0.1)


def test_unknown_targets_are_refused_with_the_nearest():
    with pytest.raises(ConfigError, match=r"lora_targets names 'q_prj'; did you mean q_proj\? The matrices: q_proj, "):
        adapter_shapes(make_config(lora_targets="q_prj"))
    with pytest.raises(ConfigError, match="names no matrix"):
        adapter_shapes(make_config(lora_targets=" ,"))
