"""Tests of the lens: scoring, sentences, text input and failures."""

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from textual import events
from textual.app import App
from textual.dom import DOMNode
from textual.widgets import Input

from engine.analysis.perplexity import evaluate
from engine.data.tokenizers.base import EOS_ID, UNK_ID
from engine.data.tokenizers.words import split_words
from engine.models.base import LogProbs, ModelState
from engine.models.ngram import KneserNey
from engine.runs.combine import ModelCombiner
from engine.runs.loading import load_model
from lotr_tui.commands import collect_bindings
from lotr_tui.formatting import format_percent
from lotr_tui.screens.dialogs.path_dialog import OpenTextDialog
from lotr_tui.screens.lens.screen import LensScreen
from lotr_tui.screens.lens.sentences import LensSentences
from lotr_tui.screens.lens.text_area import MAX_EDITABLE_CHARACTERS, LensTextArea
from lotr_tui.screens.lens.text_view import LensTextView
from lotr_tui.screens.lens.token_inspector import LensTokenInspector
from lotr_tui.session.session_model import SessionModel
from tests.support.analysis import LENS_TEXT, MakeHost, is_idle, lens_text, open_lens, painted, static_text, status_text
from tests.support.app import VOCABULARY, make_decoder
from tests.support.open_inspectors import words_session_model
from tests.support.pilot import notices, until


def metrics(app: App[Any]) -> str:
    return status_text(app, "#metrics")


def sentence_lines(app: App[Any]) -> list[str]:
    return painted(app.screen.query_one(LensSentences)).splitlines()


async def test_metrics_equal_the_evaluation(make_host: MakeHost, kneser_ney: KneserNey) -> None:
    app = make_host()
    async with app.run_test(size=(200, 50)) as pilot:
        await open_lens(pilot)
        ids = VOCABULARY.encode_words(split_words(LENS_TEXT))
        network, baseline = evaluate(make_decoder(), ids), evaluate(kneser_ney, ids)
        assert f"perplexity {network.perplexity:,.1f}   Kneser-Ney {baseline.perplexity:,.1f}" in metrics(app)
        assert f"{network.bits_per_token:.2f} bits per word" in metrics(app)
        num_unknown = int((ids == UNK_ID).sum())
        assert f"{len(ids)} words, {num_unknown} unknown ({format_percent(network.unk_rate)})" in metrics(app)


async def test_a_model_is_compared_with_kneser_ney_of_its_own_data(make_host: MakeHost, tmp_path: Path) -> None:
    session_model = words_session_model(tmp_path)
    assert session_model.run is not None
    loaded = load_model(session_model.run)
    app = make_host(session_model=session_model)
    text = "Bilbo Baggins is a very old friend of mine.\nWhere is the wizard?\n"
    async with app.run_test(size=(160, 45)) as pilot:
        await open_lens(pilot, text)
        ids = []
        for line in text.splitlines():
            ids += [*loaded.decoder.tokenizer.encode(line).tolist(), EOS_ID]
        baseline = evaluate(ModelCombiner([loaded]).kneser_ney, np.array(ids, np.int32))
        assert f"Kneser-Ney {baseline.perplexity:,.1f}" in metrics(app)
        assert lens_text(app).count("¶") == 2  # the model was trained in line mode


# Bindings

SENTENCE_MOVES = {
    "lens-sentences.up": ("up", 0),
    "lens-sentences.down": ("down", 2),
    "lens-sentences.first": ("home", 0),
    "lens-sentences.last": ("end", 3),
    "lens-sentences.page-up": ("pageup", 0),
    "lens-sentences.page-down": ("pagedown", 3),
}
"""Key of each binding, and the sentence it leads to from sentence 1."""
SCREEN_BINDINGS = {"lens.close", "lens.open", "lens.view", "lens.sentences", "lens.line-ends", "open-text.cancel"}


def binding_ids(*owners: type[DOMNode]) -> set[str | None]:
    return {binding.id for owner in owners for binding in collect_bindings(owner)}


