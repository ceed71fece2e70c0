"""Speed of the first replies of a process, which pays for everything that later ones find ready.

`python -m lotr_tui.bench.playing.reply_speed MODEL`, with the name of a model in `MODELS`, prints the result of
`measure_replies` as JSON.
"""

import json
import sys
import time
from collections.abc import Callable

from engine.config import ModelConfig
from engine.generation.generate import TokenEvent, generate
from engine.generation.prompt import encode_prompt
from engine.generation.settings import SamplerSettings
from engine.models.numpy_lstm import NumpyLSTM
from engine.presets import get_preset
from engine.runs.directory import resolve_run
from engine.runs.loading import load_model
from lotr_tui.bench.playing.generation_speeds import count_words, random_decoder, without_eos
from lotr_tui.bench.programs import PROMPT

NUM_REPLIES, MAX_TOKENS = 40, 30
VOCABULARY_SIZE = 879
"""Number of words of the film dialogues with at least three occurrences."""


def load_bundled_model() -> NumpyLSTM:
    """Return the bundled model of byte pairs."""
    decoder = load_model(resolve_run(None)).decoder
    assert isinstance(decoder, NumpyLSTM)
    return decoder


def make_plain_model() -> NumpyLSTM:
    """Return a model of words with one layer of 300 units and no mogrifier, as the bundled one was at first."""
    return _make_word_model(ModelConfig(punctuation=True))


def make_default_model() -> NumpyLSTM:
    """Return a model of words with the settings of the preset `default`."""
    return _make_word_model(get_preset("default").model)


def _make_word_model(config: ModelConfig) -> NumpyLSTM:
    # Random weights are as fast as trained ones.
    return random_decoder(config, VOCABULARY_SIZE)


MODELS: dict[str, Callable[[], NumpyLSTM]] = {
    "words": make_plain_model,
    "default": make_default_model,
    "bundled": load_bundled_model,
}


def measure_replies(name: str) -> dict[str, float]:
    """Return words per second of CPU time: `first` in the first reply, `all` in the first 40. Prompts are read too."""
    model = without_eos(MODELS[name]())
    prompt = encode_prompt(PROMPT, model.tokenizer).ids if name == "bundled" else (2, 3, 4)
    settings = SamplerSettings(max_tokens=MAX_TOKENS)
    num_words, seconds = 0, 0.0
    first = 0.0
    for seed in range(NUM_REPLIES):
        started = time.process_time()
        ids = [event.id for event in generate(model, prompt, settings, seed) if isinstance(event, TokenEvent)]
        seconds += time.process_time() - started
        num_words += count_words(model, ids)
        first = first or num_words / seconds
    return {"first": first, "all": num_words / seconds}


if __name__ == "__main__":
    print(json.dumps(measure_replies(sys.argv[1])))
