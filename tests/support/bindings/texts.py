"""Rows for the keys of the ladder, the saved sessions, the lens and the memorization screen."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from textual.pilot import Pilot
from textual.widgets import OptionList

from engine.generation.settings import SamplerSettings
from lotr_tui.app import LotrApp
from lotr_tui.screens.comparison.columns import GenerationColumns
from lotr_tui.screens.comparison.ladder import LadderScreen
from lotr_tui.screens.comparison.side_by_side import SideBySideScreen
from lotr_tui.screens.dialogs.completing_input import CompletingInput
from lotr_tui.screens.dialogs.path_dialog import OpenTextDialog
from lotr_tui.screens.lens.screen import LensScreen
from lotr_tui.screens.lens.sentences import LensSentences
from lotr_tui.screens.lens.text_view import LensTextView
from lotr_tui.screens.lens.who.pane import WhoPane
from lotr_tui.screens.lens.who_screen import WhoLensScreen
from lotr_tui.screens.memorization.occurrences import PassageOccurrences
from lotr_tui.screens.memorization.passage_text import PassageTextView
from lotr_tui.screens.memorization.screen import MemorizationScreen
from lotr_tui.session.column_output import PromptContext
from lotr_tui.session.session_file import sessions_folder
from tests.support import scenes
from tests.support.analysis import is_idle
from tests.support.bindings.expectations import becomes, changes, decreases, increases, moves
from tests.support.bindings.observations import focused, of, of_screen, screen_name, scroll_y
from tests.support.bindings.rows import LIST, LONG_TEXT, PAGES, Row, Stage, cursor_rows
from tests.support.dialogues import dialogue_session_model
from tests.support.pilot import until


def selected_temperature(app: LotrApp) -> float:
    screen: Any = app.screen
    return float(screen.slots[screen.selected_index].temperature)


def delete_session() -> None:
    (sessions_folder() / "broken.jsonl").unlink()


def painted(app: LotrApp) -> list[str]:
    """Return the painted lines of the columns."""
    columns = app.screen.query_one(GenerationColumns)
    return [columns.render_line(y).text for y in range(columns.size.height)]


def sessions_listed(app: LotrApp) -> int:
    return app.screen.query_one(OptionList).option_count


def suggested_suffix(app: LotrApp) -> str:
    """Return the suffix of the path that the export dialog suggests, or "" without the dialog."""
    inputs = app.screen.query(CompletingInput)
    return Path(inputs.first().value).suffix if inputs else ""


def completion(app: LotrApp) -> str:
    """Return the completion that is shown."""
    completing_input = app.screen.query_one(CompletingInput)
    return completing_input.completions[completing_input.completion_index]


async def path_completion(pilot: Pilot[None]) -> None:
    """Show a dialog for a path that has two completions."""
    for name in ("lamp.txt", "pony.txt"):
        Path("texts", name).parent.mkdir(exist_ok=True)
        Path("texts", name).touch()
    await pilot.app.push_screen(OpenTextDialog())
    await pilot.press(*"texts/")
    await until(pilot, lambda: len(pilot.app.screen.query_one(CompletingInput).completions) == 2)


def ladder(pace: float) -> Callable[[Pilot[None]], Awaitable[None]]:
    """Return a function that opens a ladder of long texts."""

    async def set_up(pilot: Pilot[None]) -> None:
        app: Any = pilot.app
        settings = SamplerSettings(top_k=20, max_tokens=200)
        await app.push_screen(LadderScreen(scenes.session_model_of(app), "the tower", settings, 3, pace))

    return set_up


async def lens(pilot: Pilot[None]) -> None:
    app: Any = pilot.app
    await app.push_screen(LensScreen(scenes.confident_model(app), LONG_TEXT))
    await until(pilot, lambda: is_idle(app))
    app.screen.query_one(LensTextView).focus()


async def who_lens(pilot: Pilot[None]) -> None:
    app: Any = pilot.app
    screen = WhoLensScreen(dialogue_session_model(), "GANDALF: where is frodo\nwe walked all night")
    await app.push_screen(screen)
    await until(pilot, lambda: is_idle(app))


def pair_of(number: int) -> Callable[[LotrApp], str]:
    """Return a function that returns one of the two speakers that the lens compares."""
    return lambda app: app.screen.query_one(WhoPane).default_pair()[number]


async def speaker_columns(pilot: Pilot[None]) -> None:
    app: Any = pilot.app
    context = PromptContext("conversation")
    model = dialogue_session_model()
    screen = SideBySideScreen(model, app.runs_dir, "the tower", SamplerSettings(max_tokens=5), 3, 0, context)
    await app.push_screen(screen)
    await until(pilot, lambda: len(screen.slots) == 3)


async def column_choice(pilot: Pilot[None]) -> None:
    await speaker_columns(pilot)
    await pilot.press("f3")
    await until(pilot, lambda: pilot.app.screen.query("#models"))


async def memorization(pilot: Pilot[None]) -> None:
    app: Any = pilot.app
    await app.push_screen(MemorizationScreen(scenes.session_model_of(app), LONG_TEXT))
    await until(pilot, lambda: is_idle(app))


async def occurrences(pilot: Pilot[None]) -> None:
    await memorization(pilot)
    pilot.app.screen.query_one(PassageOccurrences).focus()


TEXTS: dict[str, Stage] = {
    "ladder": Stage(
        ladder(0),
        [
            Row("ladder.preset", selected_temperature, becomes(0.5)),
            Row("columns.add", lambda app: len(app.screen.slots), moves(1)),  # type: ignore[attr-defined]
            Row("columns.remove", lambda app: len(app.screen.slots), moves(-1)),  # type: ignore[attr-defined]
            Row("columns.previous", of_screen("selected_index"), moves(-1)),
            Row("columns.next", of_screen("selected_index"), moves(1)),
            Row("columns.lower-temperature", selected_temperature, decreases),
            Row("columns.raise-temperature", selected_temperature, increases),
            Row("columns.generate", of_screen("prompt_and_seed"), becomes(("the towerx", 3)), ("x",)),
            Row("columns.up", painted, changes),
            Row("columns.down", painted, changes),
            Row("columns.seed", of_screen("prompt_and_seed"), changes),
        ],
    ),
    "slow columns": Stage(
        ladder(2),
        [
            Row("columns.stop", lambda app: app.screen.writers.is_writing, becomes(False)),  # type: ignore[attr-defined]
            Row("columns.interrupt", lambda app: app.screen.writers.is_writing, becomes(False), ("enter",)),  # type: ignore[attr-defined]
            Row("columns.close", screen_name, becomes("SessionScreen")),
        ],
        pace=2,
    ),
    "sessions": Stage(
        scenes.sessions,
        [
            Row("sessions.markdown", suggested_suffix, becomes(".md")),
            Row("sessions.json", suggested_suffix, becomes(".json")),
            Row("sessions.svg", suggested_suffix, becomes(".svg")),
            Row("export.cancel", screen_name, becomes("SessionsScreen"), ("m",)),
            Row("sessions.rename", screen_name, becomes("RenameDialog")),
            Row("sessions.delete", screen_name, becomes("ConfirmDialog")),
            Row("sessions.refresh", sessions_listed, moves(-1), prepare=delete_session),
            Row("sessions.open", screen_name, becomes("SessionScreen")),
        ],
    ),
    "new session": Stage(scenes.sessions, [Row("sessions.new", screen_name, becomes("SessionScreen"))]),
    "completion": Stage(
        path_completion,
        [
            Row("completion.next", completion, becomes("texts/pony.txt")),
            Row("completion.previous", completion, becomes("texts/lamp.txt")),
            Row(
                "completion.accept", lambda app: app.screen.query_one(CompletingInput).value, becomes("texts/lamp.txt")
            ),
        ],
    ),
    "lens": Stage(
        lens,
        [
            Row("lens-text-view.last", of(LensTextView, "cursor"), increases, ("home",)),
            Row("lens-text-view.page-up", of(LensTextView, "cursor"), decreases),
            Row("lens-text-view.first", of(LensTextView, "cursor"), becomes(0)),
            Row("lens-text-view.page-down", of(LensTextView, "cursor"), increases),
            Row("lens-text-view.left", of(LensTextView, "cursor"), moves(-1)),
            Row("lens-text-view.right", of(LensTextView, "cursor"), moves(1)),
            Row("lens-text-view.up", of(LensTextView, "cursor"), decreases),
            Row("lens-text-view.down", of(LensTextView, "cursor"), increases),
            Row("lens-text-view.next", of(LensTextView, "cursor"), increases, ("home",)),
            Row("lens-text-view.previous", of(LensTextView, "cursor"), decreases, ("end",)),
            Row("lens.view", of(LensTextView, "view"), changes),
            Row("lens.line-ends", of_screen("eos_per_line"), changes),
            Row("lens.open", screen_name, becomes("OpenTextDialog")),
            Row("open-text.cancel", screen_name, becomes("LensScreen"), ("ctrl+o",)),
            Row("lens.sentences", focused, becomes("LensSentences")),
            *cursor_rows("lens-sentences", of(LensSentences, "cursor"), {"first": decreases, **LIST}),
            Row("lens-sentences.order", of(LensSentences, "hardest_first"), becomes(True)),
        ],
        size=(60, 14),
    ),
    "who lens": Stage(
        who_lens,
        [
            Row("lens.who", lambda app: app.screen.who_view, becomes("who")),  # type: ignore[attr-defined]
            Row("lens.first", pair_of(0), changes),
            Row("lens.second", pair_of(1), changes),
            Row("lens.pair", screen_name, becomes("SpeakerPairDialog")),
            Row("speaker-pair.cancel", screen_name, becomes("WhoLensScreen"), ("f8",)),
        ],
    ),
    "speaker columns": Stage(
        speaker_columns, [Row("side-by-side.change", screen_name, becomes("ModelChoiceDialog"), ("right",))]
    ),
    "column choice": Stage(
        column_choice,
        [
            Row("model-choice.down", lambda app: app.screen.query_one(OptionList).highlighted, moves(1), ("g",)),
            Row("model-choice.up", lambda app: app.screen.query_one(OptionList).highlighted, moves(-1)),
        ],
    ),
    "memorization": Stage(
        memorization,
        [
            Row("passage-text-view.next", of(PassageTextView, "highlighted"), moves(1)),
            Row("passage-text-view.previous", of(PassageTextView, "highlighted"), moves(-1)),
            Row("passage-text-view.tab", of(PassageTextView, "highlighted"), moves(1)),
            Row("passage-text-view.back", of(PassageTextView, "highlighted"), moves(-1)),
            Row("passage-text-view.last", of(PassageTextView, "highlighted"), increases),
            Row("passage-text-view.first", of(PassageTextView, "highlighted"), becomes(0)),
            Row("passage-text-view.page-down", scroll_y(PassageTextView), increases),
            Row("passage-text-view.page-up", scroll_y(PassageTextView), decreases),
            Row("memorization.edit", focused, becomes("LineInput")),
        ],
        size=(60, 14),
    ),
    "occurrences": Stage(
        occurrences,
        [
            Row("passage-occurrences.down", scroll_y(PassageOccurrences), increases),
            Row("passage-occurrences.up", scroll_y(PassageOccurrences), decreases),
            *cursor_rows("passage-occurrences", scroll_y(PassageOccurrences), PAGES),
        ],
        size=(60, 14),
    ),
}
