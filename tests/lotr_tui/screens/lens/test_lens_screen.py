"""The lens, driven as a person would."""

import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from textual import events
from textual.dom import DOMNode
from textual.pilot import Pilot
from textual.widgets import Input, Static

from engine.analysis.perplexity import evaluate
from engine.data.vocabulary import EOS_ID, tokenize
from engine.models.base import LogProbs, State
from engine.models.ngram import KneserNey
from engine.runs.combine import Combiner
from engine.runs.store import load, resolve
from lotr_tui.app import LotrApp
from lotr_tui.commands import bindings_of
from lotr_tui.screens.lens import screen as lens
from lotr_tui.screens.lens.path_dialog import AskPath
from lotr_tui.screens.lens.screen import LensScreen
from lotr_tui.screens.lens.sentences import LensSentences
from lotr_tui.screens.lens.text import LensText
from lotr_tui.screens.lens.text_area import MOST_CHARACTERS, LensBox
from lotr_tui.screens.lens.word import LensWord
from lotr_tui.session.player import Player
from lotr_tui.widgets.status_bar import StatusBar
from tests.lotr_tui.conftest import VOCABULARY, Host, make_decoder
from tests.lotr_tui.screens.session.test_session_screen import text_of, until

MakeHost = Callable[..., Host]

TEXT = "Bilbo Baggins is a friend. The wizard was lit!\nWe walked all night with our pony.\n\nBread"

SIZES = [(60, 20), (80, 24), (200, 50)]


def painted(widget: LensText | LensSentences | LensWord) -> str:
    return "\n".join(widget.render_line(y).text.rstrip() for y in range(widget.size.height)).rstrip()


def shown(app: LotrApp) -> str:
    return painted(app.screen.query_one(LensText))


def figures(app: LotrApp) -> str:
    return text_of(app.screen.query_one("#figures", StatusBar))


def at_rest(app: LotrApp) -> bool:
    screen = app.screen
    assert isinstance(screen, LensScreen)
    idle = not screen._workers and screen._building is None and screen._typing is None
    return idle and screen._network is not None and not screen._drain_timer._active.is_set()


async def look(pilot: Pilot[None], app: LotrApp, text: str = TEXT, player: Player | None = None) -> LensScreen:
    """Open the lens and wait until all is read."""
    screen = LensScreen(player or app._player, text)  # type: ignore[arg-type]
    await app.push_screen(screen)
    await until(pilot, lambda: at_rest(app))
    await pilot.pause()
    return screen


@pytest.fixture
def kneser_ney(monkeypatch: pytest.MonkeyPatch) -> KneserNey:
    """What the run was trained on is there again."""
    ids = np.random.default_rng(0).integers(0, len(VOCABULARY), 500).astype(np.int32)
    model = KneserNey(ids, VOCABULARY, 3)
    monkeypatch.setattr(lens, "_kneser_ney", lambda run: model)
    return model


async def test_figures_are_those_of_evaluation(make_host: MakeHost, kneser_ney: KneserNey) -> None:
    app = make_host()
    async with app.run_test(size=(200, 50)) as pilot:
        await look(pilot, app)
        ids = VOCABULARY.encode(tokenize(TEXT))
        network, other = evaluate(make_decoder(), ids), evaluate(kneser_ney, ids)
        assert f"perplexity {network.perplexity:,.1f}   Kneser-Ney {other.perplexity:,.1f}" in figures(app)
        assert f"{network.bits_per_token:.2f} bits a word" in figures(app)
        unknown = int((ids == 0).sum())
        assert f"{len(ids)} words, {unknown} unknown ({network.unk_rate:.1%})" in figures(app)


