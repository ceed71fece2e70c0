"""Screen of a chapter of the class: a few sentences, a live figure, a task, and keys to the other chapters."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.content import Content
from textual.widget import Widget
from textual.widgets import Input, Rule, Static

from engine.errors import describe_error
from lotr_tui.background_task import run_in_thread
from lotr_tui.learn.chapters import CHAPTERS, Chapter, first_open_chapter
from lotr_tui.learn.progress import ProgressStore
from lotr_tui.screens.base import AppScreen
from lotr_tui.screens.dialogs.questions import confirm
from lotr_tui.theme import MUTED
from lotr_tui.widgets.keys import FooterKey, KeyFooter, binding_table
from lotr_tui.widgets.screen_lines import HelpLine, StatusBar

if TYPE_CHECKING:  # these modules import numpy, which the first paint does not need
    from lotr_tui.learn.material import Material
    from lotr_tui.screens.learn.figure import ChapterFigure, TaskPartDone

LAYOUT_SIZES = {"-stacked": (70, 22), "-beside": (110, 16)}
"""Minimum columns and rows for text and figure at the same time, one above or beside the other."""
MIN_COLUMNS, MIN_ROWS = 40, 12
TOO_SMALL = f"The class needs {MIN_COLUMNS} × {MIN_ROWS} characters."
FOOTER_KEYS = (
    "learn-live.train", "learn-counting.again", "learn-sampling.again", "learn-memory.reset", "learn-memory.find",
    *(f"learn.{name}" for name in ("pane", "edit", "next", "previous", "hint", "code", "contents", "close")),
)  # fmt: skip
"""Keys of the footer, the most important first."""


class ChapterScreen(AppScreen[None]):
    """A chapter of the class, with its text and its figure beside, above or instead of each other."""

    AUTO_FOCUS = ""
    BINDINGS: ClassVar[list[BindingType]] = binding_table(
        "learn",
        """
        pane      | tab       | step_pane(1)     | pane     | The next part; the text where only one fits
        pane-back | shift+tab | step_pane(-1)    | back     | The part before
        edit      | e         | edit_line        | edit     | Type into the line of the figure
        next      | n,ctrl+n  | step_chapter(1)  | next     | The next chapter, also while a text is typed | n
        previous  | b         | step_chapter(-1) | previous | The previous chapter
        hint      | h         | show_hint        | hint     | How to do the task
        code      | v         | show_code        | code     | View the code behind this chapter
        contents  | g         | show_contents    | chapters | Go to another chapter
        close     | escape    | close            | close    | Leave the class; the progress is kept
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
        """Open a chapter by its index; None opens the first one whose task is not done.

        `make_material` creates the corpus and the models of the class, in a thread and after the first paint. With
        `exit_on_close`, the app ends when the class is left.
        """
        super().__init__()
        self.progress_store = progress_store or ProgressStore()
        self.index = first_open_chapter(self.progress_store.current.done) if chapter is None else chapter
        self._make_material = make_material
        self._material: Material | None = None
        self._figure: ChapterFigure[Any] | None = None  # None while it is created, or if that has failed
        self._exit_on_close = exit_on_close
        self._shows_hint = False
        self._early_keys: list[events.Key] | None = None  # typed after `edit` while there is no line yet

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
        return frozenset(self.progress_store.current.parts.get(self.chapter.name, ()))

    @property
    def is_idle(self) -> bool:
        return self._figure is not None and self._figure.is_idle

    @property
    def takes_turns(self) -> bool:
        """True if only the text or the figure fits."""
        return not (self.has_class("-stacked") or self.has_class("-beside"))

    def get_help_line(self) -> str:
        is_hidden = self.takes_turns and not self.has_class("-figure")
        return f"{self._key('pane')} shows the figure" if is_hidden else ""

    def _key(self, name: str) -> str:
        binding = next(each for each in self.BINDINGS if isinstance(each, Binding) and each.id == f"learn.{name}")
        return self.app.get_key_display(binding)

    def compose(self) -> ComposeResult:
        yield StatusBar(id="status")
        yield Rule(line_style="solid")
        with Horizontal(id="body"):
            with VerticalScroll(id="text", can_focus=False):
                yield Static(id="sentences", markup=False)
                yield Static(id="task", markup=False)
            yield Rule(line_style="solid", id="divider")
            yield Vertical(id="figure-place")
        yield Static(TOO_SMALL, id="too-small", markup=False)
        yield HelpLine()
        yield KeyFooter(lambda: [FooterKey(name) for name in FOOTER_KEYS])

    def on_mount(self) -> None:
        if self.progress_store.notice:
            self.notify(self.progress_store.notice, severity="warning", markup=False)
        self._show_text()
        self.call_after_refresh(self._load_chapter)

    def on_unmount(self) -> None:
        if self.progress_store.has_unsaved_changes:
            self.state.exit_message = self.progress_store.save() or self.state.exit_message

    def on_resize(self) -> None:
        """Lay out text and figure for the new size; Textual also calls the method of the base class."""
        width, height = self.app.size
        for name, (columns, rows) in LAYOUT_SIZES.items():
            self.set_class(width >= columns and height >= rows, name)
        self.set_class(width < MIN_COLUMNS or height < MIN_ROWS, "-too-small")
        self.call_after_refresh(self.on_chapter_figure_ready)

    # Text

    def _show_text(self) -> None:
        """Show the chapter. A hint takes the place of the sentences, so that nothing moves."""
        chapter, done = self.chapter, self.progress_store.current.done
        dots = Content("").join(
            Content.styled("●" if each.name in done else "○", "$accent" if each is chapter else MUTED)
            for each in CHAPTERS
        )
        place = f"{self.index + 1} of {len(CHAPTERS)} "
        title = Content.assemble(("lotr-tui", "bold $accent"), "  ", (place, MUTED), (chapter.title, "bold"))
        self.query_one("#status", StatusBar).show(title, dots)
        parts = [
            Content.assemble(_unbroken(text), (" ✓ ", "bold $success") if part in self.finished_parts else " ")
            for part, text in enumerate(chapter.task)
        ]
        count = f"{len(self.finished_parts)} of {len(parts)}  " if len(parts) > 1 else ""
        task = Content.assemble(("▸ Task  ", "bold $accent"), (count, MUTED), *parts)
        sentences = self.query_one("#sentences", Static)
        sentences.styles.min_height = sentences.size.height if self._shows_hint else None
        hint = Content.assemble(("Hint  ", "bold $accent"), _unbroken(chapter.hint))
        if self._shows_hint and self.is_done:
            hint = Content.assemble(task, "\n\n", hint)
        sentences.update(hint if self._shows_hint else _unbroken(chapter.text))
        if self.is_done:
            what_next = f" {self._key('next')} goes on." if self.index + 1 < len(CHAPTERS) else ""
            task = Content.assemble(("✓ Done  ", "bold $success"), _unbroken(chapter.conclusion), (what_next, MUTED))
        self.query_one("#task", Static).update(task)
        self.refresh_bindings()

    def on_task_part_done(self, message: "TaskPartDone") -> None:
        if message.figure is not self._figure:  # the figure of a chapter that was left
            return
        self.progress_store.add(parts={self.chapter.name: (message.part,)})
        if len(self.finished_parts) == len(self.chapter.task) and not self.is_done:
            self.progress_store.add(done=self.chapter.name)
            self._shows_hint = False
            if self.takes_turns:
                self.notify(f"Done. {self.chapter.conclusion}", markup=False)
        self._save_progress()
        self._show_text()

    def _save_progress(self) -> None:
        self.run_worker(self._save_in_thread(), group="progress")

    async def _save_in_thread(self) -> None:
        if notice := await asyncio.to_thread(self.progress_store.save):
            self.notify(notice, severity="warning", markup=False)

    # Figure

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
        if (keys := self._early_keys) is not None:
            self._early_keys = None
            self.action_edit_line()
            self.call_after_refresh(lambda: [self.post_message(key) for key in keys])

    def _prepare_figure(self, chapter: str) -> "tuple[Callable[[Material], ChapterFigure[Any]], Material]":
        """Import the module of a figure, which imports numpy, and prepare the material; called in a thread."""
        from lotr_tui.screens.learn.figures import import_figure

        return import_figure(chapter), self._material or self._make_material()

    def show_chapter(self, index: int) -> None:
        """Open a chapter from its beginning; a training in the figure is stopped."""
        if self._figure is not None and (work := self._figure.work_in_progress):
            self.notify(f"The {work} was stopped, because you left its chapter.")
        self.index, self._shows_hint, self._early_keys = index, False, None
        self.remove_class("-figure")
        self._show_text()
        self.query_one("#text").scroll_home(animate=False)
        self._load_chapter()

    @property
    def _panes(self) -> list[Widget]:
        return [] if self._figure is None else [each for each in self._figure.query("*") if each.can_focus]

    def on_chapter_figure_ready(self) -> None:
        if self.focused is None and self.query_one("#figure-place").display and self.is_current:
            panes = [each for each in self._panes if each.focusable]
            self.set_focus(next((each for each in panes if not isinstance(each, Input)), None))

    # Keys

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if action == "step_chapter":
            return 0 <= self.index + int(str(parameters[0])) < len(CHAPTERS)
        if action == "edit_line":
            return self._figure is None or any(isinstance(each, Input) for each in self._panes)
        return True

    def on_key(self, event: events.Key) -> None:
        if self._early_keys is not None:
            event.stop()
            event.prevent_default()
            self._early_keys.append(event)

    def action_step_chapter(self, offset: int) -> None:
        self.show_chapter(self.index + offset)

    def action_step_pane(self, offset: int) -> None:
        """Focus the next part of the figure, which then is visible; where only one fits, the text is a part too."""
        panes: list[Widget | None] = [*([None] if self.takes_turns else []), *self._panes]
        if panes:
            here = panes.index(self.focused) if self.focused in panes else 0 if self.takes_turns else -1
            self._focus_pane(panes[(here + offset) % len(panes)])

    def action_edit_line(self) -> None:
        """Focus the line of the figure; what is typed before it is there is kept for it."""
        if self._figure is None:
            self._early_keys = []
        elif line := next((each for each in self._panes if isinstance(each, Input)), None):
            self._focus_pane(line)

    def _focus_pane(self, pane: Widget | None) -> None:
        """Show a part of the figure and focus it; None shows the text."""
        self.set_class(pane is not None, "-figure")
        if self._figure is not None and pane is not None:
            self._figure.reveal(pane)
        self.app.update_styles(self)
        if pane is None:
            self.set_focus(None)
        elif pane.focusable:
            self.set_focus(pane)
        else:
            self.call_after_refresh(self.set_focus, pane)
        self.query_one(HelpLine).update_text()
        self.refresh_bindings()

    def action_show_hint(self) -> None:
        self.remove_class("-figure")
        self._shows_hint = not self._shows_hint
        self._show_text()
        self.query_one("#text").scroll_home(animate=False)

    def action_show_code(self) -> None:
        from lotr_tui.screens.learn.dialogs import SourceScreen  # imports pygments

        self.app.push_screen(SourceScreen(self.chapter))

    def action_show_contents(self) -> None:
        from lotr_tui.screens.learn.dialogs import BEGIN_AGAIN, ContentsDialog

        def open_choice(choice: int | None) -> None:
            if choice == BEGIN_AGAIN:
                self.progress_store.reset()
                self.show_chapter(0)
            elif choice is not None and choice != self.index:
                self.show_chapter(choice)

        self.app.push_screen(ContentsDialog(self.index, self.progress_store.current.done), open_choice)

    def action_close(self) -> None:
        """Leave the class; ask first if that stops a training."""

        def close() -> None:
            if self._exit_on_close:
                self.app.exit()
            else:
                self.dismiss()

        if self._figure is not None and (work := self._figure.work_in_progress):
            confirm(self.app, f"Leave the class? The {work} stops.", close)
        else:
            close()


def _unbroken(text: str) -> Content:
    return Content(text.replace(" %", "\u00a0%"))
