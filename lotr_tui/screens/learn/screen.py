"""Screen of a chapter of the class: a few sentences, a live figure, a task, and keys to the other chapters."""

import asyncio
from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.content import Content
from textual.widget import Widget
from textual.widgets import Input, Rule, Static

from engine.errors import describe_error
from lotr_tui.app_state import OpenSession
from lotr_tui.background_task import run_in_thread
from lotr_tui.learn.chapters import CHAPTERS, Chapter, read_source
from lotr_tui.learn.progress import ProgressStore
from lotr_tui.screens.base import AppScreen
from lotr_tui.screens.dialogs.dialog import Dialog
from lotr_tui.theme import MUTED
from lotr_tui.widgets.keys import FooterKey, KeyFooter, binding_table
from lotr_tui.widgets.screen_lines import HelpLine, StatusBar

if TYPE_CHECKING:  # these modules import numpy, which the first paint does not need
    from lotr_tui.learn.material import Material
    from lotr_tui.screens.learn.figure import ChapterFigure, TaskPartDone

FIGURES = {
    "tokens": "words.TokensFigure",
    "counting": "next_words.CountingFigure",
    "perplexity": "words.PerplexityFigure",
    "memory": "memory.MemoryFigure",
    "training": "training.TrainingFigure",
    "overfitting": "training.OverfittingFigure",
    "sampling": "next_words.SamplingFigure",
    "attention": "attention.AttentionFigure",
    "fine-tuning": "training.FineTuningFigure",
}
# Minimum columns and rows for text and figure at the same time, one above or beside the other.
LAYOUT_SIZES = {"-stacked": (70, 22), "-beside": (110, 16)}
MIN_COLUMNS, MIN_ROWS = 40, 12
FOOTER_KEYS = (  # the most important first
    *(f"learn-live.{name}" for name in ("train", "stop", "play")),
    "learn-samples.again", "learn-memory.reset", "learn-memory.find",
    *(f"learn.{name}" for name in ("pane", "edit", "next", "previous", "hint", "code", "contents", "close")),
)  # fmt: skip


def import_figure(chapter: str) -> "Callable[[Material], ChapterFigure[Any]]":
    """Import the module of a figure, which imports numpy, and return the function that creates the figure."""
    module, _, name = FIGURES[chapter].partition(".")
    figures: Any = import_module(f"lotr_tui.screens.learn.figures.{module}")
    create: Callable[[Material], ChapterFigure[Any]] = getattr(figures, name)
    return create