async def test_the_bundled_model_against_kneser_ney_of_its_own_data(make_host: MakeHost) -> None:
    loaded = load(resolve(None))
    app = make_host(player=Player.of(loaded))
    text = "Bilbo Baggins is a very old friend of mine.\nWhere is the wizard?\n"
    async with app.run_test(size=(160, 45)) as pilot:
        await look(pilot, app, text)
        ids = []
        for line in text.splitlines():
            ids += [*loaded.decoder.vocabulary.encode(tokenize(line)).tolist(), EOS_ID]
        other = evaluate(Combiner([loaded]).kneser_ney, np.array(ids, np.int32))
        assert f"Kneser-Ney {other.perplexity:,.1f}" in figures(app)
        assert shown(app).count("¶") == 2  # a model of line mode reads line ends


# Every action of the binding table


def ids_of(*classes: type[DOMNode]) -> set[str | None]:
    return {binding.id for owner in classes for binding in bindings_of(owner)}


SENTENCE_MOVES = {
    "lens-sentences.up": ("up", 0),
    "lens-sentences.down": ("down", 2),
    "lens-sentences.first": ("home", 0),
    "lens-sentences.last": ("end", 3),
    "lens-sentences.page-up": ("pageup", 0),
    "lens-sentences.page-down": ("pagedown", 3),
}


SCREEN = {"lens.close", "lens.open", "lens.view", "lens.sentences", "lens.line-ends", "lens-open.cancel"}


def test_every_binding_is_driven_below_and_says_what_it_does() -> None:
    assert ids_of(LensSentences) == {*SENTENCE_MOVES, "lens-sentences.order"}
    assert ids_of(LensScreen, AskPath) == SCREEN
    for owner in (LensSentences, LensScreen, AskPath):
        assert all(binding.tooltip for binding in owner.BINDINGS)  # type: ignore[union-attr]


async def test_keys_move_over_the_sentences_and_take_the_word_cursor_along(make_host: MakeHost) -> None:
    app = make_host()
    async with app.run_test(size=(120, 40)) as pilot:
        screen = await look(pilot, app)
        text = app.screen.query_one(LensText)
        await pilot.press("f3")
        await pilot.pause()
        assert screen._words is not None
        for name, (key, expected) in SENTENCE_MOVES.items():
            text.move_to(6)  # in the second
            await pilot.pause()
            await pilot.press(key)
            await pilot.pause()
            assert text.cursor == screen._words.sentences[expected], name


async def test_kneser_ney_that_comes_while_another_text_is_read(make_host: MakeHost, kneser_ney: KneserNey) -> None:
    """What it made of the text before is not taken for what it makes of the one that comes."""
    app = make_host()
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await look(pilot, app)
        screen._text = "bilbo is"
        screen._drain_timer.stop()
        screen._read()
        screen._compare(kneser_ney)  # of the words of the text before
        assert all(worker.join(10) for worker in screen._workers.values())
        screen._drain()
        while screen._workers:
            screen._drain()
        assert screen._kneser_ney is not None
        expected = evaluate(kneser_ney, np.array(VOCABULARY.encode(["bilbo", "is"]), np.int32))
        assert np.exp(-screen._kneser_ney.scores.mean()) == pytest.approx(expected.perplexity)


async def test_sentences_by_perplexity(make_host: MakeHost, kneser_ney: KneserNey) -> None:
    app = make_host()
    async with app.run_test(size=(120, 40)) as pilot:
        screen = await look(pilot, app)
        await pilot.press("f3")
        await pilot.pause()
        assert screen._network is not None
        assert screen._kneser_ney is not None
        both = zip(screen._network.by_sentence(), screen._kneser_ney.by_sentence(), strict=True)
        lines = painted(app.screen.query_one(LensSentences)).splitlines()
        for line, (ours, other) in zip(lines, both, strict=True):
            assert line.replace("▸", "").split()[:2] == [f"{ours:,.1f}", f"{other:,.1f}"]
        assert lines[1].rstrip().endswith("The wizard was lit!")
        await pilot.press("o")
        await pilot.pause()
        hardest = painted(app.screen.query_one(LensSentences)).splitlines()
        values = [float(line.replace("▸", "").replace(",", "").split()[0]) for line in hardest]
        assert values == sorted(values, reverse=True)
        assert "hardest first" in str(app.screen.query_one("#heading", Static).content)
        await pilot.press("o")
        assert painted(app.screen.query_one(LensSentences)).splitlines() == lines


