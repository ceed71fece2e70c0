"""What goes to the terminal is decoded as the terminal would, with tmux or screen in between."""

import base64
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from textual.app import App
from textual.widgets import Input

from lotr_tui.clipboard import MOST_BYTES, copy, sequences
from tests.lotr_tui.screens.session.test_conversation_view import said
from tests.lotr_tui.screens.session.test_session_screen import until

TMUX = {"TERM": "tmux-256color", "TMUX": "/tmp/tmux-0/default,1,0"}
SCREEN = {"TERM": "screen.xterm-256color", "STY": "1.pts-0.host"}
PLAIN = {"TERM": "xterm-256color"}
texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)


def decoded(sequence):
    """The text of one OSC 52 sequence, which must be all there is."""
    match = re.fullmatch(r"\x1b\]52;c;([A-Za-z0-9+/=]*)\x07", sequence)
    assert match, repr(sequence)
    return base64.b64decode(match[1], validate=True).decode()


@given(texts)
def test_a_terminal_gets_the_text(text):
    assert decoded(sequences(text, PLAIN)) == text


@given(texts)
def test_through_tmux_it_gets_the_text_both_ways(text):
    sent = sequences(text, TMUX)
    taken_by_tmux, wrapped = sent.split("\x1bPtmux;")
    assert decoded(taken_by_tmux) == text
    assert wrapped.endswith("\x1b\\")
    body = wrapped[:-2]
    assert "\x1b" not in body.replace("\x1b\x1b", "")  # else it would end too early
    assert decoded(body.replace("\x1b\x1b", "\x1b")) == text


@given(texts | st.integers(1, 3000).map(lambda number: "x" * number))
def test_through_screen_it_gets_the_text_in_short_parts(text):
    parts = re.findall(r"\x1bP(.*?)\x1b\\", sent := sequences(text, SCREEN), re.DOTALL)
    assert sent == "".join(f"\x1bP{part}\x1b\\" for part in parts)
    assert all(len(part) <= 250 for part in parts)
    assert decoded("".join(parts)) == text


def test_tmux_inside_screen_is_tmux():
    assert "\x1bPtmux;" in sequences("a", SCREEN | TMUX)


class Copies(App):
    def compose(self):
        yield Input()


@pytest.fixture
async def app():
    app = Copies()
    async with app.run_test() as pilot:
        app.written = []
        app._driver.write = app.written.append
        app.pilot = pilot
        yield app


async def test_it_says_only_what_it_did(app):
    line = copy(app, "très bien", PLAIN)
    assert line == "sent 9 characters to the terminal's clipboard; whether it took them is not known"
    assert decoded("".join(app.written)) == "très bien"


async def test_what_was_copied_can_be_pasted_in_the_app(app):
    copy(app, "bilbo", PLAIN)
    await app.pilot.press("ctrl+v")
    assert app.query_one(Input).value == "bilbo"


async def test_as_much_as_terminals_take_is_sent_and_more_is_not(app):
    assert copy(app, "x" * MOST_BYTES, PLAIN).startswith(f"sent {MOST_BYTES:,} characters")
    (sent,) = app.written
    assert len(sent) - len("\x1b]52;c;\x07") <= 74_994
    app.written.clear()
    line = copy(app, "é" * (MOST_BYTES // 2) + "x", PLAIN)
    assert line == ("nothing was sent: 56,245 bytes, and terminals take at most 56,244; ctrl+v pastes it in the prompt")
    assert app.written == []


@pytest.mark.parametrize("terminal", ["linux", "dumb", ""])
async def test_a_terminal_without_clipboard_is_sent_nothing(app, terminal):
    assert "has no clipboard" in copy(app, "bilbo", {"TERM": terminal})
    assert app.written == []
    assert app.clipboard == "bilbo"


async def test_nothing_to_copy(app):
    assert copy(app, "", PLAIN) == "nothing to copy"
    assert app.written == []


async def test_a_lone_surrogate_is_no_error(app):
    assert copy(app, "a\ud800", PLAIN).startswith("sent 2 characters")
    assert decoded(app.written[0]) == "a?"


async def test_a_reply_is_sent_to_the_clipboard_and_no_more_is_claimed(make_app, monkeypatch):
    for name, value in {"TERM": "xterm-256color", "TMUX": "", "STY": ""}.items():
        monkeypatch.setenv(name, value)
    app = make_app()
    async with app.run_test(size=(120, 40)) as pilot:
        written = []
        monkeypatch.setattr(app._driver, "write", written.append)
        await pilot.press("f11")
        await until(pilot, lambda: app._notifications)
        assert [notice.message for notice in app._notifications] == ["nothing to copy"]
        first = await said(pilot)
        await said(pilot, "the road")
        await pilot.press("ctrl+g", "up", "y")
        await until(pilot, lambda: len(app._notifications) == 2)
        sent = next(text for text in written if text.startswith("\x1b]52;"))
        assert base64.b64decode(sent.removeprefix("\x1b]52;c;").removesuffix("\x07")).decode() == first.text()
        assert "whether it took them is not known" in [notice.message for notice in app._notifications][-1]
