"""Tests of the chapter on memory: its numbers against a plain LSTM, its task by keyboard and by mouse."""

import re
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from textual.pilot import Pilot
from textual.widgets import Input, Static

from engine.config import ModelConfig
from engine.data.arrays import Float64Array
from engine.data.tokenizers.base import EOS_ID
from engine.data.tokenizers.words import WordTokenizer
from engine.models.numpy_lstm import NumpyLSTM
from engine.storage.files import assets_dir
from lotr_tui.learn import class_models
from lotr_tui.learn.lstm_line import agrees_after_reset
from lotr_tui.learn.material import Material
from lotr_tui.screens.learn.figures.memory.figure import EXAMPLE, MAX_CHARACTERS, MemoryFigure
from lotr_tui.screens.learn.figures.memory.next_tokens import NextTokens
from lotr_tui.screens.learn.figures.memory.step_table import StepTable
from lotr_tui.session.session_model import SessionModel, load_session_model
from lotr_tui.widgets.bars import bar, signed_bar
from lotr_tui.widgets.choice_bar import ChoiceBar
from lotr_tui.widgets.slider import Slider
from tests.support.learn import chapter_screen, open_chapter, until_done
from tests.support.models import random_lstm
from tests.support.pilot import MakeApp, lines_of, text_of
from tests.support.plain_lstm import plain_cells, plain_next_probs
from tests.support.small_corpora import CYRILLIC, write_corpus

WORDS = WordTokenizer(("<unk>", "<eos>", "the", "ring", "is", "mine", "frodo", "sam", "where", "go"))
NUMBER = r"[-+]?\d+\.\d{3}"


def small_lstm() -> NumpyLSTM:
    """Return an LSTM of two layers, of 6 and 5 units, whose products are not rounded to 8 bits."""
    return random_lstm(ModelConfig(embedding_size=5, hidden_size=6, num_layers=2), WORDS, seed=4, scale=0.9)


def material_of(lstm: NumpyLSTM) -> Material:
    return Material(session_model=SessionModel("mine", "", lstm))


def material_of_run(run: str) -> Material:
    return Material(session_model=load_session_model([str(assets_dir() / run)], None))


async def type_line(pilot: Pilot[None], text: str) -> None:
    pilot.app.screen.query_one(Input).value = text
    await pilot.pause()


def equation_numbers(pilot: Pilot[None]) -> list[float]:
    """Return the numbers in the equations: cell, forget, cell before, input, candidate; hidden, output, cell."""
    return list(map(float, re.findall(NUMBER, text_of(pilot.app.screen.query_one("#equations", Static)))))


def expected_numbers(row: dict[str, Float64Array], unit: int) -> list[float]:
    names = ("cell", "forget", "cell_before", "input", "candidate", "hidden", "output", "cell")
    return [float(row[name][unit]) for name in names]


def shown_rows(pilot: Pilot[None]) -> list[str]:
    return text_of(pilot.app.screen.query_one(NextTokens)).split("\n")


async def test_equations_are_those_of_a_plain_lstm_for_each_word_and_unit(make_host: MakeApp) -> None:
    lstm = small_lstm()
    async with make_host().run_test(size=(120, 35)) as pilot:
        await open_chapter(pilot, "memory", partial(material_of, lstm))
        await type_line(pilot, "where is the ring")
        rows = plain_cells(lstm, [EOS_ID, *WORDS.encode("where is the ring").tolist()])
        slider = pilot.app.screen.query_one(Slider)
        for word in range(4, -1, -1):
            for index, (layer, unit) in enumerate(
                [*[(0, unit) for unit in range(6)], *[(1, unit) for unit in range(5)]]
            ):
                slider.index = index
                await pilot.pause()
                expected = expected_numbers(rows[word][layer], unit)
                assert equation_numbers(pilot) == pytest.approx(expected, abs=6e-4)
                assert slider.shown_value == f"{layer + 1}·{unit}"
            await pilot.press("ctrl+left")


