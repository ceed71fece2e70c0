"""Keys of the screens that analyse or generate texts, and of the saved sessions."""

from pathlib import Path

from engine.generation.settings import SamplerSettings
from lotr_tui.screens.dialogs.paths import OpenTextDialog
from lotr_tui.screens.inspect.comparison import LadderScreen, SideBySideScreen
from lotr_tui.screens.inspect.copied import CopiedScreen
from lotr_tui.screens.inspect.layers import ActivationsScreen
from lotr_tui.screens.inspect.lens import LensScreen
from lotr_tui.session.columns import PromptContext
from tests.support import scenes
from tests.support.analysis import is_idle
from tests.support.app import VOCABULARY
from tests.support.attention import attention_session_model, open_attention
from tests.support.bindings import (
    LIST,
    LONG_TEXT,
    Row,
    Stage,
    becomes,
    changes,
    closes,
    decreases,
    focused,
    highlighted,
    increases,
    keys,
    moves,
    of,
    of_screen,
    opens,
    with_focus,
)
from tests.support.dialogues import dialogue_session_model
from tests.support.pilot import screen_name, until

# Columns


def selected_temperature(app):
    return float(app.screen.slots[app.screen.selected_index].temperature)


def num_columns(app):
    return len(app.screen.slots)


def is_writing(app):
    return app.screen.is_writing


def painted(app):
    columns = app.screen.query_one("GenerationColumns")
    return [columns.render_line(y).text for y in range(columns.size.height)]


def prompt_of(app):
    return app.screen.prompt_and_seed[0]


def ladder(pace):
    async def set_up(pilot):
        settings = SamplerSettings(top_k=20, max_tokens=200)
        screen = LadderScreen(scenes.session_model_of(pilot.app), "the tower", settings, 3, pace)
        await pilot.app.push_screen(screen)

    return set_up


async def speaker_columns(pilot):
    context, settings = PromptContext("conversation"), SamplerSettings(max_tokens=5)
    screen = SideBySideScreen(dialogue_session_model(), "the tower", settings, 3, 0, context)
    await pilot.app.push_screen(screen)
    await until(pilot, lambda: len(screen.slots) == 3)


async def column_choice(pilot):
    await speaker_columns(pilot)
    await pilot.press("a")
    await until(pilot, lambda: pilot.app.screen.query("#answers"))


LADDER = Stage(
    ladder(0),
    [
        *keys("columns", num_columns, add=moves(1), remove=moves(-1)),
        *keys("columns", of_screen("selected_index"), next=moves(1), previous=moves(-1)),
        *keys("columns", selected_temperature, lower=decreases),
        Row("columns.raise", selected_temperature, increases),
        *keys("columns", painted, page_up=changes, page_down=changes, up=changes, down=changes),
        *keys("columns", of_screen("prompt_and_seed"), again=changes),
        *opens("columns", export=("ExportDialog", "dialog.cancel")),
        *keys("columns", focused, edit=becomes("LineInput")),
        Row("columns.generate", prompt_of, becomes("the towerx"), ("x",)),
    ],
)
SLOW_COLUMNS = Stage(
    ladder(2),
    [Row("columns.close", is_writing, becomes(False)), Row("columns.stop", is_writing, becomes(False), ("enter",))],
    is_slow=True,
)
SPEAKER_COLUMNS = Stage(
    speaker_columns,
    [Row("side-by-side.change", screen_name, becomes("ModelChoiceDialog"), ("right",), back="dialog.cancel")],
)
COLUMN_CHOICE = Stage(
    column_choice,
    [Row("model-choice.down", highlighted, moves(1), ("g",)), Row("model-choice.up", highlighted, moves(-1))],
)

# Sessions and paths


def suggested_suffix(app):
    """Return the suffix of the path that the export dialog suggests, or "" without the dialog."""
    inputs = app.screen.query("FieldInput")
    return Path(inputs.first().value).suffix if inputs else ""


async def path_completion(pilot):
    for name in ("lamp.txt", "pony.txt"):
        Path("texts", name).parent.mkdir(exist_ok=True)
        Path("texts", name).touch()
    await pilot.app.push_screen(OpenTextDialog())
    await pilot.press(*"texts/")