def test_every_binding_is_tested_and_has_a_tooltip() -> None:
    assert binding_ids(LensSentences) == {*SENTENCE_MOVES, "lens-sentences.order"}
    assert binding_ids(LensScreen, OpenTextDialog) == SCREEN_BINDINGS
    for owner in (LensSentences, LensScreen, OpenTextDialog):
        assert all(binding.tooltip for binding in owner.BINDINGS)  # type: ignore[union-attr]


async def test_keys_move_over_the_sentences_and_move_the_token_cursor(make_host: MakeHost) -> None:
    app = make_host()
    async with app.run_test(size=(120, 40)) as pilot:
        screen = await open_lens(pilot)
        text = app.screen.query_one(LensTextView)
        await pilot.press("f3")
        await pilot.pause()
        assert screen.scorer.network_scores is not None
        starts = screen.scorer.network_scores.tokens.sentence_starts
        for name, (key, expected) in SENTENCE_MOVES.items():
            text.move_cursor(6)  # in the second sentence
            await pilot.pause()
            await pilot.press(key)
            await pilot.pause()
            assert text.cursor == starts[expected], name


async def test_baseline_scores_of_the_previous_text_are_dropped(make_host: MakeHost, kneser_ney: KneserNey) -> None:
    app = make_host()
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await open_lens(pilot)
        long_text = "the lamp was lit. " * 2_000
        screen.scorer.score(long_text, eos_per_line=False)
        await until(pilot, lambda: "scored" in metrics(app))
        screen.scorer.score("bilbo is", eos_per_line=False)  # while both models are busy with the long text
        await until(pilot, lambda: is_idle(app))
        assert screen.scorer.baseline_scores is not None
        expected = evaluate(kneser_ney, np.array(VOCABULARY.encode_words(["bilbo", "is"]), np.int32))
        assert np.exp(-screen.scorer.baseline_scores.log_probs.mean()) == pytest.approx(expected.perplexity)


async def test_sentences_show_their_perplexity_and_can_be_sorted_by_it(
    make_host: MakeHost, kneser_ney: KneserNey
) -> None:
    app = make_host()
    async with app.run_test(size=(120, 40)) as pilot:
        screen = await open_lens(pilot)
        await pilot.press("f3")
        await pilot.pause()
        network, baseline = screen.scorer.network_scores, screen.scorer.baseline_scores
        assert network is not None
        assert baseline is not None
        perplexities = zip(network.sentence_perplexities(), baseline.sentence_perplexities(), strict=True)
        lines = sentence_lines(app)
        for line, values in zip(lines, perplexities, strict=True):
            assert line.replace("▸", "").split()[:2] == [f"{value:,.1f}" for value in values]
        assert lines[1].endswith("The wizard was lit!")
        await pilot.press("o")
        await pilot.pause()
        sorted_values = [float(line.replace("▸", "").replace(",", "").split()[0]) for line in sentence_lines(app)]
        assert sorted_values == sorted(sorted_values, reverse=True)
        assert "hardest first" in static_text(app, "#heading")
        await pilot.press("o")
        assert sentence_lines(app) == lines


async def test_on_a_narrow_terminal_the_sentences_replace_the_text(make_host: MakeHost) -> None:
    app = make_host()
    async with app.run_test(size=(60, 20)) as pilot:
        await open_lens(pilot)
        text, sentences = app.screen.query_one(LensTextView), app.screen.query_one(LensSentences)
        assert (text.display, sentences.display) == (True, False)
        await pilot.press("f3")
        await pilot.pause()
        assert (text.display, sentences.display, sentences.has_focus) == (False, True, True)
        await pilot.press("f3")
        await pilot.pause()
        assert (text.display, sentences.display, text.has_focus) == (True, False, True)


async def test_f4_toggles_whether_line_breaks_are_read_as_eos(make_host: MakeHost) -> None:
    app = make_host()
    async with app.run_test(size=(160, 45)) as pilot:
        screen = await open_lens(pilot)
        before = screen.scorer.network_scores
        await pilot.press("f4")
        await until(pilot, lambda: screen.scorer.network_scores is not before and is_idle(app))
        assert screen.scorer.network_scores is not None
        tokens = screen.scorer.network_scores.tokens
        assert [tokens[index] for index in np.flatnonzero(tokens.ids == EOS_ID).tolist()] == ["\n", "\n"]
        assert lens_text(app).splitlines()[0].endswith("lit!¶")
        assert "17 words" in metrics(app)
        await pilot.press("f4")
        await until(pilot, lambda: "¶" not in lens_text(app))


