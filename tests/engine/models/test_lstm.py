"""The PyTorch LSTM against torch.nn.LSTM and plain computations: outputs, weights, dropout, layers and subwords."""

import math
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from engine.config import Config, ModelConfig
from engine.data.tokenizers import EOS_ID, UNK_ID, WordTokenizer
from engine.models.lstm import LSTMModel, Mogrifier, build_subword_matrix, run_mogrifier
from engine.models.torch_ops import dropout_mask, linear
from engine.presets import PRESETS
from tests.support.models import make_tokenizer
from tests.support.networks import VOCABULARY_SIZE, make_model, make_window, seeded
from tests.support.training import NO_DROPOUT

pytestmark = pytest.mark.usefixtures("one_thread")


def test_models_have_as_many_parameters_as_the_notebook_and_the_paper():
    """Merity et al. 2017 on the Penn Treebank: 400-1150-1150-400, tied weights, 10,000 words."""
    paper = ModelConfig(embedding_size=400, hidden_size=1150, num_layers=3, tie_weights=True)
    for config, vocabulary_size, expected in (
        (PRESETS["notebook"].model, 884, 5_108_596), (paper, 10_000, 24_221_600),
    ):  # fmt: skip
        model = LSTMModel(config, vocabulary_size, seeded(0))
        assert sum(parameter.numel() for parameter in model.parameters()) == expected


@pytest.mark.parametrize("num_layers", [1, 2, 3])
@pytest.mark.parametrize("tie_weights", [True, False])
def test_without_dropout_it_equals_torch_lstm_layers(num_layers, tie_weights):
    model = make_model(num_layers=num_layers, tie_weights=tie_weights)
    ids = make_window()
    vectors = model.embedding.weight[ids]
    expected_states = []
    for i in range(num_layers):
        input_size = 6 if i == 0 else 8
        hidden_size = 6 if tie_weights and i == num_layers - 1 else 8
        layer = nn.LSTM(input_size, hidden_size)
        with torch.no_grad():
            for name in ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"):
                getattr(layer, name).copy_(model.get_parameter(f"layers.{i}.{name}"))
        vectors, state = layer(vectors)
        expected_states.append(state)
    output = nn.Linear(vectors.shape[2], VOCABULARY_SIZE)
    with torch.no_grad():
        output.weight.copy_(model.embedding.weight if tie_weights else model.output.weight)
        output.bias.copy_(torch.randn(VOCABULARY_SIZE, generator=seeded(4)))
        model.output.bias.copy_(output.bias)
    logits, states, raw, dropped = model(ids, model.initial_state(3))
    torch.testing.assert_close(logits, output(vectors))
    torch.testing.assert_close(raw, vectors)
    torch.testing.assert_close(dropped, vectors)
    for (hidden, cell), (expected_hidden, expected_cell) in zip(states, expected_states, strict=True):
        torch.testing.assert_close(hidden, expected_hidden)
        torch.testing.assert_close(cell, expected_cell)


def test_notebook_initialization_is_orthogonal_and_xavier():
    config = ModelConfig(embedding_size=24, hidden_size=16, num_layers=2, tie_weights=False, initialization="notebook")
    model = LSTMModel(config, 300, seeded(0))
    for i, input_size in enumerate((24, 16)):
        recurrent = model.get_parameter(f"layers.{i}.weight_hh_l0").detach()
        # nn.init.orthogonal_ on [4 hidden, hidden]: orthonormal columns.
        torch.testing.assert_close(recurrent.t() @ recurrent, torch.eye(16), atol=1e-5, rtol=0)
        bound = math.sqrt(6 / (input_size + 4 * 16))  # Xavier
        weight_ih = model.get_parameter(f"layers.{i}.weight_ih_l0").detach()
        assert 0.95 * bound < weight_ih.abs().max() <= bound
        assert weight_ih.std() == pytest.approx(bound / math.sqrt(3), rel=0.05)
    biases = [value for name, value in model.named_parameters() if "bias" in name]
    assert len(biases) == 5
    assert all(not bias.any() for bias in biases)
    embedding = model.embedding.weight.detach()
    assert embedding.std() == pytest.approx(1, rel=0.05)
    assert embedding.mean() == pytest.approx(0, abs=0.05)


