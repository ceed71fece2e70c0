"""Speakers of the LSTM: read before an utterance, or added to the input at every step of it."""

import numpy as np
import pytest
import torch
from torch import nn

from engine.config import ModelConfig
from engine.data.tokenizers.base import EOS_ID
from engine.errors import InvalidInputError
from engine.models.dynamic_evaluation import DynamicEvaluation
from engine.models.lstm import SCORING_CHUNK, LSTMModel
from engine.models.numpy_lstm import NumpyLSTM
from engine.storage.quantization import quantize_rows
from tests.support.models import make_tokenizer
from tests.support.random_dialogues import CAST, NUM_TEXT_TOKENS, TOKENIZER, encode_scenes, random_scenes

IDS = encode_scenes(random_scenes(80, seed=3))  # several chunks of scoring
assert len(IDS) > SCORING_CHUNK
LAYERS = [{"num_layers": 1}, {"num_layers": 2, "tie_weights": False}]


def make_model(**values):
    config = ModelConfig(embedding_size=6, hidden_size=6, **values)
    generator = torch.Generator().manual_seed(0)
    model = LSTMModel(config, len(TOKENIZER), generator, num_speakers=len(CAST))
    with torch.no_grad():
        model.embedding.weight.mul_(8)  # so that the speaker matters
    return model


def naive_scores(model, ids, *, adds_speaker):
    """Score a text with one `nn.LSTMCell` per layer and step, adding the current speaker's vector by hand."""
    weight, cells = model.embedding.weight, []
    for layer in model.layers:
        cell = nn.LSTMCell(layer.input_size, layer.hidden_size)
        cell.load_state_dict({name.removesuffix("_l0"): value for name, value in layer.state_dict().items()})
        cells.append(cell)
    states = [(torch.zeros(1, cell.hidden_size), torch.zeros(1, cell.hidden_size)) for cell in cells]
    scores, speaker, token = [], None, EOS_ID
    for target in ids.tolist():
        speaker = token if token >= NUM_TEXT_TOKENS else None if token == EOS_ID else speaker
        vector = weight[token][None]
        if adds_speaker and speaker is not None:
            vector = vector + weight[speaker]
        for index, cell in enumerate(cells):
            states[index] = cell(vector, states[index])
            vector = states[index][0]
        log_probs = torch.log_softmax(vector @ model.output.weight.T + model.output.bias, -1)
        scores.append(float(log_probs[0, target]))
        token = target
    return np.array(scores)


@pytest.mark.parametrize("speaker_input", ["token", "embedding"])
@pytest.mark.parametrize("layers", LAYERS, ids=["one layer", "two layers"])
def test_scores_are_those_of_cells_that_add_the_speaker(layers, speaker_input):
    model = make_model(speaker_input=speaker_input, **layers)
    with torch.no_grad():
        expected = naive_scores(model, IDS, adds_speaker=speaker_input == "embedding")
    assert model.score_sequence(IDS) == pytest.approx(expected, abs=1e-4)
    lstm = model.to_decoder(TOKENIZER)
    assert lstm.score_sequence(IDS) == pytest.approx(expected, abs=1e-4)
    log_probs, state = lstm.advance(lstm.start(), EOS_ID)
    for token, score in zip(IDS.tolist(), expected, strict=True):
        assert log_probs[token] == pytest.approx(score, abs=1e-4)
        log_probs, state = lstm.advance(state, token)


def test_weights_in_8_bits_also_read_the_speaker():
    """Without the table of the gates, the products of the speakers are computed from quantized matrices."""
    model = make_model(speaker_input="embedding")
    weights = model.export_weights()
    stored = {name: quantize_rows(value) if value.ndim == 2 else value for name, value in weights.items()}
    small = NumpyLSTM(model.config, TOKENIZER, stored)
    assert small.input_gates.table is None
    without = NumpyLSTM(model.config, make_tokenizer(len(TOKENIZER)), stored)
    expected = model.score_sequence(IDS)
    errors = [np.abs(each.score_sequence(IDS) - expected).mean() for each in (small, without)]
    assert errors[0] < 0.1 < 2 * errors[1]
    assert errors[0] < errors[1] / 2


def test_dynamic_evaluation_needs_a_speaker_token():
    text = np.tile(IDS, 2)
    with pytest.raises(InvalidInputError, match=r"speaker_input=embedding; leave out --dynamic$"):
        DynamicEvaluation(make_model(speaker_input="embedding").to_decoder(TOKENIZER), text)
    model = DynamicEvaluation(make_model(speaker_input="token").to_decoder(TOKENIZER), text)
    assert np.isfinite(model.forward_sequence(IDS).log_probs).all()


def test_the_speaker_is_added_before_the_gates_of_a_mogrifier():
    model = make_model(speaker_input="embedding", mogrifier_rounds=3, mogrifier_rank=4)
    decoder = NumpyLSTM(model.config, TOKENIZER, model.export_weights())
    np.testing.assert_allclose(decoder.score_sequence(IDS), model.score_sequence(IDS), atol=1e-5)