async def test_escape_closes_the_lens(make_host: MakeHost) -> None:
    app = make_host()
    async with app.run_test(size=(80, 24)) as pilot:
        await open_lens(pilot)
        await pilot.press("escape")
        await pilot.pause()
        assert not isinstance(app.screen, LensScreen)


# Typed, pasted and opened texts


async def test_typed_text_is_scored_when_typing_pauses(make_host: MakeHost) -> None:
    app = make_host()
    async with app.run_test(size=(80, 24)) as pilot:
        await open_lens(pilot, "")
        assert "Type a text below" in lens_text(app)
        await pilot.press(*"the lamp was")
        await until(pilot, lambda: lens_text(app) == "the lamp was" and is_idle(app))
        assert app.screen.query_one(LensTextView).cursor == 2  # the word before the cursor of the text area
        assert "perplexity" in metrics(app)
        await pilot.press("ctrl+u")
        await until(pilot, lambda: "Type a text below" in lens_text(app))
        assert metrics(app) == ""


@pytest.mark.parametrize("size", [(60, 20), (120, 35)])
async def test_the_lens_opens_with_the_cursor_at_the_end_of_its_text(
    make_host: MakeHost, size: tuple[int, int]
) -> None:
    app = make_host()
    async with app.run_test(size=size) as pilot:
        text = "\n".join(["the lamp was lit"] * 30)
        await open_lens(pilot, text)
        text_area = app.screen.query_one(LensTextArea)
        assert text_area.cursor_location == text_area.document.end
        assert text_area.scroll_offset.y == text_area.max_scroll_y > 0
        assert app.screen.query_one(LensTextView).cursor == 30 * 4 - 1
        await pilot.press(*" in")
        assert text_area.text == f"{text} in"


async def test_characters_that_the_tokenizer_cannot_read_are_marked_and_listed(make_host: MakeHost) -> None:
    app = make_host()
    async with app.run_test(size=(160, 45)) as pilot:
        await open_lens(pilot, "the lamp ☺ was мир lit")
        assert lens_text(app) == "the lamp ‹☺› was ‹мир› lit"
        assert "cannot read ☺, мир" in metrics(app)
        assert "4 words, 0 unknown" in metrics(app)
        text = app.screen.query_one(LensTextView)
        styles = {segment.text: segment.style for segment in text.render_line(0)}
        assert styles["‹☺›"] == text.get_component_rich_style("token-text-view--unknown") != styles[" "]


async def test_special_tokens_have_readable_names(make_host: MakeHost, kneser_ney: KneserNey) -> None:
    model = KneserNey(np.array([EOS_ID, UNK_ID, 2] * 9, np.int32), VOCABULARY, 2)
    app = make_host()
    async with app.run_test(size=(120, 40)) as pilot:
        await open_lens(pilot, "bilbo zyzzyva", SessionModel("special", "", model, run=Path("x")))
        shown = painted(app.screen.query_one(LensTokenInspector))
        assert "zyzzyva (not known: a rare word)" in shown
        assert "end of line" in shown
        assert "rare word " in shown
        assert "<" not in shown


async def test_pasted_control_characters_become_white_space(make_host: MakeHost) -> None:
    app = make_host()
    async with app.run_test(size=(80, 24)) as pilot:
        await open_lens(pilot, "")
        text_area = app.screen.query_one(LensTextArea)
        text_area.post_message(events.Paste("the\x1b[31m lamp\r\nwas [red]lit[/red]\u202e"))
        await until(pilot, lambda: "lamp" in lens_text(app))
        assert text_area.text == "the [31m lamp\nwas [red]lit[/red] "
        assert lens_text(app).splitlines() == ["the [‹31m› lamp", "was [‹red›]lit[/‹red›]"]


