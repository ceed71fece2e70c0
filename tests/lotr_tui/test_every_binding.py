"""Every action of the binding table: its key is pressed in the app, and what it is for has happened."""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from textual.binding import Binding
from textual.pilot import Pilot
from textual.widgets import Label, OptionList

from engine.sampling import SamplerSettings
from lotr_tui.app import LotrApp
from lotr_tui.commands import _tables
from lotr_tui.screens.inside import InsideScreen
from lotr_tui.screens.ladder import LadderScreen
from lotr_tui.screens.lens import LensScreen
from lotr_tui.screens.memorised import MemorisedScreen
from lotr_tui.session_file import sessions_folder
from lotr_tui.widgets.columns import Columns
from lotr_tui.widgets.conversation_view import ConversationView
from lotr_tui.widgets.gate_strips import GateStrips
from lotr_tui.widgets.lens_sentences import LensSentences
from lotr_tui.widgets.lens_text import LensText
from lotr_tui.widgets.page_text import PageText
from lotr_tui.widgets.pane_tabs import PaneTabs
from lotr_tui.widgets.passage_places import PassagePlaces
from lotr_tui.widgets.passage_text import PassageText
from lotr_tui.widgets.prompt import Prompt
from lotr_tui.widgets.sampler_panel import PresetPicker, SamplerPanel
from lotr_tui.widgets.search_bar import SearchBar
from lotr_tui.widgets.temperature_slider import TemperatureSlider
from lotr_tui.widgets.transcript import Transcript
from lotr_tui.widgets.unit_along import UnitAlong
from lotr_tui.widgets.unit_found import UnitFound
from tests.lotr_tui import scenes
from tests.lotr_tui.conftest import FakeJob, training_events
from tests.lotr_tui.test_inside_screen import at_rest as inside_at_rest
from tests.lotr_tui.test_lens import at_rest as lens_at_rest
from tests.lotr_tui.test_memorised_screen import at_rest as memorised_at_rest
from tests.lotr_tui.test_play_screen import send, until

MakeApp = Callable[..., LotrApp]
Look = Callable[[LotrApp], Any]
"""What of the app the action is about."""
Wanted = Callable[[Any, Any], bool]
"""Whether that is as it should be, from what it was before the key to what it is after it."""


@dataclass(frozen=True)
class Row:
    """A binding, and what its key does; `first` are keys that lead to where it applies."""

    id: str
    look: Look
    wanted: Wanted
    first: tuple[str, ...] = ()
    prepare: Callable[[], None] = lambda: None


@dataclass(frozen=True)
class Stage:
    """An app in a state of its own. Its rows are gone through in their order, each from where the last one left it."""

    set_up: Callable[[Pilot[None]], Awaitable[None]]
    rows: Sequence[Row]
    size: tuple[int, int] = (80, 24)
    pace: float = 0
    trains: bool = False


# What is wanted


def other(before: Any, after: Any) -> bool:
    return bool(before != after)


def more(before: Any, after: Any) -> bool:
    return bool(after > before)


def less(before: Any, after: Any) -> bool:
    return bool(after < before)


def becomes(value: Any) -> Wanted:
    """That it was not so before, and is now."""
    return lambda before, after: bool(before != value and after == value)


def moves(steps: int) -> Wanted:
    return lambda before, after: bool(after == before + steps)


# What is looked at


def of(kind: type[Any], name: str) -> Look:
    """An attribute of the first widget of a kind."""
    return lambda app: getattr(app.screen.query_one(kind), name)


def own(name: str) -> Look:
    """An attribute of the screen."""
    return lambda app: getattr(app.screen, name)


def scrolled(kind: type[Any]) -> Look:
    return lambda app: app.screen.query_one(kind).scroll_offset.y


def screen_name(app: LotrApp) -> str:
    return type(app.screen).__name__


def focused(app: LotrApp) -> str:
    return type(app.screen.focused).__name__


def view(app: LotrApp) -> ConversationView:
    return app.screen_stack[0].query_one(ConversationView)


def reply(app: LotrApp) -> Any:
    found = view(app).reply
    assert found is not None
    return found