def test_uniform_initialization_has_the_ranges_of_the_paper():
    model = LSTMModel(ModelConfig(embedding_size=24, hidden_size=16, num_layers=2), 300, seeded(0))
    assert 0.099 < model.embedding.weight.abs().max() <= 0.1
    for i, hidden_size in enumerate((16, 24)):
        for name in ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0"):
            largest = model.get_parameter(f"layers.{i}.{name}").abs().max()
            assert 0.8 / math.sqrt(hidden_size) < largest <= 1 / math.sqrt(hidden_size)
    assert not model.output.bias.any()


def test_output_bias_starts_at_smoothed_log_frequencies():
    dataset = SimpleNamespace(tokenizer=make_tokenizer(VOCABULARY_SIZE), train=np.array([2, 2, 2, 3, 1], np.int32))
    model = LSTMModel.build(Config(model=ModelConfig(subword_embeddings=False)), dataset)
    counts = np.array([1, 2, 4, 2] + [1] * (VOCABULARY_SIZE - 4))
    expected = np.log(counts / counts.sum())
    assert model.output.bias.detach().numpy() == pytest.approx(expected, rel=1e-5)
    with torch.no_grad():
        model.embedding.weight.zero_()  # tied to the output layer, so the bias alone determines the logits
    logits = model(make_window(), model.initial_state(3))[0]
    assert torch.softmax(logits[0, 0], -1).detach().numpy() == pytest.approx(counts / counts.sum(), rel=1e-5)


DROPOUT = {
    "embedding_dropout": 0.1, "input_dropout": 0.4, "hidden_dropout": 0.3, "output_dropout": 0.4, "weight_drop": 0.5,
}  # fmt: skip


@pytest.fixture
def lstm_calls(monkeypatch):
    """The inputs, weights and outputs of every call of `torch.lstm`."""
    calls, original = [], torch.lstm

    def spy(inputs, state, weights, *options):
        result = original(inputs, state, weights, *options)
        calls.append(tuple(each.detach().clone() for each in (inputs, *weights, result[0])))
        return result

    monkeypatch.setattr(torch, "lstm", spy)
    return calls


def test_the_generator_determines_the_masks_and_without_one_nothing_is_dropped():
    model = make_model(**DROPOUT)

    def compute_logits(generator):
        return model(make_window(), model.initial_state(3), generator).logits

    assert torch.equal(compute_logits(seeded(5)), compute_logits(seeded(5)))
    assert not torch.equal(compute_logits(seeded(5)), compute_logits(seeded(6)))
    generator = seeded(5)
    first = compute_logits(generator)
    assert not torch.equal(compute_logits(generator), first)  # every forward pass draws new masks
    reference = make_model()
    reference.load_state_dict(model.state_dict())
    expected = reference(make_window(), reference.initial_state(3)).logits
    for mode in (True, False):
        model.train(mode)
        assert torch.equal(compute_logits(None), expected)


@pytest.mark.parametrize("num_layers", [1, 2])
def test_weight_drop_draws_one_mask_per_layer_and_forward(lstm_calls, num_layers):
    model = make_model(num_layers=num_layers, embedding_size=16, hidden_size=16, weight_drop=0.25)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    ids = make_window()
    _, _, raw, _ = model(ids, model.initial_state(3), seeded(1))
    assert len(lstm_calls) == num_layers  # one call per layer, so one set of weights for the whole window
    masks = []
    for layer, (_, *weights, _) in zip(model.layers, lstm_calls, strict=True):
        mask = weights[1] / layer.weight_hh_l0
        masks.append(mask)
        kept = mask != 0
        torch.testing.assert_close(mask[kept], torch.full_like(mask[kept], 1 / 0.75))
        assert kept.float().mean() == pytest.approx(0.75, abs=0.06)
        for i, name in ((0, "weight_ih_l0"), (2, "bias_ih_l0"), (3, "bias_hh_l0")):
            assert torch.equal(weights[i], getattr(layer, name))
    if num_layers == 2:
        assert not torch.equal(masks[0], masks[1])

    vectors = model.embedding.weight[ids]
    for layer, mask in zip(model.layers, masks, strict=True):
        reference = nn.LSTM(16, 16)
        reference.load_state_dict(layer.state_dict())
        with torch.no_grad():
            reference.weight_hh_l0.mul_(mask)
        vectors = reference(vectors)[0]
    torch.testing.assert_close(raw, vectors)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])  # the stored weights are unchanged


