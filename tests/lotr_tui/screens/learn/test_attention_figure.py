"""The chapter on attention: its numbers, its task, and models that are compared."""

import re
from dataclasses import replace

import numpy as np
import pytest
from textual.widgets import Input

from engine.data.tokenizers import EOS_ID
from lotr_tui.formatting import format_percent
from lotr_tui.learn.compared_models import Comparison, load_comparison
from lotr_tui.learn.material import Material
from lotr_tui.screens.inspect.heat_strip import HeatStrips
from lotr_tui.screens.learn.figures.attention import NO_STORY, tell_head
from lotr_tui.session.session_model import SessionModel
from tests.support.files import run_to_end
from tests.support.learn import open_chapter, shown, type_line, until_done
from tests.support.networks import random_transformer
from tests.support.pilot import lines_of, until
from tests.support.references import reference_layers

LINE = "where is the ring and where is frodo"
NUM_HEADING_LINES = 2  # of the strips


def with_few_models(material, *, on_request=False):
    comparison, _ = run_to_end(load_comparison(material))
    counts, lstm = comparison.models[:2]
    models = (counts, replace(lstm, is_on_request=on_request))
    material.results[Comparison] = replace(comparison, models=models, lines=comparison.lines[:5])
    return material


def painted(screen, widget):
    return lines_of(screen.query_one(widget)).replace("at ▲", "").splitlines()


@pytest.mark.parametrize(
    ("words", "looks_at", "story"),
    [
        ("abcdef", [0, 0, 1, 2, 3, 4, 5], "This head reads pairs: most words look at the word before them"),
        ("abcdef", [0, 0, 0, 0, 0, 0, 0], "This head rests: most words look at the start, and pass nothing on"),
        ("abcdef", [0, 1, 2, 3, 4, 5, 6], "This head keeps each word as it is"),
        ("ababab", [0, 0, 0, 2, 3, 2, 3], "This head remembers what followed the same word before: it can repeat that"),
        ("ababab", [0, 0, 0, 1, 2, 1, 2], "This head finds the same word earlier in the line"),
        ("abcdef", [0, 0, 0, 1, 1, 1, 1], 'This head collects: most words look back at "a"'),
        ("abcdef", [0, 0, 2, 1, 3, 0, 4], NO_STORY),
    ],
)
def test_story_of_a_head_is_what_most_words_do(words, looks_at, story):
    assert tell_head(["start", *words], np.eye(7, dtype=np.float32)[looks_at]) == story


