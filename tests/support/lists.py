"""The lists of runs and of sessions, and the dialogs that they open."""

from textual.widgets import Input, OptionList

from tests.support.pilot import text_of, until


async def show(pilot, screen):
    """Open a list, and return a list that gets the result of its screen."""
    results = []
    await pilot.app.push_screen(screen, results.append)
    await until(pilot, lambda: screen.query("#message") and "reading" not in message(pilot))
    return results


def rows(pilot):
    return [str(option.prompt) for options in pilot.app.screen.query(OptionList) for option in options.options]


def message(pilot):
    return text_of(pilot.app.screen.query_one("#message")).replace("\n", "")


def problem(pilot):
    return text_of(pilot.app.screen.query_one("#problem")).replace("\n", "")


async def open_dialog(pilot, key, dialog):
    await pilot.press(key)
    await until(pilot, lambda: isinstance(pilot.app.screen, dialog))


async def refuse(pilot, **problems):
    """Submit texts of the only field that cannot be used, each with a part of the problem; they stay there."""
    for text, part in problems.items():
        pilot.app.screen.query_one(Input).value = text
        await pilot.press("enter")
        await until(pilot, lambda: part in problem(pilot))  # noqa: B023
        assert pilot.app.screen.query_one(Input).value == text


async def answer(pilot, dialog_key, dialog, reply):
    """Open a question with a key, and answer it."""
    await open_dialog(pilot, dialog_key, dialog)
    question = pilot.app.screen
    await pilot.press(reply)
    await until(pilot, lambda: pilot.app.screen is not question)
