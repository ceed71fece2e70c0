"""Words of the transcript under the mouse, on narrow and wide terminals."""

import pytest
from textual.pilot import Pilot

from lotr_tui.screens.session.conversation.token_inspector import TokenInspector
from lotr_tui.screens.session.conversation.transcript import MOUSE_HELP, Transcript
from lotr_tui.widgets.help_line import HelpLine
from tests.support.pilot import (
    MakeApp,
    alternative_to,
    inspector_text,
    latest_reply,
    reply_to,
    set_field,
    text_of,
    transcript_text,
    until_reply_ended,
)

SIZES = [(60, 20), (160, 45)]


def position_of(pilot: Pilot[None], text: str) -> tuple[int, int]:
    """Return the offset of the first character of a painted text in the transcript, with its padding."""
    transcript = pilot.app.screen.query_one(Transcript)
    lines = transcript_text(pilot.app).splitlines()
    y = next(y for y, line in enumerate(lines) if text in line)
    padding = transcript.styles.padding
    return padding.left + lines[y].index(text), padding.top + y


async def short_reply_to(pilot: Pilot[None], prompt: str = "bilbo is") -> list[str]:
    """Generate a reply of five words, and return them."""
    set_field(pilot.app, "max_tokens", "5")
    reply = await reply_to(pilot, prompt)
    return [token.text for token in reply.tokens]


def underlined(pilot: Pilot[None]) -> list[str]:
    transcript = pilot.app.screen.query_one(Transcript)
    lines = [transcript.render_line(y) for y in range(transcript.size.height)]
    return [segment.text for line in lines for segment in line if segment.style and segment.style.underline]


@pytest.mark.parametrize("size", SIZES)
async def test_click_on_any_word_of_a_reply_inspects_it(make_app: MakeApp, size: tuple[int, int]) -> None:
    app = make_app()
    async with app.run_test(size=size) as pilot:
        words = await short_reply_to(pilot)
        x, y = position_of(pilot, " ".join(words))
        for index, word in enumerate(words):
            offset = sum(len(before) + 1 for before in words[:index]) + len(word) - 1
            await pilot.click(Transcript, offset=(x + offset, position_of(pilot, " ".join(words))[1]))
            await pilot.pause()
            assert f'WORD {index + 1} of 5  "{word}"' in inspector_text(app)
        await pilot.click(Transcript, offset=(x + len(" ".join(words)) + 3, y))  # behind the last word
        await pilot.pause()
        assert "WORD 5 of 5" in inspector_text(app)


@pytest.mark.parametrize("size", SIZES)
async def test_double_click_branches_to_the_likeliest_other_word(make_app: MakeApp, size: tuple[int, int]) -> None:
    app = make_app()
    async with app.run_test(size=size) as pilot:
        for _ in range(4):  # the transcript scrolls when the inspector appears below it
            words = await short_reply_to(pilot)
        x, y = position_of(pilot, " ".join(words[:2]))
        await pilot.click(Transcript, offset=(x + len(words[0]) + 1, y), times=2)
        await until_reply_ended(pilot)
        branch = [token.text for token in latest_reply(app).tokens]
        assert branch[0] == words[0]
        assert branch[1] != words[1]
        assert f'WORD 2 of 7  "{branch[1]}"' in inspector_text(app)


@pytest.mark.parametrize("size", SIZES)
async def test_click_on_an_alternative_branches_to_it(make_app: MakeApp, size: tuple[int, int]) -> None:
    app = make_app()
    async with app.run_test(size=size) as pilot:
        words = await short_reply_to(pilot)
        await pilot.click(Transcript, offset=position_of(pilot, words[0]))
        await pilot.pause()
        number, word = alternative_to(app, words[0])
        line = next(y for y, text in enumerate(inspector_text(app).splitlines()) if text.startswith(f"{number} "))
        padding = app.screen.query_one(TokenInspector).styles.padding
        await pilot.click(TokenInspector, offset=(padding.left + 3, padding.top + line))
        await until_reply_ended(pilot)
        assert latest_reply(app).tokens[0].text == word


async def test_click_on_a_prompt_inspects_the_first_word_of_its_reply(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(100, 30)) as pilot:
        await short_reply_to(pilot)
        await short_reply_to(pilot, "the lamp")
        await pilot.click(Transcript, offset=position_of(pilot, "bilbo is"))
        await pilot.pause()
        transcript = app.screen.query_one(Transcript)
        assert transcript.cursor == (1, 0)
        await pilot.press("ctrl+x")
        await pilot.pause()
        assert app.screen.query_one("#prompt").value == "bilbo is"  # type: ignore[attr-defined]


async def test_word_under_the_mouse_is_underlined(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(100, 30)) as pilot:
        words = await short_reply_to(pilot)
        x, y = position_of(pilot, " ".join(words))
        await pilot.hover(Transcript, offset=(x + len(words[0]) + 1, y))
        assert underlined(pilot) == [words[1]]
        await pilot.hover(Transcript, offset=(x + 50, y))
        assert underlined(pilot) == []
        await pilot.hover(Transcript, offset=(x, y))
        assert underlined(pilot) == [words[0]]
        assert text_of(app.screen.query_one(HelpLine)) == MOUSE_HELP
        await pilot.hover("#prompt")
        await pilot.pause()
        assert underlined(pilot) == []