@settings(max_examples=25, deadline=None)
@given(st.floats(0.01, 0.97), st.integers(0, 2**31))
def test_masks_have_the_requested_rate_and_independent_elements(p, seed):
    size = 40_001
    mask = dropout_mask(torch.empty(0), (size,), p, seeded(seed))
    assert mask.unique().tolist() == pytest.approx([0, 1 / (1 - p)], rel=1e-3)
    standard_error = (p * (1 - p) / size) ** 0.5
    assert abs((mask == 0).float().mean() - p) < 5 * standard_error + 2**-16
    # Four neighbouring elements come from one random integer.
    centered = (mask == 0).float() - (mask == 0).float().mean()
    for distance in range(1, 5):
        correlation = (centered[distance:] * centered[:-distance]).mean() / centered.pow(2).mean()
        assert abs(correlation) < 5 / size**0.5
    assert torch.equal(mask, dropout_mask(torch.empty(0), (size,), p, seeded(seed)))


@pytest.mark.parametrize("variational_dropout", [True, False])
def test_a_variational_mask_is_one_for_all_time_steps_and_a_plain_one_new_for_each(lstm_calls, variational_dropout):
    model = make_model(
        variational_dropout=variational_dropout, embedding_size=12, hidden_size=12, input_dropout=0.25,
        hidden_dropout=0.5, output_dropout=0.6,
    )  # fmt: skip
    ids = make_window(time=6)
    _, _, raw, dropped = model(ids, model.initial_state(3), seeded(3))
    masks = (
        lstm_calls[0][0] / model.embedding.weight[ids].detach(),
        lstm_calls[1][0] / lstm_calls[0][-1],
        (dropped / raw).detach(),
    )
    for mask, keep in zip(masks, (0.75, 0.5, 0.4), strict=True):
        assert {round(value, 3) for value in mask.flatten().tolist()} == {0.0, round(1 / keep, 3)}
        assert all(torch.allclose(row, other) == variational_dropout for row, other in pairwise(mask))
        assert not torch.allclose(mask[:, 0], mask[:, 1])  # the columns of the batch have different masks


def test_embedding_dropout_drops_whole_tokens_for_the_whole_window(lstm_calls):
    model = make_model(embedding_dropout=0.4, num_layers=1)
    ids = torch.arange(VOCABULARY_SIZE).repeat(3, 2).t().contiguous()  # every token twice in each of three columns
    model(ids, model.initial_state(3), seeded(4))
    factors = {token: set() for token in range(VOCABULARY_SIZE)}
    mask = lstm_calls[0][0] / model.embedding.weight[ids].detach()
    for token, row in zip(ids.flatten().tolist(), mask.flatten(0, 1), strict=True):
        factors[token] |= {round(value, 3) for value in row.tolist()}
    assert all(len(values) == 1 for values in factors.values())
    assert {value for values in factors.values() for value in values} == {0.0, round(1 / 0.6, 3)}


def test_embedding_dropout_drops_inputs_but_not_the_tied_output():
    """Merity et al. 2017, section 4.3, drops rows of the embedding; the tied output layer keeps every row."""
    model = make_model(embedding_dropout=0.9)
    logits, _, _, dropped = model(make_window(), model.initial_state(3), seeded(1))
    torch.testing.assert_close(logits, dropped @ model.embedding.weight.T + model.output.bias)


VALUES = {"mogrifier_rounds": 5, "mogrifier_rank": 3, "tie_weights": False}


