"""Measurement of how much speakers and context help a dialogue model, on held-out scenes.

`python -m lotr_tui.bench.playing.dialogue RUN [RUN_WITHOUT_SPEAKERS] [valid|test]` prints one JSON object. The second
run has the same data without speakers (`--mode line --split scenes --set min_characters=0`); with the same cache, it
gives the bits per character without speakers, after the scene and without it.
"""

import json
import math
import sys
import time
import tracemalloc
from collections import Counter
from collections.abc import Sequence

import numpy as np

from engine.analysis.dialogue_measures import (
    ContextReader,
    bits_by_context,
    identification_accuracy,
    next_line_accuracy,
    next_speaker_accuracy,
    read_scenes,
)
from engine.analysis.speaker_posterior import SpeakerPosterior
from engine.data.arrays import Float64Array
from engine.data.dataset import Dataset
from engine.data.lines import Lines
from engine.data.speakers import SOMEONE
from engine.generation.best_of import stream_answers
from engine.generation.prompt import DecoderState, prefill
from engine.generation.settings import SamplerSettings
from engine.generation.turns import Turn, TurnEnd, encode_turn, generate_scene
from engine.models.base import LanguageModel
from engine.models.cache import NeuralCache
from engine.runs.combine import load_run_dataset
from engine.runs.dialogue_parts import CACHE_SETTINGS
from engine.runs.loading import LoadedModel, load_model_by_name
from lotr_tui.session.conversation.cast import speaking_role

MIN_SPEAKER_LINES = 20
"""Lines of a speaker in the whole corpus from which identification and next speakers count."""
NUM_RESAMPLES = 2000
MAX_HIDDEN_PLACES, MAX_SHOWN_PLACES = 100, 250
"""Places at which the next line is looked for; without the speakers, each line is read as all of them."""
NUM_PROMPTS, NUM_COMPARED_WORDS, NUM_SCENE_TURNS = 100, 6, 200
SETTINGS = SamplerSettings(temperature=0.7, min_p=0.05, max_tokens=40)


def measure_dialogue(run: LoadedModel, without_speakers: LoadedModel | None, split: str) -> dict[str, object]:
    """Return all measures of a dialogue run on one split."""
    dataset = load_run_dataset(run)
    model = run.model
    names = _frequent_speakers(dataset, model.tokenizer.cast)
    scenes = read_scenes(_lines(dataset, split), model.tokenizer.cast)
    reader = ContextReader(model, scenes)
    record: dict[str, object] = {"run": run.name, "split": split, "speakers": len(names)}
    record["with_speakers"] = _describe_bits(bits_by_context(reader))
    anonymous = [[Turn(SOMEONE, turn.text) for turn in scene] for scene in scenes]
    record["all_someone"] = _describe_bits(bits_by_context(ContextReader(model, anonymous), num_random=1))
    record["network_alone"] = _describe_bits(bits_by_context(ContextReader(run.decoder, scenes), num_random=1))
    if without_speakers is not None:
        other = ContextReader(NeuralCache(without_speakers.model, CACHE_SETTINGS), scenes)
        record["without_speakers"] = _describe_bits(bits_by_context(other, num_random=1))

    def score(context: DecoderState, text: str, *, expect_context: bool) -> Float64Array:
        posterior = SpeakerPosterior(model, context, expect_context=expect_context)
        return np.log(posterior.update(text, is_complete=True).posterior)

    for key, with_context in (("who_without_context", False), ("who_with_context", True)):
        record[key] = identification_accuracy(reader, names, score, with_context=with_context)
    record["next_speaker"] = next_speaker_accuracy(reader, names)
    for key, shown, max_places in (
        ("next_line_speakers_hidden", False, MAX_HIDDEN_PLACES),
        ("next_line_speakers_shown", True, MAX_SHOWN_PLACES),
    ):
        ranks = next_line_accuracy(reader, speakers_shown=shown, max_places=max_places)
        record[key] = {"likelihood": ranks.by_likelihood, "gain": ranks.by_gain, "places": ranks.num_places}
    return record


