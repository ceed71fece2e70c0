"""Rows for the keys of the session: prompt, conversation and sampling controls."""

from collections.abc import Awaitable, Callable
from typing import Any

from textual.pilot import Pilot
from textual.widgets import Input

from lotr_tui.app import LotrApp
from lotr_tui.screens.dialogs.cast import CastDialog
from lotr_tui.screens.dialogs.system_prompt import SystemPromptDialog
from lotr_tui.screens.session.conversation.search_bar import SearchBar
from lotr_tui.screens.session.conversation.transcript import Transcript
from lotr_tui.screens.session.conversation.view import ConversationView
from lotr_tui.session.session_model import SessionModel
from lotr_tui.session.settings import EXAMPLE_SYSTEM_PROMPT
from lotr_tui.widgets.pane_tabs import PaneTabs
from lotr_tui.widgets.preset_picker import PresetPicker
from lotr_tui.widgets.prompt.prompt_input import PromptInput
from lotr_tui.widgets.sampler_panel import SamplerPanel
from lotr_tui.widgets.temperature_slider import TemperatureSlider
from tests.support import dialogue_scenes, scenes
from tests.support.bindings.expectations import becomes, changes, decreases, increases, moves
from tests.support.bindings.observations import (
    branch_count,
    cursor,
    focused,
    of,
    of_screen,
    prompt_column,
    reply,
    screen_name,
    scroll_y,
    view,
)
from tests.support.bindings.rows import Row, Stage, cursor_rows
from tests.support.open_models import bpe_tokenizer, open_model
from tests.support.pilot import send, text_of, until


def chosen(app: LotrApp) -> str:
    """Return the speaker who is chosen in the dialog of the cast."""
    active: str = app.screen.active_list.chosen  # type: ignore[attr-defined]
    return active


value, selected = of(PromptInput, "value"), of(PromptInput, "selected_text")


def current_match(app: LotrApp) -> int:
    """Return the number of the current match of the search."""
    return int(text_of(app.screen.query_one("#matches")).split()[0])


async def type_prompt(pilot: Pilot[None]) -> None:
    """Type an incomplete prompt, and copy a word."""
    await until(pilot, lambda: pilot.app.screen.query("#training"))
    pilot.app.screen.query_one(PromptInput).value = "the lamp"
    pilot.app.copy_to_clipboard("pony")


async def long_session(pilot: Pilot[None]) -> None:
    """Open a session of more lines than fit on the screen."""
    await scenes.session(pilot)
    for number in range(10):
        view(pilot.app).add_note(f"note {number}")  # type: ignore[arg-type]


async def start_slow_reply(pilot: Pilot[None]) -> None:
    """Start a slow reply."""
    await type_prompt(pilot)
    await send(pilot, "the lamp")
    await until(pilot, lambda: view(pilot.app).conversation.active_reply)  # type: ignore[arg-type]


async def use_open_model(pilot: Pilot[None]) -> None:
    """Use a model whose tokens are parts of words."""
    await scenes.session(pilot)
    pilot.app.screen.set_session_model(SessionModel("open", "", open_model(bpe_tokenizer())))  # type: ignore[attr-defined]


async def open_system_prompt(pilot: Pilot[None]) -> None:
    """Open the dialog of the system prompt."""
    await pilot.app.push_screen(SystemPromptDialog("", "You help."))


async def open_cast_dialog(pilot: Pilot[None]) -> None:
    """Open the dialog of the cast of a small model."""
    await dialogue_scenes.use_speakers(pilot)
    await pilot.press("ctrl+d")
    await until(pilot, lambda: isinstance(pilot.app.screen, CastDialog))


def focus_on(widget_type: type[Any]) -> Callable[[Pilot[None]], Awaitable[None]]:
    async def set_up(pilot: Pilot[None]) -> None:
        await scenes.session(pilot)
        pilot.app.screen.query_one(widget_type).focus()

    return set_up


async def enter_cursor_mode(pilot: Pilot[None]) -> None:
    await scenes.session(pilot)
    await pilot.press("ctrl+g")


