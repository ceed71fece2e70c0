"""The chapter on attention: its numbers, its task, and models that are compared."""

import re

import numpy as np
import pytest
from textual.widgets import Input, Static

from engine.data.dataset import load_dataset
from engine.data.tokenizers.base import EOS_ID
from lotr_tui.learn import compared_models
from lotr_tui.learn.class_models import bundled_data_config
from lotr_tui.learn.material import Material
from lotr_tui.screens.learn.figures.attention.figure import AttentionFigure
from lotr_tui.screens.learn.figures.attention.head_rows import LABEL_WIDTH, NUM_HEADING_LINES, HeadRows
from lotr_tui.screens.learn.figures.attention.model_list import ModelList
from lotr_tui.session.session_model import SessionModel
from tests.support.learn import open_chapter, until_done
from tests.support.numpy_transformer import random_transformer
from tests.support.pilot import lines_of, text_of, until
from tests.support.transformer_reference import reference_layers

LINE = "where is the ring and where is frodo"
pytestmark = pytest.mark.usefixtures("no_installed_model")


def transformer_material():
    """Return a Transformer without rounded weights, and the material of its user."""
    tokenizer = load_dataset(bundled_data_config()).tokenizer
    model = random_transformer(tokenizer, num_layers=2, num_heads=3, embedding_size=12, context_size=24)
    return model, Material(session_model=SessionModel("mine", "Transformer, random weights", model))


async def type_line(pilot, screen, text):
    screen.query_one(Input).value = text
    await pilot.pause()
    await until(pilot, lambda: screen.is_idle)
    await pilot.pause()


def percentages(line):
    """Return the percentages of a painted line."""
    return [int(number) for number in re.findall(r"(\d+) ?%", line)]


def painted(screen, widget=HeadRows):
    return lines_of(screen.query_one(widget)).splitlines()