def place(app: LotrApp) -> tuple[int, int]:
    """Entry and word of the cursor."""
    return app.screen.query_one(Transcript).cursor or (-1, -1)


def column(app: LotrApp) -> int:
    return app.screen.query_one(Prompt).cursor_location[1]


def chosen_temperature(app: LotrApp) -> float:
    screen: Any = app.screen
    return float(screen.slots[screen.chosen].temperature)


def files(kind: str) -> Look:
    return lambda app: len(list(Path.cwd().glob(f"*.{kind}")))


def one_session_less() -> None:
    (sessions_folder() / "broken.jsonl").unlink()


def painted(app: LotrApp) -> list[str]:
    """What is seen of the columns."""
    columns = app.screen.query_one(Columns)
    return [columns.render_line(y).text for y in range(columns.size.height)]


def sessions_listed(app: LotrApp) -> int:
    return app.screen.query_one(OptionList).option_count


def branches(app: LotrApp) -> int:
    return len(reply(app).turn.replies)


value, selected = of(Prompt, "value"), of(Prompt, "selected_text")


# The stages


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


def ladder(pace: float) -> Callable[[Pilot[None]], Awaitable[None]]:
    """Long columns."""

    async def set_up(pilot: Pilot[None]) -> None:
        app: Any = pilot.app
        settings = SamplerSettings(top_k=20, max_tokens=200)
        await app.push_screen(LadderScreen(scenes.player_of(app), "the tower", settings, 3, pace))

    return set_up


LINES = "\n".join([scenes.READ, scenes.SAID] * 4)


async def lens(pilot: Pilot[None]) -> None:
    app: Any = pilot.app
    await app.push_screen(LensScreen(scenes.sure(app), LINES))
    await until(pilot, lambda: lens_at_rest(app))
    app.screen.query_one(LensText).focus()


async def memorised(pilot: Pilot[None]) -> None:
    app: Any = pilot.app
    await app.push_screen(MemorisedScreen(scenes.player_of(app), LINES))
    await until(pilot, lambda: memorised_at_rest(app))


async def places(pilot: Pilot[None]) -> None:
    await memorised(pilot)
    pilot.app.screen.query_one(PassagePlaces).focus()


async def inside(pilot: Pilot[None]) -> None:
    app: Any = pilot.app
    await app.push_screen(InsideScreen(scenes.two_layers(app), LINES))
    await until(pilot, lambda: bool(app.screen._layers) and inside_at_rest(app))


def inside_at(kind: type[Any], *keys: str) -> Callable[[Pilot[None]], Awaitable[None]]:
    async def set_up(pilot: Pilot[None]) -> None:
        app: Any = pilot.app
        await inside(pilot)
        await pilot.press(*keys)
        await until(pilot, lambda: inside_at_rest(app))
        app.screen.query_one(kind).focus()

    return set_up


async def nothing(pilot: Pilot[None]) -> None:
    await pilot.pause()


async def learning(pilot: Pilot[None]) -> None:
    app: Any = pilot.app
    await until(pilot, lambda: app.training is not None and app.training.evaluations)


def walk_along(prefix: str, look: Look, names: dict[str, Wanted]) -> list[Row]:
    """Rows of the keys that move a cursor."""
    return [Row(f"{prefix}.{name}", look, wanted) for name, wanted in names.items()]


def of_app(name: str) -> Look:
    return lambda app: getattr(app, name)


PAGES: dict[str, Wanted] = {"page-down": more, "page-up": less, "last": more, "first": less}
LIST: dict[str, Wanted] = {"down": moves(1), "up": moves(-1), **PAGES}

LINE_OF_WORDS: dict[str, Wanted] = {"right": moves(1), "left": moves(-1), "down": more, "up": less, **PAGES}