async def test_bars_are_those_of_a_plain_lstm(make_host: MakeApp) -> None:
    lstm = small_lstm()
    async with make_host().run_test(size=(120, 35)) as pilot:
        await open_chapter(pilot, "memory", partial(material_of, lstm))
        await type_line(pilot, "frodo go")
        pilot.app.screen.query_one(Slider).index = 2
        await pilot.pause()
        lines = text_of(pilot.app.screen.query_one(StepTable)).split("\n")
        assert lines[0].split() == ["<eos>", "frodo", "▸go"]
        rows = [each[0] for each in plain_cells(lstm, [EOS_ID, *WORDS.encode("frodo go").tolist()])]
        scale = max(1.0, *(abs(row["cell"][2]) for row in rows))
        for line, name in zip(lines[1:], ("forget", "input", "candidate", "cell", "output", "hidden"), strict=True):
            label, number, bars = line[:10], line[10:18], line[18:]
            assert label.startswith(name)
            assert float(number) == pytest.approx(rows[-1][name][2], abs=6e-4)
            for column, row in enumerate(rows):
                value = float(row[name][2])
                is_gate = name in ("forget", "input", "output")
                expected = bar(value, 7) if is_gate else signed_bar(value / (scale if name == "cell" else 1), 3)
                assert bars[8 * column : 8 * column + 8].strip() == expected.strip()
        assert lines[4].startswith(f"cell ±{scale:.1f}")


async def test_next_words_are_those_of_a_plain_lstm_with_and_without_reset(make_host: MakeApp) -> None:
    lstm = small_lstm()
    async with make_host().run_test(size=(120, 35)) as pilot:
        await open_chapter(pilot, "memory", partial(material_of, lstm))
        await type_line(pilot, "where is sam")
        ids = [EOS_ID, *WORDS.encode("where is sam").tolist()]
        kept, reset = plain_next_probs(lstm, ids), plain_next_probs(lstm, ids[-1:])
        names = ["<unk>", "end of line", *WORDS.tokens[2:]]
        for name, prob in zip(names, kept, strict=True):
            assert probs_shown(shown_rows(pilot), name)[0] == pytest.approx(100 * prob, abs=0.51)
        await pilot.press("f8")
        await pilot.pause()
        rows = shown_rows(pilot)
        for name, *probs in zip(names, kept, reset, strict=True):
            assert probs_shown(rows, name) == pytest.approx([100 * prob for prob in probs], abs=0.51)
        divergence = float((kept * np.log2(kept / reset)).sum())
        assert f"KL divergence {divergence:.2f} bits" in rows
        best = [names[int(probs.argmax())] for probs in (kept, reset)]
        assert rows[-1] == (
            f"both expect “{best[0]}”" if best[0] == best[1] else f"disagree: “{best[0]}” or “{best[1]}”"
        )
        # The last word is read from a state of zeros.
        row = plain_cells(lstm, ids[-1:])[0][0]
        pilot.app.screen.query_one(Slider).index = 3
        await pilot.pause()
        assert equation_numbers(pilot) == pytest.approx(expected_numbers(row, 3), abs=6e-4)
        assert equation_numbers(pilot)[2] == 0


def probs_shown(rows: list[str], name: str) -> list[float]:
    """Return the percentages beside a word; "<1 %" counts as 0."""
    row = next(row for row in rows if row.startswith(name.ljust(11)))
    return [0.0 if number == "<1" else float(number) for number in re.findall(r"(<1|\d+) %", row)]


async def test_bundled_model_shows_its_dequantized_weights(make_host: MakeApp) -> None:
    """The products of the bundled model are computed in 8 bits, so its numbers differ a little."""
    async with make_host().run_test(size=(80, 24)) as pilot:
        screen = await open_chapter(pilot, "memory")
        figure = screen.query_one(MemoryFigure)
        assert figure.data is not None
        lstm = figure.data.lstm
        rows = plain_cells(lstm, [EOS_ID, *lstm.tokenizer.encode(EXAMPLE).tolist()])
        changes = np.abs(rows[-1][0]["cell"] - rows[-1][0]["cell_before"])
        assert changes[figure.unit] > 0.97 * changes.max()
        numbers = equation_numbers(pilot)
        assert numbers == pytest.approx(expected_numbers(rows[-1][0], figure.unit), abs=0.05)
        cell, forget, before, input_, candidate, hidden, output, _ = numbers
        assert cell == pytest.approx(forget * before + input_ * candidate, abs=3e-3)
        assert hidden == pytest.approx(output * np.tanh(cell), abs=2e-3)
        assert "f9: changes most here" in text_of(screen.query_one("#equations", Static))
        await pilot.press("up")
        assert "f9" not in text_of(screen.query_one("#equations", Static))


