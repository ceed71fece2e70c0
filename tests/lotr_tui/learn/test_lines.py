"""Lines that figures start with, and what a head does on them."""

import numpy as np
import pytest

from engine.data.tokenizers import EOS_ID, UNK_ID, WordTokenizer
from engine.generation.generate import prefill_prompt
from engine.generation.settings import SamplerSettings
from engine.runs.loading import load_model
from engine.storage.files import assets_dir
from lotr_tui.learn.material import continue_text, encode_line, find_example
from lotr_tui.screens.learn.figures.attention import NO_STORY, strongest_earlier, tell_head

TOKENIZER = WordTokenizer(("<unk>", "<eos>", "der", "alte", "ring", "liegt", "im", "see"))
LINES = ["Der Ring", "Der neue Ring liegt im See", "Der alte Ring liegt im See", "Im See liegt der alte Ring"]


@pytest.mark.parametrize(
    ("default", "options", "example"),
    [
        ("Der Ring", {}, "Der Ring"),
        ("The ring", {"start_words": 5}, "Der alte Ring liegt im"),
        ("The ring", {}, "Der alte Ring liegt im See"),
        ("Der Ring", {"is_suitable": lambda line: line.startswith("Im")}, LINES[3]),
        ("Der Ring", {"is_suitable": lambda line: False}, "Der Ring"),
    ],
)
def test_default_is_replaced_by_a_line_of_known_words_that_the_chapter_can_use(default, options, example):
    assert find_example(default, LINES, TOKENIZER, **options) == example


def test_start_and_the_word_itself_do_not_count():
    weights = np.array([0.5, 0.03, 0.07, 0.4], np.float32)
    assert strongest_earlier(weights) == (2, pytest.approx(0.07))


@pytest.mark.parametrize(
    ("looks_at", "story"),
    [
        ([0, 0, 1, 2, 3, 4, 5], "word before"),
        ([0, 0, 0, 0, 0, 0, 0], "rests"),
        ([0, 1, 2, 3, 4, 5, 6], "as it is"),
        ([0, 0, 0, 2, 2, 3, 4], "remembers what followed"),
        ([0, 0, 0, 1, 1, 2, 2], "the same word"),
        ([0, 0, 2, 1, 3, 0, 4], ""),
    ],
)
def test_story_of_a_head_is_what_most_words_do(looks_at, story):
    words = ["start", "a", "b", "a", "b", "a", "b"]
    if "same word" in story:
        looks_at = [0, 0, 0, 1, 2, 1, 2]
    if "remembers" in story:
        looks_at = [0, 0, 0, 2, 3, 2, 3]
    told = tell_head(words, np.eye(7, dtype=np.float32)[looks_at])
    assert story in told if story else told == NO_STORY


@pytest.mark.parametrize("line", ["Frodo has the Ring, and Sam has the", ""])
def test_continuation_takes_the_most_likely_word_each_time(line):
    model = load_model(assets_dir() / "class" / "lstm").model
    tokenizer = model.tokenizer
    state = model.start()
    for token in [EOS_ID, *tokenizer.encode(line).tolist()]:
        log_probs, state = model.advance(state, token)
    words = []
    while len(words) < 6:
        log_probs[UNK_ID] = -np.inf
        token = int(log_probs.argmax())
        words.append("¶" if token == EOS_ID else tokenizer.tokens[token])
        if token == EOS_ID:
            break
        log_probs, state = model.advance(state, token)
    ids = encode_line(model, line)
    settings = SamplerSettings(temperature=0, max_tokens=6)
    text = continue_text(model, prefill_prompt(model, ids), ids, settings, 0, to_line_end=True)
    assert text == " ".join(words)
