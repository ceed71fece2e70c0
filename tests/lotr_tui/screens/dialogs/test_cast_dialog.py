"""Dialog for the cast of a conversation."""

from typing import Any

import pytest
from textual.pilot import Pilot
from textual.widgets import Input, Label

from lotr_tui.screens.dialogs.cast import AnswerAgain, CastDialog, CastList
from lotr_tui.session.conversation.cast import Roles
from tests.support.pilot import MakeApp, lines_of, text_of

NAMES = ("GANDALF", "FRODO", "SAM", "GOLLUM", "KING OF THE DEAD", "SOMEONE")
CURRENT = Roles("", "FRODO")


async def open_dialog(
    pilot: Pilot[None], current: Roles = CURRENT, names: tuple[str, ...] = NAMES, column: Any = "answering"
) -> list[Roles | AnswerAgain | None]:
    """Open the dialog, and return a list that gets its result."""
    results: list[Roles | AnswerAgain | None] = []
    dialog = CastDialog(names, names, names[:-1], current, {"GANDALF": 0.5, "GOLLUM": 0.031}, column)
    await pilot.app.push_screen(dialog, results.append)
    await pilot.pause()
    return results


def lists(pilot: Pilot[None]) -> list[list[str]]:
    """Return the painted lines of both lists."""
    return [
        [" ".join(line.split()) for line in lines_of(cast_list).splitlines() if line.strip()]
        for cast_list in pilot.app.screen.query(CastList)
    ]


async def test_both_lists_show_the_current_choice(make_host: MakeApp) -> None:
    app = make_host()
    async with app.run_test(size=(80, 24)) as pilot:
        await open_dialog(pilot)
        answering, speaking_as = lists(pilot)
        assert answering[:3] == ["the model chooses", "Gandalf 50 %", "● Frodo"]
        assert answering[4:] == ["Gollum 3.1 %", "King of the Dead", "Someone"]
        assert speaking_as == ["● a stranger", "Gandalf", "Frodo", "Sam", "Gollum", "King of the Dead"]


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        (("enter",), CURRENT),
        (("down", "enter"), Roles("", "SAM")),
        (("up", "up", "up", "up", "enter"), Roles("", "")),
        (("pagedown", "enter"), Roles("", "SOMEONE")),
        (("tab", "down", "enter"), Roles("GANDALF", "FRODO")),
        (("tab", "tab", "down", "enter"), Roles("", "SAM")),
        ((*"gol", "enter"), Roles("", "GOLLUM")),
        ((*"DEAD", "enter"), Roles("", "KING OF THE DEAD")),
        ((*"g", "down", "enter"), Roles("", "GOLLUM")),
        ((*"gol", "tab", *"sa", "enter"), Roles("SAM", "GOLLUM")),
        ((*"xyz", "enter"), CURRENT),
        (("down", "escape"), None),
        (("down", "ctrl+r"), AnswerAgain("SAM")),
        (("home", "pageup", "ctrl+r"), AnswerAgain("")),
    ],
)
async def test_keys_choose_in_both_lists(
    make_host: MakeApp, keys: tuple[str, ...], expected: Roles | AnswerAgain | None
) -> None:
    app = make_host()
    async with app.run_test(size=(80, 24)) as pilot:
        results = await open_dialog(pilot)
        await pilot.press(*keys)
        await pilot.pause()
        assert results == [expected]


async def test_the_dialog_begins_in_the_list_it_is_opened_for(make_host: MakeApp) -> None:
    app = make_host()
    async with app.run_test(size=(80, 24)) as pilot:
        results = await open_dialog(pilot, column="speaking-as")
        await pilot.press("down", "enter")
        await pilot.pause()
        assert results == [Roles("GANDALF", "FRODO")]


async def test_a_click_chooses_and_a_double_click_closes(make_host: MakeApp) -> None:
    app = make_host()
    async with app.run_test(size=(60, 20)) as pilot:
        results = await open_dialog(pilot)
        await pilot.click("#speaking-as", offset=(4, 3))
        assert lists(pilot)[1][3] == "● Sam"
        assert app.screen.query_one("#speaking-as-heading", Label).has_class("-active")
        await pilot.click("#answering", offset=(4, 1), times=2)
        await pilot.pause()
        assert results == [Roles("SAM", "GANDALF")]


async def test_a_saved_role_outside_the_cast_counts_as_none(make_host: MakeApp) -> None:
    app = make_host()
    async with app.run_test(size=(80, 24)) as pilot:
        results = await open_dialog(pilot, Roles("SAURON", "SAURON"))
        await pilot.press("enter")
        await pilot.pause()
        assert results == [Roles("", "")]


async def test_a_cast_of_thousands_scrolls_and_is_searched(make_host: MakeApp) -> None:
    app = make_host()
    names = tuple(f"ORC {number}" for number in range(5000))
    async with app.run_test(size=(80, 24)) as pilot:
        results = await open_dialog(pilot, Roles("", "ORC 4321"), names)
        assert any(line == "● Orc 4321" for line in lists(pilot)[0])
        await pilot.press(*"orc", "space", *"4999", "enter")
        await pilot.pause()
        assert results == [Roles("", "ORC 4999")]


async def test_the_other_list_is_complete_again_after_a_search(make_host: MakeApp) -> None:
    app = make_host()
    async with app.run_test(size=(80, 24)) as pilot:
        await open_dialog(pilot)
        await pilot.press(*"gol")
        assert lists(pilot)[0] == ["● Gollum 3.1 %"]
        await pilot.press("tab")
        assert app.screen.query_one(Input).value == ""
        assert len(lists(pilot)[0]) == 7
        heading = app.screen.query_one("#answering-heading", Label)
        assert text_of(heading) == "who answers"
        assert not heading.has_class("-active")
