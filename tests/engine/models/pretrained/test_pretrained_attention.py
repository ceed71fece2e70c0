import numpy as np
import pytest
import torch

from engine.data.tokenizers.base import EOS_ID
from engine.errors import InvalidInputError
from engine.models.attention import AttentionModel
from engine.models.pretrained import attention
from engine.models.pretrained.loading import load_pretrained
from tests.support.pretrained import CONTEXT_SIZE, VOCABULARY_SIZE, save_model

transformers = pytest.importorskip("transformers")

IDS = np.random.default_rng(0).integers(3, VOCABULARY_SIZE, 20).astype(np.int32)
ATTENTION_FAMILIES = ["llama", "gpt2", "mistral", "gpt_neox", "gemma2"]


@pytest.mark.parametrize("family", ATTENTION_FAMILIES)
def test_recorded_attention_is_that_of_transformers(family, pretrained, folders):
    record = pretrained(family).record_attention(IDS)
    module = transformers.AutoModelForCausalLM.from_pretrained(folders(family), attn_implementation="eager").eval()
    with torch.inference_mode():
        output = module(torch.tensor([[0, *IDS.tolist()]]), output_attentions=True, output_hidden_states=True)
    expected = torch.cat(output.attentions).numpy()
    np.testing.assert_allclose(record.weights, expected, atol=1e-5)
    assert record.weights.shape == (2, 4, len(IDS) + 1, len(IDS) + 1)
    np.testing.assert_allclose(record.weights.sum(-1), 1, atol=1e-5)
    assert not np.triu(record.weights, 1).any()
    inner = torch.cat(output.hidden_states[:-1]).numpy()
    np.testing.assert_allclose(record.layer_outputs[:-1], inner, atol=1e-4)


@pytest.mark.parametrize("family", ATTENTION_FAMILIES)
def test_the_logit_lens_of_the_last_layer_is_the_prediction(family, pretrained):
    model = pretrained(family)
    record = model.record_attention(IDS)
    rows, _ = model.predict_tokens(model.start(), [EOS_ID, *IDS.tolist()])
    np.testing.assert_allclose(model.layer_log_probs(record.layer_outputs[-1]), rows, atol=1e-4)
    first = model.layer_log_probs(record.layer_outputs[0])
    np.testing.assert_allclose(np.exp(first.astype(np.float64)).sum(1), 1, atol=1e-4)
    assert np.abs(first - rows).max() > 0.1


def test_recording_leaves_the_fast_attention_and_later_predictions_alone(pretrained):
    model = pretrained("llama")
    module = model._forward.module
    before = module.config._attn_implementation
    _, state = model.advance_tokens(model.start(), [EOS_ID, *IDS.tolist()])
    expected, _ = model.advance(state, 5)
    model.record_attention(IDS)
    assert module.config._attn_implementation == before == "sdpa"
    assert all(part.config._attn_implementation == before for part in module.modules() if hasattr(part, "config"))
    np.testing.assert_array_equal(model.advance(state, 5)[0], expected)




def test_a_model_without_attention_does_not_offer_it(pretrained):
    assert not isinstance(pretrained("mamba"), AttentionModel)


def test_a_text_beyond_the_context_is_refused(pretrained):
    ids = np.full(CONTEXT_SIZE, 5, np.int32)
    assert pretrained("llama").record_attention(ids[1:]).weights.shape[-1] == CONTEXT_SIZE
    with pytest.raises(InvalidInputError, match=rf"attention of {CONTEXT_SIZE + 1} positions: hf:.* {CONTEXT_SIZE} at"):
        pretrained("llama").record_attention(ids)




def test_scaled_and_capped_logits_reach_the_lens(tmp_path):
    save_model(tmp_path, "gemma2", final_logit_softcapping=2.0)
    model = load_pretrained(f"hf:{tmp_path}")
    rows, _ = model.predict_tokens(model.start(), [EOS_ID, *IDS.tolist()])
    outputs = model.record_attention(IDS).layer_outputs
    np.testing.assert_allclose(model.layer_log_probs(outputs[-1]), rows, atol=1e-4)
