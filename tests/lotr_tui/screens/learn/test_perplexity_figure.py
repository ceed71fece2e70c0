"""The chapter on perplexity: its numbers, its task, and slow models."""

import asyncio
import math
import re

import numpy as np
import pytest

from lotr_tui.learn.material import Material
from lotr_tui.screens.learn.figures.words import PerplexityData
from lotr_tui.session.session_model import SessionModel
from lotr_tui.widgets.slider import Slider
from tests.support.files import run_to_end
from tests.support.learn import bundled_material, open_chapter, shown, type_line, until_done
from tests.support.models import distributions
from tests.support.pilot import text_of, until


@pytest.fixture(scope="module")
def user():
    """Return the small LSTM, the dataset, and the material of a user with that LSTM, which is of no run."""
    lstm = run_to_end(bundled_material().model(lambda: False))[0].model
    own = Material(session_model=SessionModel("mine", "a model of the user", lstm))
    return lstm, run_to_end(bundled_material().words())[0], own


def step_bits(model, ids):
    return [-math.log2(row[id]) for row, id in zip(distributions(model, ids), ids, strict=False)]


async def test_numbers_of_a_line_and_of_the_held_out_text_are_those_of_single_steps(make_host, user):
    lstm, dataset, own_material = user
    async with make_host().run_test(size=(120, 40)) as pilot:
        screen = await open_chapter(pilot, "perplexity", lambda: own_material)
        await type_line(pilot, "Do not tell Frodo.")
        bits = step_bits(lstm, lstm.tokenizer.encode("do not tell frodo").tolist())
        words = shown(pilot, "words").splitlines()
        assert words[0].split() == ["Do", "not", "tell", "Frodo"]
        assert words[1].split() == [f"{value:.1f}" for value in bits]
        assert await pilot.click(screen.query_one("#words"), offset=(words[0].index("not") + 2, 1))
        await pilot.pause()
        word, [likeliest] = shown(pilot, "word"), distributions(lstm, lstm.tokenizer.encode("do"))[1:].argmax(axis=1)
        assert word.startswith(f"not  {bits[1]:.1f} bits")
        assert f"expected {lstm.tokenizer.tokens[likeliest]} " in word

        ids, num_tokens = dataset.valid.tolist(), len(dataset.tokenizer)
        counts = np.bincount(dataset.train, minlength=num_tokens) + 1 / num_tokens
        unigram = -np.log2(counts / counts.sum())[ids].mean()
        held_out = np.mean(step_bits(lstm, ids))
        heading, *rows = shown(pilot, "table").splitlines()
        assert f"{len(ids):,} held-out words" in heading
        numbers = {row[:16].strip(): [float(text) for text in re.findall(r"\d+\.?\d*", row[16:])] for row in rows}
        mean = sum(bits) / len(bits)
        own = [round(sum(bits), 1), len(bits), round(mean, 2), round(2**mean, 1), round(2**held_out, 1)]
        assert numbers["small LSTM"] == pytest.approx(own)
        assert numbers["mine"] == pytest.approx(own)  # the same weights, as a model of the user
        assert numbers["unigram"][-1] == pytest.approx(round(2**unigram, 1))
        assert numbers["small LSTM"][-1] < numbers["5-gram"][-1] < numbers["unigram"][-1]


async def test_task_is_done_by_keyboard_and_any_line_can_be_typed(make_host, user):
    lstm, dataset, own_material = user
    async with make_host().run_test(size=(80, 24)) as pilot:
        screen = await open_chapter(pilot, "perplexity", lambda: own_material)
        assert not screen.finished_parts
        await pilot.press("e", "left")
        assert not screen.finished_parts
        await pilot.press(*["ctrl+left"] * 2)
        await until(pilot, lambda: screen.finished_parts == {0})
        await type_line(pilot, "They are taking the hobbits")
        assert screen.finished_parts == {0}  # the network finds it easier
        counts, lines = run_to_end(own_material.counts(5))[0], [line.text for line in dataset.splits.train]
        by_ids = {tuple(dataset.tokenizer.encode(line).tolist()): line for line in lines}
        easy = (ids for ids in by_ids if 5 <= len(ids) < 12 and sum(step_bits(counts, ids)) < sum(step_bits(lstm, ids)))
        await type_line(pilot, by_ids[next(easy)])
        await until_done(pilot)
        assert screen.query_one("#table").region.bottom <= 22
        screen.query_one(Slider).focus()
        await pilot.press("home")
        assert text_of(screen.query_one(Slider)).endswith("unigram")
        for text in ("", "...", "zorblax ¶ ¶", "日本語 where is", "where " * 300):
            await type_line(pilot, text)
            await pilot.press("e", "end", "left")
            assert ("type a line" in shown(pilot, "word")) == (shown(pilot, "words").strip() == "")


async def test_slow_model_scores_the_line_after_a_pause(make_host, user):
    lstm, _, own_material = user

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
        await until(pilot, lambda: shown(pilot, "words").split("\n")[1].split()[-1] == "·")
        await until(pilot, lambda: screen.is_idle)
        assert "·" not in shown(pilot, "words")
