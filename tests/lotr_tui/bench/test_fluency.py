"""Fluency of replies, with a judge whose bits are known."""

import pytest

from engine.data.lines import Line
from lotr_tui.bench.playing.fluency import bits_per_character, measure_fluency
from tests.support.open_models import RecitingModel, bpe_tokenizer


def judge(text: str) -> float:
    """Return three bits for each character, and one more for each text."""
    return 3 * len(text) + 1


def test_bits_are_those_of_all_texts_and_the_mean_of_the_texts() -> None:
    figures = bits_per_character(judge, ["abcd", "ab"])
    assert figures["bits_per_character"] == pytest.approx((13 + 7) / 6)
    assert figures["mean_of_texts"] == pytest.approx((13 / 4 + 7 / 2) / 2)


def test_a_model_that_repeats_one_line_has_few_distinct_bigrams() -> None:
    lines = [Line("one two three four"), Line("five six seven eight"), Line("nine ten eleven twelve")]
    model = RecitingModel(bpe_tokenizer(), "one two three four")
    figures = measure_fluency(judge, model, lines, prompts=lines)
    assert figures["replies"] == 3
    assert figures["replies_bits_per_character"] > 3
    assert figures["real_lines_bits_per_character"] == pytest.approx(3 + 3 / sum(len(line.text) for line in lines))
    assert figures["distinct_bigrams"] < 0.6
