"""Steering vectors against plain means of what the layers return."""

import math

import numpy as np
import pytest

from engine.analysis.steering import RELATIVE_NORM, find_vector
from engine.data.scripts import encode_speaker, utterance_text
from engine.errors import InvalidInputError
from engine.models.base import score_sequence
from engine.models.dialogue import DialogueModel
from tests.support.networks import random_transformer
from tests.support.open_models import bpe_tokenizer, open_model

NETWORK = random_transformer(bpe_tokenizer(), num_layers=5)
LINE, OTHER = "we wants it, precious", "Fly, you fools!"


@pytest.mark.parametrize("has_cast", [False, True])
def test_a_vector_is_the_difference_of_the_mean_outputs_and_tells_what_it_does(has_cast):
    model = DialogueModel(NETWORK, ("GOLLUM", "SOMEONE")) if has_cast else NETWORK
    tokenizer, head = NETWORK.tokenizer, encode_speaker(bpe_tokenizer(), "SOMEONE") if has_cast else ()
    *fractions, found = find_vector(model, [LINE] * 20, [OTHER] * 9)
    assert fractions == sorted(fractions)
    assert 0 < fractions[0] <= fractions[-1] < 1
    texts = [np.array([*head, *tokenizer.encode(utterance_text(line))], np.int32) for line in (LINE, OTHER)]
    recorded = [NETWORK.record_attention(ids).layer_outputs[:, 1 + len(head) :] for ids in texts]
    differences = recorded[0].mean(axis=1) - recorded[1].mean(axis=1)
    relative_norms = np.linalg.norm(differences, axis=1) / np.mean(
        [np.linalg.norm(each, axis=2).mean(axis=1) for each in recorded], axis=0
    )
    gains = {}
    for layer in (3, 4):  # the later ones of five
        vector = differences[layer] * RELATIVE_NORM / relative_norms[layer]
        steered = NETWORK.with_vector("x", layer, vector).with_strengths({"x": 1})
        nats = [(score_sequence(steered, ids) - score_sequence(NETWORK, ids))[len(head) :].sum() for ids in texts]
        sizes = [len(tokenizer.decode(ids[len(head) :])) for ids in texts]
        gains[layer] = [each / math.log(2) / size for each, size in zip(nats, sizes, strict=True)]
        if layer == found.layer:
            assert found.vector == pytest.approx(vector, rel=1e-3, abs=1e-5)
    assert found.relative_norm == pytest.approx(relative_norms[found.layer], rel=1e-4)
    assert [found.gain, found.other_gain] == pytest.approx(gains[found.layer], abs=1e-5)
    assert found.layer == max(gains, key=lambda layer: gains[layer][0] - gains[layer][1])


@pytest.mark.parametrize(
    ("model", "lines", "problem"),
    [
        (open_model(bpe_tokenizer()), [LINE] * 9, "only a Transformer"),
        (random_transformer(bpe_tokenizer(), name="one layer, one head"), [LINE] * 9, "only a Transformer"),
        (NETWORK, [LINE] * 7 + [" "] * 9, "7 lines are too few"),
    ],
)
def test_what_cannot_be_steered_is_refused(model, lines, problem):
    with pytest.raises(InvalidInputError, match=problem):
        list(find_vector(model, lines, [OTHER] * 9))
