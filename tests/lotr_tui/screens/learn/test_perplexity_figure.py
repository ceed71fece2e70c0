"""The chapter on perplexity: its numbers, its task, and slow models."""

import asyncio
import math
import re

import numpy as np
import pytest
from textual.widgets import Input, Static

from engine.data.tokenizers.base import EOS_ID
from lotr_tui.learn.material import Material
from lotr_tui.screens.learn.figure import REST_SECONDS
from lotr_tui.screens.learn.figures.perplexity.word_bits import WordBits
from lotr_tui.session.session_model import SessionModel
from lotr_tui.widgets.help_line import HelpLine
from lotr_tui.widgets.slider import Slider
from tests.support.files import run_to_end
from tests.support.learn import bundled_material, open_chapter, until_done
from tests.support.pilot import lines_of, text_of, until

ROWS, ROW_LENGTH = 64, 36


@pytest.fixture(scope="module")
def lstm():
    return run_to_end(bundled_material().model(lambda: False))[0].model


@pytest.fixture(scope="module")
def own_material(lstm):
    """Return the material of a user, whose held-out text is scored once; its model is of no run."""
    return Material(session_model=SessionModel("mine", "a model of the user", lstm))


@pytest.fixture(scope="module")
def dataset():
    return run_to_end(bundled_material().words())[0]


def step_bits(model, ids, previous=EOS_ID):
    """Return the bits of each token, one step of the model after the other."""
    state, bits = model.start(), []
    for token in ids:
        log_probs, state = model.advance(state, previous)
        bits.append(-float(log_probs[token]) / math.log(2))
        previous = token
    return bits


def shown(screen, id):
    return text_of(screen.query_one(f"#{id}", Static))


async def type_line(pilot, screen, line):
    """Replace the line, with the text cursor at its end, and wait until it is scored."""
    text_input = screen.query_one(Input)
    text_input.value = line
    text_input.cursor_position = len(line)
    await pilot.pause()
    await until(pilot, lambda: screen.is_idle)


async def test_numbers_of_a_line_the_held_out_text_and_the_notebook_are_those_of_single_steps(
    make_host, own_material, lstm, dataset
):
    async with make_host().run_test(size=(120, 40)) as pilot:
        screen = await open_chapter(pilot, "perplexity", lambda: own_material)
        assert "mine reads other tokens: the small LSTM reads the held-out text" in shown(screen, "figure-message")
        assert "prints   1.000" in shown(screen, "notebook")
        await type_line(pilot, screen, "Do not tell Frodo.")
        bits = step_bits(lstm, lstm.tokenizer.encode("do not tell frodo").tolist())
        words = lines_of(screen.query_one(WordBits)).splitlines()
        assert words[0].split() == ["Do", "not", "tell", "Frodo"]
        assert words[1].split() == [f"{value:.1f}" for value in bits]
        assert await pilot.click(WordBits, offset=(words[0].index("not") + 2, 1))
        await pilot.pause()
        for text, part in zip(shown(screen, "sums").splitlines(), (bits[:2], bits), strict=True):
            mean = sum(part) / len(part)
            numbers = [float(number) for number in re.findall(r"\d+\.?\d*", text)]
            expected = [round(sum(part), 1), len(part), round(mean, 2), 2, round(mean, 2), round(2**mean, 1)]
            assert numbers == pytest.approx(expected)
        _, state = lstm.advance(lstm.start(), EOS_ID)
        do, not_ = lstm.tokenizer.encode("do not").tolist()
        log_probs, _ = lstm.advance(state, do)
        lines = shown(screen, "word").splitlines()
        assert lines[0].startswith(f"not  {-log_probs[not_] / math.log(2):.1f} bits")
        for line, token in zip(lines[2:], np.argsort(-log_probs)[:5].tolist(), strict=True):
            name, percent = line.split()[:2]
            assert name == lstm.tokenizer.tokens[token]
            assert float(percent) == pytest.approx(100 * math.exp(log_probs[token]), rel=0.05)

        ids, num_tokens = dataset.valid.tolist(), len(dataset.tokenizer)
        counts = np.bincount(dataset.train, minlength=num_tokens) + 1 / num_tokens
        unigram = -np.log2(counts / counts.sum())[ids].mean()
        mean = np.mean(step_bits(lstm, ids))
        heading, *rows = shown(screen, "held-out").splitlines()
        assert f"{len(ids):,} words" in heading
        values = {row[:18].strip(): (row.split("=")[0].split()[-1], row.split("2^")[1].split()[0]) for row in rows}
        assert values["uniform"] == (f"{num_tokens:,}", f"{math.log2(num_tokens):.2f}")
        assert values["unigram"] == (f"{2**unigram:.1f}", f"{unigram:.2f}")
        assert values["small LSTM"] == (f"{2**mean:.1f}", f"{mean:.2f}")
        assert float(values["small LSTM"][0]) < float(values["5-gram"][0]) < float(values["unigram"][0])

        text = dataset.valid[: ROWS * ROW_LENGTH].reshape(ROWS, ROW_LENGTH).tolist()
        losses = np.log(2) * np.array([step_bits(lstm, row[1:], previous=row[0]) for row in text])
        for window in (50, 36, 35, 30, 1):
            screen.query_one(Slider).index = window - 1
            await pilot.pause()
            width = 36 - 35 % window
            total = sum(losses[:, i : i + window].mean() * window for i in range(0, width - 1, window))
            scored = losses[:, : width - 1]
            true = f"{math.exp(scored.mean()):.3f}" if scored.size else "-"
            numbers = re.sub(" +", " ", shown(screen, "notebook").splitlines()[0])
            prints = f"prints {math.exp(total / width):.3f}"
            assert numbers == f"scores {scored.size:,} of 2,240 words · {prints} · true perplexity {true}"


