"""The lens: a text of one's own, and how little each of its words was expected."""

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.timer import Timer
from textual.widgets import Rule, Static

from engine.analysis.token_scores import Piece, Reading, Words, read, split
from engine.errors import LotrError, printable, reason_of
from engine.models.base import LanguageModel
from engine.runs.store import load, summarize
from engine.runtime.worker import Cancellation, Worker
from lotr_tui.screens.lens.path_dialog import AskPath
from lotr_tui.screens.lens.sentences import LensSentences
from lotr_tui.screens.lens.summary import LensFigures
from lotr_tui.screens.lens.text import VIEWS, LensText
from lotr_tui.screens.lens.text_area import MOST_CHARACTERS, LensBox
from lotr_tui.screens.lens.word import LensWord
from lotr_tui.screens.text.layout import Page, clean
from lotr_tui.screens.text.screen import TextScreen
from lotr_tui.session.player import Player
from lotr_tui.theme import MUTED
from lotr_tui.widgets.keys_footer import KeysFooter
from lotr_tui.widgets.status_bar import StatusBar

TYPING_SECONDS = 0.25
"""After the last key, before the text is read."""
DRAIN_SECONDS = 0.1
HINT = "Here the text will stand, each word shaded by its bits: how little the model expected it. Type below."


class LensScreen(TextScreen):
    """The text, the word under the cursor, the sentences; below them a box to type into."""

    CSS_PATH = "lens.tcss"
    AUTO_FOCUS = "#box"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "close", "close", id="lens.close", tooltip="Leave the lens"),
        Binding("ctrl+o", "open", "open", id="lens.open", tooltip="Open a text file"),
        Binding("f2", "view", "view", id="lens.view", tooltip="Shades of the network, Kneser-Ney, or their difference"),
        Binding("f3", "sentences", "sentences", id="lens.sentences", tooltip="Perplexity by sentence, or the text"),
        Binding("f4", "line_ends", "¶", id="lens.line-ends", tooltip="Read line ends as <eos>, or not at all"),
    ]

    def __init__(self, player: Player, text: str = "") -> None:
        """Look at `text` with the model of `player`, and with Kneser-Ney of what its run was trained on."""
        super().__init__(player)
        self._text = clean(text)
        self._shown_as = ""  # the name of a text that does not stand in the box
        self._line_ends = False
        self._workers: dict[str, Worker[Page | Piece]] = {}
        self._building: Worker[LanguageModel] | None = None
        self._rival: LanguageModel | None = None
        self._no_rival = "Kneser-Ney is being counted"
        self._network: Reading | None = None
        self._kneser_ney: Reading | None = None
        self._words: Words | None = None
        self._typing: Timer | None = None

    def compose(self) -> ComposeResult:
        """Model and figures, text beside word and sentences, legend, box, keys."""
        fits = len(self._text) <= MOST_CHARACTERS
        yield StatusBar(id="status")
        yield LensFigures(id="figures")
        yield Rule(line_style="solid")
        with Horizontal(id="body"):
            yield LensText(HINT, id="text")
            with Vertical(id="side"):
                yield LensWord(id="word")
                yield Static("", id="heading", markup=False)
                yield LensSentences(id="sentences")
        yield StatusBar(id="legend")
        yield Rule(line_style="solid")
        yield LensBox(self._text if fits else "", id="box")
        yield KeysFooter()

    def on_mount(self) -> None:
        """What takes longer comes after the first paint."""
        self._drain_timer: Timer = self.set_interval(DRAIN_SECONDS, self._drain, pause=True)
        self._show_heading()
        self._show_view()
        self.show_title("lens")
        self.call_after_refresh(self._begin)

    def _begin(self) -> None:
        run = self._player.run
        if run is None:
            self._no_rival = "no Kneser-Ney: it counts a run's training data, and this model is of no finished run"
            self.notify(f"{self._no_rival}.", markup=False)
        else:
            self._line_ends = _is_line_mode(run)
            self._building = Worker("kneser-ney", lambda cancellation: iter([_kneser_ney(run)])).start()
        if len(self._text) > MOST_CHARACTERS:
            self._show_long(self._text, "text given")
        else:
            self._read()
        self._drain_timer.resume()

    def on_unmount(self) -> None:
        """Leave no thread behind."""
        self._stop_reading()
        if self._building is not None:
            self._building.cancel()

    # The text

    @on(LensBox.Changed)
    def _typed(self, event: LensBox.Changed) -> None:
        text = event.text_area.text
        if text == self._text or (not text and self._shown_as):
            return  # the box was filled or emptied by us
        self._shown_as = ""
        if self._typing is not None:
            self._typing.stop()
        self._typing = self.set_timer(TYPING_SECONDS, self._read_typed)

    def _read_typed(self) -> None:
        self._typing = None
        self._text = clean(self.query_one(LensBox).text)
        self._read()

    @on(LensBox.Pasted)
    def _pasted(self, message: LensBox.Pasted) -> None:
        self._show_long(message.text, "what was pasted")

    def action_open(self) -> None:
        """Ask for a file."""

        def opened(file: tuple[str, str] | None) -> None:
            if file is not None:
                self._take(file[1], printable(file[0]))

        self.app.push_screen(AskPath(), opened)

    def _take(self, text: str, name: str) -> None:
        """Show a text that was not typed: in the box where it fits."""
        if len(text) > MOST_CHARACTERS:
            self._show_long(text, name)
            return
        self._shown_as = ""
        self._text = clean(text)
        self.query_one(LensBox).load_text(self._text)
        self._read()

    def _show_long(self, text: str, name: str) -> None:
        self._shown_as = name
        self._text = clean(text)
        self.query_one(LensBox).clear()
        self.query_one(LensText).focus()
        self._read()

    # Reading

    def _read(self) -> None:
        """Read the text from its start, in a thread; of what was read before only the rest is new."""
        self._stop_reading()
        text, model, line_ends = self._text, self._player.model, self._line_ends

        def source(cancellation: Cancellation) -> Iterator[Page | Piece]:
            page = Page.of(split(text, model.vocabulary, line_ends=line_ends))
            yield page
            yield from read(model, page.words.ids, cancellation)

        self._workers["network"] = Worker("lens", source).start()
        self._drain_timer.resume()

    def _compare(self, model: LanguageModel) -> None:
        """Read the same words with Kneser-Ney."""
        if self._words is None or self._network is None:
            return
        words = self._words
        if (before := self._workers.get("Kneser-Ney")) is not None:
            before.cancel()
        self._kneser_ney = Reading(words, model.vocabulary, self._kneser_ney)
        self._workers["Kneser-Ney"] = Worker("lens-kneser-ney", lambda cancelled: read(model, words.ids, cancelled))
        self._workers["Kneser-Ney"].start()
        self.query_one(LensText).compare(self._kneser_ney)

    def _stop_reading(self) -> None:
        for worker in self._workers.values():
            worker.cancel()
        self._workers.clear()

    def _drain(self) -> None:
        """Show what was read since the last tick; rest when there is nothing more to come."""
        self._drain_rival()
        progress = False
        for name, worker in list(self._workers.items()):
            if self._workers.get(name) is not worker:
                continue  # the page of another text came first, and what this one read is of the text before
            ended = not worker.running
            for event in worker.drain():
                progress = True
                if isinstance(event, Page):
                    self._show_page(event)
                else:
                    reading = self._network if name == "network" else self._kneser_ney
                    assert reading is not None
                    reading.add(event)
            if ended and self._workers.get(name) is worker:
                del self._workers[name]
                if worker.failure is not None:
                    reason = reason_of(worker.failure)
                    self.notify(f"The text could not be read: {reason}", severity="error", markup=False)
        if progress:
            self._show_progress()
        if not self._workers and self._building is None:
            self._drain_timer.pause()

    def _drain_rival(self) -> None:
        worker = self._building
        if worker is None:
            return
        ended = not worker.running
        for model in worker.drain():
            if model.vocabulary == self._player.model.vocabulary:
                self._rival = model
                self._compare(model)
            else:
                self._no_rival = "no Kneser-Ney: the run's words are others than this model's"
        if ended:
            self._building = None
            if worker.failure is not None:
                self._no_rival = f"no Kneser-Ney: {reason_of(worker.failure)}"
                self.notify(f"{self._no_rival}.", markup=False)
            self._show_figures()
            self._show_word()

    def _show_page(self, page: Page) -> None:
        """The words are found: show them, what is known of them already shaded."""
        self._words = page.words
        self._network = Reading(self._words, self._player.model.vocabulary, self._network)
        box = self.query_one(LensBox)
        self.query_one(LensText).show_reading(page, self._network, cursor=self._typed_word() if box.has_focus else None)
        if self._rival is not None:
            self._compare(self._rival)
        self._show_progress()

    def _show_progress(self) -> None:
        if self._network is None:
            return
        self.query_one(LensText).read_on()
        self.query_one(LensSentences).show(self._network, self._kneser_ney)
        self._show_figures()
        self._show_word()

    # The cursor

    def _typed_word(self) -> int | None:
        """The word before the cursor of the box."""
        if self._words is None or self._shown_as or not len(self._words):
            return None
        place = self.query_one(LensBox).place_of_cursor()
        return max(0, int(self._words.starts.searchsorted(place, side="left")) - 1)

    @on(LensBox.SelectionChanged)
    def _box_cursor_moved(self) -> None:
        if self._words is not None and self._text == self.query_one(LensBox).text:
            word = self._typed_word()
            if word is not None:
                self.query_one(LensText).move_to(word)

    @on(LensText.WordChosen)
    def _word_chosen(self) -> None:
        self._show_word()

    @on(LensSentences.SentenceChosen)
    def _sentence_chosen(self, message: LensSentences.SentenceChosen) -> None:
        if self._words is not None:
            self.query_one(LensText).move_to(self._words.sentence(message.number)[0])

    # The keys

    def action_view(self) -> None:
        """The next meaning of the shades."""
        text = self.query_one(LensText)
        view = VIEWS[(VIEWS.index(text.view) + 1) % len(VIEWS)]
        if self._rival is None:
            self.notify(f"{self._no_rival}.", markup=False)
            return
        text.view = view
        self._show_view()
        self._show_word()

    def action_sentences(self) -> None:
        """On a narrow terminal the sentences take the place of the text; on a wide one the cursor goes there."""
        sentences = self.query_one(LensSentences)
        if self.has_class("-narrow"):
            self.toggle_class("-sentences")
        target = self.query_one(LensText) if sentences.has_focus else sentences
        self.call_after_refresh(target.focus)

    @on(LensSentences.OrderChanged)
    def _show_heading(self) -> None:
        self.query_one("#heading", Static).update(self.query_one(LensSentences).heading())

    def action_line_ends(self) -> None:
        """Read line ends as `<eos>`, or pass over them."""
        self._line_ends = not self._line_ends
        self.notify(
            "Line ends are read as <eos>: ¶." if self._line_ends else "Line ends are passed over.", markup=False
        )
        self._read()

    # What is shown

    def _show_view(self) -> None:
        text = self.query_one(LensText)
        self.query_one("#legend", StatusBar).show(
            text.legend(), Content.styled("" if text.view == "difference" else text.view, MUTED)
        )

    def _show_word(self) -> None:
        text, shown = self.query_one(LensText), self.query_one(LensWord)
        if self._words is None or self._network is None or not len(self._words):
            shown.show("", "", (None, None))
            return
        index = min(text.cursor, len(self._words) - 1)
        sentence = self._words.sentence_of(index)
        word = "¶" if self._words[index] == "\n" else self._words[index]
        if self._words.unknown[index]:
            word += " (unknown, read as <unk>)"
        place = f"sentence {sentence + 1:,} of {len(self._words.sentences):,}"
        rival = self._kneser_ney.guess(index) if self._kneser_ney is not None else None
        shown.show(
            word,
            place,
            (self._network.guess(index), rival),
            expected_by=1 if text.view == "Kneser-Ney" and rival else 0,
        )
        self.query_one(LensSentences).point(sentence)

    def _show_figures(self) -> None:
        without = "Kneser-Ney …" if self._building is not None or self._rival is not None else "no Kneser-Ney"
        self.query_one(LensFigures).show_text(self._network, self._kneser_ney, without, self._shown_as)


def _is_line_mode(run: Path) -> bool:
    """Whether a run's model was trained to see `<eos>` at the end of each line."""
    try:
        return summarize(run).mode == "line"
    except (LotrError, OSError):  # deleted, since it was loaded
        return False


def _kneser_ney(run: Path) -> LanguageModel:
    """Kneser-Ney of what a run was trained on.

    Raises:
        UnusableInput: that cannot be read again.
    """
    # Only here: reading a corpus again may take pandas.
    from engine.runs.combine import Combiner

    return Combiner([load(run)]).kneser_ney
