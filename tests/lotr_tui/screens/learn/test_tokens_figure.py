"""The chapter on tokens: its numbers and its task."""

import re
from dataclasses import replace

from textual.widgets import Input, Static

from engine.data.dataset import load_dataset
from lotr_tui.learn.class_models import bundled_data_config
from lotr_tui.screens.learn.figure import REST_SECONDS
from lotr_tui.screens.learn.figures.tokens import CUTOFFS
from lotr_tui.widgets.help_line import HelpLine
from lotr_tui.widgets.slider import Slider
from tests.support.learn import open_chapter, until_done
from tests.support.pilot import text_of


def unknown_rate(cutoff):
    """Return the share of unknown words in the held-out dialogues after a training with this cut-off."""
    valid = load_dataset(replace(bundled_data_config(), min_count=cutoff)).valid
    words = valid[valid != 1]
    return float((words == 0).mean())


async def test_figure_has_the_numbers_of_a_training_with_the_same_cutoff_and_the_task_is_done(make_host):
    async with make_host().run_test(size=(80, 24)) as pilot:
        screen = await open_chapter(pilot, "tokens")

        def unknown():
            return text_of(screen.query_one("#unknown", Static))

        assert not screen.finished_parts  # the example line alone does not finish the task
        assert f"{100 * unknown_rate(3):.1f} % of" in unknown()
        tokenizer = load_dataset(bundled_data_config()).tokenizer
        assert f"{len(tokenizer) - 2:,} words" in unknown()
        tokens = text_of(screen.query_one("#tokens", Static))
        assert f"vocabulary of {len(tokenizer) - 2:,} + <unk>, <eos>" in tokens
        where, is_ = tokenizer.encode("where is").tolist()
        assert f"where\u00a0{where}  is\u00a0{is_}" in tokens
        assert "Glorfindel→<unk>\u00a00" in tokens

        screen.query_one(Input).value = "a" * 1999
        await pilot.pause()
        await pilot.press("end", "b")
        assert text_of(screen.query_one(HelpLine)).strip() == "The line is full: 2,000 characters"
        screen.query_one(Input).value = ""

        slider = screen.query_one(Slider)
        start, rates = slider.index, {}
        for index in range(7, 16):
            slider.index = index
            await pilot.pause()
            rates[index] = unknown_rate(CUTOFFS[index])
            shown = re.search(r"([\d.]+) % of", unknown())
            assert (float(shown[1]) > 10) == (rates[index] > 0.1), CUTOFFS[index]
        lowest = min(index for index, rate in rates.items() if rate > 0.1)
        slider.index = start
        slider.focus()
        await pilot.press(*["right"] * (lowest + 1 - start))
        await pilot.pause(REST_SECONDS + 0.2)
        assert screen.finished_parts == {0}  # passing the cut-off is no answer
        await pilot.press("left")
        await until_done(pilot)
        assert "✓ Done" in text_of(screen.query_one("#task", Static))
