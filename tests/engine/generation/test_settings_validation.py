"""Validation of settings, prompts and seeds."""

import math

import pytest

from engine.data.tokenizers.base import UNK_ID
from engine.data.tokenizers.words import WordTokenizer
from engine.errors import InvalidInputError, PromptError
from engine.generation.generate import generate
from engine.generation.prompt import encode_prompt
from engine.generation.settings import MAX_SEED, SamplerSettings, random_seed
from tests.support.sampling import NO_FILTERS, FixedModel, id_vocabulary


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("temperature", [math.nan, -0.1, 2.01, math.inf, -math.inf]),
        ("top_k", [-1, 10**9]),
        ("top_p", [math.nan, 0, -0.5, 1.01, math.inf]),
        ("min_p", [math.nan, -0.01, 1.5]),
        ("repetition_penalty", [math.nan, 0, -1, 11, math.inf]),
        ("max_tokens", [0, -5, 10**9]),
    ],
)
def test_settings_out_of_range_are_refused_by_name_and_value(name: str, values: list[float]) -> None:
    for value in values:
        with pytest.raises(InvalidInputError) as caught:
            SamplerSettings(**{name: value})  # type: ignore[arg-type]
        assert name.replace("_", "-") in str(caught.value)
        assert str(value) in str(caught.value)


def test_limits_of_the_ranges_are_accepted() -> None:
    SamplerSettings(temperature=0, top_k=0, top_p=1e-9, min_p=0, repetition_penalty=0.1, max_tokens=1)
    SamplerSettings(temperature=2, top_p=1, min_p=1, repetition_penalty=10)


def test_description_lists_the_stages_in_the_order_they_apply() -> None:
    settings = SamplerSettings(temperature=0.7, top_k=40, top_p=0.9, min_p=0.05, repetition_penalty=1.2)
    description = settings.describe()
    positions = [description.index(stage) for stage in ("repetition penalty", "temperature", "top-k", "top-p", "min-p")]
    assert positions == sorted(positions)
    assert "greedy" in SamplerSettings(temperature=0).describe()
    assert "top" not in SamplerSettings().describe()


def test_prompt_is_tokenized_and_its_unknown_words_are_listed() -> None:
    tokenizer = WordTokenizer(("<unk>", "<eos>", "bilbo", "is", "don't"))
    prompt = encode_prompt("Bilbo, XYZZY is: don't... xyzzy plugh!", tokenizer)
    assert prompt.ids == (2, UNK_ID, 3, 4, UNK_ID, UNK_ID)
    assert prompt.unknown_tokens == ("xyzzy", "plugh")
    assert prompt.text == "Bilbo, XYZZY is: don't... xyzzy plugh!"
    assert encode_prompt("is", tokenizer).unknown_tokens == ()


def test_characters_that_the_tokenizer_skips_are_listed_like_unknown_words() -> None:
    tokenizer = WordTokenizer(("<unk>", "<eos>", "bilbo", "is"))
    prompt = encode_prompt("Bilbo ☺ xyzzy, “is” … мир! ☺", tokenizer)
    assert prompt.ids == (2, UNK_ID, 3)
    assert prompt.unknown_tokens == ("☺", "xyzzy", "мир")


def test_a_prompt_in_another_script_is_refused_and_the_readable_characters_are_named() -> None:
    with pytest.raises(PromptError, match="cannot read ☺, мир; type words of the letters a to z"):
        encode_prompt("☺ мир!", id_vocabulary(5))


@pytest.mark.parametrize("text", ["", "   ", "\n\t", "?!…", "—"])
def test_a_prompt_without_words_is_refused(text: str) -> None:
    with pytest.raises(PromptError, match="no word"):
        encode_prompt(text, id_vocabulary(5))


def test_a_prompt_of_unknown_words_is_refused_and_they_are_named() -> None:
    with pytest.raises(PromptError) as caught:
        encode_prompt("one two three two four five six", id_vocabulary(5))
    words = "one, two, three, four, five, and 1 more"
    assert str(caught.value) == f"the model knows none of the prompt's words: {words}; use other words"


def test_a_prompt_of_special_tokens_is_refused() -> None:
    with pytest.raises(PromptError):
        encode_prompt("<unk> <eos>", id_vocabulary(5))


@pytest.mark.parametrize("seed", [-1, MAX_SEED + 1])
def test_a_seed_out_of_range_is_refused(seed: int) -> None:
    with pytest.raises(InvalidInputError, match=str(seed)):
        list(generate(FixedModel([1, 1, 1]), [2], NO_FILTERS, seed))


def test_random_seeds_are_valid_and_different() -> None:
    seeds = {random_seed() for _ in range(50)}
    assert len(seeds) > 40
    assert all(0 <= seed <= MAX_SEED for seed in seeds)