async def test_a_pasted_megabyte_is_shown_but_not_editable(make_host: MakeHost) -> None:
    app = make_host()
    async with app.run_test(size=(80, 24)) as pilot:
        await open_lens(pilot, "the lamp")
        text_area = app.screen.query_one(LensTextArea)
        text_area.post_message(events.Paste("the lamp was lit. " * 60_000))
        await until(pilot, lambda: "scored" in metrics(app), 30)
        text = app.screen.query_one(LensTextView)
        assert text_area.text == ""
        assert len(text.page.tokens) == 240_000
        await pilot.press("end")
        assert text.cursor == 239_999
        assert "not scored yet" in painted(app.screen.query_one(LensTokenInspector))
        assert lens_text(app).splitlines()[-1].endswith("lit.")
        text_area.focus()
        await pilot.press("x")  # the typed text replaces the pasted one and stops its scoring
        await until(pilot, lambda: lens_text(app) == "‹x›" and is_idle(app))


async def test_files_are_opened(make_host: MakeHost, tmp_path: Path) -> None:
    (tmp_path / "short.txt").write_text("The lamp was lit.\n")
    (tmp_path / "long.txt").write_text("bread " * MAX_EDITABLE_CHARACTERS)
    app = make_host()
    async with app.run_test(size=(80, 24)) as pilot:
        await open_lens(pilot)
        for name in ("short.txt", "long.txt"):
            await pilot.press("ctrl+o")
            await pilot.pause()
            app.screen.query_one(Input).value = str(tmp_path / name)
            await pilot.press("enter")
            await until(pilot, lambda: isinstance(app.screen, LensScreen))
            first = (tmp_path / name).read_text().split()[0]
            await until(pilot, lambda first=first: lens_text(app).startswith(first))  # type: ignore[misc]
        assert app.screen.query_one(LensTextArea).text == ""
        await until(pilot, lambda: is_idle(app), 60)
        assert "long.txt" in metrics(app)


async def test_a_file_that_cannot_be_opened_is_reported_on_one_line(make_host: MakeHost, tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"a\0b")
    (tmp_path / "latin").write_bytes("Königin".encode("latin-1"))
    app = make_host()
    async with app.run_test(size=(80, 24)) as pilot:
        await open_lens(pilot)
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
            assert problem in static_text(app, "#problem")
        await pilot.press("escape")
        await pilot.pause()
        assert isinstance(app.screen, LensScreen)
        assert lens_text(app).startswith("Bilbo")


# Failures


@pytest.mark.parametrize("has_run", [True, False])
async def test_a_missing_baseline_is_reported_with_the_reason(make_host: MakeHost, has_run: bool) -> None:
    app = make_host()  # the directory of its run is empty
    session_model = app.session_model if has_run else SessionModel("mixed", "several runs", make_decoder())
    async with app.run_test(size=(200, 50)) as pilot:
        await open_lens(pilot, session_model=session_model)
        reason = "config.json is missing" if has_run else "has no run with training data"
        assert "no Kneser-Ney" in metrics(app)
        await until(pilot, lambda: notices(app).count(reason) == 1)
        await pilot.press("f2")
        await until(pilot, lambda: notices(app).count(reason) == 2)
        assert app.screen.query_one(LensTextView).view == "network"


async def test_a_failing_model_is_reported(make_host: MakeHost) -> None:
    class Broken:
        tokenizer = VOCABULARY

        def start(self) -> ModelState:
            return None

        def advance(self, state: ModelState, token: int) -> tuple[LogProbs, ModelState]:
            raise ValueError("weights [red] are gone")

    app = make_host()
    async with app.run_test(size=(80, 24)) as pilot:
        await open_lens(pilot, session_model=SessionModel("broken", "", Broken()))
        await until(pilot, lambda: "weights [red] are gone" in notices(app))
        assert lens_text(app).startswith("Bilbo")


async def test_closing_the_lens_stops_its_threads(make_host: MakeHost, kneser_ney: KneserNey) -> None:
    app = make_host()
    async with app.run_test(size=(80, 24)) as pilot:
        assert app.session_model is not None
        await app.push_screen(LensScreen(app.session_model, "the lamp was lit. " * 40_000))
        await until(pilot, lambda: "scored" in metrics(app), 30)
        await pilot.press("escape")
        await until(pilot, lambda: not any(thread.name.startswith("lens") for thread in threading.enumerate()))
