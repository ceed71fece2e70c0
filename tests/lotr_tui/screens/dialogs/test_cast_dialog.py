"""Dialog for the cast of a conversation."""

from textual.widgets import OptionList

from lotr_tui.screens.dialogs.questions import CastDialog
from lotr_tui.session.cast import Roles

NAMES = ("GANDALF", "FRODO", "SAM", "GOLLUM", "KING OF THE DEAD", "SOMEONE")
CURRENT = Roles("", "FRODO")


async def open_dialog(pilot, current=CURRENT, names=NAMES, column="answering"):
    """Open the dialog, and return a list that gets its result."""
    results = []
    dialog = CastDialog(names, names, names[:-1], current, {"GANDALF": 0.5, "GOLLUM": 0.031}, column)
    await pilot.app.push_screen(dialog, results.append)
    await pilot.pause()
    return results


def rows(pilot):
    return [" ".join(str(option.prompt).split()) for option in pilot.app.screen.query_one(OptionList).options]


def highlighted(pilot):
    return rows(pilot)[pilot.app.screen.query_one(OptionList).highlighted]


async def test_keys_and_typed_names_choose_who_answers_and_who_speaks(make_host):
    async with make_host().run_test(size=(80, 24)) as pilot:
        for column, keys, expected in [
            ("answering", ("up", "up", "up", "enter"), Roles("", "")),
            ("answering", ("down", "enter"), Roles("", "SAM")),
            ("answering", (*"DEAD", "enter"), Roles("", "KING OF THE DEAD")),
            ("answering", (*"gol", "enter"), Roles("", "GOLLUM")), ("answering", ("down", "escape"), None),
            ("answering", (*"!tom b", "enter"), Roles("", "TOM B")),
            ("speaking-as", (*"sa", "enter"), Roles("SAM", "FRODO")),
            ("answering", (*"anyone", "enter"), Roles("", "")), ("speaking-as", ("enter",), CURRENT),
        ]:  # fmt: skip
            results = await open_dialog(pilot, column=column)
            await pilot.press(*keys)
            await pilot.pause()
            assert results == [expected], keys


async def test_the_list_shows_the_current_choice_and_a_click_uses_another(make_host):
    async with make_host().run_test(size=(80, 24)) as pilot:
        results = await open_dialog(pilot)
        likeliest_first = ["the model chooses", "Gandalf 50 %", "Gollum 3.1 %", "Frodo", "Sam", "King of the Dead"]
        assert rows(pilot) == [*likeliest_first, "Someone"]
        assert highlighted(pilot) == "Frodo"
        await pilot.press(*"g")
        assert rows(pilot) == ["Gandalf 50 %", "Gollum 3.1 %", "King of the Dead"]
        await pilot.press("backspace")
        assert highlighted(pilot) == "Frodo"
        await pilot.click(OptionList, offset=(4, 1))
        await pilot.pause()
        assert results == [Roles("", "GANDALF")]
        results = await open_dialog(pilot, Roles("SAURON", "SAURON"))  # outside the cast
        await pilot.press("enter")
        await pilot.pause()
        assert results == [Roles("SAURON", "SAURON")]
