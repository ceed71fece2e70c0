"""Ladder and side by side with a model that knows speakers: the same line, answered by one or several of them."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot
from textual.widgets import Input, OptionList

from engine.config import BUNDLED
from engine.generation.generate import TokenEvent
from engine.generation.settings import SamplerSettings
from engine.generation.turns import Turn, encode_turns, generate_turn, next_speaker_probs, read_turns
from engine.models.base import LanguageModel
from engine.models.dialogue import DialogueModel
from engine.models.ngram import KneserNey
from lotr_tui.screens.comparison import side_by_side, speakers
from lotr_tui.screens.comparison.ladder import WIDE_TEMPERATURES, LadderScreen
from lotr_tui.screens.comparison.model_dialog import ModelChoiceDialog
from lotr_tui.screens.comparison.screen import GenerationColumnsScreen
from lotr_tui.screens.comparison.side_by_side import MAX_SPEAKER_COLUMNS, SideBySideScreen
from lotr_tui.session.baselines import ModelChoice
from lotr_tui.session.column_output import PromptContext
from lotr_tui.session.conversation.cast import Roles
from lotr_tui.session.conversation.conversation import Conversation
from lotr_tui.session.session_model import SessionModel
from tests.support.analysis import MakeHost
from tests.support.columns import SIZES, column_lines, note_text, until_columns_ended
from tests.support.dialogues import ANSWERING, dialogue_model, dialogue_session_model, say, text_of
from tests.support.pilot import text_of as widget_text
from tests.support.pilot import until

SETTINGS = SamplerSettings(max_tokens=12)
SEED = 3
PROMPT = "where is frodo"
OPEN = pytest.mark.parametrize("is_open", [False, True], ids=["words", "bpe"])


@pytest.fixture
def conversation(home: Path) -> Iterator[Conversation]:
    """An empty conversation at full speed."""
    conversation = Conversation(0)
    yield conversation
    conversation.close()


def in_conversation(roles: Roles = Roles(), previous: Any = None) -> PromptContext:  # noqa: B008 - immutable
    return PromptContext("conversation", previous, roles)


async def open_columns(
    pilot: Pilot[None],
    screen_type: type[LadderScreen] | type[SideBySideScreen],
    context: PromptContext,
    session_model: SessionModel,
    prompt: str = PROMPT,
) -> Any:
    """Open a comparison, and wait for its texts."""
    arguments: list[Any] = [prompt, SETTINGS, SEED, 0, context]
    if screen_type is SideBySideScreen:
        arguments.insert(0, None)
    screen = screen_type(session_model, *arguments)
    await pilot.app.push_screen(screen)
    await until(pilot, lambda: all(slot.model is not None for slot in screen.slots) and screen.prompt_and_seed)
    await until(pilot, lambda: screen_type is LadderScreen or len(screen.slots) > 1)
    await until_columns_ended(pilot, screen)
    return screen


def texts(screen: GenerationColumnsScreen) -> list[str]:
    return ["".join(token.piece for token in slot.output.token_events) for slot in screen.slots]


def answer(model: DialogueModel, turns: Sequence[Turn], speaker: str, temperature: float = 0.8) -> str:
    """Return the line that the engine generates."""
    settings = SamplerSettings(max_tokens=12, temperature=temperature)
    history = encode_turns(model.tokenizer, turns)
    events = generate_turn(model, read_turns(model, turns), speaker, settings, SEED, history=history)
    return "".join(event[0].piece for event in events if isinstance(event, tuple))


def likeliest(model: DialogueModel, turns: Sequence[Turn]) -> list[str]:
    return [each.name for each in next_speaker_probs(model, read_turns(model, turns), ANSWERING)]


@SIZES
@OPEN
async def test_three_likely_speakers_answer_the_same_line(
    make_host: MakeHost, size: tuple[int, int], is_open: bool
) -> None:
    session_model = dialogue_session_model(is_open=is_open)
    model: Any = session_model.model
    app = make_host(session_model=session_model)
    async with app.run_test(size=size) as pilot:
        screen = await open_columns(pilot, SideBySideScreen, in_conversation(), session_model)
        turns = [Turn("STRANGER", PROMPT)]
        names = likeliest(model, turns)
        assert [slot.speaker for slot in screen.slots] == names
        assert texts(screen) == [answer(model, turns, name) for name in names]
        assert column_lines(screen)[0].split()[0] == names[0].capitalize()
        assert "% likely to answer" in column_lines(screen)[1]
        assert screen.slots[0].output.done_event is not None


async def test_the_chosen_speaker_comes_first_and_earlier_turns_count(
    make_host: MakeHost, conversation: Conversation
) -> None:
    session_model = dialogue_session_model()
    model: Any = session_model.model
    previous = say(conversation, session_model, "bilbo is a friend", "GANDALF")
    context = in_conversation(Roles("FRODO", "GOLLUM"), previous)
    app = make_host(session_model=session_model)
    async with app.run_test(size=(120, 40)) as pilot:
        screen = await open_columns(pilot, SideBySideScreen, context, session_model)
        await until(pilot, lambda: len(screen.slots) == 2)
        await until_columns_ended(pilot, screen)
        turns = [Turn("STRANGER", "bilbo is a friend"), Turn("GANDALF", text_of(previous)), Turn("FRODO", PROMPT)]
        assert screen.slots[0].speaker == "GOLLUM"
        assert texts(screen) == [answer(model, turns, slot.speaker) for slot in screen.slots]
        assert {slot.speaker for slot in screen.slots} == {"GANDALF", "GOLLUM"}
        assert widget_text(screen.query_one("#prompt-mark")) == "Frodo ❯"


async def test_an_empty_prompt_is_the_next_turn(make_host: MakeHost, conversation: Conversation) -> None:
    session_model = dialogue_session_model()
    model: Any = session_model.model
    previous = say(conversation, session_model, "bilbo is a friend", "GANDALF")
    app = make_host(session_model=session_model)
    async with app.run_test(size=(120, 40)) as pilot:
        screen = await open_columns(pilot, LadderScreen, in_conversation(Roles(), previous), session_model, "")
        turns = [Turn("STRANGER", "bilbo is a friend"), Turn("GANDALF", text_of(previous))]
        [speaker] = {slot.speaker for slot in screen.slots}
        assert speaker == next(name for name in likeliest(model, turns) if name != "GANDALF")
        assert texts(screen) == [answer(model, turns, speaker, slot.temperature) for slot in screen.slots]


@SIZES
@OPEN
async def test_the_ladder_answers_as_the_chosen_speaker(
    make_host: MakeHost, size: tuple[int, int], is_open: bool
) -> None:
    session_model = dialogue_session_model(is_open=is_open)
    model: Any = session_model.model
    app = make_host(session_model=session_model)
    async with app.run_test(size=size) as pilot:
        screen = await open_columns(pilot, LadderScreen, in_conversation(Roles("", "GOLLUM")), session_model)
        turns = [Turn("STRANGER", PROMPT)]
        assert texts(screen) == [answer(model, turns, "GOLLUM", value) for value in WIDE_TEMPERATURES]
        assert screen.query_one("#speaker", Input).value == "Gollum"
        screen.query_one("#speaker", Input).value = " frodo "
        await pilot.press("enter")
        await until(pilot, lambda: screen.slots[0].speaker == "FRODO")
        await until_columns_ended(pilot, screen)
        assert texts(screen) == [answer(model, turns, "FRODO", value) for value in WIDE_TEMPERATURES]
        await pilot.press("f3")
        await until_columns_ended(pilot, screen)
        assert {slot.speaker for slot in screen.slots} == {"FRODO"}
        screen.query_one("#speaker", Input).value = "golum"
        await pilot.press("enter")
        await until(pilot, lambda: "did you mean GOLLUM" in note_text(screen))


async def test_a_ladder_without_a_choice_takes_the_likeliest_speaker(make_host: MakeHost) -> None:
    session_model = dialogue_session_model()
    model: Any = session_model.model
    app = make_host(session_model=session_model)
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await open_columns(pilot, LadderScreen, in_conversation(), session_model)
        name = likeliest(model, [Turn("STRANGER", PROMPT)])[0]
        assert screen.query_one("#speaker", Input).value == name.capitalize()
        assert texts(screen)[0] == answer(model, [Turn("STRANGER", PROMPT)], name, WIDE_TEMPERATURES[0])


async def test_columns_are_added_changed_and_removed_by_name(make_host: MakeHost) -> None:
    session_model = dialogue_session_model()
    model: Any = session_model.model
    app = make_host(session_model=session_model)
    async with app.run_test(size=(120, 40)) as pilot:
        screen = await open_columns(pilot, SideBySideScreen, in_conversation(Roles("", "FRODO")), session_model)
        await until(pilot, lambda: len(screen.slots) == 3)
        await pilot.press("f3")
        await until(pilot, lambda: isinstance(app.screen, ModelChoiceDialog))
        await pilot.press(*"stran", "enter")
        await until(pilot, lambda: app.screen is screen)
        await until_columns_ended(pilot, screen)
        assert [slot.speaker for slot in screen.slots][3:] == ["STRANGER"]
        assert texts(screen)[3] == answer(model, [Turn("STRANGER", PROMPT)], "STRANGER")
        assert screen.selected_index == 3
        await pilot.press("f2")
        await until(pilot, lambda: isinstance(app.screen, ModelChoiceDialog))
        await pilot.press(*"some", "enter")
        await until(pilot, lambda: app.screen is screen)
        await until_columns_ended(pilot, screen)
        assert [slot.speaker for slot in screen.slots][3:] == ["SOMEONE"]
        await pilot.press("f4")
        assert len(screen.slots) == 3
        screen.slots += [screen._speaker_slot("GANDALF") for _ in range(MAX_SPEAKER_COLUMNS - 3)]
        await pilot.press("f3")
        assert note_text(screen) == f"there are {MAX_SPEAKER_COLUMNS} columns, the maximum; f4 removes one"


async def test_the_dialog_lists_the_cast_before_the_models_and_filters(make_host: MakeHost) -> None:
    session_model = dialogue_session_model()
    app = make_host(session_model=session_model)
    async with app.run_test(size=(80, 24)) as pilot:
        await open_columns(pilot, SideBySideScreen, in_conversation(), session_model)
        await pilot.press("f3")
        await until(pilot, lambda: isinstance(app.screen, ModelChoiceDialog))
        rows = app.screen.query_one(OptionList)
        names = [str(rows.get_option_at_index(index).prompt).split()[0] for index in range(6)]
        assert {*names[:3]} == {name.capitalize() for name in ANSWERING}
        assert names[3:] == ["Stranger", "Someone", "Kneser-Ney,"]
        await pilot.press(*"zz")
        await pilot.pause()
        assert rows.option_count == 0
        await pilot.press("enter", "down")
        assert isinstance(app.screen, ModelChoiceDialog)
        await pilot.press("backspace", "backspace", "down")
        await pilot.pause()
        assert rows.highlighted == 1


async def test_other_models_answer_as_the_first_speaker(make_host: MakeHost, monkeypatch: pytest.MonkeyPatch) -> None:
    session_model, other = dialogue_session_model(), dialogue_model(seed=5)
    tokenizer = other.tokenizer
    counts = KneserNey(tokenizer.encode("we walked all night").repeat(2), tokenizer, 3)
    loaded: dict[str, LanguageModel] = {"run": other, "kneser-ney": counts}
    monkeypatch.setattr(
        side_by_side, "load_model_choice", lambda choice, folder: SessionModel(choice.kind, "d", loaded[choice.kind])
    )
    app = make_host(session_model=session_model)
    async with app.run_test(size=(160, 40)) as pilot:
        screen = await open_columns(pilot, SideBySideScreen, in_conversation(Roles("", "GOLLUM")), session_model)
        await until(pilot, lambda: len(screen.slots) == 3)
        for kind in ("run", "kneser-ney"):
            screen._add_column(ModelChoice(kind, BUNDLED))
            await until(pilot, lambda: all(slot.model is not None for slot in screen.slots))
            await until_columns_ended(pilot, screen)
        assert texts(screen)[3] == answer(other, [Turn("STRANGER", PROMPT)], "GOLLUM")
        assert screen.slots[3].output.description == "as Gollum · d"
        counted = screen.slots[4]
        assert isinstance(counted.model, DialogueModel)  # which never says a name inside a line
        ids = [event.id for event in counted.output.events if isinstance(event, TokenEvent)]
        assert max(ids, default=0) < tokenizer.num_text_tokens
        assert len(ids) > 0


async def test_a_failing_model_is_reported(make_host: MakeHost, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> None:
        raise ValueError("no numbers")

    monkeypatch.setattr(speakers, "rank_speakers", fail)
    session_model = dialogue_session_model()
    app = make_host(session_model=session_model)
    async with app.run_test(size=(80, 24)) as pilot:
        screen = LadderScreen(session_model, PROMPT, SETTINGS, SEED, 0, in_conversation())
        await app.push_screen(screen)
        await until(pilot, lambda: "Cannot rank the speakers" in note_text(screen))
