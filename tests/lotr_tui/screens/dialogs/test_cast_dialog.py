"""Dialog for the cast of a conversation."""

import pytest

from lotr_tui.screens.dialogs.cast import AnswerAgain, CastDialog, CastList
from lotr_tui.session.cast import Roles
from tests.support.pilot import lines_of

NAMES = ("GANDALF", "FRODO", "SAM", "GOLLUM", "KING OF THE DEAD", "SOMEONE")
CURRENT = Roles("", "FRODO")


async def open_dialog(pilot, current=CURRENT, names=NAMES, column="answering"):
    """Open the dialog, and return a list that gets its result."""
    results = []
    dialog = CastDialog(names, names, names[:-1], current, {"GANDALF": 0.5, "GOLLUM": 0.031}, column)
    await pilot.app.push_screen(dialog, results.append)
    await pilot.pause()
    return results


def lists(pilot):
    return [
        [" ".join(line.split()) for line in lines_of(cast_list).splitlines() if line.strip()]
        for cast_list in pilot.app.screen.query(CastList)
    ]


@pytest.fixture
async def pilot(make_host):
    async with make_host().run_test(size=(80, 24)) as pilot:
        yield pilot


async def test_keys_and_typed_names_choose_in_both_lists(pilot):
    for keys, expected in [
        (("up", "up", "up", "up", "enter"), Roles("", "")),
        (("tab", "tab", "down", "enter"), Roles("", "SAM")),
        ((*"DEAD", "enter"), Roles("", "KING OF THE DEAD")),
        ((*"gol", "tab", *"sa", "enter"), Roles("SAM", "GOLLUM")),
        (("down", "escape"), None),
        (("down", "ctrl+r"), AnswerAgain("SAM")),
        ((*"tom b", "enter"), Roles("", "TOM B")),
    ]:
        results = await open_dialog(pilot)
        await pilot.press(*keys)
        await pilot.pause()
        assert results == [expected], keys


async def test_lists_show_the_current_choice_and_are_complete_again_after_a_search(pilot):
    results = await open_dialog(pilot, column="speaking-as")
    answering, _ = lists(pilot)
    assert answering[:3] == ["the model chooses", "Gandalf 50 %", "● Frodo"]
    assert answering[4:] == ["Gollum 3.1 %", "King of the Dead", "Someone"]
    await pilot.press("tab", *"gol")
    assert lists(pilot)[0] == ["● Gollum 3.1 %"]
    await pilot.press("tab")
    await pilot.click("#speaking-as", offset=(4, 3))
    assert lists(pilot)[1][3] == "● Sam"
    await pilot.click("#answering", offset=(4, 1), times=2)
    await pilot.pause()
    assert results == [Roles("SAM", "GANDALF")]

    results = await open_dialog(pilot, Roles("SAURON", "SAURON"))  # outside the cast
    await pilot.press("enter")
    await pilot.pause()
    assert results == [Roles("SAURON", "SAURON")]
