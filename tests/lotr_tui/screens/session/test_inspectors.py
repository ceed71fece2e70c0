"""The inspectors read and write exactly what the session does: the same token ids, ranks, bits and replies."""

from typing import Any

import numpy as np
import pytest
from textual.app import App
from textual.pilot import Pilot
from textual.widgets import Input

from engine.analysis.activations import record_activations
from engine.data.tokenizers.base import EOS_ID
from engine.generation.settings import SamplerSettings
from engine.models.numpy_lstm import NumpyLSTM
from lotr_tui.screens.activations.screen import ActivationsScreen
from lotr_tui.screens.comparison import side_by_side
from lotr_tui.screens.comparison.screen import GenerationColumnsScreen
from lotr_tui.screens.lens import screen as lens
from lotr_tui.screens.lens.screen import LensScreen
from lotr_tui.screens.memorization.screen import MemorizationScreen
from lotr_tui.session.conversation.reply_tree import Reply
from lotr_tui.session.session_model import SessionModel
from tests.support.analysis import is_idle
from tests.support.app import VOCABULARY, make_decoder
from tests.support.columns import generated_words, until_columns_ended
from tests.support.pilot import (
    MakeApp,
    alternative_to,
    inspector_text,
    latest_reply,
    reply_to,
    set_field,
    text_of,
    until,
)

PROMPTS = ("Bilbo Baggins is", "the wizard ☺ was lit, in\nwinter!", "where is frodo")
"""Prompts with an unknown word, a character that is in no word, and a line break that the session does not read."""


async def converse(pilot: Pilot[None], mode: str, num_turns: int = 3) -> Reply:
    """Have a conversation in a reply mode, and return its last reply."""
    if mode == "reply":
        await pilot.press("f6")
    for number, prompt in enumerate(PROMPTS[:num_turns]):
        await reply_to(pilot, prompt, seed=str(number + 1))
    return latest_reply(pilot.app)


async def branch_in_the_middle(pilot: Pilot[None]) -> Reply:
    """Branch off from the latest reply at its fourth word from the end, and return the branch."""
    reply = latest_reply(pilot.app)
    await pilot.press("ctrl+g", "left", "left", "left")
    number, _ = alternative_to(pilot.app, reply.tokens[-4].text)
    await pilot.press(str(number))
    await until(pilot, lambda: latest_reply(pilot.app) is not reply and latest_reply(pilot.app).done)
    return latest_reply(pilot.app)


async def open_with(pilot: Pilot[None], key: str, screen_type: type[Any]) -> Any:
    await pilot.press(key)
    await until(pilot, lambda: isinstance(pilot.app.screen, screen_type))
    return pilot.app.screen


async def assert_lens_equals_session(pilot: Pilot[None], reply: Reply) -> None:
    """Compare each word of a reply in the lens with its figures in the session."""
    screen: LensScreen = await open_with(pilot, "ctrl+e", LensScreen)
    await until(pilot, lambda: is_idle(pilot.app))
    scores = screen.scorer.network_scores
    assert scores is not None
    assert scores.tokens.ids.tolist() == reply.token_ids()
    first = len(reply.context_ids)
    assert len(reply.tokens) > 0
    for index, token in enumerate(reply.tokens, first):
        score = scores.token_score(index)
        assert score is not None
        assert (score.rank, score.bits) == (token.rank, -token.logprob / np.log(2)), token.text


@pytest.mark.parametrize("is_line_mode", [True, False], ids=["line", "stream"])
@pytest.mark.parametrize("mode", ["continue", "reply"])
async def test_the_lens_has_the_rank_and_bits_of_the_session(
    make_app: MakeApp, monkeypatch: pytest.MonkeyPatch, mode: str, is_line_mode: bool
) -> None:
    monkeypatch.setattr(lens, "is_line_mode", lambda run: is_line_mode)
    app = make_app()
    async with app.run_test(size=(120, 40)) as pilot:
        reply = await converse(pilot, mode)
        assert (EOS_ID in reply.token_ids()) == (mode == "reply")
        await assert_lens_equals_session(pilot, reply)
        await pilot.press("escape")
        await assert_lens_equals_session(pilot, await branch_in_the_middle(pilot))


@pytest.mark.parametrize("mode", ["continue", "reply"])
async def test_the_lens_reads_a_reply_that_was_continued_after_the_end_of_a_line(make_app: MakeApp, mode: str) -> None:
    model = make_decoder()
    model.weights["output.bias"][EOS_ID] = 6.0
    app = make_app(session_model=SessionModel("short lines", "", NumpyLSTM(model.config, VOCABULARY, model.weights)))
    async with app.run_test(size=(120, 40)) as pilot:
        reply = await converse(pilot, mode, num_turns=1)
        assert reply.done is not None
        assert reply.done.reason == "eos"
        await pilot.press("ctrl+n")
        await until(pilot, lambda: latest_reply(app) is not reply and latest_reply(app).done)
        longer = latest_reply(app)
        assert EOS_ID in [token.id for token in longer.tokens]
        await assert_lens_equals_session(pilot, longer)


