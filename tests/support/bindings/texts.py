"""Keys of the screens beside the session: columns of texts, the sessions, the lens, what was memorised."""

from collections.abc import Awaitable, Callable
from typing import Any

from textual.pilot import Pilot
from textual.widgets import OptionList

from engine.generation.settings import SamplerSettings
from lotr_tui.app import LotrApp
from lotr_tui.screens.comparison.columns import Columns
from lotr_tui.screens.comparison.ladder import LadderScreen
from lotr_tui.screens.lens.screen import LensScreen
from lotr_tui.screens.lens.sentences import LensSentences
from lotr_tui.screens.lens.text import LensText
from lotr_tui.screens.memorization.occurrences import PassagePlaces
from lotr_tui.screens.memorization.screen import MemorisedScreen
from lotr_tui.screens.memorization.text import PassageText
from lotr_tui.session.session_file import sessions_folder
from tests.lotr_tui.screens.lens.test_lens_screen import at_rest as lens_at_rest
from tests.lotr_tui.screens.memorization.test_memorization_screen import at_rest as memorised_at_rest
from tests.lotr_tui.screens.session.test_session_screen import until
from tests.support import scenes
from tests.support.bindings.rows import (
    LINES,
    LIST,
    PAGES,
    Row,
    Stage,
    becomes,
    files,
    focused,
    less,
    more,
    moves,
    of,
    other,
    own,
    screen_name,
    scrolled,
    walk_along,
)


def chosen_temperature(app: LotrApp) -> float:
    screen: Any = app.screen
    return float(screen.slots[screen.chosen].temperature)


def one_session_less() -> None:
    (sessions_folder() / "broken.jsonl").unlink()


def painted(app: LotrApp) -> list[str]:
    """What is seen of the columns."""
    columns = app.screen.query_one(Columns)
    return [columns.render_line(y).text for y in range(columns.size.height)]


def sessions_listed(app: LotrApp) -> int:
    return app.screen.query_one(OptionList).option_count


def ladder(pace: float) -> Callable[[Pilot[None]], Awaitable[None]]:
    """Long columns."""

    async def set_up(pilot: Pilot[None]) -> None:
        app: Any = pilot.app
        settings = SamplerSettings(top_k=20, max_tokens=200)
        await app.push_screen(LadderScreen(scenes.player_of(app), "the tower", settings, 3, pace))

    return set_up


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


TEXTS: dict[str, Stage] = {
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
            Row("memorised.edit", focused, becomes("LineBox")),
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
}
