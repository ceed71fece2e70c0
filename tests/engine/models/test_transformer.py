"""The PyTorch Transformer: its output against transformers and by hand, dropout, initialization and scoring."""

import numpy as np
import pytest
import torch

from engine.data.tokenizers.base import EOS_ID
from engine.errors import ConfigError
from tests.support.lstm import VOCABULARY_SIZE, make_window, seeded
from tests.support.models import make_tokenizer
from tests.support.transformer import make_transformer
from tests.support.transformer_reference import reference_layers, reference_logits

pytestmark = pytest.mark.usefixtures("one_thread")


def with_large_weights(model):
    """Return `model` with weights so large that attention is far from uniform, and with scales other than 1."""
    generator = seeded(7)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.5)
    return model


def test_logits_equal_the_definition_of_each_part():
    model = with_large_weights(make_transformer())
    decoder = model.to_decoder(make_tokenizer(VOCABULARY_SIZE))
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


def test_logits_of_some_classes_are_those_of_the_vocabulary():
    model = with_large_weights(make_transformer())
    ids, classes = make_window(), torch.tensor([7, 0, 3])
    torch.testing.assert_close(model(ids, [], class_ids=classes).logits, model(ids, []).logits[..., classes])


def score_by_definition(model, ids):
    """Score each token after the window that the rule of the context gives it, one at a time."""
    context, window, scores = model.config.context_size, [EOS_ID], []
    for id in ids.tolist():
        log_probs = model(torch.tensor(window)[:, None], []).logits[-1, 0].log_softmax(-1)
        scores.append(log_probs[id].item())
        if len(window) == context:
            window = window[-(context // 2) :]
        window.append(id)
    return scores


@pytest.mark.parametrize("context_size", [2, 5, 12])
@pytest.mark.parametrize("time", [1, 5, 7, 12, 13, 40])
def test_scores_of_a_text_equal_reading_token_by_token(context_size, time):
    model = with_large_weights(make_transformer(context_size=context_size))
    ids = np.random.default_rng(time).integers(0, VOCABULARY_SIZE, time).astype(np.int32)
    expected = score_by_definition(model, ids)
    np.testing.assert_allclose(model.score_sequence(ids), expected, atol=1e-4)
    output = model.forward_sequence(ids)
    np.testing.assert_allclose(output.log_probs, expected, atol=1e-4)
    assert output.hidden_states.shape == (time, 16)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"num_heads": 3}, "embedding_size=16 cannot be divided into num_heads=3 heads of an even size"),
        ({"num_heads": 16}, "num_heads=16"),
        ({"weight_drop": 0.5}, "a transformer cannot have weight_drop=0.5; use --set weight_drop=0.0"),
        ({"tie_weights": False}, "tie_weights=false; use --set tie_weights=true"),
        ({"punctuation": True}, "punctuation=true"),
    ],
)
def test_settings_that_a_transformer_cannot_have_are_refused(values, message):
    with pytest.raises(ConfigError) as error:
        make_transformer(**values)
    assert message in str(error.value)


def test_layer_groups_go_from_the_output_down():
    groups = make_transformer().layer_groups()
    assert set(groups[0]) == {"model.embed_tokens.weight", "model.norm.weight"}
    assert all(name.startswith("model.layers.1.") for name in groups[1])
    assert all(name.startswith("model.layers.0.") for name in groups[2])
    assert len(groups) == 3
