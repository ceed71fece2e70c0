"""Screen of a chapter: layouts, keys, task, progress and failures, with a small figure in place of the real one."""

import time
from pathlib import Path
from typing import Any

import pytest
from textual.widgets import OptionList

from lotr_tui.learn.chapters import CHAPTERS, find_chapter
from lotr_tui.learn.material import Material
from lotr_tui.learn.progress import Progress, ProgressStore
from lotr_tui.screens.dialogs.confirm import ConfirmDialog
from lotr_tui.screens.learn import figures
from lotr_tui.screens.learn.contents import ContentsDialog
from lotr_tui.screens.learn.screen import TOO_SMALL, ChapterScreen
from lotr_tui.screens.learn.source_screen import SourceScreen
from lotr_tui.screens.session.screen import SessionScreen
from lotr_tui.widgets.help_line import HelpLine
from lotr_tui.widgets.prompt.prompt_input import PromptInput
from lotr_tui.widgets.slider import Slider
from tests.support.learn import chapter_screen, footer, open_chapter, sentences, task_text, until_chapter, until_done
from tests.support.learn_figure import FailingFigure, SliderFigure
from tests.support.pilot import MakeApp, conversation_of, lines_of, send, text_of, until, until_reply_ended

pytestmark = pytest.mark.usefixtures("slider_figure")

TRAINING = find_chapter("training")
NUM_PARTS = len(CHAPTERS[TRAINING].task)


# Layout


@pytest.mark.parametrize(("size", "side"), [((80, 24), "above"), ((120, 35), "beside"), ((200, 50), "beside")])
async def test_text_and_figure_are_both_visible_where_they_fit(
    make_host: MakeApp, size: tuple[int, int], side: str
) -> None:
    async with make_host().run_test(size=size) as pilot:
        screen = await open_chapter(pilot, "training")
        text, figure = screen.query_one("#text").region, screen.query_one("#figure-place").region
        if side == "above":
            assert text.bottom < figure.y
            assert text.width == figure.width == size[0]
            assert figure.height >= 9
        else:
            assert text.right <= figure.x
            assert text.height == figure.height == size[1] - 4
        assert isinstance(pilot.app.focused, Slider)
        assert "f5" not in footer(screen)
        await pilot.press("f5")
        assert not screen.has_class("-figure")


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda chapter: str(chapter.name))
async def test_figure_has_room_below_the_text(make_host: MakeApp, chapter: Any) -> None:
    """Text and task of every chapter are visible in full at 80 x 24."""
    async with make_host().run_test(size=(80, 24)) as pilot:
        screen = await open_chapter(pilot, chapter.name)
        assert screen.query_one("#text").max_scroll_y == 0
        assert screen.query_one("#figure-place").size.height >= 9


async def test_text_and_figure_take_turns_in_a_small_terminal(make_host: MakeApp) -> None:
    async with make_host().run_test(size=(60, 20)) as pilot:
        screen = await open_chapter(pilot, "training")
        text, figure = screen.query_one("#text"), screen.query_one("#figure-place")
        assert text.region
        assert not figure.region
        assert pilot.app.focused is None
        assert text_of(screen.query_one(HelpLine)) == "f5 shows the figure"
        assert footer(screen).split()[:2] == ["f5", "figure"]
        await pilot.press("right", "f5")
        await until(pilot, lambda: isinstance(pilot.app.focused, Slider))
        assert figure.region
        assert not text.region
        assert screen.query_one(Slider).index == 0  # a key that was pressed beside the text
        assert text_of(screen.query_one(HelpLine)) == "A value of the test"
        assert footer(screen).split()[:2] == ["f5", "text"]
        await pilot.press("f5")
        assert text.region
        assert not figure.region
        assert pilot.app.focused is None
        assert text_of(screen.query_one(HelpLine)) == "f5 shows the figure"


