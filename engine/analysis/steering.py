"""Steering: a vector that makes a model write like one kind of lines, and unlike others, without training.

It is the difference of the mean outputs of a layer for both kinds, which is added to the outputs of this layer while
the model writes (activation addition: Turner et al. 2023, arXiv 2308.10248; Rimsky et al. 2023, arXiv 2312.06681).
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from engine.data.arrays import Float32Array
from engine.data.scripts import encode_speaker, utterance_text
from engine.data.speakers import SOMEONE
from engine.data.tokenizers import TokenIds
from engine.errors import InvalidInputError
from engine.models.base import LanguageModel, score_sequence
from engine.models.dialogue import DialogueModel
from engine.models.numpy_transformer import NumpyTransformer

DEPTHS = (0.6, 0.75, 0.9)  # of the layers that are tried
RELATIVE_NORM = 0.16  # of a vector at strength 1, to the mean norm of the outputs of its layer (dialogue.md)
MIN_LINES, MAX_LINES, HELD_OUT = 8, 100, 0.12  # of each kind, and the fraction of them that is held out
MAX_LINE_TOKENS = 32  # of a line that are read
SAMPLE_SEED = 0


@dataclass(frozen=True)
class SteeringVector:
    """A vector for `with_vector`, and the effect on held-out lines at strength 1."""

    layer: int
    num_layers: int
    vector: Float32Array  # `[width]`
    relative_norm: float  # of the difference of both kinds, to the mean norm of the outputs of the layer
    gain: float  # change of the log-probability of lines of the kind, in bits per character
    other_gain: float  # the same of the other lines


def find_steerable(model: LanguageModel) -> NumpyTransformer | None:
    """Return the network of a model that can be steered; None for another model."""
    network = model.model if isinstance(model, DialogueModel) else model
    return network if isinstance(network, NumpyTransformer) and network.config.num_layers > 1 else None


def find_vector(model: LanguageModel, lines: Sequence[str], others: Sequence[str]) -> Iterator[float | SteeringVector]:
    """Yield the fraction of the work that is done, and at last the vector towards `lines` and away from `others`.

    A sample of each kind is read. A part is held out: the layer is the one that moves both kinds furthest apart there.
    A model that cannot be steered, and too few lines, raise an InvalidInputError.
    """
    network = find_steerable(model)
    if network is None:
        raise InvalidInputError("only a Transformer of two layers or more can be steered; use a model such as bundled")
    # All lines are said by someone, so that the vector has the manner of a speaker and not the name.
    head = encode_speaker(network.tokenizer, SOMEONE) if network is not model else ()
    kinds = [_sample(network, head, kind) for kind in (lines, others)]
    num_layers, start = network.config.num_layers, len(head)
    layers = sorted({min(num_layers - 1, round(depth * num_layers)) for depth in DEPTHS})
    num_steps = sum(len(read) + (1 + len(layers)) * len(held_out) for read, held_out in kinds)
    num_done = 0

    means, norms = [], []  # of the outputs of each layer, by kind
    for read, _ in kinds:
        parts = []
        for ids in read:
            parts.append(network.record_attention(ids).layer_outputs[:, 1 + start :])
            num_done += 1
            yield num_done / num_steps
        outputs = np.concatenate(parts, axis=1)
        means.append(outputs.mean(axis=1))
        norms.append(np.linalg.norm(outputs, axis=2).mean(axis=1))
    differences = means[0] - means[1]
    relative_norms = 2 * np.linalg.norm(differences, axis=1) / (norms[0] + norms[1])

    before, best = list[float](), None
    for layer in (0, *layers):  # without a vector, and with one
        vector = differences[layer] * np.float32(RELATIVE_NORM / max(relative_norms[layer], 1e-9))
        scored = network.with_vector("", layer, vector).with_strengths({"": 1.0}) if before else network
        scores = []
        for _, held_out in kinds:
            bits = num_characters = 0.0
            for ids in held_out:
                bits += float(score_sequence(scored, ids)[start:].sum()) / math.log(2)
                num_characters += len(network.tokenizer.decode(ids[start:]))
                num_done += 1
                yield num_done / num_steps
            scores.append(bits / num_characters)
        if not before:
            before = scores
            continue
        gain, other_gain = scores[0] - before[0], scores[1] - before[1]
        if best is None or gain - other_gain > best.gain - best.other_gain:
            best = SteeringVector(layer, num_layers, vector, float(relative_norms[layer]), gain, other_gain)
    assert best is not None, "there is a layer"
    yield best


def _sample(network: NumpyTransformer, head: Sequence[int], lines: Sequence[str]) -> tuple[list[TokenIds], ...]:
    # Token ids of lines to read and of held-out ones, after the head.
    max_tokens, sample = min(MAX_LINE_TOKENS, network.context_size - 1 - len(head)), list[TokenIds]()
    for index in np.random.default_rng(SAMPLE_SEED).permutation(len(lines)).tolist():
        ids = network.tokenizer.encode(utterance_text(lines[index]))[:max_tokens] if lines[index].strip() else ()
        if len(ids) and len(sample) < MAX_LINES:
            sample.append(np.array([*head, *ids], np.int32))
    if len(sample) < MIN_LINES:
        raise InvalidInputError(f"{len(sample)} lines are too few for a vector; use {MIN_LINES} or more of each kind")
    num_held_out = round(HELD_OUT * len(sample))
    return sample[num_held_out:], sample[:num_held_out]
