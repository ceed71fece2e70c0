"""Words per second of lotr-tui's models on one core; a word of several tokens counts once.

`python -m lotr_tui.bench.playing.generation_speeds` prints the result of `measure_speeds` as JSON.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np

from engine.config import ModelConfig
from engine.data.arrays import Float32Array
from engine.data.tokenizers.base import EOS, EOS_ID, UNK
from engine.data.tokenizers.words import WordTokenizer
from engine.generation.batch import GenerationRequest, generate_batch
from engine.generation.generate import TokenEvent, generate
from engine.generation.prompt import encode_prompt, prefill
from engine.generation.settings import SamplerSettings
from engine.models.base import LanguageModel
from engine.models.numpy_lstm import NumpyLSTM, weight_shapes
from engine.runs.directory import resolve_run
from engine.runs.loading import load_model
from lotr_tui.bench.measurement import measure_tokens_per_second
from lotr_tui.bench.programs import PROMPT

LARGE_CONFIG = ModelConfig(embedding_size=512, hidden_size=512, num_layers=2, tie_weights=False)
"""Network of the notebook."""
LARGE_VOCABULARY_SIZE = 879
"""Tokenizer size of the notebook on the film dialogues."""
BATCH_SIZE = 16
MIN_SECONDS = 0.5
"""Minimum CPU time of each speed."""


def measure_speeds(min_seconds: float = MIN_SECONDS) -> dict[str, float]:
    """Return words per second of each model and method; the environment sets the number of threads.

    `memory_bound` is the upper bound of the large model: its matrix-vector products alone, each weight read once per
    word, by columns, which is faster than by rows. `…_sequential` and `…_batched` are `BATCH_SIZE` texts, one after the
    other or in a batch. `int8` is the large model in 8 bits.
    """
    decoder = load_model(resolve_run(None)).decoder
    assert isinstance(decoder, NumpyLSTM)
    bundled = without_eos(decoder)
    prompt_ids = encode_prompt(PROMPT, bundled.tokenizer).ids
    large = without_eos(random_decoder(LARGE_CONFIG, LARGE_VOCABULARY_SIZE))
    large_int8 = NumpyLSTM(large.config, large.tokenizer, large.tensors, int8=True)
    large_prompt_ids = (2, 3)
    matrices = [np.asfortranarray(matrix) for matrix in _random_weights(large_matrix_shapes()).values()]
    generators: dict[str, Callable[[], int]] = {
        "bundled": partial(generate_sequentially, bundled, prompt_ids, 1, 100),
        "large": partial(generate_sequentially, large, large_prompt_ids, 1, 100),
        "memory_bound": partial(multiply_all, matrices, 100),
        "large_sequential": partial(generate_sequentially, large, large_prompt_ids, BATCH_SIZE, 30),
        "large_batched": partial(generate_batched, large, large_prompt_ids, BATCH_SIZE, 30),
        "bundled_sequential": partial(generate_sequentially, bundled, prompt_ids, BATCH_SIZE, 30),
        "bundled_batched": partial(generate_batched, bundled, prompt_ids, BATCH_SIZE, 30),
        "int8": partial(generate_sequentially, large_int8, large_prompt_ids, 1, 100),
    }
    return {name: measure_tokens_per_second(generator, min_seconds) for name, generator in generators.items()}


def large_matrix_shapes() -> dict[str, tuple[int, ...]]:
    """Return the shapes of the matrices that the large model reads completely for each word.

    The embedding and the first layer's input weights are excluded: of their product, only one row is read.
    """
    shapes = weight_shapes(LARGE_CONFIG, LARGE_VOCABULARY_SIZE)
    excluded = ("embedding.weight", "layers.0.weight_ih_l0")
    return {name: shape for name, shape in shapes.items() if len(shape) == 2 and name not in excluded}


def weight_bytes_per_token() -> int:
    """Return the size in fp32 of the matrices in `large_matrix_shapes`."""
    return sum(4 * rows * columns for rows, columns in large_matrix_shapes().values())


def random_decoder(config: ModelConfig, vocabulary_size: int) -> NumpyLSTM:
    """Return an untrained model."""
    tokenizer = WordTokenizer((UNK, EOS, *(f"w{number}" for number in range(vocabulary_size - 2))))
    return NumpyLSTM(config, tokenizer, _random_weights(weight_shapes(config, vocabulary_size)))


def without_eos(decoder: NumpyLSTM) -> NumpyLSTM:
    """Return the same model with an improbable `<eos>`, so that texts do not end by themselves."""
    bias = decoder.weights["output.bias"].copy()
    bias[EOS_ID] = -100
    return NumpyLSTM(decoder.config, decoder.tokenizer, {**decoder.tensors, "output.bias": bias})


def _random_weights(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Float32Array]:
    rng = np.random.default_rng(0)
    return {name: rng.normal(0, 0.05, shape).astype(np.float32) for name, shape in shapes.items()}


def generate_sequentially(model: LanguageModel, ids: tuple[int, ...], num_texts: int, max_tokens: int) -> int:
    """Generate texts with different seeds one after the other, and return the number of words."""
    settings = SamplerSettings(max_tokens=max_tokens)
    events = (event for seed in range(num_texts) for event in generate(model, ids, settings, seed))
    return count_words(model, [event.id for event in events if isinstance(event, TokenEvent)])


def generate_batched(model: LanguageModel, ids: tuple[int, ...], num_texts: int, max_tokens: int) -> int:
    """Generate the same texts in a batch, and return the number of words."""
    state, settings = prefill(model, ids), SamplerSettings(max_tokens=max_tokens)
    steps = generate_batch(model, [GenerationRequest(state, ids, settings, seed) for seed in range(num_texts)])
    return count_words(model, [event.id for step in steps for _, event in step if isinstance(event, TokenEvent)])


def count_words(model: LanguageModel, ids: Sequence[int]) -> int:
    """Return the number of words in a text, of which each can have several tokens."""
    return len(model.tokenizer.decode(np.array(ids, np.int32)).split())


def multiply_all(matrices: Sequence[Float32Array], repetitions: int) -> int:
    """Multiply each matrix `[rows, columns]` by a vector, `repetitions` times, and return `repetitions`."""
    vectors = [np.ones(matrix.shape[1], np.float32) for matrix in matrices]
    outputs = [np.empty(matrix.shape[0], np.float32) for matrix in matrices]
    for _ in range(repetitions):
        for matrix, vector, output in zip(matrices, vectors, outputs, strict=True):
            np.dot(matrix, vector, out=output)
    return repetitions


if __name__ == "__main__":
    print(json.dumps(measure_speeds()))