SESSION: dict[str, Stage] = {
    "prompt": Stage(
        type_prompt,
        [
            *cursor_rows("prompt", prompt_column, {"left": moves(-1), "right": moves(1), "word-left": becomes(4)}),
            *cursor_rows("prompt", prompt_column, {"word-right": becomes(8), "home": becomes(0), "end": becomes(8)}),
            Row("prompt.select-left", selected, becomes("p")),
            Row("prompt.select-right", selected, becomes("")),
            Row("prompt.select-home", selected, becomes("the lamp")),
            Row("prompt.select-end", selected, becomes("the lamp"), ("home",)),
            Row("prompt.backspace", value, becomes("the lam"), ("end",)),
            Row("prompt.delete", value, becomes("he lam"), ("home",)),
            Row("prompt.undo", value, becomes("the lam")),
            Row("prompt.redo", value, becomes("he lam")),
            Row("prompt.delete-word", value, becomes("he "), ("end",)),
            Row("prompt.delete-to-start", value, becomes("")),
            Row("prompt.delete-to-end", value, becomes("t"), ("t", "h", "left")),
            Row("prompt.new-line", value, becomes("t\n")),
            Row("prompt.paste", value, becomes("t\npony")),
            Row("prompt.send", lambda app: len(view(app).conversation.replies_by_exchange), moves(1)),
            Row("prompt.older", value, becomes("t\npony")),
            Row("prompt.newer", value, becomes("")),
            Row("prompt.complete", value, becomes("winter"), ("w", "i", "n")),
            Row("app.quit", lambda app: app._exit, becomes(True)),
        ],
    ),
    "session": Stage(
        long_session,
        [
            Row("session.lower-temperature", of(TemperatureSlider, "value"), becomes(0.75)),
            Row("session.raise-temperature", of(TemperatureSlider, "value"), becomes(0.8)),
            Row("session.preset", of(SamplerPanel, "preset"), changes),
            Row("session.controls", lambda app: app.screen.query_one(SamplerPanel).has_class("-all"), becomes(True)),
            Row("session.pane", of(PaneTabs, "pane"), becomes("next")),
            Row("session.page-up", scroll_y(Transcript), decreases, ("f2", "f2")),
            Row("session.page-down", scroll_y(Transcript), increases),
            Row("session.inspect-words", focused, becomes("Transcript")),
            Row("session.stop", focused, becomes("PromptInput")),
            Row("session.reply-mode", of_screen("reply_mode"), becomes("reply")),
            Row("session.pace", lambda app: view(app).conversation.pace, becomes(5.0)),
            Row("session.edit", value, becomes("Where is the wizard"), ("f5",) * 4),
            Row("session.regenerate", branch_count, becomes(2)),
            Row("session.continue", lambda app: len(reply(app).tokens), increases),
            Row("session.hold-seed", lambda app: app.screen.query_one(SamplerPanel).seed() is None, becomes(False)),
            Row("session.copy", lambda app: app.clipboard, changes),
            Row("session.find", of(SearchBar, "is_open"), becomes(True)),
            Row("session.train", screen_name, becomes("NewTrainingDialog")),
            Row("session.runs", screen_name, becomes("RunsScreen")),
            Row("session.learn", screen_name, becomes("ChapterScreen")),
            Row("session.sessions", screen_name, becomes("SessionsScreen")),
            Row("session.ladder", screen_name, becomes("LadderScreen")),
            Row("session.compare", screen_name, becomes("SideBySideScreen")),
            Row("session.lens", screen_name, becomes("LensScreen")),
            Row("session.memorization", screen_name, becomes("MemorizationScreen")),
            Row("session.activations", screen_name, becomes("ActivationsScreen")),
            Row("app.help", screen_name, becomes("HelpScreen")),
            Row("app.palette", screen_name, becomes("AppCommandPalette")),
            Row("new-training.cancel", screen_name, becomes("SessionScreen"), ("ctrl+t",)),
            Row("runs.back", screen_name, becomes("SessionScreen"), ("ctrl+o",)),
            Row("sessions.back", screen_name, becomes("SessionScreen"), ("ctrl+s",)),
            Row("help.close", screen_name, becomes("SessionScreen"), ("f1",)),
            Row("lens.close", screen_name, becomes("SessionScreen"), ("ctrl+e",)),
            Row("memorization.close", screen_name, becomes("SessionScreen"), ("f9",)),
            Row("activations.close", screen_name, becomes("SessionScreen"), ("f10",)),
            Row("model-choice.cancel", screen_name, becomes("SideBySideScreen"), ("ctrl+y", "f3")),
        ],
    ),
    "open vocabulary": Stage(
        use_open_model,
        [Row("session.tokens", lambda app: app.settings_store.current.preview_unit, becomes("token"))],
    ),
    "conversation": Stage(
        dialogue_scenes.conversation,
        [
            Row("session.cast", screen_name, becomes("CastDialog")),
            Row("cast.cancel", screen_name, becomes("SessionScreen"), ("ctrl+d",)),
            Row("cast.again", branch_count, increases, ("ctrl+d",)),
        ],
    ),
    "cast": Stage(
        open_cast_dialog,
        [
            Row("cast.down", chosen, becomes("GANDALF")),
            Row("cast.up", chosen, becomes("")),
            Row("cast.page-down", chosen, becomes("SOMEONE")),
            Row("cast.page-up", chosen, becomes("")),
            Row("cast.column", lambda app: app.screen.active_list.id, becomes("speaking-as")),
        ],
    ),
    "system prompt": Stage(
        open_system_prompt,
        [
            Row("system-prompt.example", lambda app: app.screen.query_one(Input).value, becomes(EXAMPLE_SYSTEM_PROMPT)),
            Row("system-prompt.cancel", screen_name, becomes("SessionScreen")),
        ],
    ),
    "slow reply": Stage(
        start_slow_reply,
        [Row("session.interrupt", lambda app: view(app).conversation.active_reply, becomes(None))],
        pace=5,
    ),
    "cursor mode": Stage(
        enter_cursor_mode,
        [
            Row("transcript.left", cursor, decreases),
            Row("transcript.right", cursor, increases),
            Row("transcript.home", lambda app: cursor(app)[1], becomes(0)),
            Row("transcript.end", lambda app: cursor(app)[1], becomes(13)),
            Row("transcript.up", lambda app: cursor(app)[0], moves(-1)),
            Row("transcript.down", lambda app: cursor(app)[0], moves(1)),
            Row("conversation.next-alternative", of(ConversationView, "highlighted"), becomes(2)),
            Row("conversation.previous-alternative", of(ConversationView, "highlighted"), becomes(1)),
            *(Row(f"conversation.branch-{number}", branch_count, moves(1)) for number in range(1, 9)),
            Row("conversation.branch", branch_count, moves(1)),
            Row("conversation.previous-branch", lambda app: reply(app).id, decreases),
            Row("conversation.next-branch", lambda app: reply(app).id, increases),
            Row("conversation.parent-branch", lambda app: reply(app).id, decreases),
            Row("conversation.compare", lambda app: bool(reply(app).exchange.other_branches), becomes(True)),
            Row("conversation.copy", lambda app: app.clipboard, changes),
            Row("conversation.name", screen_name, becomes("NameDialog")),
            Row("name.cancel", screen_name, becomes("SessionScreen"), ("n",)),
        ],
    ),
    "search": Stage(
        scenes.search, [Row("search.up", current_match, moves(-1)), Row("search.down", current_match, moves(1))]
    ),
    "slider": Stage(
        focus_on(TemperatureSlider),
        [
            Row("temperature.down", of(TemperatureSlider, "value"), becomes(0.75)),
            Row("temperature.up", of(TemperatureSlider, "value"), becomes(0.8)),
            Row("temperature.greedy", of(TemperatureSlider, "value"), becomes(0.0)),
            Row("temperature.highest", of(TemperatureSlider, "value"), becomes(2.0)),
        ],
    ),
    "presets": Stage(
        focus_on(PresetPicker),
        [
            Row("preset.next", of(SamplerPanel, "preset"), changes),
            Row("preset.previous", of(SamplerPanel, "preset"), becomes("notebook 0.8")),
        ],
    ),
}
