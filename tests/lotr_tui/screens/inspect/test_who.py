"""Who would say a line: the line and its context, the evidence of its words, and the pane of the lens."""

import math

import numpy as np
import pytest

from engine.analysis.speakers import SpeakerPosterior, explain_guess
from engine.data.scripts import Turn
from engine.generation.turns import read_turns
from lotr_tui.screens.inspect import who
from lotr_tui.screens.inspect.lens import LensScreen
from lotr_tui.screens.inspect.text_screen import TextInput
from lotr_tui.screens.inspect.who import LineEvidence, UnknownLine, WhoPane, WhoWouldSayBars, cut_words, line_at
from lotr_tui.screens.inspect.word_details import WordDetails
from lotr_tui.session.cast import shown_name
from tests.support.analysis import is_idle, lens_text, painted, painted_lines, status_text
from tests.support.dialogues import CAST, dialogue_model, dialogue_session_model
from tests.support.pilot import until

SCENES = "FRODO: hello\n\nGANDALF: where is it\nno name\nGOLLUM: we wants it"


def test_the_line_at_the_cursor_has_the_lines_of_its_scene_as_context_and_a_text_without_names_is_one_line():
    context = (Turn("GANDALF", "where is it"), Turn("SOMEONE", "no name"))
    assert line_at(SCENES, CAST, len(SCENES)) == UnknownLine("we wants it", "GOLLUM", context)
    assert line_at(SCENES, CAST, SCENES.index("no name")) == UnknownLine("no name", "", context[:1], is_complete=True)
    assert line_at(SCENES, CAST, SCENES.index("GANDALF")) == UnknownLine("where is it", "GANDALF", (), is_complete=True)
    assert line_at(SCENES, CAST, 0) == UnknownLine("hello", "FRODO", (), is_complete=True)
    assert line_at(SCENES, CAST, SCENES.index("GANDALF") - 1).speaker == "FRODO"  # on the empty line
    assert line_at("we wants it,\n my  precious\n", CAST, 3) == UnknownLine("we wants it, my precious")
    assert line_at("", CAST, 0) == UnknownLine()


def test_long_lines_and_scenes_are_cut():
    words = " ".join(f"w{number}" for number in range(who.MAX_WORDS + 5))
    assert cut_words(words).split() == words.split()[: who.MAX_WORDS]
    lines = [f"FRODO: line {number}" for number in range(who.MAX_CONTEXT_LINES + 5)]
    context = line_at("\n".join([*lines, "SAM"]), CAST, 10**6).context
    assert [turn.text for turn in context] == [f"line {number}" for number in range(5, who.MAX_CONTEXT_LINES + 5)]


def make_guess(evidence, prior=(0.2,) * 5):
    """Return the guess for the words "w0", "w1" and so on with the natural-log evidence of each for each speaker."""
    joint = np.log(prior) + np.cumsum([np.zeros(len(CAST)), *evidence], axis=0)
    return explain_guess(CAST, [f"w{i}" for i in range(len(evidence))], joint)


def summary_text(evidence):
    return " | ".join(metric.plain for metric in evidence.summary())


def test_the_word_with_the_highest_gain_gave_the_speaker_away():
    # GANDALF, FRODO, GOLLUM, STRANGER, SOMEONE
    guess = make_guess([[0, 0, math.log(2), 0, 0], [0, 0, math.log(8), 0, 0], [math.log(2), 0, 0, 0, 0]])
    evidence = LineEvidence(UnknownLine("w0 w1 w2", "FRODO", (Turn("FRODO", "x"),)), guess)
    assert evidence.giveaway == 1
    # The odds of Gollum are 1/4, then 2/4, 16/4, and 16/5 after the last word.
    facts = "Gollum 76 % | given away by “w1” +3.0 bits | written as Frodo: no. 3, 4.8 % | after 1 line"
    assert summary_text(evidence) == facts
    np.testing.assert_allclose([word.gain / math.log(2) for word in guess.words], [1, 3, math.log2(16 / 5 / 4)])
    assert [each.name for each in evidence.ranking(0)] == list(CAST)
    assert evidence.ranking(1)[0].name == "GOLLUM"
    assert evidence.ranking(1)[0].prob == pytest.approx(2 / 6)


def test_a_line_without_words_or_evidence():
    assert summary_text(LineEvidence(UnknownLine(), make_guess([]))) == "type a line below | prior: frequencies"
    even = LineEvidence(UnknownLine("w0"), make_guess([[0.0] * 5]))
    assert "no word gives a speaker away" in summary_text(even)
    uncast = LineEvidence(UnknownLine("w0", "HARRY"), make_guess([[0.0] * 5]))
    assert "written as Harry: not in the cast" in summary_text(uncast)
    assert even.giveaway is None


# The pane

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


async def test_bars_are_the_posterior_while_a_line_is_typed_and_after_the_word_at_the_cursor(hosted):
    async with hosted((80, 24), session_model=dialogue_session_model()) as (pilot, app):
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


async def test_lines_before_are_the_context(hosted):
    async with hosted((120, 40), session_model=dialogue_session_model()) as (pilot, app):
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


async def test_words_of_a_script_have_their_surprise_given_the_speaker(hosted):
    session_model = dialogue_session_model()
    async with hosted((120, 40), session_model=session_model) as (pilot, app):
        screen = LensScreen(session_model, f"{SCRIPT}\nHarry: all\n", ("HARRY",))
        await app.push_screen(screen)
        await until(pilot, lambda: screen.is_idle)
        await pilot.pause()
        assert lens_text(app).splitlines() == ["GANDALF: where is frodo¶", "FRODO: we walked all night¶", "Harry: all¶"]
        scores = screen.scores[0]
        assert "".join(scores.tokens[index] for index in range(len(scores.tokens))) == f"where is frodo\n{LINE}\nall\n"
        screen.query_one("#text").focus()
        await pilot.press("home")
        await pilot.pause()
        assert "Gandalf · sentence 1 of 3" in painted(screen.query_one(WordDetails))
