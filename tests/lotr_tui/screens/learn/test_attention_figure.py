"""Tests of the chapter on attention: its numbers, and its task by keyboard and by mouse."""

import re
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from textual import events
from textual.pilot import Pilot
from textual.widgets import Input, Static

from engine.data.dataset import load_dataset
from engine.data.tokenizers.base import EOS_ID
from engine.models.numpy_transformer import NumpyTransformer
from engine.storage.files import assets_dir
from lotr_tui.learn import compared_models
from lotr_tui.learn.class_models import bundled_data_config
from lotr_tui.learn.compared_models import ScoredModel
from lotr_tui.learn.material import Loading, Material
from lotr_tui.screens.attention.reading import AttentionReading, read_attention
from lotr_tui.screens.learn.figures.attention import figure as figure_module
from lotr_tui.screens.learn.figures.attention.figure import AttentionFigure
from lotr_tui.screens.learn.figures.attention.head_rows import LABEL_WIDTH, NUM_HEADING_LINES, HeadRows
from lotr_tui.screens.learn.figures.attention.model_list import ModelList
from lotr_tui.session.session_model import SessionModel, load_session_model
from tests.support.learn import chapter_screen, open_chapter, until_done
from tests.support.numpy_transformer import random_transformer
from tests.support.pilot import MakeApp, lines_of, text_of, until
from tests.support.transformer_reference import reference_layers

LINE = "where is the ring and where is frodo"


