"""Clipboard sequences, decoded as a terminal, tmux or GNU screen does, and the reports to the user."""

import base64
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from textual.app import App
from textual.drivers.headless_driver import HeadlessDriver
from textual.widgets import Input

from lotr_tui.clipboard import MAX_BYTES, copy_to_clipboard, osc52_sequence

TMUX = {"TERM": "tmux-256color", "TMUX": "/tmp/tmux-0/default,1,0"}
SCREEN = {"TERM": "screen.xterm-256color", "STY": "1.pts-0.host"}
PLAIN = {"TERM": "xterm-256color"}
texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)


def decoded(sequence):
    match = re.fullmatch(r"\x1b\]52;c;([A-Za-z0-9+/=]*)\x07", sequence)
    assert match, repr(sequence)
    return base64.b64decode(match[1], validate=True).decode()


@given(texts)
def test_tmux_also_in_gnu_screen_receives_the_text_plain_and_wrapped(text):
    sent = osc52_sequence(text.encode(), SCREEN | TMUX)
    plain, wrapped = sent.split("\x1bPtmux;")
    assert decoded(plain) == text
    body = wrapped.removesuffix("\x1b\\")
    assert "\x1b" not in body.replace("\x1b\x1b", "")  # a single escape would end the wrapping
    assert decoded(body.replace("\x1b\x1b", "\x1b")) == text
    assert sent == osc52_sequence(text.encode(), TMUX)


@given(texts | st.integers(1, 3000).map(lambda number: "x" * number))
def test_gnu_screen_receives_the_text_in_short_chunks(text):
    chunks = re.findall(r"\x1bP(.*?)\x1b\\", sent := osc52_sequence(text.encode(), SCREEN), re.DOTALL)
    assert sent == "".join(f"\x1bP{chunk}\x1b\\" for chunk in chunks)
    assert all(len(chunk) <= 250 for chunk in chunks)
    assert decoded("".join(chunks)) == text


class InputApp(App):
    def compose(self):
        yield Input()


async def test_text_is_sent_and_can_be_pasted_unless_it_would_be_cut_or_printed(monkeypatch):
    written = []
    monkeypatch.setattr(HeadlessDriver, "write", lambda _, data: written.append(data) if "]52;" in data else None)
    app = InputApp()
    async with app.run_test() as pilot:
        assert copy_to_clipboard(app, "très bien", PLAIN) == "copied 9 characters (if your terminal allows it)"
        assert decoded(written.pop()) == "très bien"
        await pilot.press("ctrl+v")
        assert app.query_one(Input).value == "très bien"
        assert copy_to_clipboard(app, "a\ud800", PLAIN).startswith("copied 2 characters")
        assert decoded(written.pop()) == "a?"
        assert copy_to_clipboard(app, "x" * MAX_BYTES, PLAIN).startswith(f"copied {MAX_BYTES:,} characters")
        assert len(written.pop()) - len("\x1b]52;c;\x07") <= 74_994
        assert copy_to_clipboard(app, "", PLAIN) == "nothing to copy"
        line = copy_to_clipboard(app, "é" * (MAX_BYTES // 2) + "x", PLAIN)
        assert line.startswith("not copied: 56,245 bytes, and terminals take at most 56,244; ctrl+v pastes")
        assert "has no clipboard" in copy_to_clipboard(app, "bilbo", {"TERM": "linux"})
        assert app.clipboard == "bilbo"
    assert written == []


@pytest.mark.parametrize(
    ("status", "message"), [(0, "copied 5 characters"), (1, "copied 5 characters (if your terminal allows it)")]
)
async def test_the_terminal_of_macos_copies_by_pbcopy(tmp_path, monkeypatch, status, message):
    (program := tmp_path / "pbcopy").write_text(f"#!/bin/sh\ncat > {tmp_path}/copied\nexit {status}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    environ, app = {"TERM": "xterm-256color", "TERM_PROGRAM": "Apple_Terminal"}, InputApp()
    async with app.run_test():
        assert copy_to_clipboard(app, "Fëanr", environ) == message
        assert (tmp_path / "copied").read_text("utf-8") == "Fëanr"
        (tmp_path / "copied").unlink()
        copy_to_clipboard(app, "Fëanr", environ | {"SSH_CONNECTION": "1"})
        assert not (tmp_path / "copied").exists()