async def test_on_a_narrow_terminal_sentences_take_the_place_of_the_text(make_host: MakeHost) -> None:
    app = make_host()
    async with app.run_test(size=(60, 20)) as pilot:
        await look(pilot, app)
        text, sentences = app.screen.query_one(LensText), app.screen.query_one(LensSentences)
        assert (text.display, sentences.display) == (True, False)
        await pilot.press("f3")
        await pilot.pause()
        assert (text.display, sentences.display, sentences.has_focus) == (False, True, True)
        await pilot.press("f3")
        await pilot.pause()
        assert (text.display, sentences.display, text.has_focus) == (True, False, True)


async def test_f4_reads_line_ends_or_not(make_host: MakeHost) -> None:
    app = make_host()
    async with app.run_test(size=(160, 45)) as pilot:
        screen = await look(pilot, app)
        before = screen._words
        await pilot.press("f4")
        await until(pilot, lambda: screen._words is not before and at_rest(app))
        assert screen._words is not None
        assert [screen._words[index] for index in np.flatnonzero(screen._words.ids == EOS_ID)] == ["\n", "\n"]
        assert shown(app).splitlines()[0].endswith("lit!¶")
        assert "17 words" in figures(app)
        await pilot.press("f4")
        await until(pilot, lambda: "¶" not in shown(app))


async def test_esc_leaves(make_host: MakeHost) -> None:
    app = make_host()
    async with app.run_test(size=(80, 24)) as pilot:
        await look(pilot, app)
        await pilot.press("escape")
        await pilot.pause()
        assert not isinstance(app.screen, LensScreen)


# Typing, pasting, opening


async def test_what_is_typed_is_read_once_typing_stops(make_host: MakeHost) -> None:
    app = make_host()
    async with app.run_test(size=(80, 24)) as pilot:
        await look(pilot, app, "")
        assert "Here the text will stand" in shown(app)
        await pilot.press(*"the lamp was")
        await until(pilot, lambda: shown(app) == "the lamp was" and at_rest(app))
        assert app.screen.query_one(LensText).cursor == 2  # the word before the cursor of the box
        assert "perplexity" in figures(app)
        await pilot.press("ctrl+u")
        await until(pilot, lambda: "Here the text will stand" in shown(app))
        assert figures(app).strip() == ""


async def test_control_characters_are_pasted_as_white_space(make_host: MakeHost) -> None:
    app = make_host()
    async with app.run_test(size=(80, 24)) as pilot:
        await look(pilot, app, "")
        box = app.screen.query_one(LensBox)
        box.post_message(events.Paste("the\x1b[31m lamp\r\nwas [red]lit[/red]\u202e"))
        await until(pilot, lambda: "lamp" in shown(app))
        assert box.text == "the [31m lamp\nwas [red]lit[/red] "
        assert shown(app).splitlines() == ["the [‹31m› lamp", "was [‹red›]lit[/‹red›]"]


async def test_a_megabyte_is_shown_but_not_edited(make_host: MakeHost) -> None:
    app = make_host()
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await look(pilot, app, "the lamp")
        box = app.screen.query_one(LensBox)
        box.post_message(events.Paste("the lamp was lit. " * 60_000))
        await until(pilot, lambda: "read" in figures(app), 30)
        text = app.screen.query_one(LensText)
        assert box.text == ""
        assert len(text.page.words) == 240_000
        await pilot.press("end")
        assert text.cursor == 239_999
        assert "not read yet" in painted(app.screen.query_one(LensWord))
        assert shown(app).splitlines()[-1].endswith("lit.")
        box.focus()
        await pilot.press("x")  # what is typed now takes its place, and the reading ends
        await until(pilot, lambda: shown(app) == "‹x›" and at_rest(app))
        assert not screen._workers


