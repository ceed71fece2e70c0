"""What stands between words, by hand; and the mixture over it, against sums written out."""

import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from engine.analysis.perplexity import evaluate
from engine.config import ModelConfig, preset
from engine.data.dataset import Dataset, prepare
from engine.data.punctuation import COMMA, LINE, NONE, PAUSES, SENTENCE
from engine.data.vocabulary import EOS_ID, Vocabulary
from engine.events import Evaluated
from engine.models.lstm import Network
from engine.models.punctuation_softmax import PauseSoftmax
from engine.training.trainer import Loop
from tests.engine.training.test_averaging import record_updates
from tests.support.training import config_of, of, run, same, weights_of

SIZE = 30
VOCABULARY = Vocabulary(("<unk>", "<eos>", *(f"w{i}" for i in range(SIZE - 2))))


pytestmark = pytest.mark.usefixtures("one_thread")


# --- what stands between words --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Which word comes next is told by the mark before it, and by nothing else."""
    lines = [f"the hill, {'at night' if i % 2 else 'by day'}. the road {i % 3} ends here" for i in range(150)]
    path: Path = tmp_path_factory.mktemp("corpus") / "lines.txt"
    path.write_text("\n".join([*lines, "......................."]))
    return prepare(config_of(corpus=str(path), corpus_format="text").data)


@pytest.mark.parametrize("mode", ["line", "stream"])
def test_joined_pauses_stand_after_their_words(dataset: Dataset, mode: Any) -> None:
    data = prepare(config_of(corpus=dataset.corpus.source, corpus_format="text", mode=mode).data)
    ids, pauses = data.train, data.train_pauses
    assert len(ids) == len(pauses)
    after = {dataset.vocabulary.words[word]: Counter() for word in set(ids.tolist())}
    for word, pause in zip(ids.tolist(), pauses.tolist(), strict=True):
        after[dataset.vocabulary.words[word]][pause] += 1
    assert set(after["hill"]) == {COMMA}
    assert set(after["night"]) == set(after["day"]) == {SENTENCE}
    assert set(after["here"]) == set(after["<eos>"]) == {LINE}
    assert set(after["the"]) == {NONE}


def test_words_and_pauses_of_an_epoch_stay_together(dataset: Dataset) -> None:
    def pairs(ids: Any, pauses: Any) -> Counter[tuple[int, int]]:
        return Counter(zip(ids.tolist(), pauses.tolist(), strict=True))

    whole = pairs(dataset.train, dataset.train_pauses)
    for shuffle in (True, False):
        loop = Loop(config_of(pauses=True, shuffle_lines=shuffle), dataset, torch.device("cpu"), 0.0)
        first, second = loop._epoch_text(), loop._epoch_text()
        assert pairs(*first) == pairs(*second) == whole
        assert np.array_equal(first[0], second[0]) != shuffle
        assert np.array_equal(first[0], dataset.train) != shuffle
    assert Loop(config_of(), dataset, torch.device("cpu"), 0.0)._epoch_text()[1] is None


# --- the mixture ----------------------------------------------------------------------------------------------


def softmax_of(hidden: int = 6, seed: int = 0) -> PauseSoftmax:
    softmax = PauseSoftmax(hidden, SIZE).double()
    chance = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in softmax.parameters():
            parameter.normal_(0, 0.7, generator=chance)
    return softmax


def written_out(softmax: PauseSoftmax, vector: Any, weight: Any, bias: Any) -> tuple[list[float], list[list[float]]]:
    """Probability of each pause after `vector`, and of each word after each pause, in plain Python."""

    def normalized(logits: list[float]) -> list[float]:
        values = [math.exp(logit) for logit in logits]
        return [value / math.fsum(values) for value in values]

    def dot(row: Any, other: Any) -> float:
        return math.fsum(a * b for a, b in zip(row, other, strict=True))

    p = {name: value.tolist() for name, value in softmax.named_parameters()}
    gates = normalized([dot(row, vector) + b for row, b in zip(p["gate_weight"], p["gate_bias"], strict=True)])
    words = []
    for pause in range(len(PAUSES)):
        seen = [h * (1 + a) + b for h, a, b in zip(vector, p["scale"][pause], p["shift"][pause], strict=True)]
        rows = zip(weight, bias, p["bias"][pause], strict=True)
        words.append(normalized([dot(row, seen) + b + own for row, b, own in rows]))
    return gates, words


@torch.no_grad()
def test_the_mixture_is_the_sum_over_pauses_written_out() -> None:
    softmax, chance = softmax_of(), torch.Generator().manual_seed(4)
    vector, weight, bias = (
        torch.randn(shape, generator=chance, dtype=torch.float64) for shape in [(6,), (SIZE, 6), (SIZE,)]
    )
    gates, words = written_out(softmax, vector.tolist(), weight.tolist(), bias.tolist())
    expected = [math.fsum(g * w[i] for g, w in zip(gates, words, strict=True)) for i in range(SIZE)]
    mixed = softmax.log_probs(vector, weight, bias).exp()
    assert mixed.tolist() == pytest.approx(expected, abs=1e-12)
    assert float(mixed.sum()) == pytest.approx(1, abs=1e-12)
    assert softmax.gate(vector).exp().tolist() == pytest.approx(gates, abs=1e-12)
    for pause in range(len(PAUSES)):
        told = softmax.given(vector[None, None], torch.tensor([[pause]]), weight, bias, None)
        assert told.softmax(-1)[0, 0].tolist() == pytest.approx(words[pause], abs=1e-12)
        some = torch.tensor([2, 5, 11])
        of_some = softmax.given(vector[None, None], torch.tensor([[pause]]), weight[some], bias[some], some)
        assert of_some[0, 0].tolist() == pytest.approx(told[0, 0, some].tolist(), abs=1e-12)
        assert float(softmax.loss(vector[None, None], torch.tensor([[pause]]))) == pytest.approx(
            -math.log(gates[pause])
        )


