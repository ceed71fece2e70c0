"""Screen of a chapter of the class: a few sentences, a live figure, a task, and keys to the other chapters."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.widgets import Rule, Static

from engine.errors import describe_error
from lotr_tui.background_task import run_in_thread
from lotr_tui.learn.chapters import CHAPTERS, Chapter, first_open_chapter
from lotr_tui.learn.progress import ProgressStore
from lotr_tui.messages import ChapterFigureReady, TaskPartDone
from lotr_tui.screens.base import AppScreen
from lotr_tui.screens.learn.chapter_text import ChapterText
from lotr_tui.theme import MUTED
from lotr_tui.widgets.bindings import binding_table
from lotr_tui.widgets.help_line import HelpLine
from lotr_tui.widgets.key_footer import FooterKey, KeyFooter
from lotr_tui.widgets.status_bar import StatusBar

if TYPE_CHECKING:  # these modules import numpy, which the first paint does not need
    from lotr_tui.learn.material import Material
    from lotr_tui.screens.learn.figure import ChapterFigure

LAYOUT_SIZES = {"-stacked": (70, 22), "-beside": (110, 16)}
"""Minimum columns and rows for text and figure at the same time, one above or beside the other."""
MIN_COLUMNS, MIN_ROWS = 40, 12
"""Size of the smallest terminal in which a text or a figure can be used."""
TOO_SMALL = f"The class needs {MIN_COLUMNS} × {MIN_ROWS} characters."
FOOTER_KEYS = ("part", "next", "previous", "hint", "source", "contents", "close")
"""Keys of the footer, the most important first."""


class ChapterScreen(AppScreen[None]):
    """A chapter of the class, with its text and its figure beside, above or instead of each other."""

    AUTO_FOCUS = ""
    BINDINGS: ClassVar[list[BindingType]] = binding_table(
        "learn",
        """
        next     | f3     | step_chapter(1)  | next     | The next chapter
        previous | f2     | step_chapter(-1) | previous | The previous chapter
        part     | f5     | toggle_part      | figure   | The text or the figure, where only one of them fits
        hint     | f7     | show_hint        | hint     | How to do the task
        source   | f4     | show_source      | code     | The code behind this chapter
        contents | f6     | show_contents    | chapters | All chapters
        close    | escape | close            | close    | Leave the class; the progress is kept
        """,
        show=True,
    )

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
        self._figure: ChapterFigure[Any] | None = None
        """Figure of the open chapter; None while it is created, or if that has failed."""
        self._exit_on_close = exit_on_close

    @property
    def chapter(self) -> Chapter:
        """The open chapter."""
        return CHAPTERS[self.index]

    @property
    def is_done(self) -> bool:
        """True if the task of the open chapter is done."""
        return self.chapter.name in self.progress_store.current.done

    @property
    def finished_parts(self) -> frozenset[int]:
        """Indices of the finished parts of the task of the open chapter."""
        return self.progress_store.current.finished_parts(self.chapter.name)

    @property
    def is_idle(self) -> bool:
        """True once the figure shows what its controls say."""
        return self._figure is not None and self._figure.is_idle

    @property
    def takes_turns(self) -> bool:
        """True if only the text or the figure fits."""
        return not (self.has_class("-stacked") or self.has_class("-beside"))

    def get_help_line(self) -> str:
        """Return where the figure is, if the text is shown in its place."""
        is_hidden = self.takes_turns and not self.has_class("-figure")
        return f"{self._key('part')} shows the figure" if is_hidden else ""

    def _key(self, name: str) -> str:
        """Return the key of a binding for display, such as `f5`."""
        binding = next(each for each in self.BINDINGS if isinstance(each, Binding) and each.id == f"learn.{name}")
        return self.app.format_binding_keys(binding)

    def compose(self) -> ComposeResult:
        """Yield status, text, place of the figure, help line and footer."""
        yield StatusBar(id="status")
        yield Rule(line_style="solid")
        with Horizontal(id="body"):
            yield ChapterText(id="text")
            yield Rule(line_style="solid", id="divider")
            yield Vertical(id="figure-place")
        yield Static(TOO_SMALL, id="too-small", markup=False)
        yield HelpLine()
        yield KeyFooter(self._footer_keys)

    def _footer_keys(self) -> list[FooterKey]:
        part = "text" if self.has_class("-figure") else "figure"
        return [FooterKey(f"learn.{name}", part if name == "part" else "") for name in FOOTER_KEYS]

    def on_mount(self) -> None:
        """Show the text, and the figure after the first paint."""
        if self.progress_store.notice:
            self.notify(self.progress_store.notice, severity="warning", markup=False)
        self._show_text()
        self.call_after_refresh(self._load_chapter)

    def on_unmount(self) -> None:
        """Stop the preparations in the background, and write the progress that no worker has written yet."""
        if self._material is not None:
            self._material.jobs.cancel()
        if self.progress_store.has_unsaved_changes:
            self.app.exit_message = self.progress_store.save() or self.app.exit_message

    def on_resize(self) -> None:
        """Lay out text and figure for the new size; Textual also calls the method of the base class."""
        width, height = self.app.size
        for name, (columns, rows) in LAYOUT_SIZES.items():
            self.set_class(width >= columns and height >= rows, name)
        self.set_class(width < MIN_COLUMNS or height < MIN_ROWS, "-too-small")
        self.call_after_refresh(self._focus_figure)

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
        next_key = self._key("next") if self.index + 1 < len(CHAPTERS) else ""
        text = self.query_one(ChapterText)
        text.show(chapter, self.finished_parts, is_done=self.is_done, next_key=next_key)
        self.refresh_bindings()

    def _load_chapter(self) -> None:
        """Show the figure of the chapter; the worker of an earlier call is cancelled."""
        self._figure = None
        open_chapter: Callable[[], Awaitable[None]] = partial(self._open_chapter, self.index)
        self.run_worker(open_chapter, group="chapter", exclusive=True)

    async def _open_chapter(self, index: int) -> None:
        place = self.query_one("#figure-place", Vertical)
        await place.remove_children()
        try:
            create_figure, material = await run_in_thread(self._prepare_figure, CHAPTERS[index].name)
            figure = create_figure(material)
        except Exception as error:
            await place.mount(Static(Content.styled(describe_error(error), "$text-error"), id="figure-failure"))
            return
        self._figure, self._material = figure, material
        await place.mount(figure)
        self.progress_store.add(last=CHAPTERS[index].name)
        self._save_progress()

    def _prepare_figure(self, chapter: str) -> "tuple[Callable[[Material], ChapterFigure[Any]], Material]":
        """Import the module of a figure, which imports numpy, and prepare the material; called in a thread."""
        from lotr_tui.screens.learn.figures import import_figure

        return import_figure(chapter), self._material or self._make_material()

    @on(TaskPartDone)
    def _finish_part(self, message: TaskPartDone) -> None:
        if message.figure is not self._figure:  # the figure of a chapter that was left
            return
        self.progress_store.add(parts={self.chapter.name: (message.part,)})
        if len(self.finished_parts) == len(self.chapter.task) and not self.is_done:
            self.progress_store.add(done=self.chapter.name)
            self.query_one(ChapterText).shows_hint = False
            if self.takes_turns:
                self.notify(f"Done. {self.chapter.conclusion}", markup=False)
        self._save_progress()
        self._show_text()

    def _save_progress(self) -> None:
        self.run_worker(self._save_in_thread(), group="progress")

    async def _save_in_thread(self) -> None:
        if notice := await asyncio.to_thread(self.progress_store.save):
            self.notify(notice, severity="warning", markup=False)

    def show_chapter(self, index: int) -> None:
        """Open a chapter from its beginning; a training in the figure is stopped."""
        if self._figure is not None and (work := self._figure.work_in_progress):
            self.notify(f"The {work} was stopped, because you left its chapter.")
        self.index = index
        self.remove_class("-figure")
        self._show_hint(False)
        self._load_chapter()

    @on(ChapterFigureReady)
    def _focus_figure(self) -> None:
        """Focus the first control of the figure, if the figure is visible and nothing else has the focus."""
        if self.focused is None and self.query_one("#figure-place").display and self._figure is not None:
            controls = [widget for widget in self._figure.query("*") if widget.focusable]
            self.set_focus(next(iter(controls), None))

    # Keys

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Hide the keys that have no effect: at the ends of the class, and where text and figure are both visible."""
        if action == "step_chapter":
            return 0 <= self.index + int(str(parameters[0])) < len(CHAPTERS)
        if action == "toggle_part":
            return self.takes_turns
        return True

    def action_step_chapter(self, offset: int) -> None:
        """Open a chapter before or after this one."""
        self.show_chapter(self.index + offset)

    def action_toggle_part(self) -> None:
        """Show the figure in place of the text, or the reverse."""
        self.toggle_class("-figure")
        if not self.has_class("-figure"):
            self.set_focus(None)
        self.query_one(HelpLine).update_text()
        self.refresh_bindings()
        self.call_after_refresh(self._focus_figure)

    def action_show_hint(self) -> None:
        """Show how to do the task in place of the sentences, or the sentences again."""
        self.remove_class("-figure")
        self._show_hint(not self.query_one(ChapterText).shows_hint)

    def _show_hint(self, shows_hint: bool) -> None:
        text = self.query_one(ChapterText)
        text.shows_hint = shows_hint
        self._show_text()
        text.scroll_home(animate=False)

    def action_show_source(self) -> None:
        """Show the code of the chapter."""
        from lotr_tui.screens.learn.source_screen import SourceScreen

        self.app.push_screen(SourceScreen(self.chapter.source))

    def action_show_contents(self) -> None:
        """Show all chapters."""
        from lotr_tui.screens.learn.contents import ContentsDialog

        self.app.push_screen(ContentsDialog(self.index, self.progress_store.current.done), self._on_contents_closed)

    def _on_contents_closed(self, choice: int | None) -> None:
        from lotr_tui.screens.learn.contents import BEGIN_AGAIN

        if choice == BEGIN_AGAIN:
            self.progress_store.reset()
            self.show_chapter(0)
        elif choice is not None and choice != self.index:
            self.show_chapter(choice)

    def action_close(self) -> None:
        """Leave the class; ask first if that stops a training."""
        from lotr_tui.screens.dialogs.questions import confirm

        if self._figure is not None and (work := self._figure.work_in_progress):
            confirm(self.app, f"Leave the class? The {work} stops.", self._close)
        else:
            self._close()

    def _close(self) -> None:
        if self._exit_on_close:
            self.app.exit()
        else:
            self.dismiss()
