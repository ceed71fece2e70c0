"""The chapter on perplexity: its numbers, its task, and other models and corpora."""

import asyncio
import math
import re

import numpy as np
import pytest
from textual.widgets import Input, Static

from engine.data.dataset import load_dataset
from engine.data.tokenizers.base import EOS_ID
from engine.runs.loading import load_model
from engine.storage.files import assets_dir
from lotr_tui.learn.class_models import bundled_data_config
from lotr_tui.learn.material import Material
from lotr_tui.screens.learn.figure import REST_SECONDS
from lotr_tui.screens.learn.figures.perplexity.word_bits import WordBits
from lotr_tui.session.session_model import SessionModel
from lotr_tui.widgets.help_line import HelpLine
from lotr_tui.widgets.slider import Slider
from tests.support.learn import open_chapter, until_done
from tests.support.pilot import lines_of, text_of, until


@pytest.fixture(scope="module")
def lstm():
    """Return the small LSTM of the class."""
    return load_model(assets_dir() / "class" / "lstm").model


@pytest.fixture(scope="module")
def dataset():
    """Return the bundled dialogues as words."""
    return load_dataset(bundled_data_config())


def step_bits(model, ids):
    """Return the bits of each token after `<eos>`, one step of the model after the other."""
    state, previous, bits = model.start(), EOS_ID, []
    for token in ids:
        log_probs, state = model.advance(state, previous)
        bits.append(-float(log_probs[token]) / math.log(2))
        previous = token
    return bits


def shown(screen, id):
    """Return a text of the figure."""
    return text_of(screen.query_one(f"#{id}", Static))


async def type_line(pilot, screen, line):
    """Replace the line, with the text cursor at its end, and wait until it is scored."""
    text_input = screen.query_one(Input)
    text_input.value = line
    text_input.cursor_position = len(line)
    await pilot.pause()
    await until(pilot, lambda: screen.is_idle)


async def test_bits_and_expected_words_of_a_line_are_those_of_single_steps(make_host, bundled_material, lstm):
    async with make_host().run_test(size=(120, 40)) as pilot:
        screen = await open_chapter(pilot, "perplexity", lambda: bundled_material)
        await type_line(pilot, screen, "Do not tell Frodo.")
        bits = step_bits(lstm, lstm.tokenizer.encode("do not tell frodo").tolist())
        words = lines_of(screen.query_one(WordBits)).splitlines()
        assert words[0].split() == ["Do", "not", "tell", "Frodo"]
        assert words[1].split() == [f"{value:.1f}" for value in bits]
        assert await pilot.click(WordBits, offset=(words[0].index("not") + 2, 1))
        await pilot.pause()
        cursor, line = shown(screen, "sums").splitlines()
        for text, part in ((cursor, bits[:2]), (line, bits)):
            mean = sum(part) / len(part)
            numbers = [float(number) for number in re.findall(r"\d+\.?\d*", text)]
            expected = [round(sum(part), 1), len(part), round(mean, 2), 2, round(mean, 2), round(2**mean, 1)]
            assert numbers == pytest.approx(expected)

        await type_line(pilot, screen, "I do not")
        state = lstm.start()
        for token in (EOS_ID, *lstm.tokenizer.encode("i do").tolist()):
            log_probs, state = lstm.advance(state, token)
        lines = shown(screen, "word").splitlines()
        not_id = lstm.tokenizer.encode("not")[0]
        assert lines[0].startswith(f"not  {-log_probs[not_id] / math.log(2):.1f} bits")
        for line, token in zip(lines[2:], np.argsort(-log_probs)[:5].tolist(), strict=True):
            name, percent = line.split()[:2]
            assert name == lstm.tokenizer.tokens[token]
            assert float(percent) == pytest.approx(100 * math.exp(log_probs[token]), rel=0.05)