SESSIONS = Stage(
    scenes.sessions,
    [
        Row("sessions.export", suggested_suffix, becomes(".md"), back="dialog.cancel"),
        *opens("sessions", rename="NameDialog", delete="ConfirmDialog"),
        closes("sessions.open", "SessionScreen"),
    ],
)
NEW_SESSION = Stage(scenes.sessions, [closes("sessions.new", "SessionScreen")])
COMPLETION = Stage(
    path_completion,
    [
        *keys("field", of("FieldInput", "value"), complete=becomes("texts/lamp.txt")),
    ],
)

# The lens and copied passages


def heading(app):
    return str(app.screen.query_one("#heading").content)


async def lens(pilot):
    await pilot.app.push_screen(LensScreen(scenes.confident_model(pilot.app), LONG_TEXT))
    await until(pilot, lambda: is_idle(pilot.app))


async def who_lens(pilot):
    screen = LensScreen(dialogue_session_model(), "GANDALF: where is frodo\nwe walked all night")
    await pilot.app.push_screen(screen)
    await until(pilot, lambda: is_idle(pilot.app))


async def copied(pilot):
    await pilot.app.push_screen(CopiedScreen(scenes.session_model_of(pilot.app), LONG_TEXT))
    await until(pilot, lambda: is_idle(pilot.app))


text_cursor = of("#text", "cursor")
LENS = Stage(
    lens,
    [
        Row("text-view.last", text_cursor, increases, ("home",)),
        *keys("text-view", text_cursor, page_up=decreases, first=becomes(0), page_down=increases),
        *keys("text-view", text_cursor, left=moves(-1), right=moves(1), up=decreases, down=increases),
        Row("inspect.next", text_cursor, increases, ("home",)),
        Row("inspect.previous", text_cursor, decreases, ("end",)),
        *keys("lens", of_screen("view"), view=changes),
        *keys("lens", heading, sort=changes),
        *keys("inspect", focused, pane=becomes("RowList"), previous_pane=becomes("TextView")),
        *keys("inspect", focused, edit=becomes("TextInput")),
    ],
    size=(60, 14),
)
WHO_LENS = Stage(
    who_lens,
    [
        *keys("lens", of_screen("shows_who"), who=becomes(True)),
        *opens("inspect", export=("ExportDialog", "dialog.cancel")),
        closes("inspect.close", "SessionScreen"),
    ],
)
# Activations and attention


async def activations(pilot):
    await pilot.app.push_screen(ActivationsScreen(scenes.large_model(pilot.app), LONG_TEXT))
    await until(pilot, lambda: is_idle(pilot.app))


async def attention(pilot):
    await open_attention(pilot, attention_session_model(VOCABULARY, num_layers=24), LONG_TEXT)


item, strip_row = of("#strips", "item"), of("#strips", "row")
ACTIVATIONS = Stage(
    activations,
    [
        *keys("heat-strips", item, first=becomes(0), right=moves(1), left=moves(-1), page_down=moves(20)),
        *keys("heat-strips", item, page_up=moves(-20), last=becomes(199)),
        *keys("heat-strips", strip_row, up=moves(-1), down=moves(1)),
        *keys("heat-strips", item, largest=changes),
        *keys("heat-strips", lambda app: app.screen.query_one("#strips").columns().sizes.max(), zoom=becomes(1)),
        *keys("layers", lambda app: app.screen.pinned is None, pin=becomes(False)),
        *keys("layers", of_screen("layer_index"), layer=becomes(1), previous=becomes(0)),
    ],
)
ALONG = Stage(
    with_focus(activations, "#along", "tab", "home"),
    keys("row-list", of("#along", "cursor"), **LIST),
    size=(60, 14),
)
ATTENTION = Stage(
    attention,
    [
        *keys("layers", of_screen("layer_index"), layer=becomes(0), previous=becomes(23)),
        *keys("layers", lambda app: app.screen.pinned is None, pin=becomes(False)),
        *keys("attention", of_screen("is_without_start"), start=becomes(True)),
    ],
)

TEXT_APPS = {
    "columns": [LADDER, SPEAKER_COLUMNS, COLUMN_CHOICE, SLOW_COLUMNS],
    "saved sessions": [COMPLETION, SESSIONS],
    "new session": [NEW_SESSION],
    "lens and copied passages": [WHO_LENS, LENS],
    "activations": [ACTIVATIONS, ALONG],
    "attention": [ATTENTION],
}
