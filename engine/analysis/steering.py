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
READING, SAMPLE_SEED = 0.6, 0  # part of the time in which lines are read


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
    if (network := find_steerable(model)) is None:
        raise InvalidInputError("only a Transformer of two layers or more can be steered; use a model such as bundled")
    # All lines are said by someone, so that the vector has the manner of a speaker and not the name.
    head = encode_speaker(network.tokenizer, SOMEONE) if network is not model else ()
    kinds = [_sample(network, head, kind) for kind in (lines, others)]
    start, size, means, norms = len(head), network.config.num_layers, [], []  # of the outputs of each layer, by kind
    for number, (read, _) in enumerate(kinds):
        outputs = []
        for ids in read:
            outputs.append(network.record_attention(ids).layer_outputs[:, 1 + start :])
            yield READING * (number + len(outputs) / len(read)) / len(kinds)
        joined = np.concatenate(outputs, axis=1)
        means.append(joined.mean(axis=1))
        norms.append(np.linalg.norm(joined, axis=2).mean(axis=1))
    differences = means[0] - means[1]
    relative_norms = 2 * np.linalg.norm(differences, axis=1) / (norms[0] + norms[1])

    def score(scored: NumpyTransformer) -> list[float]:  # in bits per character, the held-out lines of each kind
        nats = [sum(float(score_sequence(scored, ids)[start:].sum()) for ids in held_out) for _, held_out in kinds]
        texts = ["".join(network.tokenizer.decode(ids[start:]) for ids in held_out) for _, held_out in kinds]
        return [each / math.log(2) / len(text) for each, text in zip(nats, texts, strict=True)]

    before, found = score(network), list[SteeringVector]()
    for layer in (layers := sorted({min(size - 1, round(depth * size)) for depth in DEPTHS})):
        yield READING + (1 - READING) * len(found) / len(layers)
        vector = differences[layer] * np.float32(RELATIVE_NORM / max(relative_norms[layer], 1e-9))
        after = score(network.with_vector("", layer, vector).with_strengths({"": 1.0}))
        gains = [new - old for new, old in zip(after, before, strict=True)]
        found.append(SteeringVector(layer, size, vector, float(relative_norms[layer]), *gains))
    yield max(found, key=lambda each: each.gain - each.other_gain)


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
