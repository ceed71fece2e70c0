"""Snapshots of the dashboard. Run `pytest --snapshot-update` after a change that was checked."""

from collections.abc import Callable, Sequence

import pytest
from textual.pilot import Pilot

from engine.events import Checkpointed, CommandApplied, Diagnosed, TrainingEvent, Warned
from lotr_tui.screens.dashboard.screen import DashboardScreen
from tests.support.app import training_events
from tests.support.metrics import view_of
from tests.support.pilot import MakeApp

SnapCompare = Callable[..., bool]

SIZES = [(60, 20), (80, 24), (160, 45)]
LATER_EVENTS: list[TrainingEvent] = [
    Checkpointed(93, "resume.safetensors"),
    CommandApplied(93, 9.0, "lr", "0.5"),
    Warned("runs/tiny-test/metrics.jsonl cannot be written: No space left on device; the training goes on"),
]

DIAGNOSIS = Diagnosed(
    93,
    9.0,
    "rising_validation",
    "validation perplexity rose from its best, 63.7 at epoch 5.0, to 71.2 in 4 evaluations; the model overfits",
    "lotr-tui stop tiny-test keeps the best model; next time --set patience=4 --set input_dropout=0.5",
)


def show(*keys: str, more_events: Sequence[TrainingEvent] = ()) -> Callable[[Pilot[None]], object]:
    """Return a function that shows the dashboard of a run of another process, which has no tiles of this machine."""

    async def run_before(pilot: Pilot[None]) -> None:
        view = view_of([*training_events(9, models=False), *LATER_EVENTS, *more_events])
        pilot.app.push_screen(DashboardScreen(view, lambda command: None, attached=True))
        await pilot.pause(0.2)
        await pilot.press(*keys)
        await pilot.pause(0.1)

    return run_before


@pytest.mark.parametrize("theme", ["shire", "shire-light", "colourless"])
@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
def test_dashboard(
    snap_compare: SnapCompare, make_host: MakeApp, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int], theme: str
) -> None:
    if theme == "colourless":
        monkeypatch.setenv("NO_COLOR", "1")
        theme = "ansi-dark"
    assert snap_compare(make_host(theme=theme), terminal_size=size, run_before=show("left", "left"))


@pytest.mark.parametrize("presses", [1, 2, 3], ids=["samples", "metrics", "log"])
@pytest.mark.parametrize("size", SIZES[:2], ids=lambda size: f"{size[0]}x{size[1]}")
def test_panes(snap_compare: SnapCompare, make_host: MakeApp, size: tuple[int, int], presses: int) -> None:
    assert snap_compare(make_host(), terminal_size=size, run_before=show(*["f2"] * presses))


def test_zoomed_curve(snap_compare: SnapCompare, make_host: MakeApp) -> None:
    keys = ("plus", "plus", "left_square_bracket", "y", "x")
    assert snap_compare(make_host(), terminal_size=(100, 30), run_before=show(*keys))


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
def test_problem_of_the_training(snap_compare: SnapCompare, make_host: MakeApp, size: tuple[int, int]) -> None:
    assert snap_compare(make_host(), terminal_size=size, run_before=show(more_events=[DIAGNOSIS]))
