"""The lens of a model that knows speakers: guesses while a line is typed, two speakers word by word, scores."""

import math
import threading

import numpy as np
import pytest

from engine.analysis.speakers import SpeakerPosterior
from engine.data.scripts import Turn
from engine.generation.turns import read_turns
from lotr_tui.screens.inspect.lens import LensScreen
from lotr_tui.screens.inspect.text_screen import TextInput
from lotr_tui.screens.inspect.who import FIRST_WORDS, WhoPane, WhoWouldSayBars
from lotr_tui.screens.inspect.word_details import WordDetails
from lotr_tui.session.cast import shown_name
from tests.support.analysis import is_idle, lens_text, painted, painted_lines, status_text
from tests.support.dialogues import dialogue_model, dialogue_session_model
from tests.support.pilot import until

SCRIPT = "GANDALF: where is frodo\nFRODO: we walked all night"
LINE = "we walked all night"


async def open_who(pilot, text=""):
    screen = LensScreen(pilot.app.session_model, text)
    await pilot.app.push_screen(screen)
    await until(pilot, lambda: screen.is_idle)
    screen.query_one("#text").focus()
    await pilot.press("w")
    await until(pilot, lambda: screen.is_idle)
    await pilot.press("e")
    await pilot.pause()
    return screen


async def type_line(pilot, text):
    await pilot.press(*text)
    await until(pilot, lambda: is_idle(pilot.app))
    await pilot.pause()


def bars(screen):
    return painted_lines(screen.query_one(WhoWouldSayBars))


def bar_probs(screen):
    """Return the names and probabilities of the rows; nameless speakers have the same name."""
    rows = [line.replace("+", " ").replace("−", " ").replace("●", " ").split() for line in bars(screen)[1:]]
    return [("A stranger" if row[0] == "A" else row[0], float(row[-2].lstrip("<"))) for row in rows if row]


def names_of(ranking):
    return [shown_name(each.name) for each in ranking]


def guess_of(text, model=None, state=None):
    return SpeakerPosterior(model or dialogue_model(), state).update(text)


async def test_bars_are_the_posterior_while_a_line_is_typed_and_after_the_word_at_the_cursor(make_host):
    app = make_host(session_model=dialogue_session_model())
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await open_who(pilot)
        for part, text in (("we ", "we"), ("walked all night", LINE)):
            await type_line(pilot, part)
            ranking = guess_of(text).ranking()
            probs = bar_probs(screen)
            assert [name for name, _ in probs] == names_of(ranking)
            assert [prob for _, prob in probs] == pytest.approx([100 * each.prob for each in ranking], rel=0.1)
        leader, summary = ranking[0], status_text(app, "#who-summary")
        assert summary.startswith(f"{leader.name.capitalize()} {100 * leader.prob:.0f} %")
        best = max(guess_of(LINE).words, key=lambda word: word.gain)
        assert f"[{best.word}]" in painted(screen.query_one("#who-text")).replace("\n", " ")
        assert f"given away by “{best.word}” +{best.gain / math.log(2):.1f} bits" in summary
        screen.query_one("#who-text").focus()
        await pilot.press("home", "right")
        await pilot.pause()
        assert "after “walke" in bars(screen)[0]
        assert [name for name, _ in bar_probs(screen)] == names_of(guess_of("we walked").ranking())


async def test_lines_before_are_the_context(make_host):
    app = make_host(session_model=dialogue_session_model())
    async with app.run_test(size=(120, 40)) as pilot:
        screen = await open_who(pilot, SCRIPT)
        model = dialogue_model()
        state = read_turns(model, [Turn("GANDALF", "where is frodo")])
        pane = screen.query_one(WhoPane)
        np.testing.assert_allclose(pane.evidence.guess.posterior, guess_of(LINE, model, state).posterior, rtol=1e-4)
        assert "after 1 line" in status_text(app, "#who-summary")
        screen.query_one(TextInput).insert_text_at_cursor("¶")
        await type_line(pilot, "the tower")
        guess = guess_of("the tower", model, read_turns(model, [Turn("FRODO", LINE)], state))
        np.testing.assert_allclose(pane.evidence.guess.posterior, guess.posterior, rtol=1e-4)


async def test_a_long_line_is_read_in_parts_and_then_the_whole_counts(make_host, monkeypatch):
    update, read_on = SpeakerPosterior.update, threading.Event()

    def wait_before_the_last_words(posterior, text, **options):
        assert len(text.split()) <= FIRST_WORDS or read_on.wait(20)
        return update(posterior, text, **options)

    monkeypatch.setattr(SpeakerPosterior, "update", wait_before_the_last_words)
    line = "tower the frodo we where all night"  # its first words have another second speaker
    app = make_host(session_model=dialogue_session_model())
    async with app.run_test(size=(120, 35)) as pilot:
        screen = LensScreen(app.session_model, line)
        await app.push_screen(screen)
        await until(pilot, lambda: screen.network_scores is not None)
        await pilot.press("w")
        await until(pilot, lambda: screen.query_one(WhoPane).evidence is not None)
        assert status_text(app, "#who-summary").endswith("4 of 7 words")
        read_on.set()
        await until(pilot, lambda: screen.is_idle)
        await pilot.pause()
        assert "of 7 words" not in status_text(app, "#who-summary")
        assert [each.name for each in screen.query_one(WhoPane).evidence.ranking()] == [
            each.name for each in guess_of(line).ranking()
        ]


async def test_words_of_a_script_have_their_surprise_given_the_speaker(make_host):
    session_model = dialogue_session_model()
    app = make_host(session_model=session_model)
    async with app.run_test(size=(120, 40)) as pilot:
        screen = LensScreen(session_model, f"{SCRIPT}\n")
        await app.push_screen(screen)
        await until(pilot, lambda: screen.is_idle)
        await pilot.pause()
        assert lens_text(app).splitlines() == ["GANDALF: where is frodo¶", "FRODO: we walked all night¶"]
        scores = screen.network_scores
        assert "".join(scores.tokens[index] for index in range(len(scores.tokens))) == f"where is frodo\n{LINE}\n"
        screen.query_one("#text").focus()
        await pilot.press("home")
        await pilot.pause()
        assert "Gandalf · sentence 1 of 2" in painted(screen.query_one(WordDetails))