async def test_layout_follows_the_size_of_the_terminal(make_host: MakeApp) -> None:
    async with make_host().run_test(size=(60, 20)) as pilot:
        screen = await open_chapter(pilot, "training")
        await pilot.resize_terminal(120, 35)
        await until(pilot, lambda: isinstance(pilot.app.focused, Slider))
        await pilot.press("right")
        assert screen.query_one(Slider).index == 1
        await pilot.resize_terminal(60, 20)
        await until(pilot, lambda: pilot.app.focused is None)
        assert screen.query_one("#text").region
        await pilot.press("f5")
        await until(pilot, lambda: isinstance(pilot.app.focused, Slider))
        await pilot.resize_terminal(80, 24)
        await until(pilot, lambda: screen.query_one("#text").region)
        assert screen.query_one("#figure-place").region


@pytest.mark.parametrize("size", [(39, 20), (60, 11), (20, 5)])
async def test_terminal_that_is_too_small_shows_one_line(make_host: MakeApp, size: tuple[int, int]) -> None:
    async with make_host().run_test(size=size) as pilot:
        screen = await open_chapter(pilot, "training")
        assert screen.query_one("#too-small").region
        assert text_of(screen.query_one("#too-small")).startswith(TOO_SMALL)
        assert not screen.query_one("#body").region
        await pilot.press("right")
        await pilot.resize_terminal(40, 12)
        await until(pilot, lambda: screen.query_one("#body").region)
        assert not screen.query_one("#too-small").region
        assert screen.query_one(Slider).index == 0
        await pilot.press("f5")
        await until(pilot, lambda: screen.query_one("#figure-place").region and pilot.app.focused is not None)


# Keys


async def test_f2_and_f3_open_the_chapters_in_their_order(make_host: MakeApp) -> None:
    async with make_host().run_test(size=(120, 35)) as pilot:
        screen = await open_chapter(pilot, "tokens")
        assert "f2" not in footer(screen)
        await pilot.press("f2")
        assert screen.index == 0
        for index in range(1, len(CHAPTERS)):
            await pilot.press("f3")
            await until_chapter(pilot, index)
            assert CHAPTERS[index].title in lines_of(screen.query_one("#status"))
            assert f"{index + 1} of 8" in lines_of(screen.query_one("#status"))
            assert text_of(screen.query_one("#sentences")) == CHAPTERS[index].text
            assert ProgressStore().current.last == CHAPTERS[index].name
            assert isinstance(pilot.app.focused, Slider)
        assert "f3" not in footer(screen)
        await pilot.press("f3")
        assert screen.index == len(CHAPTERS) - 1
        await pilot.press("f2")
        await until_chapter(pilot, len(CHAPTERS) - 2)


async def test_chapters_that_are_passed_quickly_leave_one_figure(make_host: MakeApp) -> None:
    async with make_host().run_test(size=(120, 35)) as pilot:
        screen = await open_chapter(pilot, "tokens")
        for _ in range(5):
            screen.action_step_chapter(1)
        await until_chapter(pilot, 5)
        assert len(screen.query(SliderFigure)) == 1


async def test_keys_work_while_a_figure_is_prepared(make_host: MakeApp, monkeypatch: pytest.MonkeyPatch) -> None:
    def import_slowly(chapter: str) -> type[SliderFigure]:
        time.sleep(0.3)
        return SliderFigure

    async with make_host().run_test(size=(120, 35)) as pilot:
        screen = await open_chapter(pilot, "tokens")
        monkeypatch.setattr(figures, "import_figure", import_slowly)
        await pilot.press("f3")
        assert not screen.is_idle
        await pilot.press("f6")
        assert isinstance(pilot.app.screen, ContentsDialog)
        await pilot.press("escape")
        await until_chapter(pilot, 1)


