"""Keys of the session: prompt, conversation and sampling controls."""

from lotr_tui.screens.dialogs.questions import SystemPromptDialog
from lotr_tui.session.session_model import SessionModel
from lotr_tui.session.settings import EXAMPLE_SYSTEM_PROMPT
from tests.support import dialogue_scenes, scenes
from tests.support.bindings import Row, Stage, closes, focused, keys, moves, of, opens, scroll_y
from tests.support.open_models import adapted_model
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


def has_quit(app):
    return app.return_code is not None


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
    pilot.app.screen.set_session_model(SessionModel("open", "", adapted_model("film")))


async def open_system_prompt(pilot):
    await pilot.app.push_screen(SystemPromptDialog("", "You help."))


def session_after(*first_keys, command="", focus=None):
    """Return a function that opens a session, and sends a command, focuses a widget or presses keys there."""

    async def set_up(pilot):
        await scenes.session(pilot)
        if command:
            await send(pilot, command)
            await until(pilot, lambda: screen_name(pilot.app) != "SessionScreen")
        if focus:
            pilot.app.screen.query_one(focus).focus()
        await pilot.press(*first_keys)

    return set_up


column = lambda app: app.screen.query_one("PromptInput").cursor_location[1]  # noqa: E731
num_tokens = lambda app: len(reply(app).tokens)  # noqa: E731

PROMPT = [
    *keys("prompt", column, left=moves(-1), right=moves(1), word_left=4, word_right=8, home=0, end=8),
    *keys("prompt", selected, select_left="p", select_right="", select_home="the lamp"),
    Row("prompt.select-end", selected, "the lamp", ("home",)),
    Row("prompt.backspace", value, "the lam", ("end",)),
    Row("prompt.delete", value, "he lam", ("home",)),
    *keys("prompt", value, undo="the lam", redo="he lam"),
    Row("prompt.delete-word", value, "he ", ("end",)),
    Row("prompt.delete-to-start", value, ""),
    Row("prompt.delete-to-end", value, "t", ("t", "h", "left")),
    *keys("prompt", value, yank="th", backspace="t", new_line="t\n", paste="t\npony"),
    Row("prompt.send", lambda app: len(view(app).conversation.replies), moves(1)),
    *keys("prompt", value, older="t\npony", newer=""),
    Row("prompt.complete", value, "winter", ("w", "i", "n")),
    Row("prompt.menu-down", of("PromptMenu", "chosen"), "increases", ("ctrl+u", "slash")),
    Row("prompt.menu-up", of("PromptMenu", "chosen"), 0),
]
SYSTEM_PROMPT = [
    Row("field.complete", of("Input", "value"), EXAMPLE_SYSTEM_PROMPT),
    closes("dialog.submit", "SessionScreen"),
]
SEARCH = keys(
    "session", lambda app: int(text_of(app.screen.query_one("#matches")).split()[0]), up=moves(-1), down=moves(1)
)
OPEN = [
    Row("session.units", lambda app: app.state.settings.current.preview_unit, "token", focus="Transcript"),
    *opens("session", tuning=("LensScreen", "inspect.close")),
    *keys("session", of("StrengthSlider", "value"), weaker=0.95, stronger=1.0),
]
SLOW_REPLY = [
    Row("session.interrupt", lambda app: view(app).conversation.active_reply, None),
    Row("app.quit", has_quit, True),
]
SESSION = [
    *keys("session", temperature, cooler=0.75, hotter=0.8),
    *keys("session", scroll_y("Transcript"), page_up="decreases", page_down="increases"),
    Row("session.redraw", has_quit, lambda before, after: before == after),
    *keys("session", focused, words="Transcript", stop="PromptInput", pane="TokenBars", pane_back="PromptInput"),
    *keys("session", branch_count, again=2),
    *keys("session", num_tokens, next="increases"),
    *keys("session", lambda app: app.screen.query_one("SearchBar").has_class("-open"), find=True),
    *opens("session", train=("NewTrainingDialog", "dialog.cancel"), model=("RunsScreen", "list.back")),
    *opens("session", export=("ExportDialog", "dialog.cancel")),
    *opens("app", help=("HelpScreen", "help.close"), palette="AppCommandPalette"),
]
LETTERS = [
    *keys("session", temperature, hotter_letter="increases", cooler_letter="decreases"),
    Row("session.copy", lambda app: app.clipboard, "changes"),
    Row("session.talk", lambda app: len(app._notifications), "increases"),  # noqa: SLF001
    *opens("session", copied=("CopiedScreen", "inspect.close")),
    *opens("session", inside=("ActivationsScreen", "inspect.close"), lens=("LensScreen", "inspect.close")),
    *opens("session", temperatures=("LadderScreen", "columns.close"), compare="SideBySideScreen"),
    *keys("session", branch_count, again_letter="increases"),
    *keys("session", num_tokens, next_letter="increases"),
    *keys("session", lambda app: reply(app).id, earlier="changes", later="changes"),
    *opens("session", options=("SamplerDialog", "dialog.cancel")),
    Row("session.edit", value, "changes"),
    Row("session.enter", focused, "PromptInput", ("shift+tab",)),
]
WHO = Row("session.who", screen_name, "CastDialog", focus="Transcript", back="dialog.cancel")
CURSOR_MODE = [
    *keys("session", cursor, left="decreases", right="increases"),
    *keys("session", lambda app: cursor(app)[1], home=0, end=13),
    *keys("session", lambda app: cursor(app)[0], up=moves(-1), down=moves(1)),
    *(Row(f"session.branch-{number}", branch_count, moves(1)) for number in range(1, 9)),
]
SESSION_APPS = {
    "prompt, search and controls": [
        Stage(type_prompt, PROMPT), Stage(open_system_prompt, SYSTEM_PROMPT), Stage(scenes.search, SEARCH)
    ],
    "session": [Stage(long_session, SESSION), Stage(session_after("ctrl+g"), LETTERS)],
    "screens of commands": [
        Stage(session_after(command="/sessions"), [closes("list.back", "SessionScreen")]),
        Stage(session_after(command="/learn"), [closes("learn.close", "SessionScreen")]),
        Stage(session_after(command="/model smollm2"), [closes("dialog.cancel", "SessionScreen")]),
    ],
    "cast and conversation": [Stage(dialogue_scenes.conversation, [WHO])],
    "words of a reply": [Stage(session_after("ctrl+g"), CURSOR_MODE)],
    "subwords and a slow reply": [
        Stage(use_open_model, OPEN), Stage(start_slow_reply, SLOW_REPLY, is_slow=True)
    ],
}  # fmt: skip