def measure_playing(run: LoadedModel, prompts: Sequence[str], speaker: str) -> dict[str, object]:
    """Return measures of answers to different prompts with one seed, of their speed, and of a long scene."""
    model = run.model
    record: dict[str, object] = {"run": run.name, "speaker": speaker}
    for num_answers in (1, 8):
        replies, seconds, first_word_seconds = [], [], []
        for prompt in prompts:
            start = time.perf_counter()
            ids = encode_turn(model.tokenizer, Turn(speaking_role(model.tokenizer.cast, ""), prompt))
            state = prefill(model, ids)
            events = stream_answers(model, state, speaker, SETTINGS, 1, num_answers, history=ids)
            next(events)  # the choice, after which the first token follows at once
            first_word_seconds.append(time.perf_counter() - start)
            *_, answers = events
            seconds.append(time.perf_counter() - start)
            assert isinstance(answers, list)
            replies.append(answers[0].text)
        starts = Counter(tuple(reply.lower().split()[:NUM_COMPARED_WORDS]) for reply in replies)
        record[f"best_of_{num_answers}"] = {
            "replies_that_share_their_start": sum(count for count in starts.values() if count > 1),
            "largest_group": max(starts.values()),
            "median_seconds_to_first_word": float(np.median(first_word_seconds)),
            "p95_seconds_to_first_word": float(np.quantile(first_word_seconds, 0.95)),
            "median_seconds": float(np.median(seconds)),
            "p95_seconds": float(np.quantile(seconds, 0.95)),
        }
    record["scene"] = _measure_scene(model)
    return record


def _measure_scene(model: LanguageModel) -> dict[str, float]:
    """Return speed and memory of the first and the last turns of a long scene."""
    tracemalloc.start()
    tokens, memory, ends = [0], [], [time.perf_counter()]
    for event in generate_scene(model, model.tokenizer.cast[:4], NUM_SCENE_TURNS, SETTINGS, seed=1):
        if isinstance(event, TurnEnd):
            tokens.append(event.done.tokens)
            ends.append(time.perf_counter())
            memory.append(tracemalloc.get_traced_memory()[0] / 1e6)
    tracemalloc.stop()
    speeds = [
        sum(tokens[first + 1 : last + 1]) / (ends[last] - ends[first])
        for first, last in ((0, NUM_SCENE_TURNS // 4), (3 * NUM_SCENE_TURNS // 4, NUM_SCENE_TURNS))
    ]
    return {
        "turns": len(memory),
        "tokens": sum(tokens),
        "tokens_per_second_first_quarter": speeds[0],
        "tokens_per_second_last_quarter": speeds[1],
        "megabytes_after_40_turns": memory[39],
        "megabytes_at_the_end": memory[-1],
    }


def _describe_bits(columns: dict[str, Float64Array]) -> dict[str, float]:
    """Return bits per character, and their differences to random and no context with standard errors."""
    characters = columns["characters"]
    total = characters.sum()
    rng = np.random.default_rng(0)
    resamples = rng.integers(0, len(characters), (NUM_RESAMPLES, len(characters)))
    record = {name: float(columns[name].sum() / total) for name in ("true", "random", "none")}
    for name in ("random", "none"):
        gains = columns[name] - columns["true"]
        means = gains[resamples].sum(axis=1) / characters[resamples].sum(axis=1)
        record[f"gain_over_{name}"] = float(gains.sum() / total)
        record[f"gain_over_{name}_se"] = float(means.std())
    return record


def _frequent_speakers(dataset: Dataset, cast: Sequence[str]) -> list[str]:
    counts = Counter(line.speaker for line in dataset.corpus.lines)
    return [name for name, count in counts.most_common() if count >= MIN_SPEAKER_LINES and name in cast]


def _lines(dataset: Dataset, split: str) -> Lines:
    return {"train": dataset.splits.train, "valid": dataset.splits.valid, "test": dataset.splits.test}[split]


def main() -> None:
    """Print the measures of a run."""
    arguments = sys.argv[1:]
    split = arguments.pop() if arguments and arguments[-1] in ("valid", "test") else "valid"
    run = load_model_by_name(arguments[0])
    other = load_model_by_name(arguments[1]) if len(arguments) > 1 else None
    record = measure_dialogue(run, other, split)
    dataset = load_run_dataset(run)
    prompts = [line.text for line in [*dataset.splits.valid, *dataset.splits.test] if line.text][:NUM_PROMPTS]
    speaker = "GANDALF" if "GANDALF" in run.model.tokenizer.cast else run.model.tokenizer.cast[0]
    record["playing"] = measure_playing(run, prompts, speaker)
    print(json.dumps(record, default=lambda value: None if math.isnan(value) else value))


if __name__ == "__main__":
    main()
