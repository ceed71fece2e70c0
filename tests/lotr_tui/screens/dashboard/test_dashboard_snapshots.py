"""How the dashboard looks. `pytest --snapshot-update` after a change that was looked at."""

from collections.abc import Callable

import pytest
from textual.pilot import Pilot

from engine.events import Checkpointed, Steered, TrainingEvent, Warned
from lotr_tui.app import LotrApp
from lotr_tui.monitor.training_view import TrainingView
from lotr_tui.screens.dashboard.screen import TrainScreen
from tests.lotr_tui.conftest import training_events

MakeHost = Callable[..., LotrApp]
SnapCompare = Callable[..., bool]

SIZES = [(60, 20), (80, 24), (160, 45)]
HAPPENED: list[TrainingEvent] = [
    Checkpointed(93, "resume.safetensors"),
    Steered(93, 9.0, "lr", "0.5"),
    Warned("runs/tiny-test/metrics.jsonl cannot be written: No space left on device; the training goes on"),
]


def show(*keys: str) -> Callable[[Pilot[None]], object]:
    """The dashboard of a run that another process trains, so that no reading of this machine is on it."""

    async def run_before(pilot: Pilot[None]) -> None:
        view = TrainingView()
        events = training_events(9, models=False)
        for event in [*events, *HAPPENED]:
            view.apply(event)
        pilot.app.push_screen(TrainScreen(view, lambda command: None, follows=True))
        await pilot.pause(0.2)
        await pilot.press(*keys)
        await pilot.pause(0.1)

    return run_before


@pytest.mark.parametrize("theme", ["shire", "shire-light", "colourless"])
@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
def test_dashboard(
    snap_compare: SnapCompare,
    make_host: MakeHost,
    monkeypatch: pytest.MonkeyPatch,
    size: tuple[int, int],
    theme: str,
) -> None:
    if theme == "colourless":
        monkeypatch.setenv("NO_COLOR", "1")
        theme = "ansi-dark"
    assert snap_compare(make_host(theme=theme), terminal_size=size, run_before=show("left", "left"))


@pytest.mark.parametrize("presses", [1, 2, 3], ids=["words", "figures", "log"])
@pytest.mark.parametrize("size", SIZES[:2], ids=lambda size: f"{size[0]}x{size[1]}")
def test_panes(snap_compare: SnapCompare, make_host: MakeHost, size: tuple[int, int], presses: int) -> None:
    assert snap_compare(make_host(), terminal_size=size, run_before=show(*["f2"] * presses))


def test_a_part_of_the_curve(snap_compare: SnapCompare, make_host: MakeHost) -> None:
    keys = ("plus", "plus", "left_square_bracket", "y", "x")
    assert snap_compare(make_host(), terminal_size=(100, 30), run_before=show(*keys))
