"""Problems of a training on the dashboard: shown with their remedy until dismissed or outdated, and kept in the log."""

import pytest

from engine.control import ControlCommand
from engine.events import Checkpointed, Diagnosed, DiagnosisKind, Evaluated, Finished, Resume, TrainingEvent
from lotr_tui.app import LotrApp
from lotr_tui.screens.dashboard.diagnosis_banner import DiagnosisBanner
from lotr_tui.screens.dashboard.screen import DashboardScreen
from lotr_tui.session.settings import SettingsStore
from tests.support.app import FakeJob, training_events
from tests.support.metrics import view_of
from tests.support.pilot import MakeApp, text_of, until


def diagnosed(kind: DiagnosisKind, step: int = 33, message: str = "a problem") -> Diagnosed:
    return Diagnosed(step, 3.0, kind, message, "a remedy")


def banner_text(app: LotrApp) -> str:
    """Return the text of the banner; empty while it is hidden."""
    banner = app.screen.query_one(DiagnosisBanner)
    return text_of(banner) if banner.display else ""


async def test_problem_is_shown_with_its_remedy_and_the_key_that_helps(make_app: MakeApp) -> None:
    job = FakeJob([*training_events(3), diagnosed("loss_spike")]).release(len(training_events(3)))
    app = make_app(job=job)
    async with app.run_test(size=(60, 20)) as pilot:
        await until(pilot, lambda: app.training_view is not None and len(app.training_view.samples) == 4)
        assert banner_text(app) == ""
        job.release()
        await until(pilot, lambda: banner_text(app) != "")
        assert banner_text(app) == "! a problem → a remedy  l lower lr  k dismiss"
        await pilot.press("l")
        await until(pilot, lambda: job.commands == [ControlCommand("lr", "0.5")])
        await pilot.press("k")
        await until(pilot, lambda: banner_text(app) == "")
        assert app.training_view is not None
        assert [line.kind for line in app.training_view.log if line.text == "a problem; a remedy"] == ["warning"]


async def test_dismissed_problem_uncovers_the_one_before_and_stays_dismissed(make_host: MakeApp) -> None:
    view = view_of([*training_events(3), diagnosed("idle_gpu", message="first"), diagnosed("forgetting")])
    app = make_host()
    async with app.run_test(size=(80, 24)) as pilot:
        for is_first in (True, False):
            app.push_screen(DashboardScreen(view, lambda command: None, attached=True))
            await pilot.pause()
            assert banner_text(app).endswith("s stop  k dismiss  1 more" if is_first else "first → a remedy  k dismiss")
            await pilot.press("k")
            await pilot.pause()
            app.pop_screen()
            await pilot.pause()
        assert view.current_diagnoses == []


async def test_ended_training_offers_no_key_that_controls_it(make_host: MakeApp) -> None:
    end = Finished("done", "r", 3.0, 70.0, 71.0, 9.0)
    view = view_of([*training_events(3), diagnosed("rising_validation"), end])
    app = make_host()
    async with app.run_test(size=(80, 24)) as pilot:
        app.push_screen(DashboardScreen(view, lambda command: None, attached=True))
        await pilot.pause()
        assert banner_text(app) == "! a problem → a remedy  k dismiss"


async def test_keymap_of_the_user_names_the_keys_of_the_banner(make_host: MakeApp) -> None:
    SettingsStore().update(keymap={"dashboard.dismiss": "f9"})
    app = make_host()
    async with app.run_test(size=(80, 24)) as pilot:
        view = view_of([*training_events(3), diagnosed("idle_gpu", message="esc \x1b[31m")])
        app.push_screen(DashboardScreen(view, lambda command: None, attached=True))
        await pilot.pause()
        assert banner_text(app).endswith("f9 dismiss")
        assert "\x1b" not in banner_text(app)


BEST, WORSE = Evaluated(43, 4.0, 60.0, True, 9.0), Evaluated(43, 4.0, 160.0, False, 9.0)
LEARNING: list[DiagnosisKind] = ["rising_validation", "loss_spike", "forgetting", "vanishing_gradients"]


@pytest.mark.parametrize(
    ("kind", "event", "is_outdated"),
    [
        *((kind, BEST, True) for kind in LEARNING),
        *((kind, WORSE, False) for kind in LEARNING),
        ("unigram_model", BEST, True),
        ("unigram_model", Evaluated(43, 4.0, 149.0, True, 9.0), False),
        ("disk_space", Checkpointed(43, "resume.safetensors"), True),
        ("disk_space", Checkpointed(43, "model.safetensors"), False),
        ("disk_space", BEST, False),
        ("idle_gpu", BEST, False),
        *((kind, Resume(33), True) for kind in LEARNING),
        ("loss_spike", Resume(34), False),
    ],
)
def test_later_events_outdate_a_problem(kind: DiagnosisKind, event: TrainingEvent, is_outdated: bool) -> None:
    view = view_of([*training_events(3), diagnosed(kind), event])
    assert (view.current_diagnoses == []) == is_outdated
