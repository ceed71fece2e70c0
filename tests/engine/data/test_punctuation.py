"""Punctuation between words: its classes, the mixture softmax over them, and learning from them."""

import math
from pathlib import Path

import pytest
import torch

from engine.config import ModelConfig
from engine.data.dataset import load_dataset
from engine.data.tokenizers import Punctuation
from engine.events import Evaluated
from engine.models.lstm import LSTMModel, PunctuationSoftmax
from tests.support.training import events_of, make_config, run_training, weights_of

SIZE = 30


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Return a corpus in which only the mark before a word predicts some of the words."""
    lines = [f"the hill, {'at night' if i % 2 else 'by day'}. the road {i % 3} ends here" for i in range(150)]
    path: Path = tmp_path_factory.mktemp("corpus") / "lines.txt"
    path.write_text("\n".join([*lines, "......................."]))
    return load_dataset(make_config(corpus=str(path), corpus_format="text").data)


@pytest.mark.parametrize("mode", ["line", "stream"])
def test_each_word_has_the_punctuation_after_it(dataset, mode):
    data = load_dataset(make_config(corpus=dataset.corpus.source, corpus_format="text", mode=mode).data)
    words = [data.tokenizer.tokens[token] for token in data.train.tolist()]
    after = {*zip(words, data.train_punctuation.tolist(), strict=True)}
    marks = {
        "hill": Punctuation.COMMA, "night": Punctuation.SENTENCE_END, "day": Punctuation.SENTENCE_END,
        "here": Punctuation.LINE_END, "<eos>": Punctuation.LINE_END, "the": Punctuation.NONE,
    }  # fmt: skip
    for word, expected in marks.items():
        assert {mark for other, mark in after if other == word} == {expected}


def naive_mixture(softmax, vector, weight, bias):
    """Return the probability of each punctuation class, and of each token after each class, in plain Python."""

    def softmax_of(logits):
        values = [math.exp(logit) for logit in logits]
        return [value / math.fsum(values) for value in values]

    def dot(row, other):
        return math.fsum(a * b for a, b in zip(row, other, strict=True))

    p = {name: value.tolist() for name, value in softmax.named_parameters()}
    gates = softmax_of([dot(row, vector) + b for row, b in zip(p["gate_weight"], p["gate_bias"], strict=True)])
    token_probs = []
    for mark in range(len(Punctuation)):
        modulated = [h * (1 + a) + b for h, a, b in zip(vector, p["scale"][mark], p["shift"][mark], strict=True)]
        rows = zip(weight, bias, p["bias"][mark], strict=True)
        token_probs.append(softmax_of([dot(row, modulated) + b + own for row, b, own in rows]))
    return gates, token_probs


@torch.no_grad()
def test_mixture_equals_the_naive_sum_over_punctuation():
    softmax, generator = PunctuationSoftmax(6, SIZE).double(), torch.Generator().manual_seed(4)
    for parameter in softmax.parameters():
        parameter.normal_(0, 0.7, generator=generator)
    shapes = [(6,), (SIZE, 6), (SIZE,)]
    vector, weight, bias = (torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes)
    gates, token_probs = naive_mixture(softmax, vector.tolist(), weight.tolist(), bias.tolist())
    expected = [math.fsum(g * w[i] for g, w in zip(gates, token_probs, strict=True)) for i in range(SIZE)]
    mixture = softmax.marginal_log_probs(vector, weight, bias).exp()
    assert mixture.tolist() == pytest.approx(expected, abs=1e-12)
    assert float(mixture.sum()) == pytest.approx(1, abs=1e-12)
    assert softmax.gate_log_probs(vector).exp().tolist() == pytest.approx(gates, abs=1e-12)
    for mark in range(len(Punctuation)):
        logits = softmax.conditional_logits(vector[None, None], torch.tensor([[mark]]), weight, bias, None)
        assert logits.softmax(-1)[0, 0].tolist() == pytest.approx(token_probs[mark], abs=1e-12)
        sampled_ids = torch.tensor([2, 5, 11])
        sampled_logits = softmax.conditional_logits(
            vector[None, None], torch.tensor([[mark]]), weight[sampled_ids], bias[sampled_ids], sampled_ids
        )
        assert sampled_logits[0, 0].tolist() == pytest.approx(logits[0, 0, sampled_ids].tolist(), abs=1e-12)


def make_model(**values):
    config = ModelConfig(embedding_size=12, hidden_size=12, subword_embeddings=False, **values)
    return LSTMModel(config, SIZE, torch.Generator().manual_seed(0))


@torch.no_grad()
def test_an_untrained_model_predicts_the_same_with_and_without_punctuation():
    plain, other = make_model(punctuation=False), make_model(punctuation=True)
    ids = torch.arange(12).reshape(6, 2)
    expected = torch.log_softmax(plain(ids, plain.initial_state(2))[0], -1)
    torch.testing.assert_close(other(ids, other.initial_state(2))[0], expected)
    conditional = other(ids, other.initial_state(2), punctuation=torch.ones(6, 2, dtype=torch.long))[0]
    torch.testing.assert_close(torch.log_softmax(conditional, -1), expected)


def test_training_learns_which_words_follow_which_marks(dataset):
    evaluated = events_of(Evaluated, run_training(dataset, punctuation=True, epochs=6))
    weights = weights_of(evaluated[-1])
    words = dataset.tokenizer.token_to_id
    bias = weights["punctuation_softmax.bias"][:, words["at"]]
    assert bias[Punctuation.COMMA] > bias[Punctuation.NONE] + 0.5
    assert evaluated[-1].valid_perplexity < evaluated[0].valid_perplexity / 3
