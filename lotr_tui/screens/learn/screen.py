"""Screen of a chapter of the class: a few sentences, a live figure, a task, and keys to the other chapters."""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.content import Content
from textual.widgets import Rule, Static

from engine.errors import describe_error
from lotr_tui.background_task import run_in_thread
from lotr_tui.learn.chapters import CHAPTERS, Chapter, first_open_chapter
from lotr_tui.learn.progress import ProgressStore
from lotr_tui.messages import ChapterFigureReady, TaskPartDone
from lotr_tui.screens.base import AppScreen
from lotr_tui.theme import MUTED
from lotr_tui.widgets.bindings import binding_table
from lotr_tui.widgets.help_line import HelpLine
from lotr_tui.widgets.key_footer import KeyFooter
from lotr_tui.widgets.status_bar import StatusBar

if TYPE_CHECKING:  # these modules import numpy, which the first paint does not need
    from lotr_tui.learn.material import Material

CONTENT_WIDTH = {"-stacked": (70, 22), "-beside": (110, 16)}
"""Minimum columns and rows for text and figure at the same time, one above or beside the other."""


class ChapterScreen(AppScreen[None]):
    """A chapter of the class, with its text and its figure beside, above or instead of each other."""

    AUTO_FOCUS = ""
    BINDINGS: ClassVar[list[BindingType]] = [
        *binding_table(
            "learn",
            """
            next     | f3     | step_chapter(1)  | next     | The next chapter
            previous | f2     | step_chapter(-1) | previous | The previous chapter
            part     | f5     | toggle_part      | text/figure | The text or the figure, where only one of them fits
            hint     | f7     | show_hint        | hint     | How to do the task
            source   | f4     | show_source      | code     | The code behind this chapter
            contents | f6     | show_contents    | chapters | All chapters
            close    | escape | close            | close    | Leave the class; the progress is kept
            """,
            show=True,
        ),
    ]

    def __init__(
        self,
        make_material: "Callable[[], Material]",
        chapter: int | None = None,
        *,
        progress_store: ProgressStore | None = None,
        exit_on_close: bool = False,
    ) -> None:
        """Open a chapter.

        Args:
            make_material: Creates the corpus and the models of the class, in a thread and after the first paint.
            chapter: Index of the chapter; None opens the first one whose task is not done.
            progress_store: Store of the progress; None reads the user's file.
            exit_on_close: True to end the app when the class is left.
        """
        super().__init__()
        self.progress_store = progress_store or ProgressStore()
        self.index = first_open_chapter(self.progress_store.current.done) if chapter is None else chapter
        """Index of the open chapter."""
        self._make_material = make_material
        self._material: Material | None = None
        self._exit_on_close = exit_on_close
        self._shows_hint = False
        self._finished_parts: set[int] = set()
        """Finished parts of the task of the open chapter."""

    @property
    def chapter(self) -> Chapter:
        """The open chapter."""
        return CHAPTERS[self.index]

    @property
    def is_done(self) -> bool:
        """True if the task of the open chapter is done."""
        return self.chapter.name in self.progress_store.current.done

    @property
    def is_idle(self) -> bool:
        """True once the figure shows what its controls say."""
        figures = self.query("#figure")
        return bool(figures) and figures.first().is_idle  # type: ignore[attr-defined]

    def compose(self) -> ComposeResult:
        """Yield status, text, place of the figure, help line and footer."""
        yield StatusBar(id="status")
        yield Rule(line_style="solid")
        with Horizontal(id="body"):
            with VerticalScroll(id="text", can_focus=False):
                yield Static(id="sentences", markup=False)
                yield Static(id="task", markup=False)
            yield Rule(line_style="solid", id="divider")
            yield Vertical(id="figure-place")
        yield HelpLine()
        yield KeyFooter()

    def on_mount(self) -> None:
        """Show the text, and the figure after the first paint."""
        if self.progress_store.notice:
            self.notify(self.progress_store.notice, severity="warning", markup=False)
        self._show_text()
        self.call_after_refresh(self._open_chapter)

    def on_resize(self) -> None:
        """Lay out text and figure for the new size."""
        width, height = self.app.size
        for name, (columns, rows) in CONTENT_WIDTH.items():
            self.set_class(width >= columns and height >= rows, name)
        super().on_resize()

    # Content

    def _show_text(self) -> None:
        chapter, done = self.chapter, self.progress_store.current.done
        dots = Content("").join(
            Content.styled("●" if each.name in done else "○", "$accent" if each is chapter else MUTED)
            for each in CHAPTERS
        )
        title = Content.assemble(
            ("lotr-tui", "bold $accent"),
            "  ",
            (f"{self.index + 1} of {len(CHAPTERS)} ", MUTED),
            (chapter.title, "bold"),
        )
        self.query_one("#status", StatusBar).show(title, dots)
        self.query_one("#sentences", Static).update(Content(chapter.text))
        if self.is_done:
            task = Content.assemble(("✓ Done  ", "bold $success"), chapter.conclusion, (" f3 goes on.", MUTED))
        else:
            task = Content.assemble(("▸ Task  ", "bold $accent"), *map(self._task_part, range(len(chapter.task))))
            if self._shows_hint:
                task = Content.assemble(task, "\n", ("Hint  ", "bold $accent"), chapter.hint)
        self.query_one("#task", Static).update(task)
        self.refresh_bindings()

    def _task_part(self, part: int) -> Content:
        mark = (" ✓ ", "bold $success") if part in self._finished_parts else (" ", "")
        return Content.assemble(self.chapter.task[part], mark)

    async def _open_chapter(self) -> None:
        """Show the figure of the chapter."""
        place = self.query_one("#figure-place", Vertical)
        await place.remove_children()
        index = self.index
        try:
            figure_module = await run_in_thread(_import_figures)
            if self._material is None:
                self._material = await run_in_thread(self._make_material)
            figure = figure_module(self.chapter.name, self._material)
        except Exception as error:
            await place.mount(Static(Content.styled(describe_error(error), "$text-error"), id="figure-failure"))
            return
        if index != self.index or not self.is_attached:
            return
        await place.mount(figure)
        self.progress_store.add(last=self.chapter.name)
        self._save_progress()

    @on(TaskPartDone)
    def _finish_part(self, message: TaskPartDone) -> None:
        self._finished_parts.add(message.part)
        if len(self._finished_parts) == len(self.chapter.task) and not self.is_done:
            self.progress_store.add(done=self.chapter.name)
            self._save_progress()
            self._shows_hint = False
            if not self.query_one("#text").display:
                self.notify(f"Done. {self.chapter.conclusion}", markup=False)
        self._show_text()

    def _save_progress(self) -> None:
        self.run_worker(self._save_in_thread(), group="progress")

    async def _save_in_thread(self) -> None:
        if notice := await asyncio.to_thread(self.progress_store.save):
            self.notify(notice, severity="warning", markup=False)

    def show_chapter(self, index: int) -> None:
        """Open another chapter; a training in the figure is stopped."""
        if index == self.index:
            return
        self.index, self._shows_hint, self._finished_parts = index, False, set()
        self.remove_class("-figure")
        self._show_text()
        self.query_one("#text", VerticalScroll).scroll_home(animate=False)
        self.call_next(self._open_chapter)

    @on(ChapterFigureReady)
    def _focus_figure(self) -> None:
        """Focus the first control of the figure, unless another one has the focus."""
        controls = [widget for widget in self.query("#figure *") if widget.focusable]
        if self.focused is None and controls:
            self.set_focus(controls[0])

    # Keys

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Hide the keys that have no effect: at the ends of the class, and where text and figure are both visible."""
        if action == "step_chapter":
            return 0 <= self.index + int(str(parameters[0])) < len(CHAPTERS)
        if action == "toggle_part":
            return not (self.has_class("-stacked") or self.has_class("-beside"))
        return action != "show_hint" or not self.is_done

    def action_step_chapter(self, offset: int) -> None:
        """Open a chapter before or after this one."""
        self.show_chapter(self.index + offset)

    def action_toggle_part(self) -> None:
        """Show the figure in place of the text, or the reverse."""
        self.toggle_class("-figure")
        if self.has_class("-figure"):
            self.call_after_refresh(self._focus_figure)

    def action_show_hint(self) -> None:
        """Show or hide how to do the task."""
        self._shows_hint = not self._shows_hint
        self._show_text()
        self.call_after_refresh(self.query_one("#text", VerticalScroll).scroll_end, animate=False)

    def action_show_source(self) -> None:
        """Show the code behind the chapter."""
        from lotr_tui.screens.learn.source_screen import SourceScreen

        self.app.push_screen(SourceScreen(self.chapter.source))

    def action_show_contents(self) -> None:
        """Show all chapters."""
        from lotr_tui.screens.learn.contents import ContentsDialog

        self.app.push_screen(ContentsDialog(self.index, self.progress_store.current.done), self._on_contents_closed)

    def _on_contents_closed(self, choice: int | None) -> None:
        if choice == -1:
            self.progress_store.reset()
            self._save_progress()
            self._show_text()
        elif choice is not None:
            self.show_chapter(choice)

    def action_close(self) -> None:
        """Leave the class."""
        if self._exit_on_close:
            self.app.exit()
        else:
            self.dismiss()


def _import_figures() -> "Callable[[str, Material], Any]":
    """Import numpy and what all figures need, and return the function that creates a figure."""
    from lotr_tui.screens.learn import figure  # noqa: F401 - imports numpy
    from lotr_tui.screens.learn.figures import create_figure

    return partial(create_figure)