def network_of(**values: Any) -> Network:
    config = ModelConfig(embedding_size=12, hidden_size=12, spelling=False, **values)
    return Network(config, SIZE, torch.Generator().manual_seed(0))


@torch.no_grad()
def test_a_new_network_is_that_without_pauses_and_predicts_the_same() -> None:
    plain, other = network_of(pauses=False), network_of(pauses=True)
    kept = {name: value for name, value in other.weights().items() if not name.startswith("pauses.")}
    assert same(plain.weights(), kept)
    ids = torch.arange(12).reshape(6, 2)
    expected = torch.log_softmax(plain(ids, plain.start(2))[0], -1)
    torch.testing.assert_close(other(ids, other.start(2))[0], expected)
    told = other(ids, other.start(2), pauses=torch.ones(6, 2, dtype=torch.long))[0]
    torch.testing.assert_close(torch.log_softmax(told, -1), expected)


@pytest.mark.parametrize("tied", [True, False])
@torch.no_grad()
def test_the_decoder_is_torch_word_by_word_and_as_a_whole(tied: bool) -> None:
    network = network_of(pauses=True, tied=tied, layers=2)
    chance = torch.Generator().manual_seed(8)
    for parameter in network.parameters():
        parameter.normal_(0, 0.6, generator=chance)
    decoder = network.decoder(VOCABULARY)
    ids = np.random.default_rng(2).integers(0, SIZE, 300).astype(np.int32)
    inputs = torch.tensor([EOS_ID, *ids[:-1].tolist()])[:, None]
    expected = network.double()(inputs, network.double().start(1))[0][:, 0].numpy()
    state, token = decoder.start(), EOS_ID
    for position, following in enumerate(ids.tolist()):
        log_probs, state = decoder.advance(state, token)
        assert log_probs == pytest.approx(expected[position], abs=1e-4)
        assert math.fsum(np.exp(log_probs.astype(float))) == pytest.approx(1, abs=1e-5)
        token = following
    scores = decoder.trace(ids).scores
    assert scores == pytest.approx(expected[np.arange(300), ids], abs=1e-4)
    assert network.float().trace(ids).scores == pytest.approx(scores, abs=1e-4)


def test_a_word_that_no_pause_allows_has_a_finite_logarithm() -> None:
    network = network_of(pauses=True)
    weights = network.weights() | {"pauses.bias": np.full((len(PAUSES), SIZE), -1e4, np.float32)}
    weights["pauses.bias"][:, 5] = 1e4
    decoder = type(network.decoder(VOCABULARY))(network.config, VOCABULARY, weights)
    log_probs, _ = decoder.advance(decoder.start(), 3)
    assert log_probs[5] == 0
    assert np.isfinite(log_probs).all()


# --- learning from it -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("softmax_samples", [0, 8])
def test_what_follows_which_mark_is_learned(dataset: Dataset, softmax_samples: int) -> None:
    values = {"pauses": True, "epochs": 10, "softmax_samples": softmax_samples}
    evaluated = of(Evaluated, run(dataset, **values))
    weights = weights_of(evaluated[-1])
    words = dataset.vocabulary.index
    assert weights["pauses.bias"][COMMA, words["at"]] > weights["pauses.bias"][NONE, words["at"]] + 0.5
    assert evaluated[-1].valid_perplexity < evaluated[0].valid_perplexity / 3
    kept = max(evaluated, key=lambda event: -event.valid_perplexity).model
    assert evaluate(kept, dataset.valid).perplexity == pytest.approx(
        min(e.valid_perplexity for e in evaluated), rel=1e-4
    )


def test_the_switch_changes_no_draw(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first update starts from the same weights, reads the same words under the same masks, and so loses the same.

    What is learned of pauses comes on top, from zeros.
    """
    updates = record_updates(monkeypatch)
    run(dataset, pauses=True, epochs=1)
    told, after = updates[:2]
    updates.clear()
    run(dataset, pauses=False, epochs=1)
    plain = updates[0]
    assert told.length == plain.length
    assert told.loss == pytest.approx(plain.loss, rel=1e-6)
    assert same(plain.before, {name: value for name, value in told.before.items() if not name.startswith("pauses.")})
    assert not any(value.any() for name, value in told.before.items() if name.startswith("pauses."))
    assert updates[1].loss != pytest.approx(after.loss, rel=1e-6)


def test_the_default_learns_of_pauses_and_the_papers_presets_do_not() -> None:
    assert {name: preset(name).model.pauses for name in ("default", "tiny", "notebook", "paper", "ptb")} == {
        "default": True,
        "tiny": True,
        "notebook": False,
        "paper": False,
        "ptb": False,
    }
