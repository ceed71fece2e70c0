"""Memorised or new: what of a text stands in the training text just so."""

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container
from textual.content import Content
from textual.timer import Timer
from textual.widgets import Input, Rule

from engine.analysis.memorization import LEAST, Memorised
from engine.analysis.token_scores import split
from engine.data.vocabulary import Ids, Vocabulary
from engine.errors import RunError, reason_of
from engine.runtime.worker import Cancellation, Worker
from lotr_tui.screens.memorization.occurrences import PassagePlaces
from lotr_tui.screens.memorization.text import PassageText
from lotr_tui.screens.text.layout import Page
from lotr_tui.screens.text.screen import TextScreen
from lotr_tui.screens.text.text_input import TextLine, with_line_ends
from lotr_tui.session.player import Player
from lotr_tui.session.training_text import training_data, training_index
from lotr_tui.theme import MUTED
from lotr_tui.widgets.keys_footer import KeysFooter
from lotr_tui.widgets.status_bar import StatusBar

DRAIN_SECONDS = 0.05
HINT = f"Here the text will stand, passages of {LEAST} words or more that the model was trained on marked. Type below."


class MemorisedScreen(TextScreen):
    """The text with its passages; where the chosen one stands; a line to type another text into."""

    CSS_PATH = "memorization.tcss"
    AUTO_FOCUS = "#text"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "close", "close", id="memorised.close", tooltip="Back to where you came from"),
        Binding("f2", "edit", "edit", id="memorised.edit", tooltip="Change the text, or go back to it"),
    ]

    def __init__(self, player: Player, text: str = "") -> None:
        """Look up `text`, a reply with its prompt, in what the run of `player` was trained on."""
        super().__init__(player)
        self._text = with_line_ends(text)
        self._page = Page.without_words("")
        self._worker: Worker[Memorised] | None = None
        self.found: Memorised | None = None
        """What of the text is known; None before that is found out, or where it cannot be."""

    def compose(self) -> ComposeResult:
        """Model, figures, text and places, a line to type into, keys."""
        yield StatusBar(id="status")
        yield StatusBar(id="figures")
        yield Rule(line_style="solid")
        with Container(id="body"):
            yield PassageText(HINT, id="text")
            yield PassagePlaces(id="places")
        yield Rule(line_style="solid")
        yield TextLine(self._text, id="line")
        yield KeysFooter()

    def on_mount(self) -> None:
        """Look up the text after the first paint."""
        self._drain_timer: Timer = self.set_interval(DRAIN_SECONDS, self._drain, pause=True)
        self.show_title("memorised or new")
        self.call_after_refresh(self._look_up)

    def on_unmount(self) -> None:
        """Leave no thread behind."""
        if self._worker is not None:
            self._worker.cancel()

    # Looking up

    def _look_up(self) -> None:
        """Find the passages of the text in a thread: the first time its training text must be read and sorted."""
        if self._worker is not None:
            self._worker.cancel()
        run, vocabulary = self._player.run, self._player.model.vocabulary
        words = split(self._text, vocabulary, line_ends=True)
        self.found, self._page = None, Page.of(words)
        self.query_one(PassageText).show_passages(self._page, ())
        if run is None:
            self._say("there is no training text to look in: this model is of no finished run")
        elif not len(words):
            self._say("there is no word to look up: type a text below, and press enter")
        else:
            self._say("the training text is being read and sorted …")

            def source(cancellation: Cancellation) -> Iterator[Memorised]:
                yield _find(run, vocabulary, words.ids)

            self._worker = Worker("memorised", source).start()
            self._drain_timer.resume()

    def _drain(self) -> None:
        """Show what was found; rest when there is nothing more to come."""
        worker = self._worker
        if worker is None or worker.running:
            return
        self._worker = None
        self._drain_timer.pause()
        if worker.failure is not None:
            self._say(f"there is no training text to look in: {reason_of(worker.failure)}")
        for found in worker.drain():
            self._show(found)

    # What is shown

    def _show(self, found: Memorised) -> None:
        self.found = found
        self.query_one(PassageText).show_passages(self._page, found.passages)
        new = found.words - int(found.known.sum())
        unknown = int(self._page.words.unknown.sum())
        count = len(found.passages)
        parts = [
            (f"{new:,} of {found.words:,} words new ({found.new:.0%})", "bold"),
            (f"   {count:,} passage{'' if count == 1 else 's'}", ""),
        ]
        if count:
            parts.append((f"   longest {max(item.length for item in found.passages):,} words", ""))
        if unknown:
            parts.append((f"   {unknown:,} unknown", MUTED))
        self.query_one("#figures", StatusBar).show(Content.assemble(*parts))
        if count:
            self._show_passage()
        else:
            self.query_one(PassagePlaces).tell(f"no {LEAST} words in a row stand in the training text: all is new")

    @on(PassageText.PassageChosen)
    def _show_passage(self) -> None:
        if self.found is None or not self.found.passages:
            return
        number = self.query_one(PassageText).chosen
        places = self.query_one(PassagePlaces)
        passages = self.found.passages
        places.show(number + 1, len(passages), passages[number], self._player.model.vocabulary.tokenizer)

    def _say(self, text: str) -> None:
        """One line instead of figures."""
        self.query_one("#figures", StatusBar).show(Content.styled(text, MUTED))
        self.query_one(PassagePlaces).tell("")

    # The keys

    @on(Input.Submitted)
    def _typed(self) -> None:
        self._text = self.query_one(TextLine).text
        self._look_up()
        self.query_one(PassageText).focus()

    def action_edit(self) -> None:
        """To the line with the text, or back from it."""
        field = self.query_one(Input)
        (self.query_one(PassageText) if field.has_focus else field).focus()


def _find(run: Path, vocabulary: Vocabulary, ids: Ids) -> Memorised:
    """The passages of a text `[time]` in what a run was trained on.

    Raises:
        UnusableInput: that cannot be read again, or has other words than the model.
    """
    if training_data(run).vocabulary != vocabulary:
        raise RunError(f"the words of run {run.name} are others than this model's")
    return training_index(run).find(ids)
