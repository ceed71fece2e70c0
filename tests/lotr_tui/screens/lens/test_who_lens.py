"""The lens of a model that knows speakers: guesses while a line is typed, two speakers word by word, scores."""

import math
import threading
from typing import Any

import numpy as np
import pytest
from textual.pilot import Pilot
from textual.widgets import Input

from engine.analysis.speaker_posterior import SpeakerPosterior
from engine.data.tokenizers.base import EOS_ID
from engine.generation.turns import Turn, read_turns
from lotr_tui.screens.lens.text_area import LensTextArea
from lotr_tui.screens.lens.token_inspector import LensTokenInspector
from lotr_tui.screens.lens.who.bars import WhoWouldSayBars
from lotr_tui.screens.lens.who.evidence import SpeakerPair
from lotr_tui.screens.lens.who.pane import WhoPane
from lotr_tui.screens.lens.who.text_view import SpeakerTextView
from lotr_tui.screens.lens.who_screen import WhoLensScreen
from tests.support.analysis import MakeHost, is_idle, lens_text, open_lens, painted, painted_lines, status_text
from tests.support.dialogues import CAST, dialogue_model, dialogue_session_model
from tests.support.pilot import until

SCRIPT = "GANDALF: where is frodo\nFRODO: we walked all night"
SIZES = pytest.mark.parametrize("size", [(80, 24), (60, 20)], ids=["80x24", "60x20"])


async def open_who(pilot: Pilot[None], text: str = "") -> WhoLensScreen:
    """Open the lens on the guess of the speaker."""
    app: Any = pilot.app
    screen = WhoLensScreen(app.session_model, text)
    await app.push_screen(screen)
    await until(pilot, lambda: screen.is_idle)
    await pilot.press("f5")
    await until(pilot, lambda: screen.is_idle)
    return screen


async def type_line(pilot: Pilot[None], text: str) -> None:
    """Type a line, and wait for its guess."""
    await pilot.press(*text)
    await until(pilot, lambda: is_idle(pilot.app))
    await pilot.pause()


def bars(screen: WhoLensScreen) -> list[str]:
    return painted_lines(screen.query_one(WhoWouldSayBars))


def bar_probs(screen: WhoLensScreen) -> dict[str, float]:
    """Return the painted names with their percentages."""
    rows = [line.replace("+", " ").replace("−", " ").replace("●", " ").split() for line in bars(screen)[1:]]
    return {row[0]: float(row[-2].lstrip("<")) for row in rows if row}


@SIZES
async def test_bars_are_the_posterior_while_a_line_is_typed(make_host: MakeHost, size: tuple[int, int]) -> None:
    app = make_host(session_model=dialogue_session_model())
    async with app.run_test(size=size) as pilot:
        screen = await open_who(pilot)
        posterior = SpeakerPosterior(dialogue_model(), expect_context=False)
        assert bars(screen)[0].startswith("WHO WOULD SAY THIS")
        for part, text in (("we ", "we"), ("walked ", "we walked"), ("all", "we walked all")):
            await type_line(pilot, part)
            ranking = posterior.update(text).ranking()
            probs = bar_probs(screen)
            assert [name.upper() for name in probs] == [each.name for each in ranking]
            for each in ranking:
                assert probs[each.name.capitalize()] == pytest.approx(100 * each.prob, rel=0.1)
        leader = ranking[0]
        assert status_text(app, "#who-summary").startswith(f"{leader.name.capitalize()} {100 * leader.prob:.0f} %")


@SIZES
async def test_the_word_that_gave_the_speaker_away_is_in_brackets(make_host: MakeHost, size: tuple[int, int]) -> None:
    app = make_host(session_model=dialogue_session_model())
    async with app.run_test(size=size) as pilot:
        screen = await open_who(pilot, "we walked all night with our pony")
        guess = SpeakerPosterior(dialogue_model(), expect_context=False).update("we walked all night with our pony")
        best = max(guess.words, key=lambda word: word.gain)
        assert f"[{best.word}]" in painted(screen.query_one(SpeakerTextView)).replace("\n", " ")
        summary = status_text(app, "#who-summary")
        assert f"given away by “{best.word}” +{best.gain / math.log(2):.1f} bits" in summary