async def test_weights_are_those_of_a_plain_transformer_and_an_installed_model_is_loaded_on_request(
    make_host, monkeypatch
):
    model, material = transformer_material()
    monkeypatch.setattr(compared_models, "find_installed_model", lambda: "gguf:model.gguf")
    monkeypatch.setattr(compared_models, "load_pretrained_session_model", lambda name: material.session_model)
    _, attention = reference_layers(model, np.array([EOS_ID, *model.tokenizer.encode(LINE)]))
    async with make_host().run_test(size=(160, 45)) as pilot:
        screen = await open_chapter(pilot, "attention", lambda: material)
        await type_line(pilot, screen, LINE)
        starts = [match.start() for match in re.finditer(r"\S+", painted(screen)[1])][:-2]
        for head in range(6):
            weights = attention[head // 3, head % 3, 8]
            shades = "".join(painted(screen)[NUM_HEADING_LINES + head][start] for start in starts)
            levels = [sum(weight >= least for least in (0.02, 0.1, 0.25, 0.5)) for weight in weights]
            assert shades == "".join(" ░▒▓█"[level] for level in levels)
        rows = screen.query_one(HeadRows)
        rows.focus()
        for head, position in ((0, 8), (4, 5), (5, 2)):
            await pilot.press(*["down" if head > rows.head else "up"] * abs(head - rows.head))
            await pilot.press(*["right" if position > rows.position else "left"] * abs(position - rows.position))
            expected = attention[head // 3, head % 3, position, : position + 1]
            title, names_line, weights_line, *_ = painted(screen)
            assert percentages(weights_line) == pytest.approx(100 * expected, abs=0.51)
            names = names_line.split()[:-2]
            assert names == ["start", *LINE.split()]
            strongest = 1 + int(expected[1:-1].argmax()) if position > 1 else 0
            assert f'looks {100 * expected[strongest]:.0f} % at "{names[strongest]}"' in title
            assert f"{100 * expected[-1]:.0f} % at itself" in title
            for row in range(6):
                largest = attention[row // 3, row % 3, position, 1:position].max()
                shown = percentages(painted(screen)[NUM_HEADING_LINES + row])[-1]
                assert shown == pytest.approx(100 * largest, abs=0.51)

        models, comparison = screen.query_one(ModelList), screen.query_one(AttentionFigure).data.comparison
        models.focus()
        await pilot.press("end")
        assert "-  enter loads it (135 M weights, seconds)" in painted(screen, ModelList)[-1]
        assert comparison.best is not None  # the task can be done without it
        last = len(comparison.models) - 1
        await pilot.press("enter", "enter")
        await until(pilot, lambda: screen.is_idle and last in comparison.outcomes, 30)
        assert f" {comparison.outcomes[last].bits.bits_per_character:.2f}  " in painted(screen, ModelList)[-1]


async def test_bits_are_those_of_the_comparison_and_the_task_is_done_by_keyboard(make_host, bundled_material):
    async with make_host().run_test(size=(80, 24)) as pilot:
        screen = await open_chapter(pilot, "attention", lambda: bundled_material)
        comparison = screen.query_one(AttentionFigure).data.comparison
        heads, models = screen.query_one("#attention"), screen.query_one("#models")
        await pilot.press("tab", *["down", "left"] * 3, *["up", "right"] * 3)
        assert not screen.finished_parts  # the example alone does not count
        await pilot.press("shift+tab", *" lamp and the lamp", "tab", *["pagedown"] * 3)
        await pilot.press(*["up"] * 12)
        assert screen.finished_parts == {0}
        assert (heads.display, models.display) == (True, False)
        assert "f8 models" in painted(screen)[0]
        await type_line(pilot, screen, "")
        await pilot.press("f8", *["down"] * comparison.best)
        assert (heads.display, models.display) == (False, True)
        await pilot.pause()
        assert not screen.is_done  # the models do not count on an empty line
        await type_line(pilot, screen, "Where is the")
        screen.query_one(ModelList).focus()
        await pilot.press("home", *["down"] * comparison.best)
        await until_done(pilot)
        await pilot.press("home")
        await pilot.resize_terminal(160, 45)
        await pilot.pause()
        assert (heads.display, models.display) == (True, True)
        rows = painted(screen, ModelList)
        for row, model, outcome in zip(rows, comparison.models, comparison.outcomes.values(), strict=False):
            assert model.name in row
            assert f" {outcome.bits.bits_per_character:.2f}  " in row
        details = text_of(screen.query_one("#details", Static))
        bits = comparison.outcomes[0].bits
        assert f"{bits.token_bits / bits.num_characters:.2f} words" in details
        assert f"{bits.orthography_bits / bits.num_characters:.2f} capitals" in details
        assert rows[0].rstrip().endswith("ring now ¶")
        assert "ring 85 %" in details


async def test_clicks_select_heads_words_and_views_and_lines_have_any_length(make_host, bundled_material):
    async with make_host().run_test(size=(80, 24)) as pilot:
        screen = await open_chapter(pilot, "attention", lambda: bundled_material)
        figure, rows = screen.query_one(AttentionFigure), screen.query_one(HeadRows)
        await type_line(pilot, screen, LINE)
        assert await pilot.click(rows, offset=(1 + LABEL_WIDTH + rows.columns().cell_of(3), 1))
        assert rows.position == 3
        assert await pilot.click(rows, offset=(5, NUM_HEADING_LINES + 1))
        assert painted(screen)[NUM_HEADING_LINES + 1].startswith("▸")
        assert await pilot.click(rows, offset=(rows.size.width - 3, 0))
        assert figure.has_class("-models")
        header = screen.query_one("#header")
        assert await pilot.click(header, offset=(header.size.width - 3, 0))
        assert not figure.has_class("-models")
        await type_line(pilot, screen, "")
        assert "Type a word" in lines_of(rows)
        rows.focus()
        await pilot.press("left", "down", "end", "pagedown")
        await type_line(pilot, screen, "the ring " * 40)
        assert "‹" in lines_of(rows)
        assert rows.position == 31  # the context of the small Transformer
        await type_line(pilot, screen, "the")
        assert "first word" in lines_of(rows)
