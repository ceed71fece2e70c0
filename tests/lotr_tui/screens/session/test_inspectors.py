"""The inspectors read and write exactly what the session does: the same token ids, ranks, bits and replies."""

from dataclasses import replace

import numpy as np
import pytest
from textual.widgets import Input

from engine.analysis.activations import find_lstm, record_activations
from engine.data.scripts import utterance_mask
from engine.data.tokenizers import EOS_ID
from engine.generation.settings import SamplerSettings
from engine.runs.loading import load_model
from lotr_tui.screens.inspect import comparison, lens
from lotr_tui.session.comparison import Column
from lotr_tui.session.session_model import SessionModel
from lotr_tui.session.settings import ModelSettings
from lotr_tui.widgets.slider import TemperatureSlider
from tests.support import pilot as ui
from tests.support.analysis import is_idle, painted
from tests.support.app import make_decoder
from tests.support.columns import generated_words, until_columns_ended
from tests.support.commands import json_output, run_here
from tests.support.dialogues import dialogue_session_model
from tests.support.random_dialogues import write_dialogue_run

PROMPTS = ("Bilbo Baggins is", "the wizard ☺ was lit, in\nwinter!", "where is frodo")
"""Prompts with an unknown word, a character that is in no word, and a line break that the session does not read."""
SIZE = (120, 40)


async def converse(pilot, mode, num_turns=3):
    """Have a conversation in a reply mode, and return its last reply."""
    if mode == "reply":
        await pilot.click("#reply-mode")
    for number, prompt in enumerate(PROMPTS[:num_turns]):
        await ui.reply_to(pilot, prompt, seed=str(number + 1))
    return ui.latest_reply(pilot.app)


async def open_with(pilot, key, name):
    await ui.press_letter(pilot, key)
    await ui.until(pilot, lambda: ui.screen_name(pilot.app) == name)
    return pilot.app.screen


def text_ids(reply):
    """Return the token ids of the session's text, in a conversation without the names of the speakers."""
    model, ids = reply.session_model.model, reply.token_ids()
    if not reply.session_model.cast:
        return ids
    is_said = utterance_mask(model.tokenizer, np.array(ids, np.int32))
    return [id for id, said in zip(ids, is_said, strict=True) if said]


async def assert_lens_equals_session(pilot, reply, name="LensScreen"):
    """Compare each word of a reply in the lens with its figures in the session, and close the lens."""
    screen = await open_with(pilot, "l", name)
    await ui.until(pilot, lambda: is_idle(pilot.app))
    scores = screen.scores[0]
    ids = text_ids(reply)
    assert scores.tokens.ids.tolist() == ids
    assert len(reply.tokens) > 0
    for index, token in enumerate(reply.tokens, len(ids) - len(reply.tokens)):
        word = scores.word_score(scores.tokens.word_index(index))
        assert word.rank in (token.rank, None), token.text
        assert scores.log_probs[index] == pytest.approx(token.logprob, rel=1e-4)
    return screen


async def test_the_inspectors_read_the_tokens_of_the_session_and_the_lens_has_its_ranks_and_bits(opened, monkeypatch):
    monkeypatch.setattr(lens, "is_line_mode", lambda run: False)
    async with opened(size=SIZE) as (pilot, app):
        reply = await converse(pilot, "reply")
        assert EOS_ID in reply.token_ids()
        await pilot.press("ctrl+g", "left")
        figures = ui.bars_text(app)
        app.screen.set_session_model(SessionModel("newer", "", make_decoder(5)))  # the reply keeps its model
        screen = await assert_lens_equals_session(pilot, reply)
        score = screen.scores[0].word_score(len(reply.token_ids()) - 2)
        assert f"rank {score.rank:,}" in figures
        assert f"{score.bits:.1f} bits" in figures
        await pilot.press("escape")
        screen = await open_with(pilot, "m", "CopiedScreen")
        await ui.until(pilot, lambda: is_idle(app))
        assert screen.page.tokens.ids.tolist() == reply.token_ids()
        await pilot.press("escape")
        screen = await open_with(pilot, "i", "ActivationsScreen")
        await ui.until(pilot, lambda: is_idle(app))
        (expected,) = record_activations(make_decoder(), reply.token_ids())
        assert (screen.reading.layers[0].cell == expected.cell).all()


# Ladder and side by side


@pytest.fixture(autouse=True)
def few_models(monkeypatch):
    """Let the baseline of every run be another small model, which needs no loading."""
    baseline = SessionModel("baseline", "", make_decoder(9))
    monkeypatch.setattr(comparison, "load_model_choice", lambda choice, runs_dir: baseline)


async def open_columns(pilot, key, name, temperature=0.8):
    """Open a screen of columns, and generate at one temperature."""
    screen = await open_with(pilot, key, name)
    for field in screen.query("#temperatures").results(Input):
        field.value = str(temperature)
    for slider in screen.query(TemperatureSlider):
        slider.value = temperature
    await pilot.press("enter")
    await until_columns_ended(pilot, screen)
    return screen


def assert_column_is_reply(screen, reply):
    output = screen.slots[0]
    assert generated_words(output) == [token.text for token in reply.tokens] != []
    assert output.done_event.reason == reply.reason


