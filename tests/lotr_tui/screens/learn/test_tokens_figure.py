"""The chapter on tokens: its numbers and its task."""

import re
from collections import Counter
from dataclasses import replace
from itertools import pairwise

from textual.widgets import Input

from engine.data.dataset import load_dataset
from lotr_tui.learn.material import bundled_data_config
from lotr_tui.screens.learn.figure import REST_SECONDS
from lotr_tui.screens.learn.figures import words
from lotr_tui.widgets.screen_lines import HelpLine
from lotr_tui.widgets.slider import Slider
from tests.support.learn import open_chapter, shown, until_done
from tests.support.pilot import text_of


def unknown_rates():
    """Return the share of held-out words that occur less often in the training text than each cut-off."""
    dataset = load_dataset(replace(bundled_data_config(), min_count=1))
    counts = Counter(dataset.train.tolist())
    held_out = [0 if id == 0 else counts[id] for id in dataset.valid.tolist() if id != 1]
    return [sum(count < cutoff for count in held_out) / len(held_out) for cutoff in words.CUTOFFS]


async def test_figure_has_the_numbers_of_a_training_with_the_same_cutoff_and_the_task_is_done(make_host, monkeypatch):
    rates, tokenizer = unknown_rates(), load_dataset(bundled_data_config()).tokenizer
    async with make_host().run_test(size=(80, 24)) as pilot:
        screen = await open_chapter(pilot, "tokens")
        slider = screen.query_one(Slider)
        with monkeypatch.context() as patch:
            patch.setattr(words, "UNKNOWN_GOAL", rates[slider.index] - 1e-9)
            await pilot.pause(REST_SECONDS + 0.2)
        assert not screen.finished_parts  # neither for the example nor for a cut-off that was there
        assert f"{len(tokenizer) - 2:,} words" in shown(pilot, "unknown")
        tokens = shown(pilot, "tokens")
        assert f"vocabulary of {len(tokenizer) - 2:,} + <unk>, <eos>" in tokens
        where, is_, the, ring = tokenizer.encode("where is the ring").tolist()
        assert f"where {where}  is {is_}  the {the}  ring {ring}  Glorfindel→<unk> 0" in tokens
        for slider.index in range(2, 16):
            await pilot.pause()
            assert f"{100 * rates[slider.index]:.1f} % of" in shown(pilot, "unknown")

        assert "merged first  · t, h e" in tokens
        [merged] = re.findall("in “Glorfindel[?]”  (.*)", tokens)
        pieces = list("·Glorfindel?")
        for pair in merged.split(", "):
            place = list(pairwise(pieces)).index(tuple(pair.split()))
            pieces[place : place + 2] = [pair.replace(" ", "")]
        assert "  ".join(pieces) in re.sub(" \\d+", "", tokens).replace("\n", "  ")
        await pilot.press("e", *" know")
        await pilot.pause(REST_SECONDS + 0.2)
        assert not screen.finished_parts  # the unknown word of the example is not the student's
        screen.query_one(Input).value = "a" * 1999
        await pilot.press("end", "b")
        assert text_of(screen.query_one(HelpLine)).strip() == "The line is full: 2,000 characters"
        await pilot.pause(REST_SECONDS + 0.2)
        assert screen.finished_parts == {0}
        screen.query_one(Input).value = ""
        slider.index = next(index for index, rate in enumerate(rates) if rate > 0.1)
        slider.focus()
        await pilot.press("right")
        await pilot.pause(REST_SECONDS + 0.2)
        assert screen.finished_parts == {0}  # passing the cut-off is no answer
        await pilot.press("left")
        await until_done(pilot)
        assert "✓ Done" in shown(pilot, "task")