async def test_held_out_text_and_the_window_of_the_notebook_have_the_perplexities_of_single_steps(
    make_host, bundled_material, lstm, dataset
):
    ids = dataset.valid.tolist()
    counts = np.bincount(dataset.train, minlength=len(dataset.tokenizer)) + 1 / len(dataset.tokenizer)
    unigram = -np.log2(counts / counts.sum())[ids]
    losses = np.zeros((64, 35))
    for row, row_ids in enumerate(dataset.valid[: 64 * 36].reshape(64, 36).tolist()):
        state = lstm.start()
        for time in range(35):
            log_probs, state = lstm.advance(state, row_ids[time])
            losses[row, time] = -log_probs[row_ids[time + 1]]
    async with make_host().run_test(size=(120, 40)) as pilot:
        screen = await open_chapter(pilot, "perplexity", lambda: bundled_material)
        assert "prints   1.000" in shown(screen, "notebook")
        heading, *rows = shown(screen, "held-out").splitlines()
        assert f"{len(ids):,} words" in heading
        values = {row[:18].strip(): (row.split("=")[0].split()[-1], row.split("2^")[1].split()[0]) for row in rows}
        num_tokens = len(dataset.tokenizer)
        assert values["uniform"] == (f"{num_tokens:,}", f"{math.log2(num_tokens):.2f}")
        assert values["unigram"] == (f"{2 ** unigram.mean():.1f}", f"{unigram.mean():.2f}")
        mean = np.mean(step_bits(lstm, ids))
        assert values["small LSTM"] == (f"{2**mean:.1f}", f"{mean:.2f}")
        assert float(values["small LSTM"][0]) < float(values["5-gram"][0]) < float(values["unigram"][0])
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


async def test_task_is_done_by_keyboard_and_any_line_can_be_typed(make_host, bundled_material, dataset):
    async with make_host().run_test(size=(80, 24)) as pilot:
        screen = await open_chapter(pilot, "perplexity", lambda: bundled_material)
        words, slider = screen.query_one(WordBits), screen.query_one(Slider)
        for line in ("", "  ", "...", "zorblax", "¶ ¶", "日本語 where is", "where " * 900):
            await type_line(pilot, screen, line)
            words.focus()
            await pilot.press("end", "up", "down", "left", "home", "right")
            await pilot.pause()
            assert ("type a line" in shown(screen, "word")) == (lines_of(words).strip() == "")
        await pilot.press("escape")
        screen = await open_chapter(pilot, "perplexity", lambda: bundled_material)
        words, slider = screen.query_one(WordBits), screen.query_one(Slider)
        assert not screen.finished_parts
        await pilot.press("right")
        assert not screen.finished_parts
        await pilot.press("right")
        await until(pilot, lambda: screen.finished_parts == {0})
        await pilot.press("tab")
        expected = f"Reads {64 * 36:,} of {len(dataset.valid):,} words in 64 rows; predicts 35 of 36"
        assert text_of(screen.query_one(HelpLine)).strip() == expected
        await pilot.press(*["left"] * 14)
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


async def test_models_of_the_user_score_the_line_and_slow_ones_after_a_pause(make_host, lstm):
    class Slow:
        is_slow, tokenizer, start = True, lstm.tokenizer, lstm.start

        def advance(self, state, token):
            with pytest.raises(RuntimeError):
                asyncio.get_running_loop()
            return lstm.advance(state, token)

    async with make_host().run_test(size=(80, 24)) as pilot:
        own = SessionModel.from_loaded(load_model(assets_dir() / "model"))
        screen = await open_chapter(pilot, "perplexity", lambda: Material(session_model=own))
        assert "the small LSTM reads the held-out text" in shown(screen, "figure-message")
        assert "small LSTM 79" in shown(screen, "held-out")
        await type_line(pilot, screen, "Where are you, Gandalf?")
        scores = screen.query_one(WordBits).scores
        assert scores.tokenizer == own.model.tokenizer  # of byte pairs
        bits = lines_of(screen.query_one(WordBits)).splitlines()[1].split()
        assert sum(map(float, bits)) == pytest.approx(scores.bits.sum(), abs=0.5)
        assert f"÷ {len(scores.tokens):3} tokens" in shown(screen, "sums")

        slow = SessionModel("slow", "a slow model", Slow())
        screen = await open_chapter(pilot, "perplexity", lambda: Material(session_model=slow))
        await pilot.press("shift+tab", *" where is")
        assert lines_of(screen.query_one(WordBits)).split("\n")[1].split()[-1] == "·"
        await until(pilot, lambda: screen.is_idle)
        assert "·" not in lines_of(screen.query_one(WordBits))
