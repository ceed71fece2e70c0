"""The lens: its figures, its text with a cursor, typed and pasted texts, and failures."""

import threading

import numpy as np
import pytest
from textual import events

from engine.analysis.evaluation import evaluate
from engine.analysis.tokenized_text import tokenize_with_offsets
from engine.data.tokenizers import EOS_ID, UNK_ID
from engine.models.base import score_sequence
from engine.runs.combine import ModelCombiner
from engine.runs.loading import load_model
from lotr_tui.formatting import format_percent
from lotr_tui.screens.inspect import lens
from lotr_tui.screens.inspect.lens import LENS_VIEWS
from lotr_tui.screens.inspect.text_screen import MAX_TEXT_CHARACTERS, TextInput
from lotr_tui.screens.inspect.word_details import WordDetails
from lotr_tui.session.session_model import SessionModel
from tests.support import analysis as ui
from tests.support.app import VOCABULARY, make_decoder
from tests.support.models import text_bits_per_character
from tests.support.open_inspectors import open_session_model, use_training_text, words_session_model
from tests.support.open_models import adapted_model, bpe_tokenizer
from tests.support.pilot import notices, until
from tests.support.scenes import confident_model


@pytest.fixture
def kneser_ney(monkeypatch):
    counts = ui.make_kneser_ney()
    monkeypatch.setattr(lens, "load_kneser_ney", lambda run: counts)
    return counts


def metrics(app):
    return ui.status_text(app, "#metrics")


def sentence_lines(app):
    return ui.painted(app.screen.query_one("#sentences")).splitlines()


def numbers_of(line):
    return [float(number.replace(",", "")) for number in line.replace("▸", "").split()[:2]]


async def test_metrics_sentences_and_details_are_those_of_the_evaluation(hosted, kneser_ney):
    async with hosted((240, 50)) as (pilot, app):
        screen = await ui.open_lens(pilot)
        ids = VOCABULARY.encode(ui.LENS_TEXT)
        network, baseline = evaluate(make_decoder(), ids), evaluate(kneser_ney, ids)
        assert f"perplexity {network.perplexity:,.1f} · Kneser-Ney {baseline.perplexity:,.1f}" in metrics(app)
        assert f"{network.bits_per_token:.2f} bits per word" in metrics(app)
        num_unknown = int((ids == UNK_ID).sum())
        assert f"{len(ids)} words, {num_unknown} unknown ({format_percent(network.unk_rate)})" in metrics(app)

        scores, counted = screen.scores
        app.screen.query_one("#text").focus()
        await pilot.press("home", "right", "right", "right")
        details = ui.painted(app.screen.query_one(WordDetails))
        own, other = scores.word_score(3), counted.word_score(3)
        assert "WORD  a  sentence 1 of 4" in details
        for figure in (f"{own.bits:.1f}", f"{other.bits:.1f}", format_percent(own.top_tokens[0][1])):
            assert figure in details
        assert f"{abs(own.bits - other.bits):.1f} bits {'gained' if other.bits > own.bits else 'lost'}: " in details

        app.screen.query_one("#sentences").focus()
        await pilot.pause()
        lines = sentence_lines(app)
        perplexities = zip(scores.sentence_perplexities(), counted.sentence_perplexities(), strict=True)
        for line, values in zip(lines, perplexities, strict=True):
            assert line.replace("▸", "").split()[:2] == [f"{value:,.1f}" for value in values]
        assert lines[1].endswith("The wizard was lit!")
        await pilot.press("s")
        await pilot.pause()
        hardest = [numbers_of(line)[0] for line in sentence_lines(app)]
        assert hardest == sorted(hardest, reverse=True)
        assert sentence_lines(app)[0].startswith("▸")
        assert "hardest first" in ui.static_text(app, "#heading")
        await pilot.press("s")
        text = app.screen.query_one("#text")
        await pilot.click("#sentences", offset=(5, 2))
        await pilot.pause()
        assert text.cursor == scores.tokens.sentence_starts[2]


async def test_a_model_is_compared_with_kneser_ney_of_its_own_data(make_host, tmp_path):
    session_model = words_session_model(tmp_path)
    loaded = load_model(session_model.run)
    app = make_host(session_model=session_model)
    text = "Bilbo Baggins is a very old friend of mine.\nWhere is the wizard?\n"
    async with app.run_test(size=(160, 45)) as pilot:
        await ui.open_lens(pilot, text)
        ids = []
        for line in text.splitlines():
            ids += [*loaded.decoder.tokenizer.encode(line).tolist(), EOS_ID]
        baseline = evaluate(ModelCombiner([loaded]).kneser_ney, np.array(ids, np.int32))
        assert f"Kneser-Ney {baseline.perplexity:,.1f}" in metrics(app)
        assert ui.lens_text(app).count("¶") == 2  # the model was trained in line mode