STAGES: dict[str, Stage] = {
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
            Row("choose-model.cancel", screen_name, becomes("PlayScreen"), ("ctrl+o",)),
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
    "ladder": Stage(
        ladder(0),
        [
            Row("columns.add", lambda app: len(app.screen.slots), moves(1)),  # type: ignore[attr-defined]
            Row("columns.remove", lambda app: len(app.screen.slots), moves(-1)),  # type: ignore[attr-defined]
            Row("columns.left", own("chosen"), moves(-1)),
            Row("columns.right", own("chosen"), moves(1)),
            Row("columns.cooler", chosen_temperature, less),
            Row("columns.hotter", chosen_temperature, more),
            Row("columns.run", own("asked"), becomes(("the towerx", 3)), ("x",)),
            Row("columns.up", painted, other),
            Row("columns.down", painted, other),
            Row("columns.seed", own("asked"), other),
        ],
    ),
    "columns come": Stage(
        ladder(2),
        [
            Row("columns.stop", lambda app: bool(app.screen._writers), becomes(False)),  # type: ignore[attr-defined]
            Row("columns.interrupt", lambda app: bool(app.screen._writers), becomes(False), ("enter",)),  # type: ignore[attr-defined]
            Row("columns.leave", screen_name, becomes("PlayScreen")),
        ],
        pace=2,
    ),
    "sessions": Stage(
        scenes.sessions,
        [
            Row("sessions.markdown", files("md"), moves(1)),
            Row("sessions.json", files("json"), moves(1)),
            Row("sessions.svg", files("svg"), moves(1)),
            Row(
                "sessions.refresh",
                lambda app: app.screen.query_one(OptionList).option_count,
                moves(-1),
                prepare=one_session_less,
            ),
            Row("sessions.open", screen_name, becomes("PlayScreen")),
        ],
    ),
    "lens": Stage(
        lens,
        [
            Row("lens-text.last", of(LensText, "cursor"), more),
            Row("lens-text.page-up", of(LensText, "cursor"), less),
            Row("lens-text.first", of(LensText, "cursor"), becomes(0)),
            Row("lens-text.page-down", of(LensText, "cursor"), more),
            Row("lens-text.left", of(LensText, "cursor"), moves(-1)),
            Row("lens-text.right", of(LensText, "cursor"), moves(1)),
            Row("lens-text.up", of(LensText, "cursor"), less),
            Row("lens-text.down", of(LensText, "cursor"), more),
            Row("lens-text.next", of(LensText, "cursor"), more, ("home",)),
            Row("lens-text.previous", of(LensText, "cursor"), less, ("end",)),
            Row("lens.view", of(LensText, "view"), other),
            Row("lens.line-ends", own("_line_ends"), other),
            Row("lens.open", screen_name, becomes("AskPath")),
            Row("lens-open.cancel", screen_name, becomes("LensScreen"), ("ctrl+o",)),
            Row("lens.sentences", focused, becomes("LensSentences")),
            *walk_along("lens-sentences", of(LensSentences, "_cursor"), {"first": less, **LIST}),
            Row("lens-sentences.order", of(LensSentences, "_hardest_first"), becomes(True)),
        ],
        size=(60, 14),
    ),
    "memorised": Stage(
        memorised,
        [
            Row("passage-text.next", of(PassageText, "chosen"), moves(1)),
            Row("passage-text.before", of(PassageText, "chosen"), moves(-1)),
            Row("passage-text.tab", of(PassageText, "chosen"), moves(1)),
            Row("passage-text.back", of(PassageText, "chosen"), moves(-1)),
            Row("passage-text.last", of(PassageText, "chosen"), more),
            Row("passage-text.first", of(PassageText, "chosen"), becomes(0)),
            Row("passage-text.page-down", scrolled(PassageText), more),
            Row("passage-text.page-up", scrolled(PassageText), less),
            Row("memorised.edit", focused, becomes("Input")),
        ],
        size=(60, 14),
    ),
    "places": Stage(
        places,
        [
            Row("passage-places.down", scrolled(PassagePlaces), more),
            Row("passage-places.up", scrolled(PassagePlaces), less),
            *walk_along("passage-places", scrolled(PassagePlaces), PAGES),
        ],
        size=(60, 14),
    ),
    "inside": Stage(
        inside,
        [
            Row("inside.before", of(PageText, "cursor"), moves(-1)),
            Row("inside.next", of(PageText, "cursor"), moves(1)),
            Row("gate-strips.first", of(GateStrips, "unit"), becomes(0)),
            Row("gate-strips.right", of(GateStrips, "unit"), moves(1)),
            Row("gate-strips.left", of(GateStrips, "unit"), moves(-1)),
            Row("gate-strips.page-down", of(GateStrips, "unit"), moves(20)),
            Row("gate-strips.page-up", of(GateStrips, "unit"), moves(-20)),
            Row("gate-strips.last", of(GateStrips, "unit"), becomes(199)),
            Row("gate-strips.up", of(GateStrips, "part"), becomes("candidate")),
            Row("gate-strips.down", of(GateStrips, "part"), becomes("cell")),
            Row("gate-strips.most", of(GateStrips, "unit"), other),
            Row("gate-strips.zoom", of(GateStrips, "bin"), becomes(1)),
            Row("inside.pin", lambda app: app.screen._pinned is None, becomes(False)),  # type: ignore[attr-defined]
            Row("inside.edit", focused, becomes("Input")),
            Row("inside.other", lambda app: app.screen.has_class("-found"), becomes(True)),
            Row("inside.find", of(UnitFound, "_items"), other),
            Row("inside.layer", own("_depth"), becomes(1)),
        ],
    ),
    "text inside": Stage(
        inside_at(PageText),
        [
            Row("page-text.first", of(PageText, "cursor"), becomes(0)),
            *walk_along("page-text", of(PageText, "cursor"), LINE_OF_WORDS),
        ],
        size=(60, 14),
    ),
    "unit along": Stage(
        inside_at(UnitAlong),
        [*walk_along("unit-along", of(UnitAlong, "_cursor"), {"first": less, **LIST})],
    ),
    "unit found": Stage(
        inside_at(UnitFound, "f4"),
        [
            *walk_along("unit-found", of(UnitFound, "_cursor"), LIST),
            Row("unit-found.read", own("_text"), other),
        ],
    ),
    "dashboard": Stage(
        learning,
        [
            Row("train.play", screen_name, becomes("PlayScreen")),
            Row("train.interrupt", screen_name, becomes("Confirm")),
            Row("train.close", screen_name, becomes("Confirm")),
            Row("train.stop", screen_name, becomes("Confirm")),
            Row("confirm.no", screen_name, becomes("TrainScreen"), ("s",)),
            Row("confirm.yes", of_app("is_training"), becomes(False), ("s",)),
        ],
        trains=True,
    ),
}

