"""Tests of the lens with models whose tokens are parts of words: words are the unit of reading."""

from pathlib import Path

import numpy as np
import pytest

from engine.analysis.bits_per_character import text_bits_per_character
from engine.analysis.perplexity import evaluate
from engine.analysis.tokenized_text import tokenize_with_offsets
from engine.data.tokenizers.base import EOS_ID, Tokenizer
from lotr_tui.screens.lens.text_view import LENS_VIEWS, LensTextView
from lotr_tui.screens.lens.token_inspector import LensTokenInspector
from tests.support.analysis import MakeHost, is_idle, lens_text, open_lens, painted, status_text
from tests.support.open_inspectors import open_session_model, use_training_text
from tests.support.open_models import bpe_tokenizer, character_tokenizer
from tests.support.pilot import notices, until

TEXT = "The wizard’s old pony — “Éowyn” 😀 smiled?!\nWhere is Frodo…\n"
WORDS = [
    *["The", "wizard’s", "old", "pony", "—", "“", "Éowyn", "”", "😀", "smiled", "?!", "\n"],
    *["Where", "is", "Frodo", "…", "\n"],
]
TOKENIZERS = pytest.mark.parametrize("tokenizer", [bpe_tokenizer(), character_tokenizer()], ids=["bpe", "characters"])


@TOKENIZERS
async def test_metrics_equal_the_evaluation(
    make_host: MakeHost, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tokenizer: Tokenizer
) -> None:
    counts = use_training_text(monkeypatch, tokenizer)
    session_model = open_session_model(tokenizer, tmp_path)
    app = make_host(session_model=session_model)
    async with app.run_test(size=(200, 50)) as pilot:
        await open_lens(pilot, TEXT)
        ids = tokenize_with_offsets(TEXT, tokenizer, eos_per_line=True).ids
        network, baseline = evaluate(session_model.model, ids), evaluate(counts, ids)
        metrics = status_text(app, "#metrics")
        bits_per_character = text_bits_per_character(session_model.model, TEXT, "line")
        assert (
            f"perplexity {network.perplexity:,.1f}   Kneser-Ney {baseline.perplexity:,.1f}"
            f"   {bits_per_character:.2f} bits/character   9 words, {len(ids)} tokens" in metrics
        )
        assert "unknown" not in metrics + status_text(app, "#legend")


@TOKENIZERS
async def test_the_cursor_moves_and_the_shades_change_by_word(make_host: MakeHost, tokenizer: Tokenizer) -> None:
    app = make_host(session_model=open_session_model(tokenizer))
    async with app.run_test(size=(120, 40)) as pilot:
        screen = await open_lens(pilot, TEXT)
        text, scores = app.screen.query_one(LensTextView), screen.scorer.network_scores
        assert scores is not None
        assert [scores.tokens.word(index) for index in range(scores.tokens.num_words)] == WORDS
        assert lens_text(app).splitlines() == [
            "The wizard’s old pony — “Éowyn” 😀 smiled?!¶",
            "Where is Frodo…¶",
        ]
        text.focus()
        await pilot.press("home", "right", "right")
        assert text.cursor == 2
        reversed_text = [s.text for s in text.render_line(0) if s.style is not None and s.style.reverse]
        assert reversed_text == ["old"]  # without the space before it
        await pilot.press("down")
        assert text.cursor == WORDS.index("Frodo")
        await pilot.press("end")
        assert text.cursor == len(WORDS) - 1
        names = np.array(["lens--expected", "lens--usual", "lens--surprising", "lens--astonishing"])
        shades = names[np.digitize(np.add.reduceat(scores.bits, scores.tokens.word_starts), [3, 6, 10])]
        assert [text.token_component_classes(index) for index in range(len(WORDS))] == [[name] for name in shades]


async def test_n_moves_to_the_next_surprising_word(make_host: MakeHost) -> None:
    app = make_host(session_model=open_session_model(bpe_tokenizer()))
    async with app.run_test(size=(120, 40)) as pilot:
        screen = await open_lens(pilot, TEXT)
        text, scores = app.screen.query_one(LensTextView), screen.scorer.network_scores
        assert scores is not None
        surprising = [index for index in range(1, len(WORDS)) if scores.bits_of_word(index) >= 10]
        assert any(scores.tokens.word_ends[i] - scores.tokens.word_starts[i] > 1 for i in surprising[:3])
        text.focus()
        await pilot.press("home", "n", "n")
        assert text.cursor == surprising[1]
        await pilot.press("p")
        assert text.cursor == surprising[0]


