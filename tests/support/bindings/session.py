"""Keys of the session: prompt, conversation and sampling controls."""

from lotr_tui.screens.dialogs.questions import SystemPromptDialog
from lotr_tui.session.session_model import SessionModel
from lotr_tui.session.settings import EXAMPLE_SYSTEM_PROMPT
from tests.support import dialogue_scenes, scenes
from tests.support.bindings import (
    Row,
    Stage,
    becomes,
    changes,
    closes,
    decreases,
    focused,
    has_quit,
    increases,
    input_value,
    keys,
    moves,
    of,
    opens,
    scroll_y,
)
from tests.support.open_models import bpe_tokenizer, open_model
from tests.support.pilot import screen_name, send, text_of, until

value, selected = of("PromptInput", "value"), of("PromptInput", "selected_text")
temperature = of("TemperatureSlider", "value")


def view(app):
    return app.screen_stack[0].query_one("ConversationView")


def reply(app):
    return view(app).target_reply


def branch_count(app):
    return len(reply(app).turn.replies)


def cursor(app):
    """Return the entry and the token under the cursor of the transcript."""
    return app.screen.query_one("Transcript").cursor or (-1, -1)


def current_match(app):
    return int(text_of(app.screen.query_one("#matches")).split()[0])


async def type_prompt(pilot):
    await until(pilot, lambda: pilot.app.screen.query("#training"))
    pilot.app.screen.query_one("PromptInput").value = "the lamp"
    pilot.app.copy_to_clipboard("pony")


async def long_session(pilot):
    await scenes.session(pilot)
    for number in range(10):
        view(pilot.app).add_note(f"note {number}")


async def start_slow_reply(pilot):
    await type_prompt(pilot)
    view(pilot.app).conversation.pace = 5
    await send(pilot, "the lamp")
    await until(pilot, lambda: view(pilot.app).conversation.active_reply)


async def use_open_model(pilot):
    await scenes.session(pilot)
    pilot.app.screen.set_session_model(SessionModel("open", "", open_model(bpe_tokenizer())))


async def open_system_prompt(pilot):
    await pilot.app.push_screen(SystemPromptDialog("", "You help."))


def focus_on(widget_type):
    async def set_up(pilot):
        await scenes.session(pilot)
        pilot.app.screen.query_one(widget_type).focus()

    return set_up


async def enter_cursor_mode(pilot):
    await scenes.session(pilot)
    await pilot.press("ctrl+g")


column = lambda app: app.screen.query_one("PromptInput").cursor_location[1]  # noqa: E731

PROMPT = Stage(
    type_prompt,
    [
        *keys("prompt", column, left=moves(-1), right=moves(1), word_left=becomes(4), word_right=becomes(8)),
        *keys("prompt", column, home=becomes(0), end=becomes(8)),
        *keys("prompt", selected, select_left=becomes("p"), select_right=becomes(""), select_home=becomes("the lamp")),
        Row("prompt.select-end", selected, becomes("the lamp"), ("home",)),
        Row("prompt.backspace", value, becomes("the lam"), ("end",)),
        Row("prompt.delete", value, becomes("he lam"), ("home",)),
        *keys("prompt", value, undo=becomes("the lam"), redo=becomes("he lam")),
        Row("prompt.delete-word", value, becomes("he "), ("end",)),
        Row("prompt.delete-to-start", value, becomes("")),
        Row("prompt.delete-to-end", value, becomes("t"), ("t", "h", "left")),
        Row("prompt.yank", value, becomes("th")),
        Row("prompt.backspace", value, becomes("t")),
        *keys("prompt", value, new_line=becomes("t\n"), paste=becomes("t\npony")),
        Row("prompt.send", lambda app: len(view(app).conversation.replies), moves(1)),
        *keys("prompt", value, older=becomes("t\npony"), newer=becomes("")),
        Row("prompt.complete", value, becomes("winter"), ("w", "i", "n")),
    ],
)
SEARCH = Stage(scenes.search, keys("session", current_match, up=moves(-1), down=moves(1)))
OPEN_VOCABULARY = Stage(
    use_open_model,
    [
        Row(
            "session.units",
            lambda app: app.state.settings.current.preview_unit,
            becomes("token"),
            prepare=lambda app: app.screen.query_one("TemperatureSlider").focus(),
        )
    ],
)
SYSTEM_PROMPT = Stage(
    open_system_prompt,
    [
        Row("field.complete", input_value, becomes(EXAMPLE_SYSTEM_PROMPT)),
        closes("dialog.cancel", "SessionScreen"),
    ],
)


