"""Tokens per second of the Transformer in numpy on one core, and the latency of a branch.

`python -m lotr_tui.bench.playing.transformer_generation` prints the result of `measure_transformer_speeds` as JSON.
"""

import json
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np

from engine.data.tokenizers.base import EOS, EOS_ID, UNK
from engine.data.tokenizers.words import WordTokenizer
from engine.models.numpy_transformer import NumpyTransformer
from engine.models.transformer_layout import transformer_weight_shapes
from engine.presets import get_preset
from lotr_tui.bench.measurement import measure_tokens_per_second
from lotr_tui.bench.playing.generation_speeds import BATCH_SIZE, generate_batched, generate_sequentially

CONFIG = replace(get_preset("gpt").model, context_size=512)
"""The preset's 6 layers of 320, with a context that is long enough to branch 200 tokens back."""
VOCABULARY_SIZE = get_preset("gpt").data.vocabulary_size
NUM_TOKENS, NUM_BATCH_TOKENS = 100, 30
"""Tokens of a text that is generated alone, and of each text in a batch."""
NUM_TOKENS_BEFORE_BRANCH, NUM_TOKENS_BACK = 300, 200
NUM_BRANCHES = 20
MIN_SECONDS = 1.0
"""Minimum CPU time of each speed."""


def measure_transformer_speeds(min_seconds: float = MIN_SECONDS) -> dict[str, float]:
    """Return tokens per second of each precision, and milliseconds from a branch point to the next distribution.

    `…_sequential` and `…_batched` are `BATCH_SIZE` texts, one after the other or in a batch.
    """
    results = {}
    for name, model in (("fp32", random_transformer()), ("int8", random_transformer(int8=True))):
        generators: dict[str, Callable[[], int]] = {
            name: partial(generate_sequentially, model, (2, 3), 1, NUM_TOKENS),
            f"{name}_sequential": partial(generate_sequentially, model, (2, 3), BATCH_SIZE, NUM_BATCH_TOKENS),
            f"{name}_batched": partial(generate_batched, model, (2, 3), BATCH_SIZE, NUM_BATCH_TOKENS),
        }
        for key, generator in generators.items():
            results[key] = measure_tokens_per_second(generator, min_seconds)
        results[f"{name}_branch"] = 1000 * statistics.median(time_branches(model))
    return results


def random_transformer(*, int8: bool = False) -> NumpyTransformer:
    """Return an untrained model, for which `<eos>` is about as improbable as any token, so that few texts end early."""
    tokenizer = WordTokenizer((UNK, EOS, *(f"w{number}" for number in range(VOCABULARY_SIZE - 2))))
    rng, shapes = np.random.default_rng(0), transformer_weight_shapes(CONFIG, VOCABULARY_SIZE)
    weights = {name: rng.normal(len(shape) == 1, 0.02, shape).astype(np.float32) for name, shape in shapes.items()}
    weights["model.embed_tokens.weight"][EOS_ID] = 0
    return NumpyTransformer(CONFIG, tokenizer, weights, int8=int8)


def time_branches(model: NumpyTransformer) -> list[float]:
    """Read a text, then branch from a state of its middle; return seconds to the distribution after the first token."""
    _, state = model.advance(model.start(), EOS_ID)
    states = [state]
    for number in range(NUM_TOKENS_BEFORE_BRANCH):
        states.append(model.advance(states[-1], 2 + number)[1])
    branch_point, seconds = states[-1 - NUM_TOKENS_BACK], []
    for number in range(NUM_BRANCHES):
        started = time.perf_counter()
        model.advance(branch_point, 2 + number)
        seconds.append(time.perf_counter() - started)
    return seconds


if __name__ == "__main__":
    print(json.dumps(measure_transformer_speeds()))
