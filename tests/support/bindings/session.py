"""Keys of the session: the prompt, the conversation, the sampler."""

from collections.abc import Awaitable, Callable
from typing import Any

from textual.pilot import Pilot
from textual.widgets import Label

from lotr_tui.screens.session.conversation_view import ConversationView
from lotr_tui.screens.session.search_bar import SearchBar
from lotr_tui.screens.session.transcript import Transcript
from lotr_tui.widgets.pane_tabs import PaneTabs
from lotr_tui.widgets.prompt import Prompt
from lotr_tui.widgets.sampler_panel import PresetPicker, SamplerPanel
from lotr_tui.widgets.temperature_slider import TemperatureSlider
from tests.lotr_tui.screens.session.test_session_screen import send, until
from tests.support import scenes
from tests.support.bindings.rows import (
    Row,
    Stage,
    becomes,
    branches,
    column,
    focused,
    less,
    more,
    moves,
    of,
    other,
    own,
    place,
    reply,
    screen_name,
    scrolled,
    view,
)

value, selected = of(Prompt, "value"), of(Prompt, "selected_text")


async def typed(pilot: Pilot[None]) -> None:
    """A prompt half typed, and something to paste."""
    await until(pilot, lambda: pilot.app.screen.query("#training"))
    pilot.app.screen.query_one(Prompt).value = "the lamp"
    pilot.app.copy_to_clipboard("pony")


async def writing(pilot: Pilot[None]) -> None:
    """Words come slowly."""
    await typed(pilot)
    await send(pilot, "the lamp")
    await until(pilot, lambda: view(pilot.app).conversation.writing)  # type: ignore[arg-type]


def focus(kind: type[Any]) -> Callable[[Pilot[None]], Awaitable[None]]:
    async def set_up(pilot: Pilot[None]) -> None:
        await scenes.session(pilot)
        pilot.app.screen.query_one(kind).focus()

    return set_up


async def walking(pilot: Pilot[None]) -> None:
    await scenes.session(pilot)
    await pilot.press("ctrl+g")