@TOKENIZERS
@pytest.mark.parametrize("size", [(120, 40), (60, 20)])
async def test_the_details_of_a_word_show_its_tokens_with_their_bits(
    make_host: MakeHost, tokenizer: Tokenizer, size: tuple[int, int]
) -> None:
    app = make_host(session_model=open_session_model(tokenizer))
    async with app.run_test(size=size) as pilot:
        screen = await open_lens(pilot, "the tower. Lamps")
        text, scores = app.screen.query_one(LensTextView), screen.scorer.network_scores
        assert scores is not None
        text.focus()
        await pilot.press("end")
        word = scores.word_score(3)
        assert word is not None
        assert len(word.parts) > 1
        shown = painted(app.screen.query_one(LensTokenInspector))
        names = ["·" if part == " " else part.strip() for part, _ in word.parts]
        bits = [f"{each:.1f}" for _, each in word.parts]
        assert f"{word.bits:.1f} bits" in shown
        if size[0] == 60:
            assert "|".join(names) in shown
            assert f"{word.bits:.1f} bits = {bits[0]} + {bits[1]} + " in shown
        elif len(names) < 4:
            assert f"TOKENS  {'|'.join(names)}  {' + '.join(bits)}" in shown
        else:
            assert [f"{name} {each}" in shown for name, each in zip(names, bits, strict=True)] == [True] * len(bits)
        if size[0] == 120:
            assert "WORD  Lamps  sentence 2 of 2" in shown
            assert "EXPECTED HERE" in shown


async def test_alternatives_show_where_a_word_begins(make_host: MakeHost) -> None:
    session_model = open_session_model(bpe_tokenizer())
    app = make_host(session_model=session_model)
    async with app.run_test(size=(120, 50)) as pilot:
        screen = await open_lens(pilot, "old wizards")
        assert screen.scorer.network_scores is not None
        score = screen.scorer.network_scores.word_score(1)
        assert score is not None
        shown = painted(app.screen.query_one(LensTokenInspector)).split("EXPECTED HERE")[1]
        names = [line.split()[0] for line in shown.splitlines()[1:]]
        expected = [token.replace(" ", "·") for token, _ in score.top_tokens]
        assert names == expected[: len(names)]
        assert any(name.startswith("·") for name in names)


async def test_the_text_cursor_selects_the_word_before_it(make_host: MakeHost) -> None:
    app = make_host(session_model=open_session_model(bpe_tokenizer()))
    async with app.run_test(size=(120, 40)) as pilot:
        await open_lens(pilot, "The wizard smiled")
        text = app.screen.query_one(LensTextView)
        assert text.cursor == 2
        await pilot.press("ctrl+left", "left")
        await pilot.pause()
        assert text.cursor == 1


async def test_line_breaks_are_characters_for_a_model_of_stream_mode(make_host: MakeHost) -> None:
    tokenizer = bpe_tokenizer()
    app = make_host(session_model=open_session_model(tokenizer, predicts_eos=False))
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        screen = await open_lens(pilot, TEXT)
        before = screen.scorer.network_scores
        assert before is not None
        assert EOS_ID not in before.tokens.ids
        assert lens_text(app).count("¶") == 2
        await pilot.press("f4")
        await until(pilot, lambda: screen.scorer.network_scores is not before and is_idle(app))
        assert screen.scorer.network_scores is not None
        assert screen.scorer.network_scores.tokens.ids.tolist().count(EOS_ID) == 2
        await pilot.press("f4")
        assert "Line breaks are read as characters." in notices(app)


async def test_words_are_shaded_by_both_models(
    make_host: MakeHost, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    use_training_text(monkeypatch, bpe_tokenizer())
    app = make_host(session_model=open_session_model(bpe_tokenizer(), tmp_path))
    async with app.run_test(size=(120, 40)) as pilot:
        screen = await open_lens(pilot, TEXT)
        network, baseline = screen.scorer.network_scores, screen.scorer.baseline_scores
        assert network is not None
        assert baseline is not None
        for view in LENS_VIEWS[1:]:
            await pilot.press("f2")
            text = app.screen.query_one(LensTextView)
            assert text.view == view
        difference = baseline.word_bits - network.word_bits
        names = [f"lens--{name}" for name in ("much-worse", "worse", "even", "better", "much-better")]
        expected = [[names[shade]] for shade in np.digitize(difference, [-3, -1, 1, 3])]
        assert [text.token_component_classes(index) for index in range(len(WORDS))] == expected


@TOKENIZERS
async def test_the_lens_survives_any_terminal_size(make_host: MakeHost, tokenizer: Tokenizer) -> None:
    app = make_host(session_model=open_session_model(tokenizer))
    async with app.run_test(size=(200, 50)) as pilot:
        await open_lens(pilot, TEXT * 3)
        app.screen.query_one(LensTextView).focus()
        for size in ((20, 5), (60, 20), (5, 2), (80, 24), (120, 35)):
            await pilot.resize_terminal(*size)
            await pilot.pause()
            await pilot.press("end", "up", "left", "pagedown", "home", "right", "f3", "f3")
        assert lens_text(app).startswith("The wizard’s old pony — “Éowyn” 😀")
