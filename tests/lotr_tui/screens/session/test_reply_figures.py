"""Figures of replies in the transcript, the end of a line, and the positions of lines while the transcript changes."""

import pytest
from textual.pilot import Pilot

from engine.data.tokenizers.base import EOS, EOS_ID
from engine.generation.generate import Done
from engine.generation.settings import SamplerSettings
from lotr_tui.app import LotrApp
from lotr_tui.screens.session.conversation.transcript import Transcript
from lotr_tui.screens.session.conversation.view import ConversationView
from lotr_tui.session.conversation.entries import Exchange, Note
from lotr_tui.session.session_model import SessionModel
from lotr_tui.session.settings import REPLY_MODE_NOTE
from tests.support.app import make_decoder
from tests.support.pilot import (
    MakeApp,
    conversation_of,
    entries,
    exchange_text,
    inspector_text,
    latest_reply,
    notices,
    reply_to,
    send,
    set_field,
    transcript_text,
    until,
    until_reply_ended,
)


def painted_lines(app: LotrApp) -> list[str]:
    return [line.strip() for line in transcript_text(app).splitlines()]


def lines_with_figures(app: LotrApp) -> list[str]:
    return [line for line in painted_lines(app) if "seed " in line]


def screen_line(app: LotrApp, text: str) -> int:
    """Return the row of the first painted line that starts with `text`."""
    return next(y for y, line in enumerate(painted_lines(app)) if line.startswith(text))


async def test_figures_are_shown_of_the_newest_reply_and_of_the_one_under_the_cursor(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(160, 45)) as pilot:
        for seed, prompt in enumerate(("bilbo is", "the lamp", "frodo"), 1):
            await reply_to(pilot, prompt, str(seed))
            assert [f"seed {seed} " in line for line in lines_with_figures(app)] == [True]
        rows = [screen_line(app, f"❯ {prompt}") for prompt in ("bilbo is", "the lamp", "frodo")]
        for keys, seeds in ((("ctrl+g", "up"), "23"), (("up",), "13"), (("down", "down"), "3"), (("escape",), "3")):
            await pilot.press(*keys)
            await pilot.pause()
            assert [line.split("seed ")[1][0] for line in lines_with_figures(app)] == list(seeds)
            assert [screen_line(app, f"❯ {prompt}") for prompt in ("bilbo is", "the lamp", "frodo")] == rows


async def test_figures_of_the_reply_under_the_cursor_are_in_view(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(80, 24)) as pilot:
        for seed in range(1, 7):
            await reply_to(pilot, seed=str(seed))
        await pilot.press("ctrl+g", *["up"] * 5)
        for seed in range(1, 7):
            await pilot.press("end")
            await pilot.pause()
            assert any(f"seed {seed} " in line for line in lines_with_figures(app))
            await pilot.press("down")


async def test_figures_take_one_line_with_the_end_of_the_reply_first(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(60, 20)) as pilot:
        set_field(app, "max_tokens", "3")
        set_field(app, "top_k", "40")
        set_field(app, "top_p", "0.95")
        await reply_to(pilot)
        (figures,) = lines_with_figures(app)
        assert figures.startswith("stopped at 3 words · seed 7 · ")
        assert figures.endswith("…")
        assert painted_lines(app)[screen_line(app, figures) + 1] == ""


async def test_unknown_words_of_an_older_prompt_stay_visible(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(100, 40)) as pilot:
        await reply_to(pilot, "bilbo xylophone ☺")
        await reply_to(pilot, "the lamp")
        assert "the model does not know: xylophone, ☺" in painted_lines(app)
        assert "<unk>" not in transcript_text(app)


async def test_nothing_moves_while_a_reply_is_written_and_when_it_ends(make_app: MakeApp) -> None:
    app = make_app(pace=100)
    async with app.run_test(size=(100, 20)) as pilot:
        set_field(app, "max_tokens", "6")
        for seed in range(6):  # more than fit
            await reply_to(pilot, seed=str(seed))
        set_field(app, "seed", "9")
        await send(pilot, "frodo")
        await until(pilot, lambda: latest_reply(app).prompt == "frodo")
        await pilot.pause()
        rows = set()
        while conversation_of(app).active_reply is not None:
            rows.add(screen_line(app, "❯ frodo"))
            await pilot.pause(0.005)
        await pilot.pause()
        rows.add(screen_line(app, "❯ frodo"))
        assert len(rows) == 1
        await pilot.press("ctrl+r")
        while conversation_of(app).active_reply is not None:
            await pilot.pause(0.005)
            rows.add(screen_line(app, "❯ frodo"))
        assert len(rows) == 1, "a regenerated reply is short at first"


