"""The chapter on counts: its numbers, its task, and other corpora."""

import re
from functools import cache
from itertools import pairwise

import pytest
from textual import events
from textual.widgets import Input

from engine.config import DataConfig
from engine.data.dataset import load_dataset
from engine.generation.settings import SamplerSettings
from engine.models.ngram import KneserNey
from lotr_tui.formatting import format_percent
from lotr_tui.learn.material import Material, bundled_data_config, class_data_config
from lotr_tui.screens.learn.figure import REST_SECONDS
from lotr_tui.screens.learn.figures.next_words import COUNTING_SAMPLE_TOKENS
from lotr_tui.screens.learn.screen import ChapterScreen
from tests.support.learn import open_chapter, shown, until_chapter, until_done
from tests.support.pilot import until
from tests.support.references import ReferenceKneserNey
from tests.support.sampling import generate_tokens

DATASET = cache(lambda: load_dataset(bundled_data_config()))


@cache
def reference(order):
    return ReferenceKneserNey(DATASET().train.tolist(), len(DATASET().tokenizer), order)


def encode(text):
    return tuple(DATASET().tokenizer.encode(text).tolist())


def occurrences(words):
    return f" {' '.join(map(str, DATASET().train.tolist()))} ".count(f" {' '.join(map(str, encode(words)))} ")


def rows(pilot):
    return shown(pilot, "backoff").splitlines()


async def test_counts_probabilities_and_sampled_texts_are_those_of_plain_implementations(make_host):
    async with make_host().run_test(size=(200, 50)) as pilot:
        screen = await open_chapter(pilot, "counting")
        heading, *samples = shown(pilot, "samples").splitlines()
        assert "r: again" in heading
        for order, sample in zip((1, 2, 3, 4, 5), samples, strict=True):
            model = KneserNey(DATASET().train, DATASET().tokenizer, order)
            settings = SamplerSettings(temperature=1.0, max_tokens=COUNTING_SAMPLE_TOKENS)
            assert f"order {order}, seed {order} " in sample
            tokens, _ = generate_tokens(model, settings, order, encode("What should I do? Bilbo, I am afraid of the"))
            assert sample.split("… ")[1].split(" ¶")[0].strip() == " ".join(token.text for token in tokens)

        longest, *middle, anything, _, total = rows(pilot)[1:]
        assert "never" in longest
        assert occurrences("am afraid of the") == 0
        train = DATASET().train.tolist()
        [the, dark] = encode("the dark")
        before = {first for first, second in pairwise(train) if second == dark}
        assert f"{len(before)}‹" in anything
        trigrams = set(zip(train, train[1:], train[2:], strict=False))
        seen = len({trigram for trigram in trigrams if trigram[1] == the})
        assert f"{seen:,}‹" in middle[-1]
        assert f"{len({first for first, *rest in trigrams if rest == [the, dark]})}‹" in middle[-1]
        assert total.endswith(format_percent(reference(5).prob(dark, encode("am afraid of the"))))

        await pilot.press("e", "left", "left", "left")
        known = {*DATASET().tokenizer.tokens[2:40], "the", "you", "it", "a"}  # frequent words, not all of them likely
        assert f"{occurrences('I am afraid of')}×" in rows(pilot)[1]
        assert f"{occurrences('I am afraid of the')}×" in rows(pilot)[1]
        for order in (5, 2):
            await pilot.press(*["down"] * (5 - order))
            await until(pilot, lambda: screen.is_idle)
            context = encode("I am afraid of")[5 - order :]
            assert rows(pilot)[-1].endswith(format_percent(reference(order).prob(the, context)))
            assert rows(pilot)[-2 - order].split()[0] == {5: "i", 2: "of"}[order]
            for bar in shown(pilot, "bars").splitlines()[1:7]:
                word, percent = bar[1:].split()[0], re.findall(r"[<\d.]+ %", bar)[-1]
                assert word not in known or percent == format_percent(reference(order).prob(encode(word)[0], context))


async def test_task_is_done_by_keyboard_and_unknown_words_are_shown_as_such(make_host):
    async with make_host().run_test(size=(80, 24)) as pilot:
        screen = await open_chapter(pilot, "counting")
        assert not screen.finished_parts
        seed = screen.query_one("#figure").seed
        await pilot.press("e", "ctrl+r")
        assert screen.query_one("#figure").seed > seed
        await pilot.press("ctrl+u", *"where is the ring and")  # "ring" is likely, and passed
        await pilot.pause(REST_SECONDS + 0.2)
        assert not screen.finished_parts
        await pilot.press("ctrl+u", *"where is the ")
        await until(pilot, lambda: screen.finished_parts == {0})
        word = rows(pilot)[0].split("+")[1].split()[0]
        await pilot.press(*["down"] * 4)
        assert f"+{word} " in rows(pilot)[0]
        await until(pilot, lambda: screen.finished_parts == {0, 1})
        await pilot.press(*["up"] * 4)
        await pilot.press("ctrl+u", *"zorblax zorblax the", *["left"] * 4)
        assert "<unk>" in rows(pilot)[-4]
        await pilot.press("home")
        assert " +<unk> " in rows(pilot)[0]
        await pilot.press("ctrl+right")
        assert rows(pilot)[1].strip() == "too near the start"
        await pilot.press("end", "ctrl+u", *"what the the ")
        await until_done(pilot)


async def test_another_corpus_has_its_own_line_and_counts(make_host, tmp_path):
    corpus = tmp_path / "corpus.csv"
    lines = [f"ANNA,the small red house {n % 7} stands by the lake" for n in range(300)]
    corpus.write_text("\n".join(["char,dialog", *lines]), encoding="utf-8")
    data = DataConfig(corpus=str(corpus))
    async with make_host().run_test(size=(60, 20)) as pilot:
        screen = await open_chapter(pilot, "counting", lambda: Material(data))
        assert screen.query_one("#line Input", Input).value.startswith("the small red house")
        await pilot.press("tab", "ctrl+u")
        await until(pilot, lambda: screen.is_idle)
        assert "start" in rows(pilot)[-4]
        await pilot.press(*"the small red")
        assert "▸house " in shown(pilot, "bars")
        assert f"{len(load_dataset(class_data_config(data)).splits.train)}×" in rows(pilot)[1]  # "start the small red"


@pytest.mark.parametrize(
    ("chapter", "keys"), [("counting", "ering and hobbit"), ("tokens", "neand then the ring"), (None, "eand")]
)
async def test_text_that_is_typed_in_a_burst_is_in_the_line(make_host, chapter, keys):
    async with make_host().run_test(size=(80, 24)) as pilot:
        if chapter is None:  # before the first paint
            pilot.app.push_screen(ChapterScreen(Material, 1))
        else:
            await open_chapter(pilot, chapter, Material)
        for key in keys:  # as they come from a terminal: none waits for what the one before does
            pilot.app.post_message(events.Key("space" if key == " " else key, key))
        await until_chapter(pilot, 1)
        line = pilot.app.screen.query_one("#line Input", Input)
        await until(pilot, lambda: line.value.endswith(f"the{keys.lstrip('n')[1:]}"))


async def test_escape_leaves_the_line_before_it_leaves_the_class(make_host):
    async with make_host().run_test(size=(120, 35)) as pilot:
        screen = await open_chapter(pilot, "counting")
        await pilot.press("e")
        await until(pilot, lambda: isinstance(pilot.app.focused, Input))
        await pilot.press("escape")
        await until(pilot, lambda: pilot.app.focused is None)
        assert pilot.app.screen is screen
        await pilot.press("escape")
        await until(pilot, lambda: pilot.app.screen is not screen)