async def test_shades_follow_the_view(hosted, kneser_ney):
    async with hosted((160, 45)) as (pilot, app):
        model = confident_model(app)
        screen = await ui.open_lens(pilot, " ".join(["wizard", *VOCABULARY.tokens[2:]]), model)
        text = app.screen.query_one("#text")
        network, baseline = (each.bits for each in screen.scores)
        text.focus()
        surprises = [index for index in np.flatnonzero(network >= 10).tolist() if index > 0]
        await pilot.press("home", "n", "n")
        assert text.cursor == surprises[1]
        await pilot.press("N")
        assert text.cursor == surprises[0]
        usual = ["dim", "usual", "surprising", "strong"]
        for view in (*LENS_VIEWS[1:], LENS_VIEWS[0]):
            await pilot.press("v")
            assert screen.view == view
            names, shades = {
                "own": (usual, np.digitize(network, [3, 6, 10])),
                "other": (usual, np.digitize(baseline, [3, 6, 10])),
                "difference": (
                    ["much-worse", "worse", "even", "better", "much-better"],
                    np.digitize(baseline - network, [-3, -1, 1, 3]),
                ),
            }[view]
            if view == "difference":
                assert "gained 3 bits" in ui.status_text(app, "#legend")
            for index in np.flatnonzero(~text.page.unknown_mask).tolist():
                assert text.style_of(index)[0] == names[shades[index]]


async def test_typed_and_pasted_texts_are_scored(hosted, kneser_ney):
    async with hosted((80, 24)) as (pilot, app):
        await ui.open_lens(pilot, "")
        line = app.screen.query_one(TextInput)
        await pilot.press(*"the lamp was")
        await until(pilot, lambda: ui.lens_text(app) == "the lamp was" and ui.is_idle(app))
        assert app.screen.query_one("#text").cursor == 2  # the word before the cursor of the line
        assert "perplexity" in metrics(app)
        await pilot.press("ctrl+u")
        await until(pilot, lambda: "Type a text below" in ui.lens_text(app))
        line.post_message(events.Paste("the\x1b[31m lamp\r\nwas [red]lit[/red]\u202e"))
        await until(pilot, lambda: "lamp" in ui.lens_text(app))
        assert line.value == "the [31m lamp ¶ was [red]lit[/red]"
        assert ui.lens_text(app).splitlines() == ["the [‹31m› lamp", "was [‹red›]lit[/‹red›]"]
        await pilot.press("ctrl+u")
        line.post_message(events.Paste("bread " * MAX_TEXT_CHARACTERS))
        await until(pilot, lambda: ui.lens_text(app).startswith("bread"))
        assert MAX_TEXT_CHARACTERS - 10 < len(line.value) <= MAX_TEXT_CHARACTERS
        line.focus()
        await pilot.press("ctrl+u", "x")  # the typed text replaces the pasted one and stops its scoring
        await until(pilot, lambda: ui.lens_text(app) == "‹x›" and ui.is_idle(app))
        await pilot.press("escape")
        await until(pilot, lambda: not any(thread.name.startswith("lens") for thread in threading.enumerate()))


async def test_a_missing_baseline_and_a_failing_model_are_reported(make_host):
    class Broken:
        tokenizer = VOCABULARY

        def start(self):
            return None

        def advance(self, state, token):
            raise ValueError("weights [red] are gone")

    app = make_host()  # the directory of its run is empty
    async with app.run_test(size=(200, 50)) as pilot:
        await ui.open_lens(pilot)
        assert "no Kneser-Ney" in metrics(app)
        await pilot.press("v")
        await until(pilot, lambda: "config.json is missing" in notices(app))
        assert app.screen.view == "own"
        await pilot.press("escape")
        await ui.open_lens(pilot, session_model=SessionModel("broken", "", Broken()))
        await until(pilot, lambda: "weights [red] are gone" in metrics(app))
        assert ui.lens_text(app).startswith("Bilbo")


# Tokens that are parts of words: words are the unit of reading

TEXT = "The wizard’s old pony — “Éowyn” 😀 smiled?!\nWhere is Frodo…\n"
WORDS = [
    *["The", "wizard’s", "old", "pony", "—", "“", "Éowyn", "”", "😀", "smiled", "?!", "\n"],
    *["Where", "is", "Frodo", "…", "\n"],
]


