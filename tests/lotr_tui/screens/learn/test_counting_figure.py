"""Tests of the chapter on counts: its numbers, and its task by keyboard and by mouse."""

import re
from collections import Counter
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest
from textual import events
from textual.widgets import Input, Static

from engine.config import DataConfig
from engine.data.dataset import load_dataset
from engine.generation.generate import TokenEvent, generate
from engine.generation.settings import SamplerSettings
from engine.models.ngram import KneserNey
from lotr_tui.formatting import format_percent
from lotr_tui.learn.class_models import bundled_data_config, class_data_config
from lotr_tui.learn.material import Material
from lotr_tui.screens.learn.figures.counting.backoff_table import BackoffTable
from lotr_tui.screens.learn.figures.counting.figure import SAMPLE_TOKENS
from lotr_tui.screens.learn.sample_rows import SampleRows
from lotr_tui.screens.learn.screen import ChapterScreen
from lotr_tui.screens.learn.word_bars import WordBars
from lotr_tui.widgets.slider import Slider
from tests.support.kneser_ney import ReferenceKneserNey
from tests.support.learn import open_chapter, until_done
from tests.support.pilot import MakeApp, text_of, until

DATASET = cache(lambda: load_dataset(bundled_data_config()))


@cache
def reference(order: int) -> ReferenceKneserNey:
    return ReferenceKneserNey(DATASET().train.tolist(), len(DATASET().tokenizer), order)


def encode(text: str) -> tuple[int, ...]:
    return tuple(DATASET().tokenizer.encode(text).tolist())


def occurrences(words: str) -> int:
    """Count words that follow each other in the training text."""
    ids = encode(words)
    train = DATASET().train.tolist()
    return sum(tuple(train[i : i + len(ids)]) == ids for i in range(len(train)))


def rows(screen: ChapterScreen) -> list[str]:
    return text_of(screen.query_one(BackoffTable)).splitlines()


async def test_rows_have_the_counts_of_the_training_text(make_host: MakeApp) -> None:
    async with make_host().run_test(size=(80, 24)) as pilot:
        screen = await open_chapter(pilot, "counting")
        longest, *middle, anything, _, total = rows(screen)[1:]
        assert "never" in longest
        assert occurrences("am afraid of the") == 0
        train = DATASET().train.tolist()
        bigrams = Counter(pairwise(train))
        (the,) = encode("the")
        (dark,) = encode("dark")
        before = {first for first, second in bigrams if second == dark}
        assert f"{len(before)}‹" in anything
        assert len(middle) == 3
        trigrams = {tuple(train[i : i + 3]) for i in range(len(train) - 2)}
        seen = len({trigram for trigram in trigrams if trigram[1] == the})
        assert f"{seen:,}‹" in middle[-1]
        assert f"{len({first for first, *rest in trigrams if rest == [the, dark]})}‹" in middle[-1]
        prob = reference(5).prob(dark, encode("am afraid of the"))
        assert total.endswith(format_percent(prob))


@pytest.mark.parametrize("order", [1, 2, 3, 4, 5])
async def test_probabilities_are_those_of_a_plain_implementation(make_host: MakeApp, order: int) -> None:
    async with make_host().run_test(size=(80, 24)) as pilot:
        screen = await open_chapter(pilot, "counting")
        await pilot.press(*["down"] * (5 - order), "left", "left", "left")
        await until(pilot, lambda: screen.is_idle)
        (the,) = encode("the")
        context = encode("I am afraid of")[5 - order :]
        prob = reference(order).prob(the, context)
        *_, total = rows(screen)
        assert total.endswith(format_percent(prob))
        longest = rows(screen)[-2 - order]
        assert longest.split()[0] == ["anything", "of", "afraid", "am", "i"][order - 1]
        words = DATASET().tokenizer.tokens[2:40]  # frequent ones at the start of the text are not all likely
        bars = text_of(screen.query_one(WordBars))
        for line in bars.splitlines()[1:]:
            word, percent = line[1:].split()[0], re.findall(r"[<\d.]+ %", line)[-1]
            if word in words or word in ("the", "you", "it", "a"):
                assert percent == format_percent(reference(order).prob(encode(word)[0], context)), word
        if order == 5:
            assert f"{occurrences('I am afraid of')}×" in longest
            assert f"{occurrences('I am afraid of the')}×" in longest


async def test_sampled_text_is_the_one_of_the_engine(make_host: MakeApp) -> None:
    async with make_host().run_test(size=(200, 50)) as pilot:
        screen = await open_chapter(pilot, "counting")
        samples = screen.query_one(SampleRows)
        await until(pilot, lambda: len(samples.samples) == 5)
        for first_seed in (0, 5):
            for order, sample in zip((1, 2, 3, 4, 5), samples.samples, strict=True):
                model = KneserNey(DATASET().train, DATASET().tokenizer, order)
                settings = SamplerSettings(temperature=1.0, max_tokens=SAMPLE_TOKENS)
                seed = first_seed + order
                assert f"order {order}, seed {seed} " in text_of(samples)
                events_ = generate(model, encode("What should I do? Bilbo, I am afraid of the"), settings, seed)
                words = [event.text for event in events_ if isinstance(event, TokenEvent)]
                assert sample.text.removeprefix("… ").split(" ¶")[0] == " ".join(words)
            await pilot.press("f8")
            await until(pilot, lambda: screen.is_idle)