def opened_by(command):
    async def set_up(pilot):
        await scenes.session(pilot)
        await send(pilot, command)
        await until(pilot, lambda: screen_name(pilot.app) != "SessionScreen")

    return set_up


CLOSED = [
    Stage(opened_by("/sessions"), [closes("sessions.back", "SessionScreen")]),
    Stage(opened_by("/learn"), [closes("learn.close", "SessionScreen")]),
    Stage(opened_by("/model smollm2"), [closes("dialog.cancel", "SessionScreen")]),
]
SLOW_REPLY = Stage(
    start_slow_reply,
    [
        Row("session.interrupt", lambda app: view(app).conversation.active_reply, becomes(None)),
        Row("app.quit", has_quit, becomes(True)),
    ],
    is_slow=True,
)
SESSION = Stage(
    long_session,
    [
        *keys("session", temperature, cooler=becomes(0.75), hotter=becomes(0.8)),
        Row("session.page-up", scroll_y("Transcript"), decreases),
        *keys("session", scroll_y("Transcript"), page_down=increases),
        Row("session.redraw", has_quit, lambda before, after: before == after),
        *keys("session", focused, words=becomes("Transcript"), stop=becomes("PromptInput")),
        *keys("session", focused, pane=becomes("Transcript"), pane_back=becomes("PromptInput")),
        *keys("session", branch_count, again=becomes(2)),
        *keys("session", lambda app: len(reply(app).tokens), next=increases),
        *keys("session", lambda app: app.screen.query_one("SearchBar").has_class("-open"), find=becomes(True)),
        *opens("session", train=("NewTrainingDialog", "dialog.cancel"), model=("RunsScreen", "runs.back")),
        *opens("session", export=("ExportDialog", "dialog.cancel")),
        *opens("app", help=("HelpScreen", "help.close"), palette="AppCommandPalette"),
    ],
)
LETTERS = Stage(
    focus_on("TemperatureSlider"),
    [
        *keys("session", temperature, hotter_letter=increases, cooler_letter=decreases),
        Row("session.copy", lambda app: app.clipboard, changes),
        Row("session.talk", lambda app: len(app._notifications), increases),  # noqa: SLF001
        *opens("session", copied=("CopiedScreen", "inspect.close")),
        *opens("session", inside=("ActivationsScreen", "inspect.close"), lens=("LensScreen", "inspect.close")),
        *opens("session", temperatures=("LadderScreen", "columns.close"), compare="SideBySideScreen"),
        *keys("session", branch_count, again_letter=increases),
        *keys("session", lambda app: len(reply(app).tokens), next_letter=increases),
        *keys("session", lambda app: reply(app).id, earlier=changes, later=changes),
        *opens("session", options=("SamplerDialog", "dialog.cancel")),
        Row("session.enter", focused, becomes("PromptInput")),
        Row(
            "session.find-letter",
            focused,
            becomes("LineInput"),
            prepare=lambda app: app.screen.query_one("#temperature").focus(),
        ),
        Row("session.edit", value, changes, prepare=lambda app: app.screen.query_one("#temperature").focus()),
    ],
)
CONVERSATION = Stage(
    dialogue_scenes.conversation,
    [
        Row(
            "session.who",
            screen_name,
            becomes("CastDialog"),
            prepare=lambda app: app.screen.query_one("TemperatureSlider").focus(),
            back="dialog.cancel",
        ),
    ],
)
CURSOR_MODE = Stage(
    enter_cursor_mode,
    [
        *keys("session", cursor, left=decreases, right=increases),
        *keys("session", lambda app: cursor(app)[1], home=becomes(0), end=becomes(13)),
        *keys("session", lambda app: cursor(app)[0], up=moves(-1), down=moves(1)),
        *(Row(f"session.branch-{number}", branch_count, moves(1)) for number in range(1, 9)),
    ],
)

SESSION_APPS = {
    "prompt, search and controls": [PROMPT, SYSTEM_PROMPT, SEARCH],
    "session": [SESSION, LETTERS],
    "screens of commands": CLOSED,
    "cast and conversation": [CONVERSATION],
    "words of a reply": [CURSOR_MODE],
    "subwords and a slow reply": [OPEN_VOCABULARY, SLOW_REPLY],
}