async def test_contents_dialog_opens_a_chapter(make_host: MakeApp) -> None:
    async with make_host().run_test(size=(80, 24)) as pilot:
        ProgressStore().path.write_text(Progress(("tokens", "memory")).to_json())
        await open_chapter(pilot, "counting")
        await pilot.press("f6")
        chapters = pilot.app.screen.query_one(OptionList)
        assert chapters.highlighted == 1
        marks = [str(chapters.get_option_at_index(index).prompt) for index in range(len(CHAPTERS))]
        assert [line for line in marks if line.startswith("✓")] == [
            f"✓ 1  {CHAPTERS[0].title}",
            f"✓ 4  {CHAPTERS[3].title}",
        ]
        await pilot.press("down", "down", "down", "enter")
        await until_chapter(pilot, 4)
        await pilot.press("f6", "enter")
        assert chapter_screen(pilot).is_idle  # the open chapter stays as it is
        await pilot.press("f6", "up", "escape")
        assert chapter_screen(pilot).index == 4


async def test_begin_again_asks_first(make_host: MakeApp) -> None:
    async with make_host().run_test(size=(80, 24)) as pilot:
        ProgressStore().path.write_text(Progress(("tokens", "training")).to_json())
        screen = await open_chapter(pilot, "training")
        await pilot.press("right", "f6", "r")
        assert isinstance(pilot.app.screen, ConfirmDialog)
        await pilot.press("n")
        await pilot.press("escape")
        assert screen.is_done
        await pilot.press("f6", "r", "y")
        await until_chapter(pilot, 0)
        assert not screen.is_done
        await until(pilot, lambda: ProgressStore().current == Progress((), "tokens"))
        await pilot.press("f6")
        assert not pilot.app.screen.query("KeysLine #reset")
        await pilot.press("r")
        assert isinstance(pilot.app.screen, ContentsDialog)


async def test_begin_again_in_the_first_chapter_forgets_its_parts(make_host: MakeApp) -> None:
    async with make_host().run_test(size=(80, 24)) as pilot:
        screen = await open_chapter(pilot, "tokens")
        await pilot.press("right", "right")
        await until_done(pilot)
        await pilot.press("f6", "r", "y")
        await until_chapter(pilot, 0)
        assert "✓" not in task_text(screen)
        await pilot.press("right", "right")
        await until_done(pilot)


async def test_f7_shows_the_hint_in_place_of_the_sentences(make_host: MakeApp) -> None:
    async with make_host().run_test(size=(80, 24)) as pilot:
        screen = await open_chapter(pilot, "training")
        assert sentences(screen) == CHAPTERS[TRAINING].text
        place = screen.query_one("#figure-place").region
        await pilot.press("f7")
        assert sentences(screen) == f"Hint  {CHAPTERS[TRAINING].hint}"
        assert screen.query_one("#figure-place").region == place
        await pilot.press("f7")
        assert sentences(screen) == CHAPTERS[TRAINING].text
        assert screen.query_one("#figure-place").region == place


async def test_f7_shows_the_task_again_once_it_is_done(make_host: MakeApp) -> None:
    async with make_host().run_test(size=(80, 24)) as pilot:
        screen = await open_chapter(pilot, "training")
        await pilot.press(*["right"] * NUM_PARTS)
        await until_done(pilot)
        await pilot.press("f7")
        assert sentences(screen).startswith(f"▸ Task  {CHAPTERS[TRAINING].task[0]} ✓")
        assert sentences(screen).endswith(CHAPTERS[TRAINING].hint)


async def test_hint_replaces_the_figure_where_they_take_turns(make_host: MakeApp) -> None:
    async with make_host().run_test(size=(60, 20)) as pilot:
        screen = await open_chapter(pilot, "training")
        await pilot.press("f5")
        await pilot.press("f7")
        await until(pilot, lambda: screen.query_one("#text").region)
        assert CHAPTERS[TRAINING].hint in sentences(screen)