async def test_task_is_done_by_keyboard_and_any_line_can_be_typed(make_host, own_material, dataset):
    async with make_host().run_test(size=(80, 24)) as pilot:
        screen = await open_chapter(pilot, "perplexity", lambda: own_material)
        words, slider = screen.query_one(WordBits), screen.query_one(Slider)
        assert not screen.finished_parts
        await pilot.press("right")
        assert not screen.finished_parts
        await pilot.press("right")
        await until(pilot, lambda: screen.finished_parts == {0})
        await pilot.press("tab")
        expected = f"Reads {ROWS * ROW_LENGTH:,} of {len(dataset.valid):,} words in 64 rows; predicts 35 of 36"
        assert text_of(screen.query_one(HelpLine)).strip() == expected
        slider.index = 35
        await pilot.pause(REST_SECONDS + 0.1)
        assert not screen.is_done  # a window of 36 does not fit
        await pilot.press("left", "left")
        await pilot.pause(REST_SECONDS + 0.1)
        assert not screen.is_done  # a window of 35 fits too
        await pilot.press("right")
        await until_done(pilot)
        slider.index = 16
        await pilot.pause()
        assert "2 × 17 = 34 words of a row, divided by 35" in shown(screen, "notebook")
        assert screen.query_one("#notebook").region.bottom <= 22
        words.focus()
        await pilot.press("home", "x")  # typed while the words have the focus
        assert "x" in screen.query_one(Input).value
        for line in ("", "...", "zorblax ¶ ¶", "日本語 where is", "where " * 300):
            await type_line(pilot, screen, line)
            words.focus()
            await pilot.press("end", "up", "down", "left")
            assert ("type a line" in shown(screen, "word")) == (lines_of(words).strip() == "")


async def test_slow_model_scores_the_line_after_a_pause(make_host, own_material, lstm):
    class Slow:
        is_slow, tokenizer, start = True, lstm.tokenizer, lstm.start

        def advance(self, state, token):
            with pytest.raises(RuntimeError):
                asyncio.get_running_loop()
            return lstm.advance(state, token)

    material = Material(session_model=SessionModel("slow", "a slow model", Slow()))
    material.results.update(own_material.results)
    async with make_host().run_test(size=(80, 24)) as pilot:
        screen = await open_chapter(pilot, "perplexity", lambda: material)
        await pilot.press("shift+tab", *" where is")
        assert lines_of(screen.query_one(WordBits)).split("\n")[1].split()[-1] == "·"
        await until(pilot, lambda: screen.is_idle)
        assert "·" not in lines_of(screen.query_one(WordBits))
