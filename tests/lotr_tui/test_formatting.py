"""Numbers, durations and model rows as short texts."""

import math
from dataclasses import replace

import pytest

from engine.data.tokenizers.base import EOS, UNK
from engine.generation.generate import Done
from lotr_tui.formatting import (
    describe_finish_reason,
    displayable,
    format_age,
    format_bytes,
    format_count,
    format_duration,
    format_generation_speed,
    format_model_row,
    format_percent,
    format_perplexity,
    format_token,
    plural,
    token_noun,
)
from tests.support.open_models import bpe_tokenizer


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0:00"),
        (42.4, "0:42"),
        (59.6, "1:00"),
        (185, "3:05"),
        (3723, "1:02:03"),
        (360_000, "100:00:00"),
        (-5, "0:00"),
        (math.inf, "-"),
        (math.nan, "-"),
    ],
)
def test_duration(seconds, text):
    assert format_duration(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-3, "0 s"), (5, "5 s"), (59, "59 s"), (60, "1 min"), (3599, "60 min"), (7200, "2 h"), (4 * 86_400, "4 d")],
)
def test_age(seconds, text):
    assert format_age(seconds) == text


@pytest.mark.parametrize(
    ("perplexity", "text"),
    [(64.04, "64.0"), (99_999.9, "99999.9"), (99_999.96, "1.0e+05"), (3e12, "3.0e+12"), (None, "-"), (math.nan, "-")],
)
def test_perplexity(perplexity, text):
    assert format_perplexity(perplexity) == text


@pytest.mark.parametrize(
    ("fraction", "text"),
    [
        (1.0, "100 %"),
        (0.123, "12 %"),
        (0.0312, "3.1 %"),
        (0.0012, "0.12 %"),
        (0.00012, "0.012 %"),
        (1e-6, "<0.01 %"),
        (0.0, "0 %"),
        (math.nan, "-"),
    ],
)
def test_percent_has_two_significant_digits(fraction, text):
    assert format_percent(fraction) == text


@pytest.mark.parametrize(
    ("num_bytes", "text", "binary_text"),
    [
        (0, "0 B", "0 MiB"),
        (999, "999 B", "0 MiB"),
        (12_300, "12 kB", "0 MiB"),
        (3_400_000, "3.4 MB", "3 MiB"),
        (999_940_000, "999.9 MB", "954 MiB"),
        (999_960_000, "1.0 GB", "954 MiB"),
        (1.5 * 2**30, "1.6 GB", "1.5 GiB"),
        (2_000e9, "2,000.0 GB", "1862.6 GiB"),
    ],
)
def test_bytes(num_bytes, text, binary_text):
    assert format_bytes(num_bytes) == text
    assert format_bytes(num_bytes, binary=True) == binary_text


def test_count_has_thousands_separators():
    assert [format_count(value) for value in (0, 1234.4, math.inf)] == ["0", "1,234", "-"]


def test_plural():
    assert [plural(count, "word") for count in (0, 1, 1200)] == ["0 words", "1 word", "1,200 words"]
    assert [plural(count, "reply", "replies") for count in (1, 2)] == ["1 reply", "2 replies"]


@pytest.mark.parametrize(
    ("reason", "text"),
    [
        ("eos", "end of line"),
        ("length", "stopped at 1,000 words"),
        ("stop", "stop word"),
        ("cancelled", "stopped by you"),
        ("error", "stopped by an error"),
    ],
)
def test_finish_reason(reason, text):
    done = Done(reason, seed=1, tokens=1000, tokens_per_second=9.0)
    assert describe_finish_reason(done) == text
    assert describe_finish_reason(done, "token") == text.replace("1,000 words", "1,000 tokens")


def test_speed_is_in_words_or_tokens():
    done = Done("eos", seed=1, tokens=3, tokens_per_second=1234.5)
    assert format_generation_speed(done) == "1,234 words/s"
    assert format_generation_speed(done, token_noun(bpe_tokenizer())) == "1,234 tokens/s"
    assert format_generation_speed(replace(done, tokens=0)) == ""


def test_displayable_text_has_no_control_characters():
    assert displayable("Éowyn said:\n“日本”") == "Éowyn said:\n“日本”"
    assert displayable("a\tb\r\x1b[2J\u202e\x00\ud800") == "a b �[2J���"
    assert displayable("می\u200cروم 👩\u200d👧") == "می\u200cروم 👩\u200d👧"


def test_model_rows_are_aligned_and_long_names_are_cut():
    short = format_model_row("tiny", "finished", 64.04)
    long = format_model_row("x" * 40, "running", 1234.5)
    assert short == "tiny                     finished  valid   64.0"
    assert long == f"{'x' * 23}… running   valid 1234.5"
    assert (
        format_model_row("a\x1b[31m", "stopped", None).rstrip()
        == "a\N{REPLACEMENT CHARACTER}[31m                   stopped"
    )


def test_special_tokens_have_names_and_others_stay():
    assert [format_token(text) for text in (EOS, UNK, "ring", "<ring>")] == [
        "end of line",
        "rare word",
        "ring",
        "<ring>",
    ]
