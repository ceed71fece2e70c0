"""Low-rank adapters in PyTorch and merged in numpy, against PEFT and the definition."""

import numpy as np
import pytest
import torch

from engine.errors import ConfigError
from engine.models.numpy_transformer import NumpyTransformer
from engine.models.torch_ops import causal_attention, linear_cross_entropy
from engine.models.transformer import TransformerModel
from engine.models.weights import MergedWeights, adapter_shapes, lora_targets
from engine.runtime.distributed import SINGLE_PROCESS
from engine.storage.tensor_file import Int8Rows, quantize_rows
from tests.support.models import random_weights
from tests.support.networks import VOCABULARY, VOCABULARY_SIZE, make_window, seeded, token_by_token, transformer_config
from tests.support.training import NO_DROPOUT

pytestmark = pytest.mark.usefixtures("one_thread")

LLAMA = {"num_kv_heads": 1, "rope_base": 1e5, "norm_eps": 1e-6, "head_size": 6, "feed_forward_size": 40}
QWEN = LLAMA | {"qkv_bias": True, "tie_weights": False, "lora_targets": "v_proj, q_proj,down_proj"}


def make_config(**values):
    return transformer_config(lora_rank=3, lora_alpha=12.0, context_size=64, **(NO_DROPOUT | values))


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
def test_a_merged_adapter_predicts_as_an_unmerged_one(is_int8):
    config = make_config(**LLAMA, embedding_size=48, num_heads=4)
    base, adapter = random_weights(config, VOCABULARY, scale=0.1), random_adapter(config)
    ids, stored_in_int8 = make_window(20, 1), ("model.embed_tokens.weight", "model.layers.0.mlp.up_proj.weight")
    base |= {name: quantize_rows(base[name]) for name in stored_in_int8}
    expected = torch.log_softmax(adapted_network(config, base, adapter)(ids, []).logits[:, 0], -1).detach().numpy()
    merged = NumpyTransformer(config, VOCABULARY, MergedWeights(config, base, adapter, int8=is_int8))
    assert [isinstance(each, Int8Rows) for each in merged.tensors.values()] == [
        is_int8 and each.ndim == 2 for each in merged.weights.values()
    ]
    log_probs, _ = token_by_token(merged, ids[:, 0].tolist())
    np.testing.assert_allclose(log_probs, expected, atol=0.3 if is_int8 else 1e-4)


def test_the_chunked_loss_has_the_gradients_of_a_trained_output_layer(monkeypatch):
    monkeypatch.setattr("engine.models.torch_ops.CROSS_ENTROPY_ROWS", 4)
    vectors = torch.randn(5, 3, 8, generator=seeded(1), requires_grad=True)
    weight = torch.randn(VOCABULARY_SIZE, 8, generator=seeded(2), requires_grad=True)
    targets = make_window(5)
    plain = torch.nn.functional.cross_entropy((vectors @ weight.T).flatten(0, 1), targets.flatten())
    chunked = linear_cross_entropy(vectors, weight, targets, None)
    torch.testing.assert_close(chunked, plain)
    for actual, expected in zip(
        *(torch.autograd.grad(each, (vectors, weight)) for each in (chunked, plain)), strict=True
    ):
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