async def test_lines_before_are_the_context(make_host: MakeHost) -> None:
    app = make_host(session_model=dialogue_session_model())
    async with app.run_test(size=(120, 40)) as pilot:
        screen = await open_who(pilot, SCRIPT)
        model = dialogue_model()
        state = read_turns(model, [Turn("GANDALF", "where is frodo")])
        guess = SpeakerPosterior(model, state).update("we walked all night")
        evidence = screen.query_one(WhoPane).evidence
        assert evidence is not None
        np.testing.assert_allclose(evidence.guess.posterior, guess.posterior, rtol=1e-4)
        assert "after 1 line" in status_text(app, "#who-summary")
        assert "written as Frodo: no. " in status_text(app, "#who-summary")
        assert any(line.startswith("● Frodo") for line in bars(screen))
        await pilot.press("enter")
        await type_line(pilot, "the tower")
        state = read_turns(model, [Turn("FRODO", "we walked all night")], state)
        guess = SpeakerPosterior(model, state).update("the tower")
        evidence = screen.query_one(WhoPane).evidence
        assert evidence is not None
        np.testing.assert_allclose(evidence.guess.posterior, guess.posterior, rtol=1e-4)
        await pilot.press("up", "up")
        await until(pilot, lambda: painted(screen.query_one(SpeakerTextView)).replace("[", "").startswith("where"))
        assert "uniform prior" in status_text(app, "#who-summary")


@SIZES
async def test_two_speakers_are_compared_word_by_word(make_host: MakeHost, size: tuple[int, int]) -> None:
    app = make_host(session_model=dialogue_session_model())
    async with app.run_test(size=size) as pilot:
        screen = await open_who(pilot, "we walked all night")
        pane = screen.query_one(WhoPane)
        assert pane.evidence is not None
        names = [each.name for each in pane.evidence.guess.ranking()]
        await pilot.press("f5")
        assert (pane.pair, screen.who_view) == (SpeakerPair(names[0], names[1]), "pair")
        await pilot.press("f8")
        app.screen.query_one(Input).value = "gandalf, gollum"
        await pilot.press("enter")
        await until(pilot, lambda: app.screen is screen)
        await pilot.pause()
        guess = SpeakerPosterior(dialogue_model(), expect_context=False).update("we walked all night")
        expected = [f"{word}{bits / math.log(2):+.1f}" for word, bits in guess.explain("GANDALF", "GOLLUM")]
        shown = painted(screen.query_one(SpeakerTextView)).replace("−", "-").split()
        assert shown == [word.replace("+0.0", "±0.0").replace("-0.0", "±0.0") for word in expected]
        assert status_text(app, "#who-summary").startswith("Gandalf + against Gollum −")
        assert status_text(app, "#who-legend").startswith("+ Gandalf  − Gollum")
        assert {line[:8] for line in bars(screen)} >= {"+ Gandal", "− Gollum"}
        await pilot.press("f5")
        assert screen.who_view == "surprise"
        assert screen.query_one("#body").display
        await pilot.press("f5", "f5")
        assert pane.pair == ("GANDALF", "GOLLUM")  # the pair stays


async def test_the_keys_choose_the_next_likely_speaker(make_host: MakeHost) -> None:
    app = make_host(session_model=dialogue_session_model())
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await open_who(pilot, "we walked all night")
        pane = screen.query_one(WhoPane)
        assert pane.evidence is not None
        first, second, third, *_ = [each.name for each in pane.evidence.guess.ranking()]
        await pilot.press("f6")
        assert pane.pair == (third, second)
        await pilot.press("f7")
        chosen = {pane.pair.first, pane.pair.second} if pane.pair else set()
        assert first not in chosen
        for _ in range(len(CAST) - 1):
            await pilot.press("f7")
        assert pane.pair is not None
        assert pane.pair.first == third
        assert await pilot.click(WhoWouldSayBars, offset=(6, 2))
        await until(pilot, lambda: pane.pair == (second, first))