async def test_a_file_is_opened(make_host: MakeHost, tmp_path: Path) -> None:
    (tmp_path / "short.txt").write_text("The lamp was lit.\n")
    (tmp_path / "long.txt").write_text("bread " * MOST_CHARACTERS)
    app = make_host()
    async with app.run_test(size=(80, 24)) as pilot:
        await look(pilot, app)
        for name in ("short.txt", "long.txt"):
            await pilot.press("ctrl+o")
            await pilot.pause()
            app.screen.query_one(Input).value = str(tmp_path / name)
            await pilot.press("enter")
            await until(pilot, lambda: isinstance(app.screen, LensScreen))
            first = (tmp_path / name).read_text().split()[0]
            await until(pilot, lambda first=first: shown(app).startswith(first))  # type: ignore[misc]
        assert app.screen.query_one(LensBox).text == ""
        await until(pilot, lambda: at_rest(app), 60)
        assert "long.txt" in figures(app)


async def test_what_cannot_be_opened_is_said_in_one_line(make_host: MakeHost, tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"a\0b")
    (tmp_path / "latin").write_bytes("Königin".encode("latin-1"))
    app = make_host()
    async with app.run_test(size=(80, 24)) as pilot:
        await look(pilot, app)
        await pilot.press("ctrl+o")
        await pilot.pause()
        for name, problem in {
            "": "type the path",
            str(tmp_path): "is a folder",
            str(tmp_path / "none"): "does not exist",
            str(tmp_path / "binary"): "NUL bytes",
            str(tmp_path / "latin"): "not UTF-8",
            "[red]": "[red] does not exist",
        }.items():
            app.screen.query_one(Input).value = name
            await pilot.press("enter")
            assert problem in str(app.screen.query_one("#problem", Static).content)
        await pilot.press("escape")
        await pilot.pause()
        assert isinstance(app.screen, LensScreen)
        assert shown(app).startswith("Bilbo")


# Without Kneser-Ney, and other bad weather


@pytest.mark.parametrize("run", [True, False])
async def test_without_training_data_there_is_no_kneser_ney_and_it_is_said(make_host: MakeHost, run: bool) -> None:
    app = make_host()  # the run's folder is empty
    player = app._player if run else Player("mixed", "of several", make_decoder())
    async with app.run_test(size=(200, 50)) as pilot:
        await look(pilot, app, player=player)
        reason = "config.json is missing" if run else "counts a run's training data"

        def times_said() -> int:
            return sum(reason in str(notice.message) for notice in app._notifications)

        assert "no Kneser-Ney" in figures(app)
        await until(pilot, lambda: times_said() == 1)
        await pilot.press("f2")
        await until(pilot, lambda: times_said() == 2)
        assert app.screen.query_one(LensText).view == "network"


async def test_a_model_that_fails_is_said(make_host: MakeHost) -> None:
    class Broken:
        vocabulary = VOCABULARY

        def start(self) -> State:
            return None

        def advance(self, state: State, token: int) -> tuple[LogProbs, State]:
            raise ValueError("weights [red] are gone")

    app = make_host()
    async with app.run_test(size=(80, 24)) as pilot:
        await look(pilot, app, player=Player("broken", "", Broken()))
        await until(
            pilot, lambda: any("weights [red] are gone" in str(notice.message) for notice in app._notifications)
        )
        assert shown(app).startswith("Bilbo")


async def test_leaving_while_it_reads_leaves_no_thread(make_host: MakeHost, kneser_ney: KneserNey) -> None:
    app = make_host()
    async with app.run_test(size=(80, 24)) as pilot:
        await app.push_screen(LensScreen(app._player, "the lamp was lit. " * 40_000))  # type: ignore[arg-type]
        await until(pilot, lambda: "read" in figures(app), 30)
        await pilot.press("escape")
        await until(pilot, lambda: not any(thread.name.startswith("lens") for thread in threading.enumerate()))
