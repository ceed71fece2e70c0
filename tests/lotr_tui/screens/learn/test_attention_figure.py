"""The chapter on attention: its numbers, its task, and models that are compared."""

import re
from dataclasses import replace

import numpy as np
import pytest
from textual.widgets import Input, Static

from engine.data.tokenizers.base import EOS_ID
from lotr_tui.learn.compared_models import Comparison, load_comparison
from lotr_tui.learn.material import Material
from lotr_tui.screens.learn.figures.attention.figure import AttentionFigure
from lotr_tui.screens.learn.figures.attention.head_rows import LABEL_WIDTH, NUM_HEADING_LINES, HeadRows
from lotr_tui.screens.learn.figures.attention.model_list import ModelList
from lotr_tui.session.session_model import SessionModel
from tests.support.files import run_to_end
from tests.support.learn import open_chapter, until_done
from tests.support.networks import random_transformer
from tests.support.pilot import lines_of, text_of, until
from tests.support.references import reference_layers

LINE = "where is the ring and where is frodo"


def with_few_models(material, *, on_request=False):
    comparison, _ = run_to_end(load_comparison(material))
    counts, lstm = comparison.models[:2]
    models = (counts, replace(lstm, is_on_request=on_request))
    material.results[Comparison] = replace(comparison, models=models, lines=comparison.lines[:5])
    return material


async def type_line(pilot, screen, text):
    screen.query_one(Input).value = text
    await pilot.pause()
    await until(pilot, lambda: screen.is_idle)
    await pilot.pause()


def percentages(line):
    return [int(number) for number in re.findall(r"(\d+) ?%", line)]


def painted(screen, widget=HeadRows):
    return lines_of(screen.query_one(widget)).splitlines()


async def test_weights_are_those_of_a_plain_transformer_and_a_large_model_is_loaded_on_request(make_host):
    dataset, _ = run_to_end(Material().words())
    model = random_transformer(dataset.tokenizer, num_layers=2, num_heads=3, embedding_size=12, context_size=24)
    material = with_few_models(Material(session_model=SessionModel("mine", "random weights", model)), on_request=True)
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
        for head, position in ((0, 8), (4, 5)):
            await pilot.press(*["down" if head > rows.head else "up"] * abs(head - rows.head))
            await pilot.press(*["left"] * (rows.position - position))
            expected = attention[head // 3, head % 3, position, : position + 1]
            title, names_line, weights_line, *_ = painted(screen)
            assert percentages(weights_line) == pytest.approx(100 * expected, abs=0.51)
            names = names_line.split()[:-2]
            assert names == ["start", *LINE.split()]
            strongest = 1 + int(expected[1:-1].argmax())
            assert f'looks {100 * expected[strongest]:.0f} % at "{names[strongest]}"' in title
            assert f"{100 * expected[-1]:.0f} % at itself" in title
            for row in range(6):
                largest = attention[row // 3, row % 3, position, 1:position].max()
                shown = percentages(painted(screen)[NUM_HEADING_LINES + row])[-1]
                assert shown == pytest.approx(100 * largest, abs=0.51)

        comparison = material.results[Comparison]
        screen.query_one(ModelList).focus()
        await pilot.press("end")
        assert "-  enter loads it: 135 M weights" in painted(screen, ModelList)[-1]
        assert comparison.best == 0  # the task can be done without it
        await pilot.press("enter", "enter")
        await until(pilot, lambda: screen.is_idle and 1 in comparison.outcomes, 30)
        assert f" {comparison.outcomes[1].bits.bits_per_character:.2f}  " in painted(screen, ModelList)[-1]


async def test_bits_are_those_of_the_comparison_and_the_task_is_done_by_keyboard_and_mouse(make_host):
    material = with_few_models(Material())
    async with make_host().run_test(size=(80, 24)) as pilot:
        screen = await open_chapter(pilot, "attention", lambda: material)
        figure, comparison = screen.query_one(AttentionFigure), material.results[Comparison]
        heads, models = screen.query_one("#attention"), screen.query_one("#models")
        rows = screen.query_one(HeadRows)
        await pilot.press("tab", "down", "left", "up", "right")
        assert not screen.finished_parts  # the example alone does not count
        await pilot.press("shift+tab", *" lamp", "tab", *["down"] * 4, "left")
        assert screen.finished_parts == {0}
        assert (heads.display, models.display) == (True, False)
        assert "f8 models" in painted(screen)[0]

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
        await type_line(pilot, screen, "the ring " * 40)
        assert "‹" in lines_of(rows)
        assert rows.position == 31  # the context of the small Transformer
        await type_line(pilot, screen, "the")
        assert "first word" in lines_of(rows)

        await type_line(pilot, screen, "")
        assert "Type a word" in lines_of(rows)
        assert comparison.best == 1
        await pilot.press("f8", "down")
        assert (heads.display, models.display) == (False, True)
        assert not screen.is_done  # the models do not count on an empty line
        await type_line(pilot, screen, "Where is the")
        screen.query_one(ModelList).focus()
        await pilot.press("home", "down")
        await until_done(pilot)
        await pilot.press("home")
        await pilot.resize_terminal(160, 45)
        await pilot.pause()
        assert (heads.display, models.display) == (True, True)
        lines = painted(screen, ModelList)
        for line, model, outcome in zip(lines, comparison.models, comparison.outcomes.values(), strict=False):
            assert model.name in line
            assert f" {outcome.bits.bits_per_character:.2f}  " in line
        details = text_of(screen.query_one("#details", Static))
        bits = comparison.outcomes[0].bits
        assert f"{bits.token_bits / bits.num_characters:.2f} words" in details
        assert f"{bits.orthography_bits / bits.num_characters:.2f} capitals" in details
        assert lines[0].rstrip().endswith("ring now ¶")
        assert "ring 85 %" in details
