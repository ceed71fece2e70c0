"""The chapter on perplexity: its numbers, its task, and slow models."""

import asyncio
import math
import re

import numpy as np
import pytest
from textual.widgets import Input

from engine.data.tokenizers import EOS_ID
from lotr_tui.learn.material import Material
from lotr_tui.screens.learn.figures.words import PerplexityData
from lotr_tui.session.session_model import SessionModel
from lotr_tui.widgets.slider import Slider
from tests.support.files import run_to_end
from tests.support.learn import bundled_material, open_chapter, until_done
from tests.support.pilot import text_of, until


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
    return text_of(screen.query_one(f"#{id}"))


def dataset_line(material):
    """Return a line of the training text whose words the counts know better than the network."""
    dataset = run_to_end(material.words())[0]
    counts, network = (
        run_to_end(material.counts(5))[0],
        run_to_end(material.class_model("lstm", lambda: False))[0].model,
    )
    for line in dataset.splits.train:
        ids = dataset.tokenizer.encode(line.text).tolist()
        if 5 <= len(ids) < 12 and sum(step_bits(counts, ids)) < sum(step_bits(network, ids)):
            return line.text
    raise AssertionError


async def type_line(pilot, screen, line):
    """Replace the line, with the text cursor at its end, and wait until it is scored."""
    text_input = screen.query_one(Input)
    text_input.value = line
    text_input.cursor_position = len(line)
    await pilot.pause()
    await until(pilot, lambda: screen.is_idle)


async def test_numbers_of_a_line_and_of_the_held_out_text_are_those_of_single_steps(
    make_host, own_material, lstm, dataset
):
    async with make_host().run_test(size=(120, 40)) as pilot:
        screen = await open_chapter(pilot, "perplexity", lambda: own_material)
        await type_line(pilot, screen, "Do not tell Frodo.")
        bits = step_bits(lstm, lstm.tokenizer.encode("do not tell frodo").tolist())
        words = shown(screen, "words").splitlines()
        assert words[0].split() == ["Do", "not", "tell", "Frodo"]
        assert words[1].split() == [f"{value:.1f}" for value in bits]
        assert await pilot.click(screen.query_one("#words"), offset=(words[0].index("not") + 2, 1))
        await pilot.pause()
        _, state = lstm.advance(lstm.start(), EOS_ID)
        do, not_ = lstm.tokenizer.encode("do not").tolist()
        log_probs, _ = lstm.advance(state, do)
        word = shown(screen, "word")
        assert word.startswith(f"not  {-log_probs[not_] / math.log(2):.1f} bits")
        likeliest = int(np.argmax(log_probs))
        assert f"expected {lstm.tokenizer.tokens[likeliest]} " in word

        ids, num_tokens = dataset.valid.tolist(), len(dataset.tokenizer)
        counts = np.bincount(dataset.train, minlength=num_tokens) + 1 / num_tokens
        unigram = -np.log2(counts / counts.sum())[ids].mean()
        held_out = np.mean(step_bits(lstm, ids))
        heading, *rows = shown(screen, "table").splitlines()
        assert f"{len(ids):,} held-out words" in heading
        numbers = {row[:16].strip(): [float(text) for text in re.findall(r"\d+\.?\d*", row[16:])] for row in rows}
        mean = sum(bits) / len(bits)
        own = [round(sum(bits), 1), len(bits), round(mean, 2), round(2**mean, 1), round(2**held_out, 1)]
        assert numbers["small LSTM"] == pytest.approx(own)
        assert numbers["mine"] == pytest.approx(own)  # the same weights, as a model of the user
        assert numbers["unigram"][-1] == pytest.approx(round(2**unigram, 1))
        assert numbers["small LSTM"][-1] < numbers["5-gram"][-1] < numbers["unigram"][-1]


async def test_task_is_done_by_keyboard_and_any_line_can_be_typed(make_host, own_material):
    async with make_host().run_test(size=(80, 24)) as pilot:
        screen = await open_chapter(pilot, "perplexity", lambda: own_material)
        assert not screen.finished_parts
        await pilot.press("e", "left")
        assert not screen.finished_parts
        await pilot.press(*["ctrl+left"] * 2)
        await until(pilot, lambda: screen.finished_parts == {0})
        await type_line(pilot, screen, "They are taking the hobbits")
        assert screen.finished_parts == {0}  # the network finds it easier
        line = dataset_line(own_material)
        await type_line(pilot, screen, line)
        await until_done(pilot)
        assert screen.query_one("#table").region.bottom <= 22
        screen.query_one(Slider).focus()
        await pilot.press("home")
        assert text_of(screen.query_one(Slider)).endswith("unigram")
        for text in ("", "...", "zorblax ¶ ¶", "日本語 where is", "where " * 300):
            await type_line(pilot, screen, text)
            await pilot.press("e", "end", "left")
            assert ("type a line" in shown(screen, "word")) == (shown(screen, "words").strip() == "")


async def test_slow_model_scores_the_line_after_a_pause(make_host, own_material, lstm):
    class Slow:
        is_slow, tokenizer, start = True, lstm.tokenizer, lstm.start

        def advance(self, state, token):
            with pytest.raises(RuntimeError):
                asyncio.get_running_loop()
            return lstm.advance(state, token)

    material = Material(session_model=SessionModel("slow", "a slow model", Slow()))
    [data] = [each for each in own_material.results.values() if isinstance(each, PerplexityData)]
    slow = data.models[-1]._replace(name="slow", model=Slow())
    material.results = {**own_material.results, PerplexityData: data._replace(models=(*data.models[:-1], slow))}
    async with make_host().run_test(size=(80, 24)) as pilot:
        screen = await open_chapter(pilot, "perplexity", lambda: material)
        await pilot.press("e", *" where is")
        await until(pilot, lambda: shown(screen, "words").split("\n")[1].split()[-1] == "·")
        await until(pilot, lambda: screen.is_idle)
        assert "·" not in shown(screen, "words")
