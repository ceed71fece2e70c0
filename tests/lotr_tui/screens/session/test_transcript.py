"""The transcript: searched, long, resized."""

import pytest

from lotr_tui.screens.session.transcript import Transcript
from lotr_tui.session.entries import Exchange, Note
from tests.lotr_tui.screens.session.test_conversation_view import MakeApp, said, transcript_lines


async def test_the_transcript_is_searched(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(80, 24)) as pilot:
        transcript = app.screen.query_one(Transcript)
        for number in range(30):
            transcript.append(Note(f"note {number} " + ("Needle" if number in (3, 20) else "hay")))
        await pilot.press("ctrl+f", *"needle")
        await pilot.pause()
        matches = app.screen.query_one("#matches")
        assert str(matches.render()) == "2 of 2"
        assert "note 20" in transcript_lines(app)
        await pilot.press("enter")
        await pilot.pause()
        assert str(matches.render()) == "1 of 2"
        assert "note 3 " in transcript_lines(app)
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
        assert str(matches.render()) == "none"
        await pilot.press("escape")
        await pilot.pause()
        assert app.screen.focused is app.screen.query_one("#prompt")
        assert not matches.region.area


async def test_of_5000_replies_only_those_that_are_seen_are_drawn(
    make_app: MakeApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = make_app()
    async with app.run_test(size=(80, 24)) as pilot:
        transcript = app.screen.query_one(Transcript)
        many = [Exchange(f"prompt {number}", (), number, "greedy") for number in range(5000)]
        for exchange in many:
            exchange.words, exchange.writing = ["word"] * 30, False
        transcript.replace(1, many)
        asked: list[Exchange] = []
        blocks = Exchange.blocks

        def counting(self: Exchange) -> object:
            asked.append(self)
            return blocks(self)

        monkeypatch.setattr(Exchange, "blocks", counting)
        await said(pilot)
        await pilot.press("pageup", "pageup", "pageup", "ctrl+g", "left", "left", "up", "up")
        await pilot.pause()
        assert len(set(map(id, asked))) < 40


async def test_a_smaller_terminal_keeps_the_end_in_sight(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(80, 24)) as pilot:
        for number in range(6):
            await said(pilot, seed=str(number))
        await pilot.resize_terminal(60, 20)
        await pilot.pause()
        assert app.screen.query_one(Transcript).is_vertical_scroll_end
        await pilot.resize_terminal(20, 5)
        await pilot.press("ctrl+g", "left", "1", "escape", "ctrl+f", "a", "escape")
        await pilot.pause()


async def test_what_is_painted_before_the_news_of_a_change_is_no_more_than_old(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(80, 24)) as pilot:
        reply = await said(pilot)
        transcript = app.screen.query_one(Transcript)
        index = transcript.entries.index(reply.exchange)
        reply.exchange.words = []  # nobody says so
        await pilot.press("f5")
        transcript.notify_style_update()
        assert all(transcript.render_line(y).cell_length for y in range(transcript.size.height))
        transcript.changed(index)
        assert "temperature" in transcript_lines(app)


async def test_words_come_to_a_transcript_that_was_never_seen(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(80, 24)) as pilot:
        hidden = Transcript("welcome")
        hidden.display = False
        await app.screen.query_one("#body").mount(hidden)
        exchange = Exchange("prompt", (), 1, "greedy")
        hidden.append(exchange)
        exchange.words.append("word")
        hidden.last_changed()
        hidden.replace(1, [exchange, Note("behind")])
        hidden.last_changed()
        hidden.display = True
        await pilot.pause()
        assert [hidden.render_line(y).text.strip() for y in (0, 2, 3)] == ["welcome", "❯ prompt", "word▌"]