async def test_the_lens_shows_the_figures_that_the_token_inspector_shows(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(160, 45)) as pilot:
        await converse(pilot, "reply", num_turns=2)
        await pilot.press("ctrl+g", "left")
        figures = inspector_text(app)
        screen = await open_with(pilot, "ctrl+e", LensScreen)
        await until(pilot, lambda: is_idle(app))
        score = screen.scorer.network_scores.token_score(len(screen.scorer.network_scores.tokens) - 2)
        assert f"rank {score.rank:,}" in figures
        assert f"{score.bits:.1f} bits" in figures


async def test_the_lens_reads_a_reply_with_the_model_that_wrote_it(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(120, 40)) as pilot:
        reply = await converse(pilot, "continue", num_turns=1)
        screen: Any = app.screen
        screen.session_model = SessionModel("newer", "", make_decoder(5))
        await assert_lens_equals_session(pilot, reply)


@pytest.mark.parametrize("mode", ["continue", "reply"])
async def test_copied_passages_and_activations_are_of_the_tokens_of_the_session(make_app: MakeApp, mode: str) -> None:
    app = make_app()
    async with app.run_test(size=(120, 40)) as pilot:
        reply = await converse(pilot, mode)
        screen = await open_with(pilot, "f9", MemorizationScreen)
        await until(pilot, lambda: is_idle(app))
        assert screen.page.tokens.ids.tolist() == reply.token_ids()
        await pilot.press("escape")
        screen = await open_with(pilot, "f10", ActivationsScreen)
        await until(pilot, lambda: is_idle(app))
        (expected,) = record_activations(make_decoder(), reply.token_ids())
        assert (screen.layer_activations[0].cell == expected.cell).all()


# Ladder and side by side


def columns_screen(app: App[Any]) -> GenerationColumnsScreen:
    assert isinstance(app.screen, GenerationColumnsScreen)
    return app.screen


async def open_columns(pilot: Pilot[None], key: str, temperature: str = "0.8") -> GenerationColumnsScreen:
    """Open the ladder or the side-by-side screen, and generate at one temperature."""
    screen: GenerationColumnsScreen = await open_with(pilot, key, GenerationColumnsScreen)
    screen.query_one("#temperature Input, #temperatures", Input).value = temperature
    await pilot.press("enter")
    await until_columns_ended(pilot, screen)
    return screen


@pytest.fixture(autouse=True)
def few_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the baseline of every run be another small model, which needs no loading."""
    monkeypatch.setattr(
        side_by_side, "load_model_choice", lambda choice, runs_dir: SessionModel(choice.name, "", make_decoder(9))
    )


def assert_column_is_reply(screen: GenerationColumnsScreen, reply: Reply) -> None:
    output = screen.slots[0].output
    assert generated_words(output) == [token.text for token in reply.tokens] != []
    assert output.done_event is not None
    assert reply.done is not None
    assert output.done_event.reason == reply.done.reason


@pytest.mark.parametrize("key", ["ctrl+l", "ctrl+y"], ids=["ladder", "side by side"])
@pytest.mark.parametrize("mode", ["continue", "reply"])
async def test_a_column_with_the_seed_of_a_reply_repeats_it(make_app: MakeApp, mode: str, key: str) -> None:
    app = make_app()
    app.update_settings(sampler=SamplerSettings(repetition_penalty=1.3, top_k=20))
    async with app.run_test(size=(120, 40)) as pilot:
        reply = await converse(pilot, mode)
        set_field(app, "seed", "")  # the columns take the seed of the reply
        screen = await open_columns(pilot, key)
        assert screen.prompt_and_seed == (reply.prompt, reply.seed)
        assert_column_is_reply(screen, reply)
        assert (reply.context_ids[-1] == EOS_ID) == (mode == "reply")


@pytest.mark.parametrize("key", ["ctrl+l", "ctrl+y"], ids=["ladder", "side by side"])
@pytest.mark.parametrize("mode", ["continue", "reply"])
async def test_a_column_is_the_next_reply_of_the_session(make_app: MakeApp, mode: str, key: str) -> None:
    app = make_app()
    async with app.run_test(size=(120, 40)) as pilot:
        await converse(pilot, mode, num_turns=2)
        prompt: Any = app.screen.query_one("#prompt")
        prompt.value = PROMPTS[2]
        screen = await open_columns(pilot, key)
        status = text_of(screen.query_one("#status"))
        assert ("answers" in status) == ("after 2 earlier replies" in status) == (mode == "reply")
        assert ("continuations" in status) == (mode == "continue")
        assert screen.prompt_and_seed is not None
        await pilot.press("escape")
        reply = await reply_to(pilot, PROMPTS[2], seed=str(screen.prompt_and_seed[1]))
        assert_column_is_reply(screen, reply)
