"""How the screens look. `pytest --snapshot-update` after a change that was looked at."""

from collections.abc import Callable

import pytest
from textual.pilot import Pilot
from textual.widgets import Input

from engine.sampling import Done, TokenEvent
from lotr_tui.app import LotrApp
from lotr_tui.training_view import TrainingView
from lotr_tui.widgets.prompt import Prompt
from lotr_tui.widgets.transcript import Exchange, Transcript
from tests.lotr_tui.conftest import finished, make_decoder, training_events
from tests.lotr_tui.test_play_screen import until

MakeApp = Callable[..., LotrApp]
SnapCompare = Callable[..., bool]

SIZES = [(60, 20), (80, 24), (160, 45)]


def a_view() -> TrainingView:
    view = TrainingView()
    for event in [*training_events(), finished(make_decoder())]:
        view.apply(event)
    return view


def a_reply(text: str) -> list[TokenEvent | Done]:
    words = text.split()
    events: list[TokenEvent | Done] = [
        TokenEvent(i, 5, word, -2.0, 0.14, 3, 5.2, 61, (), 0.0001) for i, word in enumerate(words)
    ]
    return [*events, Done("eos", 0, len(words), 14_200.0)]


async def play(pilot: Pilot[None]) -> None:
    """Two exchanges, the curve of a training, and a prompt half typed."""
    app = pilot.app
    await until(pilot, lambda: app.screen.query("#training"))
    await pilot.pause(0.1)
    transcript = app.screen.query_one(Transcript)
    for prompt, unknown, reply in (
        ("Bilbo Baggins is", (), "a very old friend of mine and i think he knows it"),
        ("Where is the wizard", ("wizard",), "he is not coming back"),
    ):
        exchange = Exchange(prompt, unknown, 0, "temperature 0.80 → top-p 0.9")
        exchange.add(a_reply(reply))
        transcript.append(exchange)
    app.screen.query_one("#prompt", Prompt).value = "the lamp"
    app.screen._show_chart(a_view())  # type: ignore[attr-defined]
    await pilot.pause()


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
def test_session(snap_compare: SnapCompare, make_app: MakeApp, size: tuple[int, int]) -> None:
    assert snap_compare(make_app(), terminal_size=size, run_before=play)


@pytest.mark.parametrize("pane", ["next", "training"])
def test_session_panes(snap_compare: SnapCompare, make_app: MakeApp, pane: str) -> None:
    async def show(pilot: Pilot[None]) -> None:
        await play(pilot)
        pilot.app.screen._show_pane(pane)  # type: ignore[attr-defined]
        await pilot.pause(0.2)

    assert snap_compare(make_app(), terminal_size=(80, 24), run_before=show)


@pytest.mark.parametrize("theme", ["textual-light", "ansi-light", "ansi-dark"])
def test_themes(snap_compare: SnapCompare, make_app: MakeApp, theme: str) -> None:
    assert snap_compare(make_app(theme=theme), terminal_size=(100, 30), run_before=play)


def test_new_training(snap_compare: SnapCompare, make_app: MakeApp) -> None:
    async def ask(pilot: Pilot[None]) -> None:
        await play(pilot)
        await pilot.press("ctrl+t")
        await pilot.pause()
        pilot.app.screen.query_one("#corpus", Input).cursor_blink = False

    assert snap_compare(make_app(), terminal_size=(80, 24), run_before=ask)
