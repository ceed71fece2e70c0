"""Words a second on one core: of the bundled model, of a large one, in int8, of 16 columns; beside the plain way."""

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from engine.config import ModelConfig
from engine.data.vocabulary import EOS, EOS_ID, UNK, Vocabulary
from engine.errors import UnusableInput
from engine.generation.batch import Beginning, write
from engine.generation.generate import TokenEvent, encode_prompt, read, stream
from engine.generation.settings import SamplerSettings
from engine.models.matmul import Floats
from engine.models.numpy_lstm import Decoder, weight_shapes
from engine.runs.store import load, resolve
from lotr_tui.bench.figures import Figure, Skipped, median, words_per_second
from lotr_tui.bench.subjects import ONE_THREAD, PROMPT

LARGE = ModelConfig(embedding_size=512, hidden_size=512, layers=2, tied=False)
"""The notebook's network."""
LARGE_WORDS = 879
"""What it knows of the film dialogues."""
COLUMNS = 16
SECONDS = 0.5
"""That each of the speeds is measured for, at least, in each run."""


@dataclass(frozen=True)
class Speeds:
    """Words a second of each way, measured in turn within a few seconds of each other."""

    plain: float
    """The notebook's way, with its network."""
    bundled: float
    large: float
    products: float
    """What the large model would do if it were nothing but its matrices, each read once for a word."""
    int8: float
    """The large model in 8 bits; 0 where numkong is not installed."""
    in_turn: float
    """16 texts of the large model, one after the other."""
    together: float
    """The same 16 as columns."""
    bundled_in_turn: float
    """16 texts of the bundled model."""
    bundled_together: float


def generation(repeat: int) -> Iterator[Figure | Skipped]:
    """The speeds and how they compare; the plain way and ours in turn, each in a process of its own."""
    yield from figures_of([Speeds(plain=_run("notebook_generation"), **_run("generation")) for _ in range(repeat)])


def _run(module: str) -> Any:
    """What a module of the benchmark prints as JSON, in a process of its own that has one BLAS thread."""
    command = [sys.executable, "-m", f"lotr_tui.bench.playing.{module}"]
    output = subprocess.run(command, env=os.environ | ONE_THREAD, stdout=subprocess.PIPE, check=True).stdout
    return json.loads(output)


def figures_of(runs: Sequence[Speeds]) -> Iterator[Figure | Skipped]:
    """Median speeds, and medians of the ratios within each run."""

    def speed(name: str, of: Callable[[Speeds], float]) -> Figure:
        return median(f"{name}, one core", "words/s", [of(run) for run in runs])

    def ratio(name: str, of: Callable[[Speeds], float], to: Callable[[Speeds], float], least: float) -> Figure:
        return median(name, "", [of(run) / to(run) for run in runs], least=least)

    yield speed("the plain way (nn.LSTM, 2 layers of 512)", lambda run: run.plain)
    yield speed("bundled model", lambda run: run.bundled)
    yield ratio("… to the plain way", lambda run: run.bundled, lambda run: run.plain, 60)
    yield speed("2 layers of 512", lambda run: run.large)
    yield ratio("… to the plain way", lambda run: run.large, lambda run: run.plain, 18)
    rate = statistics.median(run.products for run in runs) * bytes_a_word() / 1e9
    yield speed(f"… if reading its weights were all, at {rate:.0f} GB/s", lambda run: run.products)
    yield ratio("… share of that limit", lambda run: run.large, lambda run: run.products, 0.8)
    if not all(run.int8 for run in runs):
        yield Skipped("2 layers of 512 in int8", "numkong is not installed; pip install 'lotr-tui[int8]'")
    else:
        yield speed("2 layers of 512 in int8", lambda run: run.int8)
        yield ratio("… to the plain way", lambda run: run.int8, lambda run: run.plain, 25)
    yield speed(f"2 layers of 512, {COLUMNS} texts as columns", lambda run: run.together)
    yield ratio("… to one text after the other", lambda run: run.together, lambda run: run.in_turn, 4)
    yield speed(f"bundled model, {COLUMNS} texts as columns", lambda run: run.bundled_together)
    yield ratio("… to one text after the other", lambda run: run.bundled_together, lambda run: run.bundled_in_turn, 4)


