"""Screen of a chapter: layouts, keys, task, progress and failures, with a small figure in place of the real one."""

import pytest
from textual.widgets import OptionList

from lotr_tui.learn.chapters import CHAPTERS, ROOT, find_chapter
from lotr_tui.learn.material import Material
from lotr_tui.learn.progress import Progress, ProgressStore, progress_file
from lotr_tui.screens.learn import screen as screen_module
from lotr_tui.screens.learn.screen import ChapterScreen
from lotr_tui.widgets.slider import Slider
from tests.support import learn
from tests.support.learn import chapter_screen, open_chapter, shown, until_chapter, until_done
from tests.support.pilot import lines_of, notices, until

pytestmark = pytest.mark.usefixtures("slider_figure")
TRAINING = find_chapter("training")
CHAPTER, NEXT_CHAPTER = CHAPTERS[TRAINING : TRAINING + 2]


async def test_chapters_open_in_their_order_and_text_and_figure_fit_80_columns(make_host):
    async with make_host().run_test(size=(80, 24)) as pilot:
        screen = await open_chapter(pilot, "tokens")
        await pilot.press("b")
        for index, chapter in enumerate(CHAPTERS):
            await until_chapter(pilot, index)
            assert f"{index + 1} of {len(CHAPTERS)}" in lines_of(screen.query_one("#status"))
            assert shown(pilot, "sentences") == chapter.text
            assert ProgressStore().current.last == chapter.name
            assert isinstance(pilot.app.focused, Slider)
            assert screen.query_one("#text").max_scroll_y == 0
            assert screen.query_one("#figure-place").size.height >= 9
            await pilot.press("n")
        assert screen.index == len(CHAPTERS) - 1
        await pilot.press(*["right"] * len(CHAPTERS[-1].task))
        await until_done(pilot)
        assert shown(pilot, "task").strip() == f"✓ Done  {CHAPTERS[-1].conclusion}"


async def test_contents_open_a_chapter(make_host):
    async with make_host().run_test(size=(80, 24)) as pilot:
        ProgressStore().path.write_text(Progress(("tokens", "memory")).to_json())
        await pilot.app.push_screen(ChapterScreen(Material))
        await until_chapter(pilot, 1)  # the first one that is not done
        await pilot.press("g")
        chapters = pilot.app.screen.query_one(OptionList)
        assert chapters.highlighted == 1
        done = [str(option.prompt) for option in chapters.options if "✓" in str(option.prompt)]
        assert done == [f"1 ✓ {CHAPTERS[0].title}", f"4 ✓ {CHAPTERS[3].title}"]
        await pilot.press("enter")
        assert chapter_screen(pilot).is_idle  # the open chapter stays as it is
        await pilot.press("g", "up", "enter")
        await until_chapter(pilot, 0)


async def test_parts_of_the_task_get_a_mark_and_the_last_one_ends_the_chapter(make_host):
    async with make_host().run_test(size=(80, 24)) as pilot:
        screen = await open_chapter(pilot, "training")
        place = screen.query_one("#figure-place").region
        for text in (f"Hint  {CHAPTER.hint}", CHAPTER.text):
            await pilot.press("h")
            assert shown(pilot, "sentences") == text
            assert screen.query_one("#figure-place").region == place
        for part, text in enumerate(CHAPTER.task[:-1]):
            assert shown(pilot, "task").count("✓") == part
            await pilot.press("right")
            await until(pilot, lambda text=text: f"{text} ✓" in shown(pilot, "task"))
        for key, index in (("n", TRAINING + 1), ("b", TRAINING)):
            await pilot.press(key)
            await until_chapter(pilot, index)
        assert f"{CHAPTER.task[0]} ✓" in shown(pilot, "task")  # finished parts are kept
        assert not ProgressStore().current.done
        await pilot.press(*["right"] * len(CHAPTER.task))
        await until_done(pilot)
        assert shown(pilot, "task") == f"✓ Done  {CHAPTER.conclusion} n goes on."
        parts = {"training": tuple(range(len(CHAPTER.task)))}
        await until(pilot, lambda: ProgressStore().current == Progress(("training",), "training", parts))
        assert lines_of(screen.query_one("#status")).count("●") == 1
        assert not notices(pilot.app)
        await pilot.press("h")
        assert shown(pilot, "sentences").startswith(f"▸ Task  3 of 3  {CHAPTER.task[0]} ✓")