def differentiable_outputs(mogrifier, vectors, *weights):
    """Return the outputs `[time, batch, hidden]` of one layer, by operations that PyTorch differentiates."""
    weight_ih, weight_hh, bias_ih, bias_hh = weights
    h = c = torch.full((vectors.shape[1], weight_hh.shape[1]), 0.1, dtype=vectors.dtype)
    outputs = []
    for x in vectors:
        for index, (down, up) in enumerate(zip(mogrifier.down, mogrifier.up, strict=True)):
            if index % 2 == 0:
                x = 2 * torch.sigmoid(h @ down.T @ up.T) * x
            else:
                h = 2 * torch.sigmoid(x @ down.T @ up.T) * h
        i, f, g, o = (x @ weight_ih.T + bias_ih + h @ weight_hh.T + bias_hh).chunk(4, dim=1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
        outputs.append(h)
    return torch.stack(outputs)


@pytest.mark.parametrize("rounds", [1, 2, 5])
def test_gradients_of_a_mogrifier_are_those_of_automatic_differentiation(rounds):
    time, batch, input_size, hidden_size = 4, 3, 5, 6
    generator = torch.Generator().manual_seed(rounds)
    mogrifier = Mogrifier(input_size, hidden_size, rounds, rank=2).double()
    lstm = torch.nn.LSTM(input_size, hidden_size).double()
    vectors = torch.randn(time, batch, input_size, dtype=torch.float64, generator=generator, requires_grad=True)
    parameters = [vectors, *lstm.parameters(), *mogrifier.parameters()]
    with torch.no_grad():
        for parameter in parameters[1:]:
            parameter.uniform_(-1, 1, generator=generator)
    state = torch.full((1, batch, hidden_size), 0.1, dtype=torch.float64)
    coefficients = torch.randn(time, batch, hidden_size, dtype=torch.float64, generator=generator)
    outputs, _, _ = run_mogrifier(vectors, (state, state), list(lstm.parameters()), mogrifier)
    expected = differentiable_outputs(mogrifier, vectors, *lstm.parameters())
    torch.testing.assert_close(outputs, expected)
    gradients = torch.autograd.grad((outputs * coefficients).sum(), parameters)
    torch.testing.assert_close(gradients, torch.autograd.grad((expected * coefficients).sum(), parameters))


LARGE = ModelConfig(embedding_size=16, hidden_size=64, num_layers=2, **NO_DROPOUT)


@pytest.mark.parametrize(
    "model",
    [LSTMModel(LARGE, VOCABULARY_SIZE, torch.Generator().manual_seed(0)), make_model(5, **VALUES)],
    ids=["large layers", "mogrifier"],
)
def test_outputs_and_gradients_in_bfloat16_stay_near_float32(model):
    ids, parameters = make_window(), list(model.parameters())
    exact = model(ids, model.initial_state(3))
    with torch.autocast("cpu", torch.bfloat16):
        rounded = model(ids, model.initial_state(3))
        model(ids, rounded.state)  # the returned states are valid inputs
    assert rounded.raw.dtype == torch.bfloat16
    if model.mogrifiers:
        assert all(cell.dtype == torch.float32 for _, cell in rounded.state)
    gradients = [torch.autograd.grad(each.logits.float().square().sum(), parameters) for each in (rounded, exact)]
    pairs = zip([rounded.logits, *gradients[0]], [exact.logits, *gradients[1]], strict=True)
    assert all((a.double() - b.double()).norm() < 0.05 * b.double().norm() for a, b in pairs)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 6), min_size=1, max_size=2), *[st.integers(1, 40)] * 2, st.integers(0, 2**31))
def test_values_and_gradients_of_onednn_match_double_precision(positions, inputs, outputs, seed):
    generator = torch.Generator().manual_seed(seed)
    shapes = ([*positions, inputs], [outputs, inputs], [outputs])
    arguments = [torch.randn(shape, generator=generator).requires_grad_() for shape in shapes]
    doubles = [value.detach().double().requires_grad_() for value in arguments]
    gradient = torch.randn([*positions, outputs], generator=generator)
    actual, expected = linear(*arguments), torch.nn.functional.linear(*doubles)
    assert actual.dtype == torch.float32
    torch.testing.assert_close(actual.double(), expected, rtol=1e-5, atol=1e-5)
    actual.backward(gradient)
    expected.backward(gradient.double())
    for value, reference in zip(arguments, doubles, strict=True):
        torch.testing.assert_close(value.grad.double(), reference.grad, rtol=1e-5, atol=1e-5)


