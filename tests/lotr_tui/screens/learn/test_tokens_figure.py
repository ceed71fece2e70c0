"""Tests of the chapter on tokens: its numbers, and its task by keyboard and by mouse."""

import re
from dataclasses import replace

from textual import events
from textual.widgets import Input, Static

from engine.data.dataset import load_dataset
from lotr_tui.learn.class_models import bundled_data_config
from lotr_tui.screens.learn.figure import REST_SECONDS
from lotr_tui.screens.learn.figures.tokens import CUTOFFS
from lotr_tui.widgets.help_line import HelpLine
from lotr_tui.widgets.slider import Slider
from tests.support.learn import open_chapter, until_done
from tests.support.pilot import MakeApp, text_of, until


def unknown_rate(cutoff: int) -> float:
    """Return the share of unknown words in the held-out dialogues after a training with this cut-off."""
    data = replace(bundled_data_config(), min_count=cutoff)
    valid = load_dataset(data).valid
    words = valid[valid != 1]
    return float((words == 0).mean())


async def test_figure_has_the_numbers_of_a_training_with_the_same_cutoff(make_host: MakeApp) -> None:
    async with make_host().run_test(size=(120, 35)) as pilot:
        screen = await open_chapter(pilot, "tokens")
        figure = text_of(screen.query_one("#unknown", Static))
        assert f"{100 * unknown_rate(3):.1f} % of" in figure
        dataset = load_dataset(bundled_data_config())
        assert f"{len(dataset.tokenizer) - 2:,} words" in figure
        tokens = text_of(screen.query_one("#tokens", Static))
        assert f"vocabulary of {len(dataset.tokenizer) - 2:,} + <unk>, <eos>" in tokens
        where, is_ = dataset.tokenizer.encode("where is").tolist()
        assert f"where\u00a0{where}  is\u00a0{is_}" in tokens
        assert "Glorfindel→<unk>\u00a00" in tokens


async def test_rate_tells_on_which_side_of_the_goal_it_is(make_host: MakeApp) -> None:
    async with make_host().run_test(size=(80, 24)) as pilot:
        screen = await open_chapter(pilot, "tokens")
        slider = screen.query_one(Slider)
        for index, cutoff in enumerate(CUTOFFS[:16]):
            slider.index = index
            await pilot.pause()
            shown = re.search(r"([\d.]+) % of", text_of(screen.query_one("#unknown", Static)))
            assert shown is not None
            assert (float(shown[1]) > 10) == (unknown_rate(cutoff) > 0.1), cutoff


async def test_full_line_says_so(make_host: MakeApp) -> None:
    async with make_host().run_test(size=(80, 24)) as pilot:
        screen = await open_chapter(pilot, "tokens")
        screen.query_one(Input).value = "a" * 1999
        await pilot.pause()
        await pilot.press("end", "b")
        assert text_of(screen.query_one(HelpLine)).strip() == "The line is full: 2,000 characters"
        await pilot.press("c", "backspace")
        assert text_of(screen.query_one(HelpLine)).startswith("Type a line")


async def test_task_is_done_by_keyboard(make_host: MakeApp) -> None:
    async with make_host().run_test(size=(80, 24)) as pilot:
        screen = await open_chapter(pilot, "tokens")
        await pilot.press(*"zorblax", "tab")
        lowest = next(index for index, cutoff in enumerate(CUTOFFS) if unknown_rate(cutoff) > 0.1)
        slider = screen.query_one(Slider)
        await pilot.press(*["right"] * (lowest - slider.index - 1))
        assert not screen.is_done
        await pilot.press("right")
        await until_done(pilot)
        assert "✓ Done" in text_of(screen.query_one("#task", Static))


async def test_task_is_done_by_mouse(make_host: MakeApp) -> None:
    async with make_host().run_test(size=(160, 45)) as pilot:
        screen = await open_chapter(pilot, "tokens")
        slider = screen.query_one(Slider)
        lowest = next(index for index, cutoff in enumerate(CUTOFFS) if unknown_rate(cutoff) > 0.1)
        await pilot.click(slider, offset=(slider.size.width // 2, 0))
        assert slider.index > lowest
        while slider.index > lowest:
            await pilot._post_mouse_events([events.MouseScrollDown], slider)
        assert slider.index == lowest
        screen.query_one(Input).value = "zorblax"
        await until_done(pilot)


async def test_example_line_alone_does_not_finish_the_task(make_host: MakeApp) -> None:
    async with make_host().run_test(size=(80, 24)) as pilot:
        screen = await open_chapter(pilot, "tokens")
        assert not screen.finished_parts


async def test_passing_the_cutoff_is_no_answer(make_host: MakeApp) -> None:
    async with make_host().run_test(size=(80, 24)) as pilot:
        screen = await open_chapter(pilot, "tokens")
        slider = screen.query_one(Slider)
        slider.focus()
        lowest = next(index for index, cutoff in enumerate(CUTOFFS) if unknown_rate(cutoff) > 0.1)
        await pilot.press(*["right"] * (lowest - slider.index + 1))
        await pilot.pause(REST_SECONDS + 0.2)
        assert not screen.finished_parts
        await pilot.press("left")
        await until(pilot, lambda: screen.finished_parts == {1})
