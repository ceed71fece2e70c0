"""Numbers, durations and model rows as short texts."""

import math
from dataclasses import replace
from functools import partial

import pytest

from engine.data.tokenizers import EOS, UNK
from engine.generation.generate import Done
from lotr_tui import formatting
from tests.support.open_models import bpe_tokenizer


@pytest.mark.parametrize(
    ("format_value", "texts"),
    [
        (formatting.format_duration, {-5: "0:00", 42.4: "0:42", 59.6: "1:00", 363_723: "101:02:03", math.inf: "-"}),
        (formatting.format_age, {-3: "0 s", 59: "59 s", 60: "1 min", 3599: "60 min", 7200: "2 h", 345_600: "4 d"}),
        (formatting.format_perplexity, {64.04: "64.0", 99_999.9: "99999.9", 3e12: "3.0e+12", None: "-", math.nan: "-"}),
        (formatting.format_percent, {1.0: "100 %", 0.0312: "3.1 %", 0.00012: "0.012 %", 1e-6: "<0.01 %", 0.0: "0 %"}),
        (partial(formatting.format_bytes, binary=True), {0: "0 MiB", 954e6: "910 MiB", 1.5 * 2**30: "1.5 GiB"}),
        (partial(formatting.plural, noun="reply", plural_noun="replies"), {0: "0 replies", 1: "1 reply"}),
        (formatting.format_bytes, {0: "0 B", 12_300: "12 kB", 999_940_000: "999.9 MB", 999_960_000: "1.0 GB"}),
        (formatting.format_count, {0: "0", 1234.4: "1,234", math.inf: "-"}),
        (formatting.format_lone_token, {EOS: "end of line", UNK: "rare word", "ring": "ring", "<ring>": "<ring>"}),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_values_are_short_texts(format_value, texts):
    assert {value: format_value(value) for value in texts} == texts


def test_reply_ends_with_its_reason_and_its_speed_in_words_or_tokens():
    done = Done("length", seed=1, tokens=1000, tokens_per_second=1234.5)
    assert formatting.describe_finish_reason(done) == "stopped at 1,000 words"
    assert formatting.describe_finish_reason(done, "token") == "stopped at 1,000 tokens"
    assert formatting.describe_finish_reason(replace(done, reason="cancelled")) == "stopped by you"
    assert formatting.format_generation_speed(done) == "1,234 words/s"
    token_noun = formatting.token_noun(bpe_tokenizer())
    assert formatting.format_generation_speed(done, token_noun) == "1,234 tokens/s"
    assert formatting.format_generation_speed(replace(done, tokens=0)) == ""


def test_displayable_text_has_no_control_characters():
    assert formatting.displayable("Éowyn said:\n“日本”") == "Éowyn said:\n“日本”"
    assert formatting.displayable("a\tb\r\x1b[2J\u202e\x00\ud800") == "a b �[2J���"
    assert formatting.displayable("می\u200cروم 👩\u200d👧") == "می\u200cروم 👩\u200d👧"


def test_model_rows_are_aligned_and_long_names_are_cut():
    assert formatting.format_model_row("tiny", "finished", "64.0") == "tiny                     finished  valid   64.0"
    assert formatting.format_model_row("x" * 40, "running", "1234.5") == f"{'x' * 23}… running   valid 1234.5"
    assert formatting.format_model_row("a\x1b[31m", "stopped").split() == ["a�[31m", "stopped"]