class ChapterScreen(AppScreen[Any]):
    """A chapter of the class, with its text and its figure beside, above or instead of each other.

    Above a session, it is dismissed with a model that was trained in it and is to be used there, or with None.
    """

    AUTO_FOCUS = ""
    BINDINGS: ClassVar[list[BindingType]] = binding_table(
        "learn",
        """
        pane      | tab       | step_pane(1)     | pane     | The next part; the text where only one fits
        pane-back | shift+tab | step_pane(-1)    | back     | The part before
        edit      | e         | edit_line        | edit     | Type into the line of the figure
        next      | n,ctrl+n  | step_chapter(1)  | next     | The next chapter, also while a text is typed
        previous  | b         | step_chapter(-1) | previous | The previous chapter
        hint      | h         | show_hint        | hint     | How to do the task
        code      | v         | show_code        | code     | View the code behind this chapter
        contents  | g         | show_contents    | chapters | Go to another chapter
        close     | escape    | close            | close    | Leave the class; the progress is kept
        """,
        show=True,
    )

    def __init__(
        self, make_material: "Callable[[], Material]", chapter: int | None = None, *, exit_on_close: bool = False
    ) -> None:
        """Open a chapter by its index; None opens the first one whose task is not done.

        `make_material` creates the corpus and the models of the class, in a thread and after the first paint. With
        `exit_on_close`, the app ends when the class is left.
        """
        super().__init__()
        self.progress_store = ProgressStore()
        done = self.progress_store.current.done
        is_open = [each.name not in done for each in CHAPTERS]
        self.index = chapter if chapter is not None else is_open.index(True) if any(is_open) else 0
        self._make_material = make_material
        self._material: Material | None = None
        self._figure: ChapterFigure[Any] | None = None  # None while it is created, or if that has failed
        self._exit_on_close = exit_on_close
        self._shows_hint = False
        self._opening = asyncio.Lock()  # of a chapter; keys wait until it has its figure, since they may be its text

    @property
    def chapter(self) -> Chapter:
        return CHAPTERS[self.index]

    @property
    def is_done(self) -> bool:
        return self.chapter.name in self.progress_store.current.done

    @property
    def finished_parts(self) -> frozenset[int]:
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
        return self.app.get_key_display(binding).split()[0]

    def compose(self) -> ComposeResult:
        yield StatusBar(id="status")
        yield Rule(line_style="solid")
        with Horizontal(id="body"):
            with VerticalScroll(id="text", can_focus=False):
                yield Static(id="sentences", markup=False)
                yield Static(id="task", markup=False)
            yield Rule(line_style="solid", id="divider")
            yield Vertical(id="figure-place")
        yield Static(f"The class needs {MIN_COLUMNS} × {MIN_ROWS} characters.", id="too-small")
        yield HelpLine()
        yield KeyFooter(lambda: [FooterKey(name) for name in FOOTER_KEYS])

    async def on_mount(self) -> None:
        await self._opening.acquire()
        if self.progress_store.notice:
            self.notify(self.progress_store.notice, severity="warning", markup=False)
        self._show_text()
        self.call_after_refresh(self._open_chapter)

    def on_unmount(self) -> None:
        self.state.exit_message = self.progress_store.save() or self.state.exit_message

    def on_resize(self) -> None:
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
        self.run_worker(self._save_progress(), group="progress")
        self._show_text()

    async def _save_progress(self) -> None:
        if notice := await asyncio.to_thread(self.progress_store.save):
            self.notify(notice, severity="warning", markup=False)

    # Figure

    async def _open_chapter(self) -> None:
        """Replace the figure, and release the lock."""
        place, chapter, self._figure = self.query_one("#figure-place", Vertical), self.chapter, None
        try:
            await place.remove_children()
            create_figure = await run_in_thread(import_figure, chapter.name)
            if self._material is None:
                self._material = await run_in_thread(self._make_material)
            self._figure = create_figure(self._material)
            await place.mount(self._figure)
            self.progress_store.add(last=chapter.name)
            self.run_worker(self._save_progress(), group="progress")
        except Exception as error:
            await place.mount(Static(Content.styled(describe_error(error), "$text-error"), id="figure-failure"))
        finally:
            self._opening.release()

    async def show_chapter(self, index: int) -> None:
        """Open a chapter from its beginning; a training in the figure is stopped."""
        await self._opening.acquire()
        if self._figure is not None and self._figure.is_training:
            self.notify("The training was stopped, because you left its chapter.")
        self.index, self._shows_hint = index, False
        self.remove_class("-figure")
        self._show_text()
        self.query_one("#text").scroll_home(animate=False)
        await self._open_chapter()

    @property
    def _panes(self) -> list[Widget]:
        return [] if self._figure is None else [each for each in self._figure.query("*") if each.can_focus]

    def on_chapter_figure_ready(self) -> None:
        self.refresh_bindings()
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

    async def action_step_chapter(self, offset: int) -> None:
        await self.show_chapter(self.index + offset)

    def action_step_pane(self, offset: int) -> None:
        """Focus the next part of the figure, which then is visible; where only one fits, the text is a part too."""
        panes: list[Widget | None] = [*([None] if self.takes_turns else []), *self._panes]
        if panes:
            here = panes.index(self.focused) if self.focused in panes else 0 if self.takes_turns else -1
            self._focus_pane(panes[(here + offset) % len(panes)])

    async def action_edit_line(self) -> None:
        async with self._opening:
            if line := next((each for each in self._panes if isinstance(each, Input)), None):
                self._focus_pane(line)

    def _focus_pane(self, pane: Widget | None) -> None:
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
        self.app.push_screen(SourceScreen(self.chapter))

    def action_show_contents(self) -> None:
        async def open_choice(choice: int | None) -> None:
            if choice is not None and choice != self.index:
                await self.show_chapter(choice)

        answers: list[tuple[Content, int | None]] = []
        for index, chapter in enumerate(CHAPTERS):
            mark = ("✓", "$success") if chapter.name in self.progress_store.current.done else " "
            answers.append((Content.assemble((f"{index + 1} ", MUTED), mark, f" {chapter.title}"), index))
        self.app.push_screen(Dialog("The class", answers=answers, highlighted=self.index, verb="open"), open_choice)

    def on_open_session(self, message: OpenSession) -> None:
        if not self._exit_on_close:
            message.stop()
            self.dismiss(message.session_model)

    def action_close(self) -> None:
        if isinstance(self.focused, Input):  # first the line that is typed is left
            self.set_focus(None)
        elif self._exit_on_close:
            self.app.exit()
        else:
            self.dismiss()


def _unbroken(text: str) -> Content:
    return Content(text.replace(" %", "\u00a0%"))


class SourceScreen(AppScreen[None]):
    """The function or class behind a chapter, with line numbers."""

    AUTO_FOCUS = "#code"
    BINDINGS: ClassVar[list[BindingType]] = binding_table(
        "learn-source", "close | escape | dismiss(None) | close | Back to the chapter | esc", show=True
    )

    def __init__(self, chapter: Chapter) -> None:
        super().__init__()
        self._chapter = chapter

    def compose(self) -> ComposeResult:
        from rich.syntax import Syntax  # imports pygments, which the first paint does not need

        code, first_line = read_source(self._chapter)
        title = Content.assemble(("lotr-tui", "bold $accent"), "  ", (self._chapter.source, "bold"))
        theme = "ansi_dark" if self.app.current_theme.dark else "ansi_light"
        syntax = Syntax(
            code, "python", theme=theme, line_numbers=True, start_line=first_line, word_wrap=True,
            background_color="default",
        )  # fmt: skip
        status = StatusBar(id="status")
        status.show(title + Content.styled(f" · line {first_line}", MUTED))
        yield status
        yield Rule(line_style="solid")
        with VerticalScroll(id="code"):
            yield Static(syntax, id="source")
        yield KeyFooter()