async def test_weights_are_those_of_a_plain_transformer_and_a_large_model_is_loaded_on_request(make_host):
    dataset, _ = run_to_end(Material().words())
    model = random_transformer(dataset.tokenizer, num_layers=2, num_heads=3, embedding_size=12, context_size=24)
    material = with_few_models(Material(session_model=SessionModel("mine", "random weights", model)), on_request=True)
    _, attention = reference_layers(model, np.array([EOS_ID, *model.tokenizer.encode(LINE)]))
    async with make_host().run_test(size=(160, 45)) as pilot:
        screen = await open_chapter(pilot, "attention", lambda: material)
        await type_line(pilot, LINE)
        starts = [match.start() for match in re.finditer(r"\S+", painted(screen, HeatStrips)[1])]
        for head in range(6):
            weights = attention[head // 3, head % 3, 8]
            shades = "".join(painted(screen, HeatStrips)[NUM_HEADING_LINES + head][start] for start in starts)
            levels = [sum(weight >= least for least in (0.02, 0.1, 0.25, 0.5)) for weight in weights]
            assert shades == "".join(" ░▒▓█"[level] for level in levels)
        strips = screen.query_one(HeatStrips)
        names = ["start", *LINE.split()]
        for head, word in ((0, 8), (4, 5)):
            screen.query_one(Input).focus()
            await pilot.press(*["down" if head > strips.row else "up"] * abs(head - strips.row))
            await pilot.press("end", *["ctrl+left"] * (8 - word))
            await pilot.pause()
            expected = attention[head // 3, head % 3, word, : word + 1]
            title, story = shown(pilot, "story").splitlines()
            assert story == tell_head(names, attention[head // 3, head % 3])
            assert painted(screen, HeatStrips)[1].split() == names
            strongest = 1 + int(expected[1:-1].argmax())
            assert f'looks {format_percent(expected[strongest])} at "{names[strongest]}"' in title
            assert f"{format_percent(expected[-1])} at itself" in title
            assert strips.item == strongest
            strips.focus()
            await pilot.press("home")
            await pilot.pause()
            for row, line in enumerate(painted(screen, HeatStrips)[NUM_HEADING_LINES : NUM_HEADING_LINES + 6]):
                assert line.endswith(f" {format_percent(float(attention[row // 3, row % 3, word, 0]))}")

        comparison = material.results[Comparison]
        screen.query_one("#list").focus()
        await pilot.press("end")
        assert "-  enter loads it: 135 M weights" in painted(screen, "#list")[1]
        assert comparison.best == 0  # the task can be done without it
        await pilot.press("enter", "enter")
        await until(pilot, lambda: screen.is_idle and 1 in comparison.outcomes, 30)
        assert f" {comparison.outcomes[1].bits.bits_per_character:.2f}  " in painted(screen, "#list")[1]


@pytest.mark.slow  # 200 keys
async def test_bits_are_those_of_the_comparison_and_the_task_is_done_by_keyboard_and_mouse(make_host):
    material = with_few_models(Material())
    async with make_host().run_test(size=(80, 24)) as pilot:
        screen = await open_chapter(pilot, "attention", lambda: material)
        comparison = material.results[Comparison]
        heads, models, strips = (screen.query_one(each) for each in ("#heads", "#models", HeatStrips))
        await pilot.press("down", "left", "up", "right")
        assert not screen.finished_parts  # the example alone does not count
        await type_line(pilot, "Frodo has the Ring, and Sam has the lamp")
        await pilot.press("e", *["up"] * 12)
        for _ in range(8):
            await pilot.press(*["down"] * 12, *["up"] * 12, "ctrl+left")
        await until(pilot, lambda: screen.finished_parts == {0})
        assert (heads.display, models.display) == (True, False)

        await type_line(pilot, LINE)
        assert await pilot.click(strips, offset=(5, NUM_HEADING_LINES + 1))
        await pilot.pause()
        assert painted(screen, HeatStrips)[NUM_HEADING_LINES + 1].strip().startswith("▸")
        await type_line(pilot, "the ring " * 40)
        assert len(strips.rows[0].values) == 32  # the context of the small Transformer
        await type_line(pilot, "the")
        assert "first word" in shown(pilot, "story")

        await type_line(pilot, "")
        assert "Type a word" in lines_of(strips)
        assert comparison.best == 1
        strips.focus()
        await pilot.press("tab")
        await pilot.pause()
        await pilot.press("down")
        assert (heads.display, models.display) == (False, True)
        assert not screen.is_done  # the models do not count on an empty line
        await type_line(pilot, "Where is the")
        await pilot.press("home", "down")
        await until_done(pilot)
        await pilot.press("home")
        await pilot.resize_terminal(160, 45)
        await pilot.pause()
        assert (heads.display, models.display) == (True, True)
        lines = painted(screen, "#list")
        for row, model, outcome in zip(lines, comparison.models, comparison.outcomes.values(), strict=False):
            assert row.split("  ")[0].strip() == model.name
            assert f" {outcome.bits.bits_per_character:.2f}  " in row
        details, bits = shown(pilot, "details"), comparison.outcomes[0].bits
        assert f"{bits.token_bits / bits.num_characters:.2f} words" in details
        assert f"{bits.orthography_bits / bits.num_characters:.2f} capitals" in details
        assert lines[0].rstrip().endswith("ring now ¶")
