"""Text of a chapter: its sentences or the hint, and below them the task or what the task has shown."""

from collections.abc import Collection

from textual.app import ComposeResult
from textual.containers import VerticalScroll
from textual.content import Content
from textual.widgets import Static

from lotr_tui.learn.chapters import Chapter
from lotr_tui.theme import MUTED


class ChapterText(VerticalScroll, can_focus=False):
    """Sentences of a chapter and its task. A hint takes the place of the sentences, so that nothing moves."""

    def __init__(self, *, id: str) -> None:
        super().__init__(id=id)
        self.shows_hint = False
        """True if the hint is shown in place of the sentences."""

    def compose(self) -> ComposeResult:
        """Yield the sentences and the task."""
        yield Static(id="sentences", markup=False)
        yield Static(id="task", markup=False)

    def show(self, chapter: Chapter, finished_parts: Collection[int], *, is_done: bool, next_key: str) -> None:
        """Show a chapter.

        Args:
            chapter: The chapter.
            finished_parts: Indices of the finished parts of its task.
            is_done: True if the task is done, now or earlier.
            next_key: Key of the next chapter for display; empty for the last one.
        """
        task = _describe_task(chapter, finished_parts)
        sentences = self.query_one("#sentences", Static)
        sentences.styles.min_height = sentences.size.height if self.shows_hint else None
        if self.shows_hint:
            hint = Content.assemble(("Hint  ", "bold $accent"), _unbroken(chapter.hint))
            sentences.update(Content.assemble(task, "\n\n", hint) if is_done else hint)
        else:
            sentences.update(_unbroken(chapter.text))
        if is_done:
            conclusion = _unbroken(chapter.conclusion)
            what_next = f" {next_key} goes on." if next_key else ""
            task = Content.assemble(("✓ Done  ", "bold $success"), conclusion, (what_next, MUTED))
        self.query_one("#task", Static).update(task)


def _describe_task(chapter: Chapter, finished_parts: Collection[int]) -> Content:
    parts = [
        Content.assemble(_unbroken(text), (" ✓ ", "bold $success") if part in finished_parts else " ")
        for part, text in enumerate(chapter.task)
    ]
    return Content.assemble(("▸ Task  ", "bold $accent"), *parts)


def _unbroken(text: str) -> Content:
    """Return a text in which no line ends before a percent sign."""
    return Content(text.replace(" %", "\u00a0%"))
