"""Task of a chapter and progress of the class, with a small figure in place of the real one."""

from pathlib import Path

import pytest

from lotr_tui.learn.chapters import CHAPTERS, find_chapter
from lotr_tui.learn.material import Material
from lotr_tui.learn.progress import Progress, ProgressStore, progress_file
from lotr_tui.screens.dialogs.confirm import ConfirmDialog
from lotr_tui.screens.learn.contents import ContentsDialog
from lotr_tui.screens.learn.screen import ChapterScreen
from tests.support.learn import open_chapter, task_text, until_chapter, until_done
from tests.support.learn_figure import SliderFigure
from tests.support.pilot import MakeApp, lines_of, notices, until

pytestmark = pytest.mark.usefixtures("slider_figure")

TRAINING = find_chapter("training")
NUM_PARTS = len(CHAPTERS[TRAINING].task)


async def test_parts_of_the_task_get_a_mark_and_the_last_one_ends_the_chapter(make_host: MakeApp) -> None:
    async with make_host().run_test(size=(80, 24)) as pilot:
        screen = await open_chapter(pilot, "training")
        chapter = CHAPTERS[TRAINING]
        assert "✓" not in task_text(screen)
        for part in range(NUM_PARTS - 1):
            await pilot.press("right")
            await until(pilot, lambda: f"{chapter.task[part]} ✓" in task_text(screen))  # noqa: B023
            assert task_text(screen).count("✓") == part + 1
            assert not screen.is_done
        assert not ProgressStore().current.done
        await pilot.press("f7", "right")
        await until_done(pilot)
        assert task_text(screen) == f"✓ Done  {chapter.conclusion} f3 goes on."
        parts = {"training": tuple(range(NUM_PARTS))}
        await until(pilot, lambda: ProgressStore().current == Progress(("training",), "training", parts))
        assert lines_of(screen.query_one("#status")).count("●") == 1
        assert not notices(pilot.app)
        await pilot.press("f3")
        await until_chapter(pilot, TRAINING + 1)
        await pilot.press("f2")
        await until_chapter(pilot, TRAINING)
        assert "✓ Done" in task_text(screen)


async def test_finished_parts_are_kept_when_the_chapter_is_left(make_host: MakeApp) -> None:
    async with make_host().run_test(size=(80, 24)) as pilot:
        screen = await open_chapter(pilot, "training")
        await pilot.press("right")
        await until(pilot, lambda: screen.finished_parts == {0})
        await pilot.press("f3")
        await until_chapter(pilot, TRAINING + 1)
        assert not screen.finished_parts
        await pilot.press("f2")
        await until_chapter(pilot, TRAINING)
        assert f"{CHAPTERS[TRAINING].task[0]} ✓" in task_text(screen)
        await pilot.press(*["right"] * NUM_PARTS)
        await until_done(pilot)


async def test_leaving_work_in_progress_is_said_or_asked(make_host: MakeApp, monkeypatch: pytest.MonkeyPatch) -> None:
    async with make_host().run_test(size=(80, 24)) as pilot:
        screen = await open_chapter(pilot, "training")
        monkeypatch.setattr(SliderFigure, "work_in_progress", "training")
        await pilot.press("escape")
        assert isinstance(pilot.app.screen, ConfirmDialog)
        await pilot.press("n")
        assert pilot.app.screen is screen
        await pilot.press("f3")
        await until_chapter(pilot, TRAINING + 1)
        assert notices(pilot.app) == "The training was stopped, because you left its chapter."
        await pilot.press("escape", "y")
        await until(pilot, lambda: pilot.app.screen is not screen)


async def test_enter_does_not_forget_the_progress(make_host: MakeApp) -> None:
    async with make_host().run_test(size=(80, 24)) as pilot:
        screen = await open_chapter(pilot, "tokens")
        await pilot.press("right", "right")
        await until_done(pilot)
        await pilot.press("f6", "r", "enter")
        assert isinstance(pilot.app.screen, ContentsDialog)
        assert screen.is_done


async def test_end_of_a_task_is_notified_where_the_text_is_hidden(make_host: MakeApp) -> None:
    async with make_host().run_test(size=(60, 20)) as pilot:
        await open_chapter(pilot, "training")
        await pilot.press("f5")
        await pilot.press(*["right"] * NUM_PARTS)
        await until_done(pilot)
        assert notices(pilot.app) == f"Done. {CHAPTERS[TRAINING].conclusion}"


async def test_last_chapter_does_not_go_on(make_host: MakeApp) -> None:
    async with make_host().run_test(size=(80, 24)) as pilot:
        screen = await open_chapter(pilot, CHAPTERS[-1].name)
        await pilot.press(*["right"] * len(CHAPTERS[-1].task))
        await until_done(pilot)
        assert task_text(screen).strip() == f"✓ Done  {CHAPTERS[-1].conclusion}"


async def test_figure_of_a_chapter_that_was_left_finishes_no_task(make_host: MakeApp) -> None:
    async with make_host().run_test(size=(80, 24)) as pilot:
        screen = await open_chapter(pilot, "tokens")
        old = screen.query_one(SliderFigure)
        screen.action_step_chapter(1)
        old.finish_part(0)
        old.finish_part(1)
        await until_chapter(pilot, 1)
        assert "✓" not in task_text(screen)
        assert not screen.is_done


async def test_class_opens_the_first_chapter_that_is_not_done(make_host: MakeApp) -> None:
    async with make_host().run_test(size=(80, 24)) as pilot:
        ProgressStore().path.write_text(Progress(("tokens", "memory")).to_json())
        await pilot.app.push_screen(ChapterScreen(Material))
        await until_chapter(pilot, 1)


async def test_damaged_progress_file_is_reported_and_the_class_begins(make_host: MakeApp) -> None:
    async with make_host().run_test(size=(80, 24)) as pilot:
        progress_file().write_text("{")
        await pilot.app.push_screen(ChapterScreen(Material))
        screen = await until_chapter(pilot, 0)
        assert "set aside as learn.json.damaged-1; the class begins again" in notices(pilot.app)
        await pilot.press("right", "right")
        await until_done(pilot)
        await until(pilot, lambda: ProgressStore().current.done == ("tokens",))
        assert screen.is_done


async def test_progress_that_cannot_be_saved_is_reported_once_and_kept(
    make_host: MakeApp, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async with make_host().run_test(size=(80, 24)) as pilot:
        monkeypatch.setenv("LOTR_TUI_HOME", str(tmp_path / "file"))
        (tmp_path / "file").write_text("")
        screen = await open_chapter(pilot, "tokens")
        await pilot.press("right", "right")
        await until_done(pilot)
        await until(pilot, lambda: "progress is not saved" in notices(pilot.app))
        await pilot.press("f3")
        await until_chapter(pilot, 1)
        await pilot.press("f2")
        await until_chapter(pilot, 0)
        assert notices(pilot.app).count("progress is not saved") == 1
        assert screen.is_done