async def test_f4_shows_the_code_with_the_numbers_of_its_lines(make_host: MakeApp) -> None:
    async with make_host().run_test(size=(140, 35)) as pilot:
        await open_chapter(pilot, "counting")
        link = CHAPTERS[1].source
        await pilot.press("f4")
        source = pilot.app.screen
        assert isinstance(source, SourceScreen)
        path = Path(__file__).parents[4] / link.path
        name = link.symbol.rpartition(".")[2]
        painted = lines_of(source.query_one("#source"))
        number, definition = next(
            (int(number), text)
            for number, text in (
                line.strip().split(maxsplit=1) for line in painted.splitlines() if len(line.split()) > 1
            )
            if f"def {name}(" in text
        )
        assert definition.strip() == path.read_text().splitlines()[number - 1].strip()
        assert link.path in lines_of(source.query_one("#status"))
        for key in ("escape", "q", "f4"):
            await pilot.press(key)
            assert isinstance(pilot.app.screen, ChapterScreen)
            await pilot.press("f4")


async def test_code_that_is_missing_is_reported_in_one_line(
    make_host: MakeApp, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("lotr_tui.learn.source_code.ROOT", tmp_path)
    async with make_host().run_test(size=(80, 24)) as pilot:
        await open_chapter(pilot, "counting")
        await pilot.press("f4")
        assert "cannot be read: No such file or directory" in text_of(pilot.app.screen.query_one("#source"))


# Failures


async def test_failure_of_a_figure_is_one_line(make_host: MakeApp, monkeypatch: pytest.MonkeyPatch) -> None:
    async with make_host().run_test(size=(80, 24)) as pilot:
        screen = await open_chapter(pilot, "tokens")
        monkeypatch.setattr(figures, "import_figure", lambda chapter: FailingFigure)
        await pilot.press("f3")
        await until(pilot, lambda: "broken" in text_of(screen.query_one("#figure-message")))
        assert "\n" not in text_of(screen.query_one("#figure-message"))
        assert not screen.query_one(Slider).region
        monkeypatch.setattr(figures, "import_figure", lambda chapter: SliderFigure)
        await pilot.press("f3")
        await until_chapter(pilot, 2)


async def test_material_that_cannot_be_made_is_reported_and_tried_again(make_host: MakeApp) -> None:
    failures = [OSError("no\nspace")]

    def make_material() -> Material:
        if failures:
            raise failures.pop()
        return Material()

    async with make_host().run_test(size=(80, 24)) as pilot:
        await pilot.app.push_screen(ChapterScreen(make_material, 0))
        screen = chapter_screen(pilot)
        await until(pilot, lambda: screen.query("#figure-failure"))
        failure = text_of(screen.query_one("#figure-failure"))
        assert "no" in failure
        assert "\n" not in failure
        await pilot.press("f3")
        await until_chapter(pilot, 1)
        assert not screen.query("#figure-failure")


# Leaving


async def test_escape_returns_to_the_session(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(120, 35)) as pilot:
        await until(pilot, lambda: app.screen.query("#training"))
        await send(pilot, "bilbo is")
        await until_reply_ended(pilot)
        reply = conversation_of(app).current_reply
        app.screen.query_one("#prompt", PromptInput).value = "half a"
        await open_chapter(pilot, "tokens")
        await pilot.press("escape")
        assert isinstance(app.screen, SessionScreen)
        assert conversation_of(app).current_reply is reply
        assert app.screen.query_one("#prompt", PromptInput).value == "half a"
        assert isinstance(app.focused, PromptInput)


async def test_escape_ends_the_class_that_was_started_by_its_command(make_app: MakeApp) -> None:
    app = make_app(make_class_screen=lambda: ChapterScreen(Material, 0, exit_on_close=True))
    async with app.run_test(size=(80, 24)) as pilot:
        await until_chapter(pilot, 0)
        await pilot.press("escape")
        await until(pilot, lambda: not app.is_running or app._exit)


async def test_progress_is_written_when_the_app_ends_at_once(
    make_app: MakeApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = make_app(make_class_screen=lambda: ChapterScreen(Material, 0, exit_on_close=True))
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await until_chapter(pilot, 0)
        monkeypatch.setattr(screen, "_save_progress", lambda: None)
        await pilot.press("right", "right")
        await until_done(pilot)
        assert not ProgressStore().current.done
        await pilot.press("escape")
    assert ProgressStore().current == Progress(("tokens",), "tokens", {"tokens": (0, 1)})
