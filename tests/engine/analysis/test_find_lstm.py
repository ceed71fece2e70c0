"""The LSTM that is found inside caches, mixtures and dynamic evaluation."""

import pytest

from engine.analysis.activations import find_lstm
from engine.config import ModelConfig
from engine.data.arrays import Float32Array
from engine.models.base import LanguageModel
from engine.models.cache import CacheSettings, NeuralCache
from engine.models.mixture import Mixture
from engine.models.ngram import KneserNey, Unigram
from engine.models.numpy_lstm import NumpyLSTM
from tests.support.models import make_tokenizer, random_ids, random_lstm

VOCABULARY = make_tokenizer(23)
LSTM = random_lstm(ModelConfig(embedding_size=7, hidden_size=7), VOCABULARY)
OTHER = random_lstm(ModelConfig(embedding_size=6, hidden_size=10, num_layers=2), VOCABULARY, seed=1)
KNESER_NEY = KneserNey(random_ids(200, len(VOCABULARY)), VOCABULARY, order=3)


class AdaptiveModel:
    """A stand-in for dynamic evaluation."""

    tokenizer = VOCABULARY
    base_model = LSTM

    def start(self) -> None: ...

    def advance(self, state: None, token: int) -> tuple[Float32Array, None]:
        return LSTM.advance(LSTM.start(), token)[0], None


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (LSTM, LSTM),
        (NeuralCache(LSTM, CacheSettings()), LSTM),
        (Mixture([LSTM, KNESER_NEY], [0.6, 0.4]), LSTM),
        (Mixture([KNESER_NEY, LSTM], [0.6, 0.4]), LSTM),
        (Mixture([OTHER, LSTM], [0.5, 0.5]), OTHER),
        (NeuralCache(Mixture([LSTM, KNESER_NEY], [0.6, 0.4]), CacheSettings()), LSTM),
        (AdaptiveModel(), LSTM),
        (NeuralCache(Mixture([AdaptiveModel(), KNESER_NEY], [0.6, 0.4]), CacheSettings()), LSTM),
        (KNESER_NEY, None),
        (Unigram(random_ids(50, len(VOCABULARY)), VOCABULARY), None),
        (NeuralCache(KNESER_NEY, CacheSettings()), None),
        (Mixture([KNESER_NEY, KNESER_NEY], [0.5, 0.5]), None),
    ],
    ids=[
        "LSTM",
        "cache",
        "mixture",
        "mixture, Kneser-Ney first",
        "ensemble",
        "cache on mixture",
        "dynamic evaluation",
        "cache on dynamic evaluation",
        "Kneser-Ney",
        "unigram",
        "cache on Kneser-Ney",
        "mixture of Kneser-Ney",
    ],
)
def test_find_lstm_looks_inside_caches_and_mixtures(model: LanguageModel, expected: NumpyLSTM | None) -> None:
    assert find_lstm(model) is expected