async def test_the_cursor_shows_the_bars_after_a_word(make_host: MakeHost) -> None:
    app = make_host(session_model=dialogue_session_model())
    async with app.run_test(size=(120, 40)) as pilot:
        screen = await open_who(pilot, "we walked all night")
        text = screen.query_one(SpeakerTextView)
        whole = bars(screen)[1:]
        text.focus()
        await pilot.press("home", "right")
        await pilot.pause()
        assert "after “walked”" in bars(screen)[0]
        posterior = SpeakerPosterior(dialogue_model(), expect_context=False).update("we walked")
        assert [name.upper() for name in bar_probs(screen)] == [each.name for each in posterior.ranking()]
        await pilot.press("tab", "tab")
        screen.query_one(LensTextArea).focus()
        await pilot.pause()
        assert bars(screen)[1:] == whole


async def test_keys_are_not_held_up_by_a_slow_model(make_host: MakeHost, monkeypatch: pytest.MonkeyPatch) -> None:
    released = threading.Event()
    update = SpeakerPosterior.update

    def slow_update(self: SpeakerPosterior, text: str, *, is_complete: bool = False) -> Any:
        released.wait(10)
        return update(self, text, is_complete=is_complete)

    app = make_host(session_model=dialogue_session_model())
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await open_who(pilot)
        monkeypatch.setattr(SpeakerPosterior, "update", slow_update)
        await pilot.press(*"we walked")
        assert screen.query_one(LensTextArea).text == "we walked"
        assert not screen.query_one(WhoPane).guesser.is_idle
        released.set()
        await until(pilot, lambda: screen.is_idle)
        evidence = screen.query_one(WhoPane).evidence
        assert evidence is not None
        assert evidence.line.text == "we walked"


async def test_a_model_failure_is_shown(make_host: MakeHost, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: SpeakerPosterior, text: str, *, is_complete: bool = False) -> Any:
        raise ValueError("no numbers")

    app = make_host(session_model=dialogue_session_model())
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        screen = await open_who(pilot)
        monkeypatch.setattr(SpeakerPosterior, "update", fail)
        await pilot.press("w")
        await until(pilot, lambda: any("Cannot guess the speaker" in note.message for note in app._notifications))
        assert screen.query_one(WhoPane).guesser.is_idle


@pytest.mark.parametrize("is_open", [False, True], ids=["words", "bpe"])
async def test_words_of_a_script_have_their_surprise_given_the_speaker(make_host: MakeHost, is_open: bool) -> None:
    session_model = dialogue_session_model(is_open=is_open)
    app = make_host(session_model=session_model)
    async with app.run_test(size=(120, 40)) as pilot:
        screen = WhoLensScreen(session_model, f"{SCRIPT}\n")
        await app.push_screen(screen)
        await until(pilot, lambda: screen.is_idle)
        await pilot.pause()
        assert lens_text(app).splitlines() == ["GANDALF: where is frodo¶", "FRODO: we walked all night¶"]
        scores = screen.scorer.network_scores
        assert scores is not None
        assert scores.tokens.ids.tolist().count(EOS_ID) == 2
        assert "FRODO · sentence" not in painted(screen.query_one(LensTokenInspector))
        screen.query_one("#text").focus()
        await pilot.press("home")
        await pilot.pause()
        assert "Gandalf · sentence 1 of 2" in painted(screen.query_one(LensTokenInspector))
        label = [segment for segment in screen.query_one("#text").render_line(0) if segment.text.startswith("GANDALF")]
        assert label[0].style is not None
        assert label[0].style.bold


async def test_a_model_without_speakers_has_no_such_keys(make_host: MakeHost) -> None:
    app = make_host()
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await open_lens(pilot, SCRIPT)
        await pilot.press("f5", "f6")
        assert not isinstance(screen, WhoLensScreen)
        assert not screen.has_class("-who")
        assert lens_text(app).startswith("‹GANDALF›: ")


@pytest.mark.parametrize("is_open", [False, True], ids=["words", "bpe"])
async def test_the_lens_survives_any_terminal_size(make_host: MakeHost, is_open: bool) -> None:
    app = make_host(session_model=dialogue_session_model(is_open=is_open))
    async with app.run_test(size=(160, 45)) as pilot:
        screen = await open_who(pilot, SCRIPT * 2)
        for size in ((20, 5), (60, 20), (5, 2), (80, 24), (120, 35)):
            await pilot.resize_terminal(*size)
            await pilot.pause()
            await pilot.press("f5", "x", "f6", "f7", "f5", "enter", "y", "f5")
        await until(pilot, lambda: screen.is_idle)
