"""Ladder and side by side with a model that knows speakers: the same line, answered by one or several of them."""

import pytest
from textual.widgets import Input

from engine.data.scripts import Turn, encode_turns
from engine.generation.generate import generate
from engine.generation.settings import SamplerSettings
from engine.generation.turns import begin_turn, next_speaker_probs, read_turns
from engine.models.dialogue import DialogueModel
from engine.models.ngram import KneserNey
from lotr_tui.screens.inspect import columns
from lotr_tui.screens.inspect.comparison import WIDE_TEMPERATURES, LadderScreen, ModelChoiceDialog, SideBySideScreen
from lotr_tui.session.cast import Roles
from lotr_tui.session.columns import PromptContext
from lotr_tui.session.conversation import Conversation
from tests.support.columns import column_lines, note_text, until_columns_ended
from tests.support.dialogues import ANSWERING, dialogue_session_model, say, text_of
from tests.support.pilot import text_of as widget_text
from tests.support.pilot import until
from tests.support.sampling import said_text_of

SETTINGS = SamplerSettings(max_tokens=12)
SEED = 3
PROMPT = "where is frodo"


@pytest.fixture
def conversation(home):
    conversation = Conversation(0)
    yield conversation
    conversation.close()


async def open_columns(pilot, screen_type, session_model, roles=Roles(), previous=None, prompt=PROMPT):  # noqa: B008
    context = PromptContext("conversation", previous, roles)
    screen = screen_type(session_model, prompt, SETTINGS, SEED, 0, context)
    await pilot.app.push_screen(screen)
    await until(pilot, lambda: all(slot.model is not None for slot in screen.slots) and screen.prompt_and_seed)
    await until(pilot, lambda: screen_type is LadderScreen or len(screen.slots) > 1)
    await until_columns_ended(pilot, screen)
    return screen


def texts(screen):
    return ["".join(token.piece for token in slot.token_events) for slot in screen.slots]


def answer(model, turns, speaker, temperature=0.8):
    settings = SamplerSettings(max_tokens=12, temperature=temperature)
    history = encode_turns(model.tokenizer, turns)
    return said_text_of(generate(begin_turn(model, read_turns(model, turns), speaker, settings, SEED, history)))


def likeliest(model, turns):
    return [each.name for each in next_speaker_probs(model, read_turns(model, turns), ANSWERING)]


async def test_three_likely_speakers_answer_the_same_line(make_host):
    session_model = dialogue_session_model()
    app = make_host(session_model=session_model)
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await open_columns(pilot, SideBySideScreen, session_model)
        turns = [Turn("STRANGER", PROMPT)]
        names = likeliest(session_model.model, turns)
        assert [slot.speaker for slot in screen.slots] == names
        assert texts(screen) == [answer(session_model.model, turns, name) for name in names]
        assert column_lines(screen)[0].split()[0] == names[0].capitalize()
        assert "% likely to answer" in column_lines(screen)[1]


async def test_the_chosen_speaker_comes_first_and_earlier_turns_count(make_host, conversation):
    session_model = dialogue_session_model()
    model = session_model.model
    previous = say(conversation, session_model, "bilbo is a friend", "GANDALF")
    app = make_host(session_model=session_model)
    async with app.run_test(size=(120, 40)) as pilot:
        screen = await open_columns(pilot, SideBySideScreen, session_model, Roles("FRODO", "GOLLUM"), previous)
        await until(pilot, lambda: len(screen.slots) == 2)
        await until_columns_ended(pilot, screen)
        earlier = [Turn("STRANGER", "bilbo is a friend"), Turn("GANDALF", text_of(previous))]
        assert [slot.speaker for slot in screen.slots] == ["GOLLUM", "GANDALF"]
        turns = [*earlier, Turn("FRODO", PROMPT)]
        assert texts(screen) == [answer(model, turns, slot.speaker) for slot in screen.slots]
        assert widget_text(screen.query_one("#prompt-mark")) == "Frodo ❯"

        screen = await open_columns(pilot, LadderScreen, session_model, previous=previous, prompt="")
        [speaker] = {slot.speaker for slot in screen.slots}  # an empty prompt is the next turn
        assert speaker == next(name for name in likeliest(model, earlier) if name != "GANDALF")
        assert texts(screen) == [answer(model, earlier, speaker, slot.temperature) for slot in screen.slots]


async def test_the_ladder_answers_as_the_chosen_the_typed_or_the_likeliest_speaker(make_host, monkeypatch):
    session_model = dialogue_session_model()
    model, turns = session_model.model, [Turn("STRANGER", PROMPT)]
    app = make_host(session_model=session_model)
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await open_columns(pilot, LadderScreen, session_model)
        name = likeliest(model, turns)[0]
        assert screen.query_one("#speaker", Input).value == name.capitalize()
        assert texts(screen)[0] == answer(model, turns, name, WIDE_TEMPERATURES[0])

        monkeypatch.delattr(columns, "read_next_token")  # a chosen speaker needs no ranking
        screen = await open_columns(pilot, LadderScreen, session_model, Roles("", "GOLLUM"))
        assert "Cannot rank" not in note_text(screen)
        assert texts(screen) == [answer(model, turns, "GOLLUM", value) for value in WIDE_TEMPERATURES]
        field = screen.query_one("#speaker", Input)
        assert field.value == "Gollum"
        field.value = " frodo "
        await pilot.press("enter")
        await until(pilot, lambda: screen.slots[0].speaker == "FRODO")
        await until_columns_ended(pilot, screen)
        assert texts(screen) == [answer(model, turns, "FRODO", value) for value in WIDE_TEMPERATURES]
        field.value = "..."
        await pilot.press("enter")
        await until(pilot, lambda: "is not a name" in note_text(screen))


async def test_speakers_and_other_models_are_added_changed_and_removed_by_name(make_host, loader):
    session_model = dialogue_session_model()
    tokenizer = session_model.model.tokenizer
    counts = KneserNey(tokenizer.encode("we walked all night").repeat(2), tokenizer, 3)
    loader.models["kneser-ney"] = DialogueModel(counts, session_model.cast)
    loader.released.set()
    app = make_host(session_model=session_model)
    async with app.run_test(size=(160, 40)) as pilot:
        screen = await open_columns(pilot, SideBySideScreen, session_model, Roles("", "FRODO"))
        await until(pilot, lambda: len(screen.slots) == 3)

        async def choose(key, typed):
            await pilot.press(key)
            await until(pilot, lambda: isinstance(app.screen, ModelChoiceDialog))
            await pilot.press(*typed, "enter")
            await until(pilot, lambda: app.screen is screen and not screen.is_loading)
            await until_columns_ended(pilot, screen)

        await choose("a", "stran")
        assert screen.slots[3].speaker == "STRANGER"
        assert texts(screen)[3] == answer(session_model.model, [Turn("STRANGER", PROMPT)], "STRANGER")
        assert screen.selected_index == 3
        await choose("c", "some")
        assert screen.slots[3].speaker == "SOMEONE"
        await pilot.press("x")
        assert len(screen.slots) == 3

        await choose("a", "kneser")
        counted = screen.slots[3]
        assert counted.description == "Frodo answers · valid 61.0"
        assert "\n" not in texts(screen)[3] != ""
        counted.description = "Frodo answers · SmolLM2 + adapter · 1.41 bits/character, pre-trained on other text"
        screen.show_slots(3)
        described = [line.rstrip().rsplit("  ", 1)[-1] for line in column_lines(screen)[1:5]]
        assert described == ["Frodo answers", "SmolLM2 + adapter", "1.41 bits/character", "pre-trained on other text"]