async def test_note_does_not_move_a_reader_who_has_scrolled_up(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(80, 24)) as pilot:
        for seed in range(6):
            await reply_to(pilot, seed=str(seed))
        transcript, view = app.screen.query_one(Transcript), app.screen.query_one(ConversationView)
        await pilot.press("pageup")
        await pilot.pause()
        before = transcript.scroll_offset.y
        view.add_note("training finished")
        await pilot.pause()
        assert transcript.scroll_offset.y == before
        await pilot.press("pagedown", "pagedown")
        await pilot.pause()
        view.add_note("another one")
        await pilot.pause()
        assert painted_lines(app)[-2:] == ["another one", ""]


def make_line_model() -> SessionModel:
    """Return a model that often ends a line."""
    decoder = make_decoder()
    decoder.weights["output.bias"][EOS_ID] = 4
    return SessionModel("lines", "", decoder)


async def reply_with_line_end(pilot: Pilot[None]) -> None:
    """Generate a reply that the model has ended."""
    set_field(pilot.app, "max_tokens", "40")
    await reply_to(pilot)
    assert latest_reply(pilot.app).has_ended_line


@pytest.mark.parametrize("size", [(60, 20), (160, 45)])
async def test_keep_going_after_the_end_of_a_line_shows_the_next_line(make_app: MakeApp, size: tuple[int, int]) -> None:
    app = make_app(session_model=make_line_model())
    async with app.run_test(size=size) as pilot:
        await reply_with_line_end(pilot)
        first = " ".join(token.text for token in latest_reply(app).tokens)
        await pilot.press("ctrl+n")
        await until_reply_ended(pilot)
        tokens = [token.text for token in latest_reply(app).tokens]
        second = " ".join(tokens[tokens.index(EOS) + 1 :])
        assert second
        row = screen_line(app, f"{first}\N{NO-BREAK SPACE}¶")
        assert painted_lines(app)[row + 1] == second
        assert latest_reply(app).text() == f"bilbo is {first}\n{second}"
        assert "end of line" in exchange_text(app)
        assert " 0 words/s" not in exchange_text(app)
        # The cursor walks over the end of the line, whose figures are shown like those of a word.
        await pilot.press("ctrl+g", "home", *["right"] * tokens.index(EOS))
        await pilot.pause()
        assert f"WORD {tokens.index(EOS) + 1} of {len(tokens)}  end of line" in inspector_text(app)
        assert EOS not in inspector_text(app)


async def test_end_of_line_and_rare_word_are_no_branches(make_app: MakeApp) -> None:
    decoder = make_decoder()
    decoder.weights["output.bias"][:2] = 6, 3
    app = make_app(session_model=SessionModel("test", "", decoder))
    async with app.run_test(size=(160, 45)) as pilot:
        set_field(app, "top_k", "4")  # the removed words follow, likeliest first
        reply = await reply_to(pilot)
        assert len(reply.tokens) > 1
        await pilot.press("ctrl+g")
        await pilot.pause()
        shown = inspector_text(app).splitlines()
        for name in ("end of line", "rare word"):
            number = next(line[0] for line in shown if line[2:].startswith(name))
            await pilot.press(number)
            await pilot.pause()
            assert f"{name!r} is not a word" in notices(app)
        assert len(conversation_of(app).replies_by_exchange) == 1
        assert not {"<eos>", "<unk>"} & set(inspector_text(app).split())


async def test_reply_mode_explains_its_limits_once_for_each_session_and_model(make_app: MakeApp) -> None:
    app = make_app(session_model=make_line_model())
    async with app.run_test(size=(100, 30)) as pilot:
        await pilot.press("f6", "f6", "f6")
        await pilot.pause()
        await reply_to(pilot)
        note = f"Reply mode: {REPLY_MODE_NOTE}."
        assert entries(app, Note)[1:] == [note]
        assert not notices(app)
        app.screen.set_session_model(SessionModel("other", "", make_decoder()))  # type: ignore[attr-defined]
        await reply_to(pilot)
        await reply_to(pilot)
        assert entries(app, Note)[1:] == [note, note]
        dialogue = SessionModel("dialogue", "", make_decoder(), answers_depend_on_prompt=True)
        app.screen.set_session_model(dialogue)  # type: ignore[attr-defined]
        await reply_to(pilot)
        assert len(entries(app, Note)) == 3
        assert len(entries(app, Exchange)) == 4
        app.screen.query_one(ConversationView).begin_session()
        app.screen.set_session_model(SessionModel("other", "", make_decoder()))  # type: ignore[attr-defined]
        await reply_to(pilot)
        assert entries(app, Note)[1:] == [note]


def test_speed_of_a_slow_model_has_a_decimal_and_a_reply_without_words_has_no_speed() -> None:
    exchange = Exchange("prompt", (), 1, SamplerSettings().describe())
    exchange.mark_done(Done("length", 1, 3, 0.34))
    assert exchange.figures.endswith(" · 0.3 words/s")
    exchange.mark_done(Done("cancelled", 1, 0, 0.0))
    assert "words/s" not in exchange.figures
