"""Keys of the screens that analyse or generate texts, and of the saved sessions."""

from pathlib import Path

from engine.generation.settings import SamplerSettings
from lotr_tui.screens.activations.screen import ActivationsScreen
from lotr_tui.screens.comparison.ladder import LadderScreen
from lotr_tui.screens.comparison.side_by_side import SideBySideScreen
from lotr_tui.screens.dialogs.path_dialog import OpenTextDialog
from lotr_tui.screens.lens.screen import LensScreen
from lotr_tui.screens.lens.who_screen import WhoLensScreen
from lotr_tui.screens.memorization.screen import MemorizationScreen
from lotr_tui.session.columns import PromptContext
from lotr_tui.session.session_file import sessions_folder
from tests.support import scenes
from tests.support.analysis import is_idle
from tests.support.app import VOCABULARY
from tests.support.attention import attention_session_model, open_attention
from tests.support.bindings import (
    LINE_OF_WORDS,
    LIST,
    LONG_TEXT,
    PAGES,
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
    scroll_y,
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
    return app.screen.writers.is_writing


def painted(app):
    columns = app.screen.query_one("GenerationColumns")
    return [columns.render_line(y).text for y in range(columns.size.height)]


def ladder(pace):
    async def set_up(pilot):
        settings = SamplerSettings(top_k=20, max_tokens=200)
        screen = LadderScreen(scenes.session_model_of(pilot.app), "the tower", settings, 3, pace)
        await pilot.app.push_screen(screen)

    return set_up


async def speaker_columns(pilot):
    context, settings = PromptContext("conversation"), SamplerSettings(max_tokens=5)
    runs_dir = pilot.app.runs_dir
    screen = SideBySideScreen(dialogue_session_model(), runs_dir, "the tower", settings, 3, 0, context)
    await pilot.app.push_screen(screen)
    await until(pilot, lambda: len(screen.slots) == 3)


async def column_choice(pilot):
    await speaker_columns(pilot)
    await pilot.press("f3")
    await until(pilot, lambda: pilot.app.screen.query("#models"))


LADDER = Stage(
    ladder(0),
    [
        *keys("ladder", selected_temperature, preset=becomes(0.5)),
        *keys("columns", num_columns, add=moves(1), remove=moves(-1)),
        *keys("columns", of_screen("selected_index"), previous=moves(-1), next=moves(1)),
        *keys("columns", selected_temperature, lower_temperature=decreases, raise_temperature=increases),
        Row("columns.generate", of_screen("prompt_and_seed"), becomes(("the towerx", 3)), ("x",)),
        *keys("columns", painted, up=changes, down=changes),
        *keys("columns", of_screen("prompt_and_seed"), seed=changes),
    ],
)
SLOW_COLUMNS = Stage(
    ladder(2),
    [Row("columns.stop", is_writing, becomes(False)), Row("columns.interrupt", is_writing, becomes(False), ("enter",))],
    is_slow=True,
)
SPEAKER_COLUMNS = Stage(
    speaker_columns,
    [Row("side-by-side.change", screen_name, becomes("ModelChoiceDialog"), ("right",), back="model-choice.cancel")],
)
COLUMN_CHOICE = Stage(
    column_choice,
    [Row("model-choice.down", highlighted, moves(1), ("g",)), Row("model-choice.up", highlighted, moves(-1))],
)

# Sessions and paths


def suggested_suffix(app):
    """Return the suffix of the path that the export dialog suggests, or "" without the dialog."""
    inputs = app.screen.query("CompletingInput")
    return Path(inputs.first().value).suffix if inputs else ""


def completion(app):
    completing_input = app.screen.query_one("CompletingInput")
    return completing_input.completions[completing_input.completion_index]


async def path_completion(pilot):
    for name in ("lamp.txt", "pony.txt"):
        Path("texts", name).parent.mkdir(exist_ok=True)
        Path("texts", name).touch()
    await pilot.app.push_screen(OpenTextDialog())
    await pilot.press(*"texts/")
    await until(pilot, lambda: len(pilot.app.screen.query_one("CompletingInput").completions) == 2)


SESSIONS = Stage(
    scenes.sessions,
    [
        *keys("sessions", suggested_suffix, json=becomes(".json")),
        Row("sessions.markdown", suggested_suffix, becomes(".md"), back="export.cancel"),
        *opens("sessions", rename="RenameDialog", delete="ConfirmDialog"),
        Row(
            "sessions.refresh",
            lambda app: app.screen.query_one("OptionList").option_count,
            moves(-1),
            prepare=lambda app: (sessions_folder() / "broken.jsonl").unlink(),
        ),
        closes("sessions.open", "SessionScreen"),
    ],
)
NEW_SESSION = Stage(scenes.sessions, [closes("sessions.new", "SessionScreen")])
COMPLETION = Stage(
    path_completion,
    [
        *keys("completion", completion, next=becomes("texts/pony.txt"), previous=becomes("texts/lamp.txt")),
        *keys("completion", of("CompletingInput", "value"), accept=becomes("texts/lamp.txt")),
    ],
)

# The lens and copied passages


async def lens(pilot):
    await pilot.app.push_screen(LensScreen(scenes.confident_model(pilot.app), LONG_TEXT))
    await until(pilot, lambda: is_idle(pilot.app))
    pilot.app.screen.query_one("LensTextView").focus()


async def who_lens(pilot):
    screen = WhoLensScreen(dialogue_session_model(), "GANDALF: where is frodo\nwe walked all night")
    await pilot.app.push_screen(screen)
    await until(pilot, lambda: is_idle(pilot.app))


def pair_of(number):
    """Return a function that returns one of the two speakers that the lens compares."""
    return lambda app: app.screen.query_one("WhoPane").default_pair()[number]


async def memorization(pilot):
    await pilot.app.push_screen(MemorizationScreen(scenes.session_model_of(pilot.app), LONG_TEXT))
    await until(pilot, lambda: is_idle(pilot.app))


lens_cursor, passage = of("LensTextView", "cursor"), of("PassageTextView", "highlighted")
LENS = Stage(
    lens,
    [
        Row("lens-text-view.last", lens_cursor, increases, ("home",)),
        *keys("lens-text-view", lens_cursor, page_up=decreases, first=becomes(0), page_down=increases),
        *keys("lens-text-view", lens_cursor, left=moves(-1), right=moves(1), up=decreases, down=increases),
        Row("lens-text-view.next", lens_cursor, increases, ("home",)),
        Row("lens-text-view.previous", lens_cursor, decreases, ("end",)),
        *keys("lens", of("LensTextView", "view"), view=changes),
        *keys("lens", of_screen("eos_per_line"), line_ends=changes),
        *opens("lens", open=("OpenTextDialog", "open-text.cancel")),
        *keys("lens", focused, sentences=becomes("LensSentences")),
        *keys("lens-sentences", of("LensSentences", "cursor"), **{"first": decreases, **LIST}),
        *keys("lens-sentences", of("LensSentences", "hardest_first"), order=becomes(True)),
    ],
    size=(60, 14),
)
WHO_LENS = Stage(
    who_lens,
    [
        *keys("lens", of_screen("who_view"), who=becomes("who")),
        *keys("lens", pair_of(0), first=changes),
        *keys("lens", pair_of(1), second=changes),
        *opens("lens", pair=("SpeakerPairDialog", "speaker-pair.cancel")),
    ],
)
MEMORIZATION = Stage(
    memorization,
    [
        *keys("passage-text-view", passage, next=moves(1), previous=moves(-1), tab=moves(1), back=moves(-1)),
        *keys("passage-text-view", passage, last=increases, first=becomes(0)),
        *keys("passage-text-view", scroll_y("PassageTextView"), page_down=increases, page_up=decreases),
        *keys("memorization", focused, edit=becomes("LineInput")),
    ],
    size=(60, 14),
)
OCCURRENCES = Stage(
    with_focus(memorization, "PassageOccurrences"),
    keys("passage-occurrences", scroll_y("PassageOccurrences"), down=increases, up=decreases, **PAGES),
    size=(60, 14),
)

# Activations and attention


async def activations(pilot):
    await pilot.app.push_screen(ActivationsScreen(scenes.large_model(pilot.app), LONG_TEXT))
    await until(pilot, lambda: is_idle(pilot.app))


async def attention(pilot):
    await open_attention(pilot, attention_session_model(VOCABULARY, num_layers=24), LONG_TEXT)


unit, gate, text_cursor = of("GateStrips", "unit"), of("GateStrips", "gate"), of("TokenTextView", "cursor")
position, head_row = of("AttentionStrips", "position"), of("AttentionStrips", "row")
ACTIVATIONS = Stage(
    activations,
    [
        *keys("activations", text_cursor, previous=moves(-1), next=moves(1)),
        *keys("gate-strips", unit, first=becomes(0), right=moves(1), left=moves(-1), page_down=moves(20)),
        *keys("gate-strips", unit, page_up=moves(-20), last=becomes(199)),
        *keys("gate-strips", gate, up=becomes("candidate"), down=becomes("cell")),
        *keys("gate-strips", unit, largest=changes),
        *keys("gate-strips", of("GateStrips", "units_per_cell"), zoom=becomes(1)),
        *keys("activations", lambda app: app.screen.pinned_unit is None, pin=becomes(False)),
        *keys("activations", focused, edit=becomes("LineInput")),
        *keys("activations", lambda app: app.screen.has_class("-search-results"), other=becomes(True)),
        *keys("activations", of("UnitTopActivations", "examples"), find=changes),
        *keys("activations", of_screen("layer_index"), layer=becomes(1)),
    ],
)
ACTIVATION_TEXT = Stage(
    with_focus(activations, "TokenTextView"),
    [Row("token-text-view.first", text_cursor, becomes(0)), *keys("token-text-view", text_cursor, **LINE_OF_WORDS)],
    size=(60, 14),
)
ACTIVATION_LIST = Stage(
    with_focus(activations, "UnitActivations"),
    keys("unit-activations", of("UnitActivations", "cursor"), **{"first": decreases, **LIST}),
)
TOP_ACTIVATIONS = Stage(
    with_focus(activations, "UnitTopActivations", "f4"),
    [
        *keys("unit-top-activations", of("UnitTopActivations", "cursor"), **LIST),
        Row("unit-top-activations.select", of_screen("text"), changes),
    ],
)
ATTENTION = Stage(
    attention,
    [
        *keys("attention", text_cursor, previous=moves(-1), next=moves(1)),
        *keys("attention-strips", position, first=becomes(0), right=moves(1), left=moves(-1), page_down=increases),
        *keys("attention-strips", position, page_up=decreases, last=increases),
        *keys("attention-strips", head_row, up=moves(-1), down=moves(1)),
        *keys("attention-strips", position, largest=changes),
        *keys(
            "attention-strips", lambda app: len(app.screen.query_one("AttentionStrips").columns().names), zoom=increases
        ),
        *keys("attention", of_screen("layer_index"), layer=becomes(0), previous_layer=becomes(23)),
        *keys("attention", lambda app: app.screen.pinned_head is None, pin=becomes(False)),
        *keys("attention", of_screen("is_without_start"), start=becomes(True)),
        *keys("attention", focused, other=becomes("AttendedList"), edit=becomes("LineInput")),
        closes("attention.close", "SessionScreen"),
    ],
)
STRONGEST_ATTENTION = Stage(
    with_focus(attention, "AttendedList", "f5"),
    keys("attended-list", of("AttendedList", "cursor_line"), **{"first": becomes(0), **LIST}),
)
HEAD_ALONG_TEXT = Stage(
    with_focus(attention, "HeadAlongText", "f5", "f5"),
    keys("head-along-text", of("HeadAlongText", "cursor"), **{"first": decreases, **LIST}),
)
LOGIT_LENS = Stage(
    with_focus(attention, "LayerPredictions", "f5", "f5", "f5"),
    keys("layer-predictions", of("LayerPredictions", "cursor"), **{"first": becomes(0), **LIST}),
)

TEXT_APPS = {
    "columns": [LADDER, SPEAKER_COLUMNS, COLUMN_CHOICE, SLOW_COLUMNS],
    "saved sessions": [COMPLETION, SESSIONS],
    "new session": [NEW_SESSION],
    "lens and copied passages": [WHO_LENS, LENS, MEMORIZATION, OCCURRENCES],
    "activations": [ACTIVATIONS, ACTIVATION_TEXT, ACTIVATION_LIST, TOP_ACTIVATIONS],
    "attention": [ATTENTION, STRONGEST_ATTENTION, HEAD_ALONG_TEXT, LOGIT_LENS],
}