@pytest.mark.parametrize(
    ("key", "name", "mode"), [("t", "LadderScreen", "continue"), ("c", "SideBySideScreen", "reply")]
)
async def test_a_column_repeats_the_reply_and_is_the_next_one(make_app, mode, key, name):
    app = make_app()
    app.state.update_settings(models={"bundled": ModelSettings(SamplerSettings(repetition_penalty=1.3, top_k=20))})
    async with app.run_test(size=SIZE) as pilot:
        reply = await converse(pilot, mode, num_turns=2)
        ui.set_field(app, "seed", "")  # the columns take the seed of the reply
        screen = await open_columns(pilot, key, name)
        assert screen.prompt_and_seed == (reply.prompt, reply.seed)
        assert_column_is_reply(screen, reply)
        await pilot.press("escape")
        app.screen.query_one("#prompt").value = PROMPTS[2]
        screen = await open_columns(pilot, key, name)
        status = ui.text_of(screen.query_one("#status"))
        assert ("answers" in status) == ("after 2 earlier replies" in status) == (mode == "reply")
        await pilot.press("escape")
        reply = await ui.reply_to(pilot, PROMPTS[2], seed=str(screen.prompt_and_seed[1]))
        assert_column_is_reply(screen, reply)


# Conversations with speakers


async def test_a_seed_gives_the_same_answer_in_the_session_the_columns_and_generate(opened, tmp_path):
    run = write_dialogue_run(tmp_path / "scenes")
    session_model = SessionModel.from_loaded(load_model(run))
    async with opened(session_model=session_model, size=SIZE) as (pilot, _):
        await ui.send(pilot, "/to Frodo")
        best = await ui.reply_to(pilot, "the road", seed="7")
        answers = list(best.turn.replies)
        for shown in answers[:2]:  # the chosen one, whose seed is seldom the first, and another one
            for key, name in (("t", "LadderScreen"), ("c", "SideBySideScreen")):
                screen = await open_columns(pilot, key, name, session_model.default_settings.sampler.temperature)
                assert screen.prompt_and_seed == ("the road", shown.seed)
                assert_column_is_reply(screen, shown)
                await pilot.press("escape")
            await ui.press_letter(pilot, "]")
        await pilot.press("ctrl+r")  # the next seeds
        await ui.until(pilot, lambda: len(best.turn.replies) == 16)
        assert sorted(each.seed for each in best.turn.replies) == [*range(7, 23)]

    def generate(*arguments):
        return json_output(run_here(["generate", "the road", "--to", "Frodo", "--run", str(run), "--json", *arguments]))

    drawn = generate("--seed", "7")
    assert [(each["seed"], each["text"]) for each in drawn["candidates"]] == [
        (each.seed, each.reply_text().strip()) for each in answers
    ]
    assert generate("--seed", str(best.seed), "--best-of", "1")["text"] == drawn["text"] == best.reply_text().strip()


async def test_inspectors_of_a_conversation_read_its_lines_without_speakers(opened):
    session_model = dialogue_session_model()
    async with opened(session_model=session_model, size=SIZE) as (pilot, app):
        for prompt in ("Where is the ranger?", "we walked all night"):
            await ui.send(pilot, prompt)
            await ui.until_reply_ended(pilot)
            await ui.send(pilot, "/as Harry")  # who is not in the cast
        reply = ui.latest_reply(app)
        assert [line.speaker for line in reply.spoken_lines()][::2] == ["STRANGER", "HARRY"]
        screen = await assert_lens_equals_session(pilot, reply, "LensScreen")
        starts, _ = screen.page.tokens.word_spans
        text = screen.page.tokens.text
        assert text[starts[screen.query_one("#text").cursor] :] == reply.reply_text().lstrip()
        await pilot.press("w")
        await ui.until(pilot, lambda: screen.is_idle)
        assert "after 3 lines" in str(screen.query_one("#who").evidence.summary())
        await pilot.press("escape")
        screen = await open_with(pilot, "i", "ActivationsScreen")
        await ui.until(pilot, lambda: screen.is_idle and screen.reading)
        ids = np.array(reply.token_ids(), np.int32)
        [whole] = record_activations(find_lstm(session_model.model), ids)
        expected = whole.cell[utterance_mask(session_model.model.tokenizer, ids)]
        np.testing.assert_array_equal(screen.reading.layers[0].cell, expected)
        await pilot.press("escape")
        screen = await open_with(pilot, "m", "CopiedScreen")
        await ui.until(pilot, lambda: screen.page is not None)
        assert screen.page.tokens.ids.tolist() == text_ids(reply)
        assert painted(screen.query_one("#text")).startswith("Stranger: Where is the ")
        await pilot.press("escape")
        screen = await open_with(pilot, "c", "SideBySideScreen")
        await ui.until(pilot, lambda: screen.prompt_and_seed and all(slot.model for slot in screen.slots))
        await until_columns_ended(pilot, screen)
        column = Column("", session_model.model, speaker=reply.speaker)
        read = column.prepare("we walked all night", screen.prompt_context, SamplerSettings()).ids
        assert list(read) == reply.context_ids
        assert screen.slots[0].speaker == reply.speaker
        await pilot.press("escape")
        app.screen.set_session_model(replace(session_model, name="small"))
        screen = await open_with(pilot, "i", "ActivationsScreen")
        assert " · small · " in ui.text_of(screen.query_one("#status"))  # not of the model that wrote the reply