SUBWORD_WORDS = ("<unk>", "<eos>", "abc", "abd", "xyz", "frodo's", "frodo", "aaa", "a", "baggins", "bagginses")
VOCABULARY = WordTokenizer(SUBWORD_WORDS)


def dense_subwords(tokenizer=VOCABULARY):
    return build_subword_matrix(tokenizer).to_dense().double().numpy()


def test_the_matrix_matches_subwords_collected_character_by_character():
    words_with = {}
    for token, word in enumerate(SUBWORD_WORDS[2:], 2):
        marked = f"^{word}$"
        for first in range(len(marked)):
            for end in range(first + 2, min(first + 5, len(marked)) + 1):
                words_with.setdefault(marked[first:end], set()).add(token)
    shared = sorted(sorted(tokens) for tokens in words_with.values() if len(tokens) >= 2)
    matrix = dense_subwords()
    assert sorted(np.flatnonzero(column).tolist() for column in matrix.T) == shared
    norms = np.sqrt((matrix**2).sum(axis=1))  # 1 for words with subwords, since values are 1 / sqrt(count)
    assert norms == pytest.approx([0, 0, 1, 1, 0, 1, 1, 1, 1, 1, 1], abs=1e-6)
    for row in matrix:
        assert len(set(row[row > 0].tolist())) <= 1


def test_unk_and_eos_have_no_subwords():
    words = ("<unk>", "<eos>", "unk", "unknown", "eos", "<unk>s", "<eos>s")
    matrix = dense_subwords(WordTokenizer(words, "whitespace"))
    assert matrix.any()
    assert not matrix[[UNK_ID, EOS_ID]].any()


def make_subword_model(tie_weights=True, seed=0):
    config = ModelConfig(embedding_size=6, hidden_size=6, tie_weights=tie_weights, **NO_DROPOUT)
    return LSTMModel(config, len(SUBWORD_WORDS), torch.Generator().manual_seed(seed), build_subword_matrix(VOCABULARY))


@pytest.mark.parametrize("tie_weights", [True, False])
def test_exported_embeddings_are_sums_of_word_and_subword_embeddings(tie_weights):
    model = make_subword_model(tie_weights)
    word_embeddings = model.embedding.weight.detach().numpy()
    subword_embeddings = model.subword_embedding.detach().numpy()
    assert np.abs(subword_embeddings).max() > 0.05, "initialized with zeros"
    expected = word_embeddings + dense_subwords() @ subword_embeddings
    weights = model.export_weights()
    assert weights["embedding.weight"] == pytest.approx(expected, abs=1e-6)
    assert "subword_embedding" not in weights
    assert weights.keys() == {name for name, _ in model.named_parameters()} - {"subword_embedding"}
    # The input embeddings are these sums, and with tied weights the output layer as well.
    ids = torch.arange(len(SUBWORD_WORDS))[:, None]
    without_subwords = LSTMModel(
        ModelConfig(embedding_size=6, hidden_size=6, tie_weights=tie_weights), len(SUBWORD_WORDS), torch.Generator()
    )
    without_subwords.load_weights(weights)
    expected_logits = without_subwords(ids, without_subwords.initial_state(1))[0]
    torch.testing.assert_close(model(ids, model.initial_state(1))[0], expected_logits)


def test_a_subword_gets_the_weighted_sum_of_the_gradients_of_its_words():
    model = make_subword_model(tie_weights=False)
    ids = torch.tensor([6, 6, 9, 6, 9])[:, None]
    logits, _, _, _ = model(ids, model.initial_state(1))
    logits.pow(2).sum().backward()
    word_gradients = model.embedding.weight.grad
    expected = dense_subwords().T @ word_gradients.numpy()
    assert model.subword_embedding.grad.numpy() == pytest.approx(expected, abs=1e-5)
