"""The chapter on memory: its numbers against a plain LSTM, its task, and other models."""

import re

import numpy as np
import pytest
from textual.widgets import Input

from engine.config import ModelConfig
from engine.data.tokenizers import EOS_ID, WordTokenizer
from engine.storage.files import assets_dir
from lotr_tui.learn.material import Material
from lotr_tui.screens.inspect.heat_strip import HeatStrips
from lotr_tui.screens.learn.figures.memory import EXAMPLE, MAX_CHARACTERS
from lotr_tui.session.session_model import SessionModel, load_session_model
from lotr_tui.widgets.slider import Slider
from tests.support.files import run_to_end
from tests.support.learn import bundled_material, open_chapter, shown, type_line, until_done
from tests.support.models import random_lstm
from tests.support.pilot import lines_of, text_of
from tests.support.references import plain_cells, plain_next_probs

WORDS = WordTokenizer(("<unk>", "<eos>", "the", "ring", "is", "mine", "frodo", "sam", "where", "go"))


def strips(pilot):
    return lines_of(pilot.app.screen.query_one(HeatStrips)).replace("at ▲", "").split("\n")


def equation_numbers(pilot):
    """Return the numbers in the equations: cell, forget, cell before, input, candidate; hidden, output, cell."""
    return list(map(float, re.findall(r"[-+]?\d+\.\d{3}", shown(pilot, "equations"))))


def expected_numbers(row, unit):
    names = ("cell", "forget", "cell_before", "input", "candidate", "hidden", "output", "cell")
    return [float(row[name][unit]) for name in names]


def probs_shown(pilot, name):
    """Return the percentages beside a word; "<1 %" counts as 0."""
    row = next(row for row in shown(pilot, "next-tokens").split("\n") if row[1:].startswith(f"{name} "))
    return [0.0 if number[0] == "<" else float(number) for number in re.findall(r"(<?[\d.]+) %", row)]


async def test_equations_and_next_words_are_those_of_a_plain_lstm(make_host):
    # The products of a random LSTM are not rounded to 8 bits. It has two layers, of 6 and 5 units.
    lstm = random_lstm(ModelConfig(embedding_size=5, hidden_size=6, num_layers=2), WORDS, seed=4, scale=0.9)
    async with make_host().run_test(size=(120, 40)) as pilot:
        screen = await open_chapter(pilot, "memory", lambda: Material(session_model=SessionModel("mine", "", lstm)))
        await type_line(pilot, "where is the ring")
        rows = plain_cells(lstm, [EOS_ID, *WORDS.encode("where is the ring").tolist()])
        slider = screen.query_one(Slider)
        for word in (4, 2):
            for slider.index, (layer, unit) in {0: (0, 0), 5: (0, 5), 6: (1, 0), 10: (1, 4)}.items():
                await pilot.pause()
                expected = expected_numbers(rows[word][layer], unit)
                assert equation_numbers(pilot) == pytest.approx(expected, abs=6e-4)
                assert text_of(slider).endswith(f" {layer + 1}·{unit}")
            await pilot.press("e", "ctrl+left", "ctrl+left")

        await type_line(pilot, "frodo go")
        slider.index = 2
        await pilot.pause()
        _, names, *lines, _ = strips(pilot)
        assert names.split() == ["<eos>", "frodo", "go"]
        rows = [each[0] for each in plain_cells(lstm, [EOS_ID, *WORDS.encode("frodo go").tolist()])]
        for line, name in zip(lines, ("forget", "input", "candidate", "cell", "output", "hidden"), strict=True):
            assert line.strip("▸ ").startswith(name)
            assert float(line.split()[-1]) == pytest.approx(rows[-1][name][2], abs=6e-4)
        assert f"cell ±{max(1.0, *(abs(row['cell'][2]) for row in rows)):.1f}" in lines[3]

        await type_line(pilot, "where is sam")
        ids = [EOS_ID, *WORDS.encode("where is sam").tolist()]
        kept, reset = plain_next_probs(lstm, ids), plain_next_probs(lstm, ids[-1:])
        names = ["<unk>", "end of line", *WORDS.tokens[2:]]
        for name, prob in zip(names, kept, strict=True):
            assert probs_shown(pilot, name)[0] == pytest.approx(100 * prob, abs=0.51)
        slider.focus()
        await pilot.press("x")
        await pilot.pause()
        for name, *probs in zip(names, kept, reset, strict=True):
            assert probs_shown(pilot, name) == pytest.approx([100 * prob for prob in probs], abs=0.51)
        divergence = float((kept * np.log2(kept / reset)).sum())
        assert f"KL divergence {divergence:.2f} bits" in shown(pilot, "next-tokens")
        row = plain_cells(lstm, ids[-1:])[0][0]  # the last word is read from a state of zeros
        assert equation_numbers(pilot) == pytest.approx(expected_numbers(row, 2), abs=6e-4)
        assert equation_numbers(pilot)[2] == 0