@pytest.fixture(autouse=True)
def no_installed_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compare only models that are always there."""
    monkeypatch.setattr(compared_models, "find_installed_model", lambda: None)


@pytest.fixture(scope="module")
def material() -> Material:
    """Return the bundled material, whose models are scored once."""
    return Material()


def transformer_material() -> tuple[NumpyTransformer, Material]:
    """Return a Transformer without rounded weights, and the material of its user."""
    tokenizer = load_dataset(bundled_data_config()).tokenizer
    model = random_transformer(tokenizer, num_layers=2, num_heads=3, embedding_size=12, context_size=24)
    return model, Material(session_model=SessionModel("mine", "Transformer, random weights", model))


def make(material: Material) -> Callable[[], Material]:
    return lambda: material


async def type_line(pilot: Pilot[None], text: str) -> None:
    pilot.app.screen.query_one(Input).value = text
    await pilot.pause()
    await until(pilot, lambda: chapter_screen(pilot).is_idle)
    await pilot.pause()


def head_rows(pilot: Pilot[None]) -> HeadRows:
    return pilot.app.screen.query_one(HeadRows)


def percentages(line: str) -> list[int]:
    """Return the percentages of a painted line."""
    return [int(number) for number in re.findall(r"(\d+) ?%", line)]


def select(rows: HeadRows, head: int, position: int) -> Iterator[str]:
    """Yield the keys that select a head and a word."""
    yield from ["down" if head > rows.head else "up"] * abs(head - rows.head)
    yield from ["right" if position > rows.position else "left"] * abs(position - rows.position)


async def test_weights_are_those_of_a_plain_transformer(make_host: MakeApp) -> None:
    model, material = transformer_material()
    _, attention = reference_layers(model, np.array([EOS_ID, *model.tokenizer.encode(LINE)]))
    async with make_host().run_test(size=(160, 45)) as pilot:
        await open_chapter(pilot, "attention", make(material))
        await type_line(pilot, LINE)
        rows = head_rows(pilot)
        rows.focus()
        for head, position in ((0, 8), (4, 5), (5, 2)):
            await pilot.press(*select(rows, head, position))
            expected = attention[head // 3, head % 3, position, : position + 1]
            assert expected.sum() == pytest.approx(1)
            painted = lines_of(rows).splitlines()
            assert percentages(painted[2]) == pytest.approx(100 * expected, abs=0.51)
            names = painted[1].split()[:-2]
            assert names == ["start", *LINE.split()]
            assert (painted[1].rstrip()[-7:], painted[2].rstrip()[-7:]) == ("most at", "earlier")
            strongest = 1 + int(expected[1:-1].argmax()) if position > 1 else 0
            assert f'looks {100 * expected[strongest]:.0f} % at "{names[strongest]}"' in painted[0]
            assert f"{100 * expected[-1]:.0f} % at itself" in painted[0]
            for row in range(6):
                largest = attention[row // 3, row % 3, position, 1:position].max()
                assert percentages(painted[NUM_HEADING_LINES + row])[-1] == pytest.approx(100 * largest, abs=0.51)


async def test_shades_are_those_of_the_weights(make_host: MakeApp) -> None:
    model, material = transformer_material()
    _, attention = reference_layers(model, np.array([EOS_ID, *model.tokenizer.encode(LINE)]))
    async with make_host().run_test(size=(160, 45)) as pilot:
        await open_chapter(pilot, "attention", make(material))
        await type_line(pilot, LINE)
        painted = lines_of(head_rows(pilot)).splitlines()
        starts = [match.start() for match in re.finditer(r"\S+", painted[1])][:-2]
        for head in range(6):
            weights = attention[head // 3, head % 3, 8]
            shades = "".join(painted[NUM_HEADING_LINES + head][start] for start in starts)
            expected = "".join(" ░▒▓█"[sum(weight >= least for least in (0.02, 0.1, 0.25, 0.5))] for weight in weights)
            assert shades == expected


async def test_bits_and_continuations_are_those_of_the_comparison(make_host: MakeApp, material: Material) -> None:
    async with make_host().run_test(size=(160, 45)) as pilot:
        screen = await open_chapter(pilot, "attention", make(material))
        figure = screen.query_one(AttentionFigure)
        assert figure.data is not None
        comparison = figure.data.comparison
        painted = lines_of(screen.query_one(ModelList)).splitlines()
        for index, model in enumerate(comparison.models):
            outcome = comparison.outcomes[index]
            assert isinstance(outcome, ScoredModel)
            assert model.name in painted[index]
            assert f" {outcome.bits.bits_per_character:.2f}  " in painted[index]
        details = text_of(screen.query_one("#details", Static))
        first = comparison.outcomes[0]
        assert isinstance(first, ScoredModel)
        words, writing = first.bits.token_bits, first.bits.orthography_bits
        assert f"{words / first.bits.num_characters:.2f} words" in details
        assert f"{writing / first.bits.num_characters:.2f} capitals" in details
        await type_line(pilot, "Where is the")
        five_gram = lines_of(screen.query_one(ModelList)).splitlines()[0]
        assert five_gram.rstrip().endswith("ring now ¶")
        assert "ring 85 %" in text_of(screen.query_one("#details", Static))


async def test_task_is_done_by_keyboard(make_host: MakeApp, material: Material) -> None:
    async with make_host().run_test(size=(80, 24)) as pilot:
        screen = await open_chapter(pilot, "attention", make(material))
        figure = screen.query_one(AttentionFigure)
        await pilot.press(*" lamp and the lamp", "tab")
        assert not figure._finished_parts
        assert figure.data is not None
        comparison = figure.data.comparison
        rows = head_rows(pilot)
        await pilot.press(*["pagedown"] * 3, *["down"] * 4)
        for _ in range(12):
            await pilot.press("up")
        assert 0 in figure._finished_parts
        assert rows.head == 0
        await pilot.press("f8")
        await until(pilot, lambda: screen.is_idle)
        assert not screen.is_done
        assert comparison.best is not None
        await pilot.press(*["down"] * comparison.best)
        await until_done(pilot)


async def test_task_is_done_by_mouse(make_host: MakeApp, material: Material) -> None:
    async with make_host().run_test(size=(160, 45)) as pilot:
        screen = await open_chapter(pilot, "attention", make(material))
        await type_line(pilot, LINE)
        rows, models = head_rows(pilot), screen.query_one(ModelList)
        weights = rows._reading.record.weights if rows._reading is not None else np.empty(0)
        head, position = next(
            (head, position)
            for position in range(2, 9)
            for head in range(12)
            if weights[head // 4, head % 4, position, 1:position].max() > 0.5
        )
        assert await pilot.click(rows, offset=(1 + LABEL_WIDTH + rows.columns().cell_of(position), 1))
        assert rows.position == position
        assert await pilot.click(rows, offset=(5, NUM_HEADING_LINES + head))
        assert rows.head == head
        await pilot._post_mouse_events([events.MouseScrollDown], rows)
        assert rows.head == min(11, head + 1)
        assert 0 in screen.query_one(AttentionFigure)._finished_parts
        best = screen.query_one(AttentionFigure).data.comparison.best  # type: ignore[union-attr]
        assert best is not None
        assert await pilot.click(models, offset=(5, best))
        await until_done(pilot)


async def test_other_view_is_one_click_away(make_host: MakeApp, material: Material) -> None:
    async with make_host().run_test(size=(80, 24)) as pilot:
        screen = await open_chapter(pilot, "attention", make(material))
        figure, rows = screen.query_one(AttentionFigure), head_rows(pilot)
        assert await pilot.click(rows, offset=(rows.size.width - 3, 0))
        assert figure.has_class("-models")
        header = screen.query_one("#header")
        assert await pilot.click(header, offset=(header.size.width - 3, 0))
        assert not figure.has_class("-models")


async def test_example_alone_does_not_finish_the_task(make_host: MakeApp, material: Material) -> None:
    async with make_host().run_test(size=(80, 24)) as pilot:
        screen = await open_chapter(pilot, "attention", make(material))
        await pilot.press("tab", *["down", "left"] * 12, *["up", "right"] * 12)
        assert not screen.finished_parts


async def test_views_take_turns_only_where_one_fits(make_host: MakeApp, material: Material) -> None:
    async with make_host().run_test(size=(80, 24)) as pilot:
        screen = await open_chapter(pilot, "attention", make(material))
        heads, models = screen.query_one("#attention"), screen.query_one("#models")
        assert (heads.display, models.display) == (True, False)
        assert "f8 models" in lines_of(head_rows(pilot))
        await pilot.press("f8")
        assert (heads.display, models.display) == (False, True)
        await pilot.resize_terminal(120, 40)
        await pilot.pause()
        assert (heads.display, models.display) == (True, True)
        assert "f8" not in lines_of(head_rows(pilot))


async def test_empty_and_long_lines(make_host: MakeApp, material: Material) -> None:
    async with make_host().run_test(size=(80, 24)) as pilot:
        await open_chapter(pilot, "attention", make(material))
        await type_line(pilot, "")
        assert "Type a word" in lines_of(head_rows(pilot))
        head_rows(pilot).focus()
        await pilot.press("left", "down", "end", "pagedown")
        await type_line(pilot, "the ring " * 40)
        rows = head_rows(pilot)
        assert "‹" in lines_of(rows)
        assert rows.position == 31  # the context of the small Transformer
        await type_line(pilot, "the")
        assert "first word" in lines_of(rows)


async def test_run_without_attention_is_compared_and_replaced(make_host: MakeApp) -> None:
    material = Material(session_model=load_session_model([str(assets_dir() / "class" / "scratch")], None))
    async with make_host().run_test(size=(120, 40)) as pilot:
        screen = await open_chapter(pilot, "attention", make(material))
        assert "has no attention" in text_of(screen.query_one("#figure-message", Static))
        painted = lines_of(screen.query_one(ModelList)).splitlines()
        assert painted[-1][2:].startswith("scratch")
        assert painted[-1].split()[1] == painted[3].split()[3]  # the same run as the twin from scratch


async def test_slow_model_is_read_in_a_thread(make_host: MakeApp) -> None:
    model, material = transformer_material()
    model.is_slow = True  # type: ignore[attr-defined]
    async with make_host().run_test(size=(120, 40)) as pilot:
        screen = await open_chapter(pilot, "attention", make(material))
        await type_line(pilot, LINE)
        assert LINE.split() == lines_of(head_rows(pilot)).splitlines()[1].split()[1:-2]
        assert screen.is_idle


async def test_slow_model_reads_one_line_at_a_time(make_host: MakeApp, monkeypatch: pytest.MonkeyPatch) -> None:
    model, material = transformer_material()
    model.is_slow = True  # type: ignore[attr-defined]
    readings: list[int] = []
    reading, may_end = threading.Lock(), threading.Event()
    may_end.set()

    def read_slowly(*args: Any) -> AttentionReading:
        assert reading.acquire(blocking=False)
        try:
            assert may_end.wait(30)
            result = read_attention(*args)
            readings.append(len(result.names))
            return result
        finally:
            reading.release()

    monkeypatch.setattr(figure_module, "read_attention", read_slowly)
    async with make_host().run_test(size=(120, 40)) as pilot:
        screen = await open_chapter(pilot, "attention", make(material))
        before = len(readings)
        may_end.clear()
        line = screen.query_one(Input)
        for text in ("where", "where is", "where is the", LINE):
            line.value = text
            await pilot.pause()
        may_end.set()
        await until(pilot, lambda: screen.is_idle)
        assert LINE.split() == lines_of(head_rows(pilot)).splitlines()[1].split()[1:-2]
        assert len(readings) - before <= 2  # lines in between are not read
        assert not screen.query_one("#figure-message").display


async def test_first_head_looks_most_at_an_earlier_word(make_host: MakeApp, material: Material) -> None:
    async with make_host().run_test(size=(80, 24)) as pilot:
        await open_chapter(pilot, "attention", make(material))
        rows = head_rows(pilot)
        assert rows._reading is not None
        num_heads = rows._reading.num_heads
        layer = rows._reading.num_layers // 2
        earlier = rows._reading.record.weights[layer, :, rows.position, 1 : rows.position].max(axis=1)
        assert rows.head == layer * num_heads + int(earlier.argmax())


async def test_models_do_not_count_on_an_empty_line(make_host: MakeApp, material: Material) -> None:
    async with make_host().run_test(size=(80, 24)) as pilot:
        screen = await open_chapter(pilot, "attention", make(material))
        figure = screen.query_one(AttentionFigure)
        await type_line(pilot, "")
        await pilot.press("f8")
        assert figure.data is not None
        assert figure.data.comparison.best is not None
        await pilot.press(*["down"] * figure.data.comparison.best)
        await pilot.pause()
        assert not screen.finished_parts


@pytest.mark.parametrize("by_mouse", [False, True])
async def test_large_model_is_loaded_when_the_student_asks_for_it(
    make_host: MakeApp, monkeypatch: pytest.MonkeyPatch, by_mouse: bool
) -> None:
    loads: list[str] = []

    def load(name: str, cancelled: object) -> Loading[compared_models.LanguageModel]:
        loads.append(name)
        yield "loading …"
        return random_transformer(load_dataset(bundled_data_config()).tokenizer, context_size=32)

    monkeypatch.setattr(compared_models, "find_installed_model", lambda: "gguf:model.gguf")
    monkeypatch.setattr(compared_models, "_load_real", load)
    async with make_host().run_test(size=(80, 24)) as pilot:
        screen = await open_chapter(pilot, "attention", Material)
        models, comparison = screen.query_one(ModelList), screen.query_one(AttentionFigure).data.comparison  # type: ignore[union-attr]
        await pilot.press("f8", "end")
        assert "-  enter loads it (135 M weights, seconds)" in lines_of(models).splitlines()[-1]
        assert comparison.best is not None  # the task can be done without it
        assert not loads
        if by_mouse:
            assert await pilot.click(models, offset=(5, 5))
        else:
            await pilot.press("enter", "enter")
        await until(pilot, lambda: screen.is_idle and 5 in comparison.outcomes, 30)
        assert loads == ["gguf:model.gguf"]
        outcome = comparison.outcomes[5]
        assert isinstance(outcome, ScoredModel)
        assert f" {outcome.bits.bits_per_character:.2f}  " in lines_of(models).splitlines()[-1]


async def test_failed_model_has_a_line_and_the_task_can_be_done(
    make_host: MakeApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(name: str, cancelled: object) -> Loading[compared_models.LanguageModel]:
        yield "loading …"
        raise ValueError("the file is broken")

    monkeypatch.setattr(compared_models, "find_installed_model", lambda: "gguf:model.gguf")
    monkeypatch.setattr(compared_models, "_load_real", fail)
    material = Material()
    async with make_host().run_test(size=(120, 40)) as pilot:
        screen = await open_chapter(pilot, "attention", make(material))
        models = screen.query_one(ModelList)
        models.focus()
        await pilot.press("end", "enter")
        await until(pilot, lambda: screen.is_idle)
        assert "the file is broken" in lines_of(models).splitlines()[-1]
        await pilot.press("up")
        await until(pilot, lambda: 1 in screen.finished_parts)