def large_matrices() -> dict[str, tuple[int, ...]]:
    """Those that the large model reads whole for every word; of the embeddings it reads one."""
    shapes = weight_shapes(LARGE, LARGE_WORDS)
    first = ("embedding.weight", "layers.0.weight_ih_l0")
    return {name: shape for name, shape in shapes.items() if len(shape) == 2 and name not in first}


def bytes_a_word() -> int:
    """Bytes of those matrices in single precision."""
    return sum(4 * rows * columns for rows, columns in large_matrices().values())


def random_decoder(config: ModelConfig, words: int) -> Decoder:
    """A model that was never trained."""
    vocabulary = Vocabulary((UNK, EOS, *(f"w{number}" for number in range(words - 2))))
    return Decoder(config, vocabulary, _random_weights(weight_shapes(config, words)))


def endless(decoder: Decoder, *, int8: bool = False) -> Decoder:
    """The same model, whose texts do not end."""
    bias = decoder.weights["output.bias"].copy()
    bias[EOS_ID] = -100
    return Decoder(decoder.config, decoder.vocabulary, {**decoder.weights, "output.bias": bias}, int8=int8)


def _random_weights(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Floats]:
    chance = np.random.default_rng(0)
    return {name: chance.normal(0, 0.05, shape).astype(np.float32) for name, shape in shapes.items()}


def measure_ours(seconds: float = SECONDS) -> dict[str, float]:
    """Every speed but that of the plain way, one after the other, on the threads that the environment allows."""
    bundled = endless(load(resolve(None)).decoder)
    ids = encode_prompt(PROMPT, bundled.vocabulary).ids
    large = endless(random_decoder(LARGE, LARGE_WORDS))
    try:
        small = endless(large, int8=True)
    except UnusableInput:
        small = None
    matrices = list(_random_weights(large_matrices()).values())
    ways: dict[str, Callable[[], int]] = {
        "bundled": lambda: in_turn(bundled, ids, 1, 100),
        "large": lambda: in_turn(large, (2, 3), 1, 100),
        "products": lambda: read_all(matrices, 100),
        "in_turn": lambda: in_turn(large, (2, 3), COLUMNS, 30),
        "together": lambda: together(large, (2, 3), COLUMNS, 30),
        "bundled_in_turn": lambda: in_turn(bundled, ids, COLUMNS, 30),
        "bundled_together": lambda: together(bundled, ids, COLUMNS, 30),
    }
    if small is not None:
        ways["int8"] = partial(in_turn, small, (2, 3), 1, 100)
    return {"int8": 0.0} | {name: words_per_second(way, seconds) for name, way in ways.items()}


def in_turn(model: Decoder, ids: tuple[int, ...], texts: int, most: int) -> int:
    """Write so many texts, each with a seed of its own, one after the other; how many words that was."""
    settings = SamplerSettings(max_tokens=most)
    return sum(isinstance(event, TokenEvent) for seed in range(texts) for event in stream(model, ids, settings, seed))


def together(model: Decoder, ids: tuple[int, ...], texts: int, most: int) -> int:
    """Write the same texts as columns."""
    reading, settings = read(model, ids), SamplerSettings(max_tokens=most)
    rows = write(model, [Beginning(reading, ids, settings, seed) for seed in range(texts)])
    return sum(isinstance(event, TokenEvent) for row in rows for _, event in row)


def read_all(matrices: Sequence[Floats], times: int) -> int:
    """Multiply each matrix with a vector, so many times; how often all of them were read."""
    vectors = [np.ones(matrix.shape[1], np.float32) for matrix in matrices]
    outs = [np.empty(matrix.shape[0], np.float32) for matrix in matrices]
    for _ in range(times):
        for matrix, vector, out in zip(matrices, vectors, outs, strict=True):
            np.dot(matrix, vector, out=out)
    return times


if __name__ == "__main__":
    print(json.dumps(measure_ours()))