SESSION: dict[str, Stage] = {
    "prompt": Stage(
        typed,
        [
            Row("prompt.left", column, moves(-1)),
            Row("prompt.right", column, moves(1)),
            Row("prompt.word_left", column, becomes(4)),
            Row("prompt.word_right", column, becomes(8)),
            Row("prompt.home", column, becomes(0)),
            Row("prompt.end", column, becomes(8)),
            Row("prompt.select_left", selected, becomes("p")),
            Row("prompt.select_right", selected, becomes("")),
            Row("prompt.select_home", selected, becomes("the lamp")),
            Row("prompt.select_end", selected, becomes("the lamp"), ("home",)),
            Row("prompt.backspace", value, becomes("the lam"), ("end",)),
            Row("prompt.delete", value, becomes("he lam"), ("home",)),
            Row("prompt.undo", value, becomes("the lam")),
            Row("prompt.redo", value, becomes("he lam")),
            Row("prompt.delete_word", value, becomes("he "), ("end",)),
            Row("prompt.delete_to_start", value, becomes("")),
            Row("prompt.delete_to_end", value, becomes("t"), ("t", "h", "left")),
            Row("prompt.new_line", value, becomes("t\n")),
            Row("prompt.paste", value, becomes("t\npony")),
            Row("prompt.send", lambda app: len(view(app).conversation.replies), moves(1)),
            Row("prompt.older", value, becomes("t\npony")),
            Row("prompt.newer", value, becomes("")),
            Row("app.quit", lambda app: app._exit, becomes(True)),
        ],
    ),
    "session": Stage(
        scenes.session,
        [
            Row("play.cooler", of(TemperatureSlider, "value"), becomes(0.75)),
            Row("play.hotter", of(TemperatureSlider, "value"), becomes(0.8)),
            Row("play.preset", of(SamplerPanel, "preset"), other),
            Row("play.controls", lambda app: app.screen.query_one(SamplerPanel).has_class("-all"), becomes(True)),
            Row("play.pane", of(PaneTabs, "pane"), becomes("next")),
            Row("play.up", scrolled(Transcript), less, ("f2", "f2")),
            Row("play.down", scrolled(Transcript), more),
            Row("play.walk", focused, becomes("Transcript")),
            Row("play.stop", focused, becomes("Prompt")),
            Row("play.way", own("_way"), becomes("reply")),
            Row("play.pace", own("_pace"), becomes(5.0)),
            Row("play.edit", value, becomes("Where is the wizard"), ("f5",) * 4),
            Row("play.again", branches, becomes(2)),
            Row("play.more", lambda app: len(reply(app).words), more),
            Row("play.hold-seed", lambda app: app.screen.query_one(SamplerPanel).seed() is None, becomes(False)),
            Row("play.copy", lambda app: app.clipboard, other),
            Row("play.find", of(SearchBar, "is_open"), becomes(True)),
            Row("play.train", screen_name, becomes("NewTraining")),
            Row("play.model", screen_name, becomes("RunsScreen")),
            Row("play.sessions", screen_name, becomes("SessionsScreen")),
            Row("play.ladder", screen_name, becomes("LadderScreen")),
            Row("play.compare", screen_name, becomes("SideBySideScreen")),
            Row("play.lens", screen_name, becomes("LensScreen")),
            Row("play.memorised", screen_name, becomes("MemorisedScreen")),
            Row("play.inside", screen_name, becomes("InsideScreen")),
            Row("app.help", screen_name, becomes("HelpScreen")),
            Row("app.palette", screen_name, becomes("Palette")),
            Row("new-training.cancel", screen_name, becomes("PlayScreen"), ("ctrl+t",)),
            Row("runs.back", screen_name, becomes("PlayScreen"), ("ctrl+o",)),
            Row("sessions.back", screen_name, becomes("PlayScreen"), ("ctrl+s",)),
            Row("help.close", screen_name, becomes("PlayScreen"), ("f1",)),
            Row("lens.close", screen_name, becomes("PlayScreen"), ("ctrl+e",)),
            Row("memorised.close", screen_name, becomes("PlayScreen"), ("f9",)),
            Row("inside.close", screen_name, becomes("PlayScreen"), ("f10",)),
            Row("choose-column.cancel", screen_name, becomes("SideBySideScreen"), ("ctrl+y", "f3")),
        ],
    ),
    "words come": Stage(
        writing, [Row("play.interrupt", lambda app: view(app).conversation.writing, becomes(None))], pace=5
    ),
    "walk": Stage(
        walking,
        [
            Row("transcript.left", place, less),
            Row("transcript.right", place, more),
            Row("transcript.home", lambda app: place(app)[1], becomes(0)),
            Row("transcript.end", lambda app: place(app)[1], becomes(13)),
            Row("transcript.up", lambda app: place(app)[0], moves(-1)),
            Row("transcript.down", lambda app: place(app)[0], moves(1)),
            Row("conversation.mark", of(ConversationView, "marked"), becomes(2)),
            Row("conversation.mark_back", of(ConversationView, "marked"), becomes(1)),
            *(Row(f"conversation.take_{number}", branches, moves(1)) for number in range(1, 9)),
            Row("conversation.take", branches, moves(1)),
            Row("conversation.before", lambda app: reply(app).id, less),
            Row("conversation.after", lambda app: reply(app).id, more),
            Row("conversation.parent", lambda app: reply(app).id, less),
            Row("conversation.compare", lambda app: bool(reply(app).exchange.others), becomes(True)),
            Row("conversation.copy", lambda app: app.clipboard, other),
            Row("conversation.name", screen_name, becomes("AskName")),
            Row("name.cancel", screen_name, becomes("PlayScreen"), ("n",)),
        ],
    ),
    "search": Stage(
        scenes.search,
        [
            Row("search.up", lambda app: str(app.screen.query_one("#matches", Label).render()), becomes("8 of 9")),
            Row("search.down", lambda app: str(app.screen.query_one("#matches", Label).render()), becomes("9 of 9")),
        ],
    ),
    "slider": Stage(
        focus(TemperatureSlider),
        [
            Row("temperature.down", of(TemperatureSlider, "value"), becomes(0.75)),
            Row("temperature.up", of(TemperatureSlider, "value"), becomes(0.8)),
            Row("temperature.greedy", of(TemperatureSlider, "value"), becomes(0.0)),
            Row("temperature.highest", of(TemperatureSlider, "value"), becomes(2.0)),
        ],
    ),
    "presets": Stage(
        focus(PresetPicker),
        [
            Row("preset.next", of(SamplerPanel, "preset"), other),
            Row("preset.before", of(SamplerPanel, "preset"), becomes("notebook 0.8")),
        ],
    ),
}