async def test_words_of_several_tokens_are_scored_shaded_and_explained(hosted, monkeypatch, tmp_path):
    tokenizer = bpe_tokenizer()
    counts = use_training_text(monkeypatch, tokenizer)
    session_model = open_session_model(tokenizer, tmp_path)
    async with hosted((200, 50), notifications=True, session_model=session_model) as (pilot, app):
        screen = await ui.open_lens(pilot, TEXT)
        ids = tokenize_with_offsets(TEXT, tokenizer, eos_per_line=True).ids
        network, baseline = evaluate(session_model.model, ids), evaluate(counts, ids)
        bits, counted = text_bits_per_character(session_model.model, TEXT, "line"), f"9 words, {len(ids)} tokens"
        perplexities = f"perplexity {network.perplexity:,.1f} · Kneser-Ney {baseline.perplexity:,.1f}"
        assert f"{bits:.2f} bits/character · {perplexities} · {counted}" in metrics(app)
        text, scores = app.screen.query_one("#text"), screen.scores[0]
        assert [scores.tokens.word(index) for index in range(scores.tokens.num_words)] == WORDS
        assert ui.lens_text(app).splitlines() == ["The wizard’s old pony — “Éowyn” 😀 smiled?!¶", "Where is Frodo…¶"]
        text.focus()
        await pilot.press("home", "right", "right")
        reversed_text = [s.text for s in text.render_line(0) if s.style is not None and s.style.reverse]
        assert reversed_text == ["old"]  # without the space before it
        await pilot.press("escape")

        await pilot.resize_terminal(60, 20)
        screen = await ui.open_lens(pilot, "the tower. Lamps")
        app.screen.query_one("#text").focus()
        await pilot.press("end")
        word = screen.scores[0].word_score(3)
        shown = ui.painted(app.screen.query_one(WordDetails))
        assert "|".join("·" if part == " " else part.strip() for part, _ in word.parts) in shown
        total, _, rest = shown.partition("  ")[2].partition(" bits = ")
        bits = [float(each) for each in rest.splitlines()[0].split(" · ")[0].split(" + ")]
        assert float(total) == pytest.approx(word.bits, abs=0.051) == pytest.approx(sum(bits), abs=0.051)
        assert bits == pytest.approx([each for _, each in word.parts], abs=0.101)
        monkeypatch.setattr(tokenizer, "name", "pretrained")
        screen.analyse()
        await until(pilot, lambda: screen.is_idle)
        assert " bits/character, pre-trained on other text" in metrics(app)


async def test_fine_tuning_is_shown_by_the_bits_that_words_gain_over_the_base(hosted):
    session_model = SessionModel("tuned", "", adapted_model("film", "romeo").with_strengths({"romeo": 0}))
    models = adapted_model("film"), adapted_model()  # the adapted one, and the base without any
    tokens = tokenize_with_offsets(TEXT, bpe_tokenizer(), eos_per_line=True)
    bits = [-np.add.reduceat(score_sequence(model, tokens.ids), tokens.word_starts) / np.log(2) for model in models]
    gains = bits[1] - bits[0]
    async with hosted((200, 50), session_model=session_model) as (pilot, app):
        screen = await ui.open_inspector(pilot, lens.LensScreen(session_model, TEXT))
        await pilot.press("f")
        await until(pilot, lambda: screen.is_idle)
        text, details = app.screen.query_one("#text"), app.screen.query_one(WordDetails)
        shades = np.digitize(gains, [-3, -1, 1, 3])
        for index in range(1, len(WORDS)):
            assert text.style_of(index)[0] == ["much-worse", "worse", "even", "better", "much-better"][shades[index]]
        order = [index for index in np.argsort(-gains) if WORDS[index].strip("—“”😀?!…\n")]
        for keys, expected in ((), order), (("s",), order[::-1]):
            await pilot.press(*keys)
            rows = [line.replace("▸", " ").split() for line in sentence_lines(app)]
            assert [row[3] for row in rows] == [WORDS[index] for index in expected]
            assert not keys or text.cursor == expected[0]  # the losses begin at the top of the list
            figures = [[f"{gains[index]:+.1f}", f"{bits[0][index]:.1f}", f"{bits[1][index]:.1f}"] for index in expected]
            assert [row[:3] for row in rows] == figures
        await pilot.click("#sentences", offset=(5, 2))
        await pilot.pause()
        lost = order[-3]
        assert text.cursor == lost
        adapted, base = (each.word_score(lost) for each in screen.scores)
        shown = ui.painted(details)
        assert f"{abs(gains[lost]):.1f} bits {'gained' if gains[lost] > 0 else 'lost'}: " in shown
        lists = shown.partition("EXPECTED  adapted")[2].splitlines()[1:]
        for line, ours, theirs in zip(lists, adapted.top_tokens, base.top_tokens, strict=True):
            assert line.index(format_percent(ours[1])) < line.rindex(format_percent(theirs[1]))
        await pilot.press("f")
        assert "no Kneser-Ney" in metrics(app)
