"""Speed and memory of playing with a model on one core.

`python -m lotr_tui.bench.playing.playing_speed FOLDER` plays the run, or the n-gram model that `write_ngram` wrote, and
prints the result of `measure_playing` as JSON.
"""

import json
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from engine.data.tokenizers.base import TokenIds, Tokenizer, TokenizerName
from engine.data.tokenizers.loading import tokenizer_file_name, tokenizer_from_json
from engine.generation.generate import TokenEvent, generate
from engine.generation.prompt import encode_prompt
from engine.generation.settings import SamplerSettings
from engine.models.base import LanguageModel
from engine.models.ngram import KneserNey
from engine.runs.loading import load_model
from engine.storage.schema import decode_json
from lotr_tui.bench.measurement import measure_tokens_per_second
from lotr_tui.bench.processes import SINGLE_THREAD_ENV, peak_megabytes, run_module

PROMPT = "Where is the Ring"
SETTINGS = SamplerSettings(temperature=0.8, max_tokens=100)
TEXTS_PER_CALL = 5
MIN_SECONDS = 2.0
"""Minimum CPU time of the generation."""
NGRAM_FILE, COUNTED_IDS_FILE = "ngram.json", "ids.npy"


@dataclass(frozen=True)
class PlayingSpeed:
    """Speed of generation, and memory of the process."""

    words_per_second: float
    """Words per second of CPU time; a word of several tokens counts once."""
    peak_megabytes: float | None
    """Maximum resident memory, with Python and the libraries; None without `/proc`."""


@dataclass(frozen=True)
class _NgramFile:
    """Description of an n-gram model in its folder."""

    order: int
    tokenizer: TokenizerName


def write_ngram(folder: Path, ids: TokenIds, tokenizer: Tokenizer, order: int) -> None:
    """Write what an n-gram model is counted from: the training text `ids` `[time]` and the tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / COUNTED_IDS_FILE, ids)
    (folder / tokenizer_file_name(tokenizer.name)).write_text(tokenizer.to_json(), encoding="utf-8")
    (folder / NGRAM_FILE).write_text(json.dumps(asdict(_NgramFile(order, tokenizer.name))), encoding="utf-8")


def load_playable(folder: Path) -> LanguageModel:
    """Load the model of a run, or count an n-gram model.

    Raises:
        RunError: If the folder contains neither.
    """
    if not (folder / NGRAM_FILE).exists():
        return load_model(folder).model
    description = decode_json(_NgramFile, (folder / NGRAM_FILE).read_text(encoding="utf-8"))
    file = folder / tokenizer_file_name(description.tokenizer)
    tokenizer = tokenizer_from_json(file.read_text(encoding="utf-8"), str(file), description.tokenizer)
    return KneserNey(np.load(folder / COUNTED_IDS_FILE, allow_pickle=False), tokenizer, description.order)


def measure_playing(folder: Path, min_seconds: float = MIN_SECONDS) -> PlayingSpeed:
    """Generate texts with the model in `folder`, and measure the speed and the memory of this process."""
    words_per_second = measure_tokens_per_second(_text_generator(load_playable(folder)), min_seconds)
    return PlayingSpeed(words_per_second, peak_megabytes(os.getpid()))


def measure_playing_in_process(folder: Path, env: Mapping[str, str] = SINGLE_THREAD_ENV) -> PlayingSpeed:
    """Return the result of `measure_playing` in a new process with one thread."""
    return PlayingSpeed(**run_module("lotr_tui.bench.playing.playing_speed", folder, env=env))


def _text_generator(model: LanguageModel) -> Callable[[], int]:
    """Return a function that generates some texts with new seeds, and returns their number of words."""
    prompt = encode_prompt(PROMPT, model.tokenizer).ids
    seeds = iter(range(1_000_000_000))

    def generate_texts() -> int:
        num_words = 0
        for seed in (next(seeds) for _ in range(TEXTS_PER_CALL)):
            events = generate(model, prompt, SETTINGS, seed)
            ids = [event.id for event in events if isinstance(event, TokenEvent)]
            num_words += len(model.tokenizer.decode(np.array(ids, np.int32)).split())
        return num_words

    return generate_texts


if __name__ == "__main__":
    print(json.dumps(asdict(measure_playing(Path(sys.argv[1])))))
