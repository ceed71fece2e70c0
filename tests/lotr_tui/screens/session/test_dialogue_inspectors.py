"""The inspectors of a conversation read what its model has read: the same ids, ranks and bits, without speakers."""

from functools import partial
from typing import Any

import numpy as np
import pytest
from textual.app import App
from textual.pilot import Pilot

from engine.analysis.activations import find_lstm, record_activations
from lotr_tui.screens.activations.screen import MAX_TOKENS, ActivationsScreen
from lotr_tui.screens.comparison.ladder import LadderScreen
from lotr_tui.screens.comparison.side_by_side import SideBySideScreen
from lotr_tui.screens.lens.who_screen import WhoLensScreen
from lotr_tui.screens.memorization.screen import MemorizationScreen
from lotr_tui.session.conversation.reply_tree import Reply, spoken_lines
from lotr_tui.session.session_model import SessionModel
from tests.support.analysis import is_idle, open_activations, painted
from tests.support.columns import until_columns_ended
from tests.support.dialogues import dialogue_session_model
from tests.support.pilot import MakeApp, conversation_of, latest_reply, until

PROMPTS = ("Where is the ranger?", "we walked all night")


async def converse(pilot: Pilot[None]) -> Reply:
    """Say two lines, and return the last answer."""
    app: Any = pilot.app
    for number, prompt in enumerate(PROMPTS, 1):
        app.screen.query_one("#prompt").value = prompt
        await pilot.press("enter")
        await until(pilot, partial(has_turns, app, number))
    return latest_reply(app)


def has_turns(app: App[Any], number: int) -> bool:
    """Return True once the conversation has as many turns, and the last one is complete."""
    reply = conversation_of(app).current_reply
    turns = 0 if reply is None else len(spoken_lines(reply)) // 2
    return turns == number and reply is not None and bool(reply.done)


async def open_with(pilot: Pilot[None], key: str, screen_type: type[Any]) -> Any:
    await pilot.press(key)
    await until(pilot, lambda: isinstance(pilot.app.screen, screen_type))
    return pilot.app.screen


def text_ids(reply: Reply) -> list[int]:
    """Return the ids that the model has read, without speakers."""
    return [id for id in reply.token_ids() if id < reply.session_model.model.tokenizer.num_text_tokens]


async def test_the_lens_has_the_rank_and_bits_of_a_conversation(make_app: MakeApp) -> None:
    app = make_app(session_model=dialogue_session_model())
    async with app.run_test(size=(120, 40)) as pilot:
        reply = await converse(pilot)
        screen: WhoLensScreen = await open_with(pilot, "ctrl+e", WhoLensScreen)
        await until(pilot, lambda: is_idle(app))
        scores = screen.scorer.network_scores
        assert scores is not None
        assert scores.tokens.ids.tolist() == text_ids(reply)
        first = len(text_ids(reply)) - len(reply.tokens)
        assert len(reply.tokens) > 0
        for index, token in enumerate(reply.tokens, first):
            score = scores.token_score(index)
            assert score is not None
            assert score.rank == token.rank, token.text
            assert score.bits == pytest.approx(-token.logprob / np.log(2), rel=1e-4)
        await pilot.press("f5")
        await until(pilot, lambda: screen.is_idle)
        assert "after 3 lines" in str(screen.query_one("#who").evidence.summary())  # type: ignore[attr-defined]


async def test_activations_start_from_the_context_with_its_speakers(make_app: MakeApp) -> None:
    app = make_app(session_model=dialogue_session_model())
    async with app.run_test(size=(120, 40)) as pilot:
        reply = await converse(pilot)
        screen: ActivationsScreen = await open_with(pilot, "f10", ActivationsScreen)
        await until(pilot, lambda: screen.is_idle and screen.layer_activations)
        model = reply.session_model.model
        lstm = find_lstm(model)
        assert lstm is not None
        ids = np.array(reply.token_ids(), np.int32)
        [whole] = record_activations(lstm, ids)
        np.testing.assert_array_equal(
            screen.layer_activations[0].cell, whole.cell[ids < model.tokenizer.num_text_tokens]
        )
        assert len(screen.layer_activations[0].cell) == len(text_ids(reply))


async def test_a_long_script_keeps_its_last_lines(make_app: MakeApp) -> None:
    session_model = dialogue_session_model()
    app = make_app(session_model=session_model)
    async with app.run_test(size=(120, 40)) as pilot:
        lines = [f"FRODO: {'the tower ' * 20}", f"GANDALF: {'we walked ' * 20}"] * 15
        screen = await open_activations(pilot, session_model, "\n".join([*lines, "GOLLUM: lit"]))
        assert len(screen.layer_activations[0].cell) <= MAX_TOKENS
        assert screen.text.startswith(("FRODO: ", "GANDALF: "))
        assert screen.text.endswith("GOLLUM: lit")


async def test_copied_passages_of_a_conversation_are_words(make_app: MakeApp) -> None:
    app = make_app(session_model=dialogue_session_model())
    async with app.run_test(size=(120, 40)) as pilot:
        reply = await converse(pilot)
        screen: MemorizationScreen = await open_with(pilot, "f9", MemorizationScreen)
        await until(pilot, lambda: screen.page is not None)
        assert screen.page is not None
        assert screen.page.tokens.ids.tolist() == text_ids(reply)
        shown = painted(screen.query_one("#text"))
        assert shown.startswith("STRANGER: Where is the ")
        assert len(screen.page.label_spans) == 4


@pytest.mark.parametrize(("key", "screen_type"), [("ctrl+l", LadderScreen), ("ctrl+y", SideBySideScreen)])
async def test_columns_repeat_the_answer_of_the_session(
    make_app: MakeApp, key: str, screen_type: type[LadderScreen] | type[SideBySideScreen]
) -> None:
    session_model: SessionModel = dialogue_session_model()
    app = make_app(session_model=session_model)
    async with app.run_test(size=(120, 40)) as pilot:
        reply = await converse(pilot)
        screen = await open_with(pilot, key, screen_type)
        await until(pilot, lambda: screen.prompt_and_seed and all(slot.model for slot in screen.slots))
        await until_columns_ended(pilot, screen)
        assert screen.slots[0].speaker == reply.speaker
        assert screen.prompt_and_seed[0] == PROMPTS[1]
        read = screen.prompt_context.token_ids(PROMPTS[1], session_model.model.tokenizer, reply.speaker)
        assert list(read) == reply.context_ids