async def test_task_is_done_by_keyboard(make_host: MakeApp) -> None:
    async with make_host().run_test(size=(80, 24)) as pilot:
        screen = await open_chapter(pilot, "memory")
        await pilot.press("tab", "tab", "space")
        assert screen.query_one(ChoiceBar).index == 1
        await pilot.pause()
        assert screen.finished_parts == {0}
        assert "both expect “the”" in shown_rows(pilot)
        await pilot.press("shift+tab", "shift+tab", "ctrl+u", *"What did you")
        await until_done(pilot)
        assert "disagree: “say” or “have”" in shown_rows(pilot)
        assert "✓ Done" in text_of(screen.query_one("#task", Static))


async def test_both_predictions_stay_once_the_state_was_reset(make_host: MakeApp) -> None:
    async with make_host().run_test(size=(80, 24)) as pilot:
        screen = await open_chapter(pilot, "memory")
        assert "reset" not in shown_rows(pilot)[0]
        await pilot.press("f8", "f8")
        assert screen.query_one(ChoiceBar).index == 0
        assert "kept" in shown_rows(pilot)[0]
        assert "reset" in shown_rows(pilot)[0]
        await pilot.press("ctrl+u", *"What did you")
        await until_done(pilot)
        assert "disagree: “say” or “have”" in shown_rows(pilot)


