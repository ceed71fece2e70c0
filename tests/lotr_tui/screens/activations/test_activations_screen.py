"""Inside, driven as a person would; what is painted is held against `engine.analysis.activations`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from textual.pilot import Pilot
from textual.widgets import Input

from engine.analysis.activations import PARTS, Gates, gates, lstm_of
from engine.analysis.token_scores import split
from engine.config import ModelConfig
from engine.data.vocabulary import EOS_ID
from engine.models.cache import Cache, CacheSettings
from engine.models.dynamic_evaluation import Dynamic
from engine.models.ngram import KneserNey
from engine.models.numpy_lstm import Decoder, weight_shapes
from lotr_tui.app import LotrApp
from lotr_tui.screens.activations.gate_strips import (
    GateStrips,
)
from lotr_tui.screens.activations.screen import MOST_WORDS, InsideScreen
from lotr_tui.screens.activations.unit_contexts import UnitFound
from lotr_tui.screens.activations.unit_trace import UnitAlong
from lotr_tui.screens.text.view import PageText
from lotr_tui.session.player import Player
from lotr_tui.textual_fixes.line_box import LineBox
from lotr_tui.widgets.status_bar import StatusBar
from tests.lotr_tui.conftest import VOCABULARY, Host
from tests.lotr_tui.screens.session.test_session_screen import text_of, until

MakeHost = Callable[..., Host]

TEXT = "Bilbo Baggins is a friend, the wizard was lit <eos> we walked all night"

WORDS = ["Bilbo", "Baggins", "is", "a", "friend", "the", "‹wizard›", "was", "lit", "¶", "we", "walked", "all", "night"]


def make(hidden: int = 70, layers: int = 2, seed: int = 0) -> Decoder:
    config = ModelConfig(embedding_size=12, hidden_size=hidden, layers=layers)
    chance = np.random.default_rng(seed)
    shapes = weight_shapes(config, len(VOCABULARY))
    return Decoder(config, VOCABULARY, {n: chance.normal(0, 0.4, s).astype(np.float32) for n, s in shapes.items()})


DECODER = make()


def truth(text: str = TEXT, decoder: Decoder = DECODER) -> tuple[Gates, ...]:
    return gates(decoder, split(text.replace(" <eos> ", "\n"), VOCABULARY, line_ends=True).ids)


def painted(app: LotrApp, kind: type[Any]) -> list[str]:
    widget = app.screen.query_one(kind)
    return [widget.render_line(y).text.rstrip() for y in range(widget.size.height)]


def strips(app: LotrApp) -> GateStrips:
    return app.screen.query_one(GateStrips)


def heading(app: LotrApp, name: str) -> str:
    return text_of(app.screen.query_one(name, StatusBar)).strip()


def at_rest(app: LotrApp) -> bool:
    screen = app.screen
    assert isinstance(screen, InsideScreen)
    return screen._reading is None and screen._searching is None and not screen._drain_timer._active.is_set()


async def look(pilot: Pilot[None], app: LotrApp, player: Player, text: str = TEXT) -> InsideScreen:
    screen = InsideScreen(player, text)
    await app.push_screen(screen)
    await until(pilot, lambda: bool(screen._layers or strips(app)._hint) and at_rest(app))
    await pilot.pause()
    return screen


SMALL = make(hidden=12, layers=1)


@pytest.fixture
def player(tmp_path: Path) -> Player:
    return Player("two", "2 layers", DECODER, run=tmp_path)


# The words


async def test_the_strips_follow_the_word_under_the_cursor(make_host: MakeHost, player: Player) -> None:
    app = make_host(player=player)
    async with app.run_test(size=(80, 24)) as pilot:
        await look(pilot, app, player)
        text = app.screen.query_one(PageText)
        true = truth()[0]

        def is_on(position: int) -> bool:
            value = true.part(strips(app).part)[position, strips(app).unit]
            return (
                text.cursor == position
                and f'on reading "{WORDS[position]}" · word {position + 1} of {len(WORDS)}'
                in painted(app, GateStrips)[0]
                and strips(app).value == pytest.approx(float(value))
                and any(line.startswith(f"▸{WORDS[position]}") for line in painted(app, UnitAlong))
            )

        assert is_on(13)
        await pilot.press("comma")
        assert is_on(12)
        await pilot.press("full_stop")
        assert is_on(13)
        text.focus()
        for key, position in [
            ("home", 0),
            ("right", 1),
            ("left", 0),
            ("down", 10),
            ("up", 0),
            ("end", 13),
            ("pageup", 3),
            ("pagedown", 13),
        ]:
            await pilot.press(key)
            await pilot.pause()
            if key == "pageup":
                assert text.line_of(text.cursor) == 0
                position = text.cursor
            assert is_on(position), key
        app.screen.query_one(UnitAlong).focus()
        for key, position in [("up", 12), ("home", 0), ("down", 1), ("right", 2), ("left", 1), ("end", 13)]:
            await pilot.press(key)
            await pilot.pause()
            assert is_on(position), key
        await pilot.press("pageup", "pagedown")
        await pilot.pause()
        assert is_on(13)
        await pilot.click(PageText, offset=(8, 0))
        await pilot.pause()
        assert is_on(1)
        await pilot.click(UnitAlong, offset=(4, 0))
        await pilot.pause()
        assert text.cursor <= 1


async def test_tab_goes_between_all_parts(make_host: MakeHost, player: Player) -> None:
    app = make_host(player=player)
    async with app.run_test(size=(200, 50)) as pilot:
        await look(pilot, app, player)
        seen = []
        for _ in range(5):
            await pilot.press("tab")
            assert app.focused is not None
            seen.append(type(app.focused))
        assert set(seen) == {PageText, GateStrips, UnitAlong, UnitFound, LineBox}


async def test_the_text_can_be_changed(make_host: MakeHost, player: Player) -> None:
    app = make_host(player=player)
    async with app.run_test(size=(80, 24)) as pilot:
        await look(pilot, app, player)
        await pilot.press("f6")
        field = app.screen.query_one(Input)
        assert field.has_focus
        assert field.value == TEXT
        field.value = "the lamp"
        await pilot.press("enter")
        await until(pilot, lambda: at_rest(app) and '"lamp" · word 2 of 2' in painted(app, GateStrips)[0])
        assert strips(app).has_focus
        assert strips(app).value == pytest.approx(float(truth("the lamp")[0].cell[-1, strips(app).unit]))
        await pilot.press("f6", "f6")
        assert strips(app).has_focus
        await pilot.press("escape")
        assert not isinstance(app.screen, InsideScreen)


# One unit


@pytest.mark.parametrize("size", [(60, 20), (200, 50)])
async def test_a_pinned_unit_is_seen_along_the_text(make_host: MakeHost, player: Player, size: tuple[int, int]) -> None:
    app = make_host(player=player)
    async with app.run_test(size=size) as pilot:
        await look(pilot, app, player)
        await pilot.press("home", "right", "right", "f3")
        assert heading(app, "#along-heading") == "layer 1 unit 2 cell along the text · pinned"
        await pilot.press("f2", "right", "up", "up")  # elsewhere
        assert heading(app, "#along-heading") == "layer 1 unit 2 cell along the text · pinned"
        values = truth()[0].cell[:, 2]
        seen = {}
        for position in range(len(WORDS)):
            app.screen.query_one(PageText).move_to(position)
            await pilot.pause()
            line = next(line for line in painted(app, UnitAlong) if line.startswith("▸"))
            word, number = line[1:].split()[:2]
            assert word == WORDS[position]
            assert float(number) == pytest.approx(values[position], abs=6e-4)
            seen[position] = line
        longest = int(np.abs(values).argmax())
        assert (seen[longest].count("█") > 3) == (values[longest] > 0)
        assert (seen[longest].count("▒") > 3) == (values[longest] < 0)
        await pilot.press("f3")
        assert heading(app, "#along-heading").startswith("layer 2 unit 3 output along the text")
        assert "pinned" not in heading(app, "#along-heading")


async def test_a_gate_along_the_text_has_no_sign(make_host: MakeHost, player: Player) -> None:
    app = make_host(player=player)
    async with app.run_test(size=(200, 50)) as pilot:
        await look(pilot, app, player)
        await pilot.press("up", "up", "home")
        rows = painted(app, UnitAlong)[: len(WORDS)]
        values = truth()[0].output[:, 0]
        assert [float(row[1:].split()[1]) for row in rows] == pytest.approx(values.tolist(), abs=6e-4)
        assert not any("│" in row or "+" in row for row in rows)


async def test_f5_goes_between_the_lists(make_host: MakeHost, player: Player) -> None:
    app = make_host(player=player)
    async with app.run_test(size=(80, 24)) as pilot:
        await look(pilot, app, player)
        assert not app.screen.query_one(UnitFound).region
        await pilot.press("f5")
        await pilot.pause()
        assert app.screen.query_one(UnitFound).has_focus
        assert not app.screen.query_one(UnitAlong).region
        await pilot.press("f5")
        await pilot.pause()
        assert app.screen.query_one(UnitAlong).has_focus
        await pilot.resize_terminal(200, 50)
        for kind in (UnitFound, UnitAlong):
            await pilot.press("f5")
            await pilot.pause()
            assert app.screen.query_one(kind).has_focus
            assert app.screen.query_one(kind).region


# What there is not


async def test_what_cannot_be_shown_is_said_in_a_line(make_host: MakeHost, player: Player) -> None:
    ids = np.random.default_rng(0).integers(0, len(VOCABULARY), 200).astype(np.int32)
    app = make_host(player=player)
    async with app.run_test(size=(80, 24)) as pilot:
        for model, text, told in [
            (KneserNey(ids, VOCABULARY, 3), TEXT, "there is no LSTM inside this model"),
            (DECODER, "", "there is no word to read"),
            (DECODER, "?! \x1b[ …", "there is no word to read"),
        ]:
            await look(pilot, app, Player("x", "", model), text)
            assert told in painted(app, GateStrips)[0]
            await pilot.press("right", "down", "m", "z", "end", "pageup", "comma", "f2", "f3", "f4", "f5", "f5", "f6")
            await pilot.press("escape")
            assert not isinstance(app.screen, InsideScreen)


async def test_unknown_words_are_read_as_such(make_host: MakeHost, player: Player) -> None:
    app = make_host(player=player)
    async with app.run_test(size=(80, 24)) as pilot:
        await look(pilot, app, player, "zyzzyva zyzzyva")
        assert "‹zyzzyva›" in painted(app, GateStrips)[0]
        expected = gates(DECODER, [0, 0])[0].cell[1, strips(app).unit]
        assert strips(app).value == pytest.approx(float(expected))


async def test_what_is_seen_of_a_larger_model_is_its_lstm_as_trained(make_host: MakeHost, player: Player) -> None:
    app = make_host(player=player)
    async with app.run_test(size=(200, 50)) as pilot:
        await look(pilot, app, player)
        assert "as it was trained" not in heading(app, "#status")
        await pilot.press("escape")
        await look(pilot, app, Player("cached", "", Cache(DECODER, CacheSettings())))
        assert "inside the LSTM as it was trained" in heading(app, "#status")
        assert strips(app).value == pytest.approx(float(truth()[0].cell[-1, strips(app).unit]))


async def test_one_layer_has_no_next_one(make_host: MakeHost) -> None:
    app = make_host()
    async with app.run_test(size=(80, 24)) as pilot:
        await look(pilot, app, Player("one", "", SMALL))
        await pilot.press("f2")
        assert "layer 1 of 1" in painted(app, GateStrips)[0]
        assert app.screen.check_action("layer", ()) is False
        assert heading(app, "#along-heading").startswith("unit ")


async def test_a_long_text_is_cut(make_host: MakeHost) -> None:
    app = make_host()
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        screen = await look(pilot, app, Player("one", "", SMALL), "the lamp " * (MOST_WORDS // 2 + 7))
        assert f"word {MOST_WORDS:,} of {MOST_WORDS:,}" in painted(app, GateStrips)[0]
        assert len(screen._layers[0].cell) == MOST_WORDS
        assert any("1,000 words" in note.message for note in app._notifications)


@pytest.mark.parametrize("theme", ["textual-light", "ansi-dark", "ansi-light"])
async def test_any_theme_and_any_size(make_host: MakeHost, player: Player, theme: str) -> None:
    app = make_host(player=player, theme=theme)
    async with app.run_test(size=(20, 5)) as pilot:
        await look(pilot, app, player)
        await pilot.press("right", "down", "z", "m", "comma", "f3", "f5", "f5", "f6", "f6")
        await pilot.resize_terminal(80, 24)
        await pilot.pause()
        row = strips(app).render_line(1 + PARTS.index(strips(app).part))
        assert any(segment.style and segment.style.reverse for segment in row)


def test_every_key_has_a_name_and_is_explained() -> None:
    for owner in (InsideScreen, PageText, GateStrips, UnitAlong, UnitFound):
        for binding in owner.BINDINGS:
            assert not isinstance(binding, tuple)
            assert binding.id
            assert binding.tooltip


def test_line_ends_are_read_as_eos() -> None:
    assert split(TEXT.replace(" <eos> ", "\n"), VOCABULARY, line_ends=True).ids[9] == EOS_ID


def test_of_a_model_that_goes_on_learning_it_is_the_lstm_it_started_as() -> None:
    ids = np.random.default_rng(0).integers(0, len(VOCABULARY), 100).astype(np.int32)
    assert lstm_of(Dynamic(SMALL, ids)) is SMALL