async def test_bundled_model_shows_its_weights_and_the_task_is_done(make_host):
    async with make_host().run_test(size=(160, 45)) as pilot:
        screen = await open_chapter(pilot, "memory")
        slider, choice = screen.query_one("#unit", Slider), screen.query_one("#state", Slider)
        lstm = run_to_end(bundled_material().model(lambda: False))[0].model
        rows = plain_cells(lstm, [EOS_ID, *lstm.tokenizer.encode(EXAMPLE).tolist()])
        changes = np.abs(rows[-1][0]["cell"] - rows[-1][0]["cell_before"])
        liveliest = slider.index
        assert changes[liveliest] > 0.97 * changes.max()
        # The products of the bundled model are computed in 8 bits, so its numbers differ a little.
        assert equation_numbers(pilot) == pytest.approx(expected_numbers(rows[-1][0], liveliest), abs=0.05)
        assert "/: changes most here" in shown(pilot, "equations")
        weights, [to] = lstm.weights["embedding.weight"], lstm.tokenizer.encode("to").tolist()
        similar = weights @ weights[to] / np.linalg.norm(weights, axis=1)
        similar[[to, EOS_ID]] = -np.inf
        alike = ", ".join(lstm.tokenizer.tokens[id] for id in np.argsort(-similar)[:5])
        assert shown(pilot, "embedding").endswith(f"alike: {alike}")
        await pilot.press("up", "up", "down")
        assert slider.index == liveliest + 1
        assert "/" not in shown(pilot, "equations")
        await pilot.press("/")
        assert slider.index == liveliest

        await type_line(pilot, "What did you")
        assert not screen.finished_parts  # without a reset
        await type_line(pilot, EXAMPLE)
        assert " reset" not in shown(pilot, "next-tokens").split("\n")[0]
        await pilot.click(choice, offset=(text_of(choice).index("┤") - 1, 0))
        await pilot.pause()
        assert screen.finished_parts == {0}
        assert "both expect “the”" in shown(pilot, "next-tokens")
        await pilot.click(choice, offset=(text_of(choice).index("├") + 1, 0))
        await pilot.pause()
        assert "reset" in shown(pilot, "next-tokens").split("\n")[0]  # both predictions stay
        await pilot.click(HeatStrips, offset=(1 + strips(pilot)[1].index("taking"), 2))
        await pilot.pause()
        field = screen.query_one(Input)
        assert field.value[: field.cursor_position] == "They are taking"
        await type_line(pilot, "What did you")
        await until_done(pilot)
        assert "disagree: “say” or “have”" in shown(pilot, "next-tokens")


async def test_any_line_can_be_typed_and_names_are_read_before_it(make_host):
    async with make_host().run_test(size=(200, 50)) as pilot:
        own = load_session_model([str(assets_dir() / "lstm")], None)
        screen = await open_chapter(pilot, "memory", lambda: Material(session_model=own))
        for text, num_steps in {"": 1, "Где 💍": 17, "the ring " * 30: None}.items():
            await type_line(pilot, text[:MAX_CHARACTERS])
            screen.query_one(Slider).focus()
            await pilot.press("x", "e", "home", "right", "end")
            assert equation_numbers(pilot)
            assert num_steps in (None, len(strips(pilot)[1].split()))
            assert (shown(pilot, "next-tokens") == "No word yet: type a line.") == (not text)
        await type_line(pilot, "GANDALF: You shall not")
        assert strips(pilot)[1].split() == ["<eos>", "G", "and", "al", "f", ":", "·You", "·shall", "·not"]
        for screen.query_one(Input).cursor_position, cursor in ((0, 0), (3, 5), (10, 6), (12, 6), (13, 7)):
            await pilot.pause()
            assert screen.query_one(HeatStrips).item == cursor
        await type_line(pilot, "You shall")
        assert strips(pilot)[1].split() == ["<eos>", "S", "ome", "one", ":", "·You", "·shall"]
