"""Tests of the transcript: search, many entries, resizing."""

import pytest

from lotr_tui.screens.session.conversation.transcript import Transcript
from lotr_tui.session.conversation.entries import Exchange, Note
from tests.support.pilot import MakeApp, reply_to, transcript_text


async def test_search_finds_and_cycles_through_matches(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(80, 24)) as pilot:
        transcript = app.screen.query_one(Transcript)
        for number in range(30):
            transcript.append(Note(f"note {number} " + ("Needle" if number in (3, 20) else "hay")))
        await pilot.press("ctrl+f", *"needle")
        await pilot.pause()
        matches = app.screen.query_one("#matches")
        assert str(matches.render()) == "2 of 2"
        assert "note 20" in transcript_text(app)
        await pilot.press("enter")
        await pilot.pause()
        assert str(matches.render()) == "1 of 2"
        assert "note 3 " in transcript_text(app)
        marked = [
            segment.text
            for y in range(transcript.size.height)
            for segment in transcript.render_line(y)
            if segment.style is not None and segment.style.reverse
        ]
        assert marked == ["Needle"]
        await pilot.press("down")
        await pilot.pause()
        assert str(matches.render()) == "2 of 2"
        await pilot.press("x")
        await pilot.pause()
        assert str(matches.render()) == "no match"
        await pilot.press("escape")
        await pilot.pause()
        assert app.screen.focused is app.screen.query_one("#prompt")
        assert not matches.region.area


async def test_only_visible_replies_of_5000_are_painted(make_app: MakeApp, monkeypatch: pytest.MonkeyPatch) -> None:
    app = make_app()
    async with app.run_test(size=(80, 24)) as pilot:
        transcript = app.screen.query_one(Transcript)
        many = [Exchange(f"prompt {number}", (), number, "greedy") for number in range(5000)]
        for exchange in many:
            exchange.pieces, exchange.is_generating = [" word"] * 30, False
        transcript.replace_entries(1, many)
        painted: list[Exchange] = []
        blocks = Exchange.blocks

        def counting(self: Exchange) -> object:
            painted.append(self)
            return blocks(self)

        monkeypatch.setattr(Exchange, "blocks", counting)
        await reply_to(pilot)
        await pilot.press("pageup", "pageup", "pageup", "ctrl+g", "left", "left", "up", "up")
        await pilot.pause()
        assert len(set(map(id, painted))) < 40


async def test_smaller_terminal_keeps_the_end_visible(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(80, 24)) as pilot:
        for number in range(6):
            await reply_to(pilot, seed=str(number))
        await pilot.resize_terminal(60, 20)
        await pilot.pause()
        assert app.screen.query_one(Transcript).is_vertical_scroll_end
        await pilot.resize_terminal(20, 5)
        await pilot.press("ctrl+g", "left", "1", "escape", "ctrl+f", "a", "escape")
        await pilot.pause()


async def test_painting_an_entry_that_became_shorter(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(80, 24)) as pilot:
        reply = await reply_to(pilot)
        transcript = app.screen.query_one(Transcript)
        index = transcript.entries.index(reply.exchange)
        reply.exchange.pieces = []  # without a refresh
        await pilot.press("f5")
        transcript.notify_style_update()
        assert all(transcript.render_line(y).cell_length for y in range(transcript.size.height))
        transcript.refresh_entry(index)
        assert "temperature" in transcript_text(app)


async def test_hidden_transcript_accepts_words(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(80, 24)) as pilot:
        hidden = Transcript("welcome")
        hidden.display = False
        await app.screen.query_one("#body").mount(hidden)
        exchange = Exchange("prompt", (), 1, "greedy")
        hidden.append(exchange)
        exchange.pieces.append(" word")
        hidden.refresh_entry(len(hidden.entries) - 1)
        hidden.replace_entries(1, [exchange, Note("behind")])
        hidden.refresh_entry(len(hidden.entries) - 1)
        hidden.display = True
        await pilot.pause()
        assert [hidden.render_line(y).text.strip() for y in (0, 2, 3)] == ["welcome", "❯ prompt", "word▌"]