async def test_end_of_a_hidden_task_and_of_a_training_is_reported(make_host, monkeypatch):
    async with make_host().run_test(size=(60, 20)) as pilot:
        await open_chapter(pilot, NEXT_CHAPTER.name)
        await pilot.press("tab", *["right"] * len(NEXT_CHAPTER.task))
        await until_done(pilot)
        assert notices(pilot.app) == f"Done. {NEXT_CHAPTER.conclusion}"
        monkeypatch.setattr(learn.SliderFigure, "is_training", True)
        await pilot.press("n")
        await until_chapter(pilot, TRAINING + 2)
        assert "The training was stopped, because you left its chapter." in notices(pilot.app)


async def test_damaged_progress_begins_again_and_unsaved_progress_is_kept(make_host, monkeypatch, tmp_path):
    async with make_host().run_test(size=(80, 24)) as pilot:
        progress_file().write_text("{")
        await pilot.app.push_screen(ChapterScreen(Material))
        await until_chapter(pilot, 0)
        assert "set aside as learn.json.damaged-1; the class begins again" in notices(pilot.app)
        await pilot.press("escape")
        monkeypatch.setenv("LOTR_TUI_HOME", str(tmp_path / "file"))
        (tmp_path / "file").write_text("")
        screen = await open_chapter(pilot, "tokens")
        await pilot.press("right", "right")
        await until_done(pilot)
        await until(pilot, lambda: "progress is not saved" in notices(pilot.app))
        for key, index in (("n", 1), ("b", 0)):
            await pilot.press(key)
            await until_chapter(pilot, index)
        assert notices(pilot.app).count("progress is not saved") == 1
        assert screen.is_done


async def test_failures_of_figure_and_material_are_one_line_and_tried_again(make_host, monkeypatch):
    failures = [OSError("no\nspace")]

    def make_material():
        if failures:
            raise failures.pop()
        return Material()

    async with make_host().run_test(size=(80, 24)) as pilot:
        await pilot.app.push_screen(ChapterScreen(make_material, 0))
        screen = chapter_screen(pilot)
        await until(pilot, lambda: screen.query("#figure-failure"))
        assert "no space" in shown(pilot, "figure-failure")
        monkeypatch.setattr(screen_module, "import_figure", lambda chapter: learn.FailingFigure)
        await pilot.press("n")
        await until(pilot, lambda: "broken" in shown(pilot, "figure-message"))
        assert "\n" not in shown(pilot, "figure-message")
        assert not screen.query("#figure-failure")
        monkeypatch.setattr(screen_module, "import_figure", lambda chapter: learn.SliderFigure)
        await pilot.press("n")
        await until_chapter(pilot, 2)


async def test_class_that_was_started_by_its_command_ends_with_escape_and_its_progress_is_saved(opened):
    async with opened((80, 24), make_screen=lambda: ChapterScreen(Material, 0, exit_on_close=True)) as (pilot, app):
        await until_chapter(pilot, 0)
        await pilot.press("right", "right", "escape")
        await until(pilot, lambda: app.return_code is not None)
    assert ProgressStore().current == Progress(("tokens",), "tokens", {"tokens": (0, 1)})


async def test_v_shows_the_code_with_the_numbers_of_its_lines(make_host):
    async with make_host().run_test(size=(140, 35)) as pilot:
        await open_chapter(pilot, "counting")
        source = CHAPTERS[1].source
        await pilot.press("v")
        painted = lines_of(pilot.app.screen.query_one("#source")).splitlines()
        number, definition = next(row for row in painted if "def advance(" in row).strip().split(maxsplit=1)
        assert definition == (ROOT / source.split()[0]).read_text().splitlines()[int(number) - 1].strip()
        assert source in lines_of(pilot.app.screen.query_one("#status"))