async def test_counts_are_those_of_the_training_text(make_host: MakeApp) -> None:
    async with make_host().run_test(size=(80, 24)) as pilot:
        screen = await open_chapter(pilot, "counting")
        line, counted = screen.query_one("#line Input", Input), screen.query_one("#counted", Static)
        assert counted.size.height == 1
        seen, dark = occurrences("afraid of the"), occurrences("afraid of the dark")
        assert text_of(
            counted
        ) == f"counted “afraid of the” {seen} times, {dark} before “dark” = {dark / seen:.0%}".replace("%", " %")
        line.cursor_position = line.value.index("afraid")
        await pilot.pause()
        expected = f"counted “i am” {occurrences('i am')} times, {occurrences('i am afraid')} before “afraid” = "
        assert text_of(counted).startswith(expected)
        await pilot.press(*["down"] * 4)
        words = len(DATASET().train) + 1  # with the end of a line before the text
        expected = f"counted {words:,} words, {occurrences('afraid')} are “afraid” = "
        assert text_of(counted).startswith(expected)


async def test_row_before_the_start_of_the_line_says_so(make_host: MakeApp) -> None:
    async with make_host().run_test(size=(80, 24)) as pilot:
        screen = await open_chapter(pilot, "counting")
        await pilot.press("home", "ctrl+right", "ctrl+right")
        assert rows(screen)[1].strip() == "too near the start"
        assert "what should" in rows(screen)[2]
        await pilot.press("down")
        assert "too near the start" not in "".join(rows(screen))


async def test_task_is_done_by_keyboard(make_host: MakeApp) -> None:
    async with make_host().run_test(size=(80, 24)) as pilot:
        screen = await open_chapter(pilot, "counting")
        assert not screen.finished_parts
        await pilot.press("ctrl+u", *"what should I do", *["left"] * 4)
        assert screen.finished_parts == {0}
        await pilot.press(*["down"] * 4)
        assert screen.finished_parts == {0, 1}
        await pilot.press(*["up"] * 4, "ctrl+k", *"purple king ")
        await until_done(pilot)


async def test_task_is_done_by_mouse(make_host: MakeApp) -> None:
    async with make_host().run_test(size=(80, 24)) as pilot:
        screen = await open_chapter(pilot, "counting")
        line, slider = screen.query_one("#line Input", Input), screen.query_one(Slider)
        await pilot.click(line, offset=(12, 0))
        assert screen.finished_parts == {0}
        assert "word at the cursor: I" in text_of(screen.query_one("#place", Static))
        while slider.index > 0:
            await pilot._post_mouse_events([events.MouseScrollDown], slider)
        while slider.index < 4:
            await pilot._post_mouse_events([events.MouseScrollUp], slider)
        await pilot.click(line, offset=(25, 0))
        await until_done(pilot)


async def test_unknown_words_are_shown_as_such(make_host: MakeApp) -> None:
    async with make_host().run_test(size=(80, 24)) as pilot:
        screen = await open_chapter(pilot, "counting")
        await pilot.press("ctrl+u", *"zorblax zorblax the", *["left"] * 4)
        assert "<unk>" in rows(screen)[-4]
        await pilot.press("home")
        assert "zorblax→<unk>" in text_of(screen.query_one("#place", Static))
        assert not screen.finished_parts - {0}


async def test_another_corpus_and_an_empty_line(make_host: MakeApp, tmp_path: Path) -> None:
    corpus = tmp_path / "corpus.csv"
    lines = [f"ANNA,the small red house {n % 7} stands by the lake" for n in range(300)]
    corpus.write_text("\n".join(["char,dialog", *lines]), encoding="utf-8")

    def make_material() -> Material:
        return Material(DataConfig(corpus=str(corpus)))

    async with make_host().run_test(size=(60, 20)) as pilot:
        screen = await open_chapter(pilot, "counting", make_material)
        assert screen.query_one("#line Input", Input).value.startswith("the small red house")
        await pilot.press("f5", "ctrl+u")
        await until(pilot, lambda: screen.is_idle)
        assert "start" in rows(screen)[-4]
        await pilot.press(*"the small red")
        assert "▸house " in text_of(screen.query_one(WordBars))
        num_lines = len(load_dataset(class_data_config(DataConfig(corpus=str(corpus)))).splits.train)
        assert f"{num_lines}×" in rows(screen)[1]  # "start the small red"