KEYS: dict[str, Binding] = {str(binding.id): binding for table in _tables() for binding in table}


def test_no_binding_is_left_out() -> None:
    assert {row.id for stage in STAGES.values() for row in stage.rows} == set(KEYS)


@pytest.mark.parametrize("name", STAGES)
async def test_its_key_does_what_it_is_for(
    make_app: MakeApp, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    stage = STAGES[name]
    scenes.make_fixed(monkeypatch, times=6)
    monkeypatch.chdir(tmp_path)
    job = FakeJob(training_events()).release() if stage.trains else None
    app = make_app(pace=stage.pace, job=job)
    async with app.run_test(size=stage.size) as pilot:
        await stage.set_up(pilot)
        await at_rest(pilot, stage)
        for row in stage.rows:
            base = app.screen
            await pilot.press(*row.first)
            row.prepare()
            await at_rest(pilot, stage)
            before = row.look(app)
            await pilot.press(KEYS[row.id].key.split(",")[0])
            await happened(pilot, row, before)
            await at_rest(pilot, stage)
            while base in app.screen_stack and app.screen is not base:
                app.pop_screen()
                await pilot.pause()


async def happened(pilot: Pilot[None], row: Row, before: Any) -> None:
    """Wait for what is wanted."""
    app: Any = pilot.app
    with suppress(AssertionError):
        await until(pilot, lambda: row.wanted(before, row.look(app)), seconds=3)
    after = row.look(app)
    assert row.wanted(before, after), f"{row.id}: {before!r} became {after!r}"


async def at_rest(pilot: Pilot[None], stage: Stage) -> None:
    """Until all words have come, where they are not what it is about."""
    await pilot.pause()
    views = pilot.app.screen_stack[0].query(ConversationView)
    if views and not stage.pace:
        await until(pilot, lambda: views.first().conversation.writing is None)
    screen = pilot.app.screen
    if isinstance(screen, LadderScreen) and not stage.pace:
        await until(pilot, lambda: all(slot.text.done for slot in screen.slots))
