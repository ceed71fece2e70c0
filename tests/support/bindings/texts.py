"""Keys of the screens that analyse or generate texts, and of the saved sessions."""

from pathlib import Path

from engine.generation.settings import SamplerSettings
from lotr_tui.screens.inspect.comparison import LadderScreen
from lotr_tui.screens.inspect.layers import ActivationsScreen
from lotr_tui.screens.inspect.lens import LensScreen
from lotr_tui.session.session_model import SessionModel
from tests.support import scenes
from tests.support.analysis import open_inspector
from tests.support.app import VOCABULARY
from tests.support.attention import attention_session_model, open_attention
from tests.support.bindings import LIST, Row, Stage, closes, focused, keys, moves, of, of_screen, opens
from tests.support.dialogues import dialogue_session_model
from tests.support.open_models import adapted_model
from tests.support.pilot import until

LONG_TEXT = "\n".join([scenes.LENS_TEXT, scenes.REPLY_TEXT] * 4)  # of more lines than fit on the screen


def inspector(make_screen, *first_keys, focus=None):
    """Return a function that opens a screen that analyses a text, presses keys, and may focus a widget."""

    async def set_up(pilot):
        await open_inspector(pilot, make_screen(pilot.app), *first_keys)
        if focus is not None:
            pilot.app.screen.query_one(focus).focus()

    return set_up


# Columns


def temperature(app):
    return float(app.screen.slots[app.screen.selected_index].temperature)


def painted(app):
    columns = app.screen.query_one("GenerationColumns")
    return [columns.render_line(y).text for y in range(columns.size.height)]


def ladder(pace):
    async def set_up(pilot):
        model, settings = scenes.session_model_of(pilot.app), SamplerSettings(top_k=20, max_tokens=200)
        await pilot.app.push_screen(LadderScreen(model, "the tower", settings, 3, pace))

    return set_up


LADDER = [
    *keys("columns", lambda app: len(app.screen.slots), add=moves(1), remove=moves(-1)),
    *keys("columns", of_screen("selected_index"), next=moves(1), previous=moves(-1)),
    *keys("columns", temperature, lower="decreases"),
    Row("columns.raise", temperature, "increases"),
    *keys("columns", painted, page_up="changes", page_down="changes", up="changes", down="changes"),
    *keys("columns", of_screen("prompt_and_seed"), again="changes"),
    *opens("columns", export=("ExportDialog", "dialog.cancel")),
    *keys("columns", focused, edit="LineInput"),
    Row("columns.generate", lambda app: app.screen.prompt_and_seed[0], "the towerx", ("x",)),
]
SLOW_COLUMNS = [
    Row("columns.close", of_screen("is_writing"), False),
    Row("columns.stop", of_screen("is_writing"), False, ("enter",)),
]

# Sessions and paths


def suggested_suffix(app):
    """Return the suffix of the path that the export dialog suggests, or "" without the dialog."""
    return next((Path(field.value).suffix for field in app.screen.query("FieldInput")), "")


async def path_completion(pilot):
    for name in ("lamp.txt", "pony.txt"):
        Path("texts", name).parent.mkdir(exist_ok=True)
        Path("texts", name).touch()
    await inspector(make_activations)(pilot)
    await pilot.press("ctrl+s")
    await until(pilot, lambda: pilot.app.screen.query("FieldInput"))
    await pilot.press("ctrl+u", *"texts/")


SESSIONS = [
    Row("list.export", suggested_suffix, ".md", back="dialog.cancel"),
    closes("list.open", "SessionScreen"),
]

# Inspectors

text_cursor, item, pinned = of("#text", "cursor"), of("#strips", "item"), of_screen("pinned")
LENS = [
    Row("text-view.last", text_cursor, "increases", ("home",)),
    *keys("text-view", text_cursor, page_up="decreases", first=0, page_down="increases"),
    *keys("text-view", text_cursor, left=moves(-1), right=moves(1), up="decreases", down="increases"),
    Row("inspect.next", text_cursor, "increases", ("home",)),
    Row("inspect.previous", text_cursor, "decreases", ("end",)),
    *keys("lens", of_screen("view"), view="changes"),
    *keys("lens", lambda app: str(app.screen.query_one("#heading").content), sort="changes"),
    *keys("inspect", focused, pane="RowList", previous_pane="TextView", edit="TextInput"),
]
WHO = [
    *keys("lens", of_screen("shows_who"), who=True),
    *opens("inspect", export=("ExportDialog", "dialog.cancel")),
    closes("inspect.close", "SessionScreen"),
]
TUNING = keys("lens", of_screen("shows_tuning"), tuning=False)
ACTIVATIONS = [
    *keys("heat-strips", item, first=0, right=moves(1), left=moves(-1), page_down=moves(20)),
    *keys("heat-strips", item, page_up=moves(-20), last=199),
    *keys("heat-strips", of("#strips", "row"), up=moves(-1), down=moves(1)),
    *keys("heat-strips", item, largest="changes"),
    *keys("heat-strips", lambda app: app.screen.query_one("#strips").columns().sizes.max(), zoom=1),
    *keys("layers", pinned, pin="changes"),
    *keys("layers", of_screen("layer_index"), layer=1, previous=0),
]
ALONG = keys("row-list", of("#along", "cursor"), **LIST)
ATTENTION = [
    *keys("layers", of_screen("layer_index"), layer=0, previous=23),
    *keys("layers", pinned, pin="changes"),
    *keys("attention", of_screen("is_without_start"), start=True),
]


def make_lens(app):
    return LensScreen(scenes.confident_model(app), LONG_TEXT)


def make_tuning_lens(app):
    return LensScreen(SessionModel("tuned", "", adapted_model("film")), "we walked all night", shows_tuning=True)


def make_who_lens(app):
    return LensScreen(dialogue_session_model(), "GANDALF: where is frodo\nwe walked all night")


def make_activations(app):
    return ActivationsScreen(scenes.large_model(app), LONG_TEXT)


async def attention(pilot):
    await open_attention(pilot, attention_session_model(VOCABULARY, num_layers=24), LONG_TEXT)


TEXT_APPS = {
    "columns": [
        Stage(ladder(0), LADDER),
        Stage(ladder(2), SLOW_COLUMNS, is_slow=True),
    ],
    "saved sessions": [
        Stage(path_completion, keys("field", of("FieldInput", "value"), complete="texts/lamp.txt")),
        Stage(scenes.sessions, SESSIONS),
    ],
    "new session": [Stage(scenes.sessions, [closes("sessions.new", "SessionScreen")])],
    "lens": [
        Stage(inspector(make_who_lens), WHO), Stage(inspector(make_lens), LENS, size=(60, 14)),
        Stage(inspector(make_tuning_lens), TUNING),
    ],
    "activations": [
        Stage(inspector(make_activations), ACTIVATIONS),
        Stage(inspector(make_activations, "tab", "home", focus="#along"), ALONG, size=(60, 14)),
    ],
    "attention": [Stage(attention, ATTENTION)],
}  # fmt: skip