async def test_task_is_done_by_mouse(make_host: MakeApp) -> None:
    async with make_host().run_test(size=(160, 45)) as pilot:
        screen = await open_chapter(pilot, "memory")
        choice, table, field = screen.query_one(ChoiceBar), screen.query_one(StepTable), screen.query_one(Input)
        await pilot.click(choice, offset=(text_of(choice).index("reset before"), 0))
        assert choice.index == 1
        await pilot.click(choice, offset=(text_of(choice).index("kept"), 0))
        assert choice.index == 0
        await pilot.click(choice, offset=(text_of(choice).index("○"), 0))
        assert choice.index == 1
        line = text_of(table).split("\n")[0]
        await pilot.click(table, offset=(line.index("taking"), 0))
        assert field.value[: field.cursor_position] == "They are taking"
        assert "▸taking" in text_of(table)
        slider = screen.query_one(Slider)
        before = equation_numbers(pilot)
        await pilot.click(slider, offset=(slider.size.width // 2 + 5, 0))
        await pilot.pause()
        assert equation_numbers(pilot) != before
        await type_line(pilot, "What did you")
        await until_done(pilot)


async def test_reset_without_a_line_of_ones_own_does_not_finish_the_task(make_host: MakeApp) -> None:
    async with make_host().run_test(size=(80, 24)) as pilot:
        screen = await open_chapter(pilot, "memory")
        assert not screen.finished_parts
        await type_line(pilot, "What did you")
        assert not screen.finished_parts
        await type_line(pilot, EXAMPLE)
        await pilot.press("f8")
        await pilot.pause()
        assert screen.finished_parts == {0}


def test_example_agrees_with_a_plain_lstm_after_a_reset() -> None:
    lstm = small_lstm()
    agreements = set()
    for line in ("the ring is mine", "where is sam", "is sam mine", "go frodo go", "sam is the ring"):
        ids = [EOS_ID, *WORDS.encode(line).tolist()]
        agrees = plain_next_probs(lstm, ids).argmax() == plain_next_probs(lstm, ids[-1:]).argmax()
        assert agrees_after_reset(lstm, line) == agrees
        agreements.add(bool(agrees))
    assert agreements == {True, False}


async def test_corpus_of_the_user_has_an_example_of_its_own(
    make_host: MakeApp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = class_models.class_model_config
    monkeypatch.setattr(class_models, "class_model_config", lambda *args: full(*args).with_values(epochs=1))
    data = write_corpus(tmp_path / "own.csv", words=CYRILLIC)
    async with make_host().run_test(size=(80, 24)) as pilot:
        screen = await open_chapter(pilot, "memory", partial(Material, data))
        assert all(word in CYRILLIC for word in screen.query_one(Input).value.split())
        assert "<unk>" not in text_of(screen.query_one(StepTable))
        await pilot.press("f8")
        await pilot.pause()
        assert screen.finished_parts == {0}


async def test_keys_change_the_unit_while_a_line_is_typed(make_host: MakeApp) -> None:
    async with make_host().run_test(size=(80, 24)) as pilot:
        screen = await open_chapter(pilot, "memory")
        figure = screen.query_one(MemoryFigure)
        liveliest = figure.unit
        await pilot.press("up", "up", "down")
        assert figure.unit == liveliest + 1
        await pilot.press("f9")
        assert figure.unit == liveliest


async def test_speakers_are_read_before_the_line(make_host: MakeApp) -> None:
    async with make_host().run_test(size=(200, 50)) as pilot:
        await open_chapter(pilot, "memory", partial(material_of_run, "model"))
        await type_line(pilot, "GANDALF: You shall not")
        table = pilot.app.screen.query_one(StepTable)
        names = [column.name for column in table.columns]
        assert names == ["<eos>", "GANDALF:", "You", "·shall", "·not"]
        assert table.cursor == 4
        field = pilot.app.screen.query_one(Input)
        for position, cursor in ((0, 0), (3, 1), (10, 2), (12, 2), (13, 3)):
            field.cursor_position = position
            await pilot.pause()
            assert table.cursor == cursor
        await type_line(pilot, "You shall")
        assert [column.name for column in table.columns] == ["<eos>", "SOMEONE:", "You", "·shall"]


async def test_run_without_gates_gets_a_note(make_host: MakeApp) -> None:
    async with make_host().run_test(size=(80, 24)) as pilot:
        screen = await open_chapter(pilot, "memory", partial(material_of_run, "class/transformer"))
        note = text_of(screen.query_one("#figure-message", Static))
        assert note == "transformer has no gates, so this is the class's small LSTM"
        assert len(screen.query_one(StepTable).columns) == 7


@pytest.mark.parametrize(
    ("run", "text", "num_steps"),
    [
        ("class/lstm", "", 1),
        ("class/lstm", "go", 2),
        ("class/lstm", "Где кольцо 💍?!", 1),
        ("class/lstm", "the ring " * 30, 46),
        ("class/lstm", "go\tthere¶now", 4),
        ("model", "", 1),
        ("model", "?!", 4),
        ("model", "Где 💍", 13),
    ],
)
async def test_any_line_can_be_typed(make_host: MakeApp, run: str, text: str, num_steps: int) -> None:
    async with make_host().run_test(size=(80, 24)) as pilot:
        screen = await open_chapter(pilot, "memory", partial(material_of_run, run))
        await type_line(pilot, text[:MAX_CHARACTERS])
        await pilot.press("f8", "home", "right", "f9", "end")
        await pilot.pause()
        assert equation_numbers(pilot)
        assert len(screen.query_one(StepTable).columns) == num_steps
        assert (shown_rows(pilot) == ["No word yet: type a line."]) == (num_steps == 1)


@pytest.mark.parametrize("size", [(60, 20), (80, 24), (120, 35), (200, 50)])
async def test_nothing_is_cut_off(make_host: MakeApp, size: tuple[int, int]) -> None:
    async with make_host().run_test(size=size) as pilot:
        screen = await open_chapter(pilot, "memory")
        await pilot.press("f5", "f8")
        await pilot.pause(0.1)
        for widget in (
            screen.query_one("#equations", Static),
            screen.query_one(StepTable),
            screen.query_one(NextTokens),
        ):
            shown = [line.rstrip() for line in lines_of(widget).split("\n")]
            assert [line.rstrip() for line in text_of(widget).split("\n")] == [line for line in shown if line]
        assert widest(screen.query_one(ChoiceBar)) <= screen.query_one(ChoiceBar).size.width
        assert chapter_screen(pilot).query_one(MemoryFigure).region.bottom <= size[1] - 2


def widest(widget: ChoiceBar) -> int:
    return len(text_of(widget).rstrip())
