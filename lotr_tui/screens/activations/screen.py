"""Inside the LSTM: its gates, candidate and cell on each word, and the words that drive a unit furthest."""

from collections.abc import Iterator
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container, Vertical
from textual.content import Content
from textual.timer import Timer
from textual.widgets import Input, Rule

from engine.analysis.activations import Gates, along, gates, lstm_of
from engine.analysis.token_scores import Words, split
from engine.errors import reason_of
from engine.runtime.worker import Cancellation, Worker
from lotr_tui.screens.activations.gate_strips import GATES, LEVELS, NEGATIVE, POSITIVE, ZERO, GateStrips, scale_of
from lotr_tui.screens.activations.unit_contexts import UnitFound
from lotr_tui.screens.activations.unit_trace import UnitAlong
from lotr_tui.screens.text.layout import Page
from lotr_tui.screens.text.screen import TextScreen
from lotr_tui.screens.text.text_input import TextLine, with_line_ends
from lotr_tui.screens.text.view import PageText
from lotr_tui.session.player import Player
from lotr_tui.session.unit_search import Unit, UnitSearch
from lotr_tui.theme import MUTED
from lotr_tui.widgets.keys_footer import KeysFooter
from lotr_tui.widgets.status_bar import StatusBar

MOST_WORDS = 1000
"""Of a text; what is seen of a thousand in three layers of 1,150 takes 83 MB."""
DRAIN_SECONDS = 0.1
HINT = "Here the text will stand, the LSTM's gates below it. Type one, and press enter."


class InsideScreen(TextScreen):
    """The text; a strip for each part of a layer; one unit along the text; the words that drive it furthest."""

    CSS_PATH = "activations.tcss"
    AUTO_FOCUS = "#strips"
    VERTICAL_BREAKPOINTS = [(0, "-short"), (30, "-high")]  # noqa: RUF012
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "close", "close", id="inside.close", tooltip="Stop the search; or back to where you were"),
        Binding("comma", "word(-1)", "word before", show=False, id="inside.before", tooltip="The word before"),
        Binding("full_stop", "word(1)", "word", key_display=", .", id="inside.next", tooltip="The next word"),
        Binding("f2", "layer", "layer", id="inside.layer", tooltip="The next layer"),
        Binding("f3", "pin", "pin", id="inside.pin", tooltip="Keep the list of words on this unit, or let it go"),
        Binding("f4", "find", "find", id="inside.find", tooltip="What drives the unit highest and lowest; stop that"),
        Binding("f5", "other", "other", id="inside.other", tooltip="The unit along the text, or what was found"),
        Binding("f6", "edit", "edit", id="inside.edit", tooltip="Change the text, or go back to the strips"),
    ]

    def __init__(self, player: Player, text: str = "") -> None:
        """Look at what the LSTM in the model of `player` does with `text`."""
        super().__init__(player)
        self._decoder = lstm_of(player.model)
        self._text = with_line_ends(text)
        self._layers: tuple[Gates, ...] = ()
        self._read_words: Words | None = None  # those that `_layers` are of
        self._word_texts: list[str] = []
        self._depth = 0
        self._pinned: Unit | None = None
        self._reading: Worker[tuple[Gates, ...]] | None = None
        self._has_unit = False
        self._legend: tuple[int | None, int] = (None, 0)
        self._searching: UnitSearch | None = None
        self._search: UnitSearch | None = None  # the last one, though it has ended

    def compose(self) -> ComposeResult:
        """Model, text, strips, one unit along the text and what was found, a line to type into, keys."""
        yield StatusBar(id="status")
        yield PageText(HINT, id="text")
        yield Rule(line_style="solid")
        yield GateStrips(id="strips")
        yield StatusBar(id="legend")
        with Container(id="body"):
            with Vertical(id="left"):
                yield StatusBar(id="along-heading")
                yield UnitAlong(id="along")
            with Vertical(id="right"):
                yield StatusBar(id="found-heading")
                yield UnitFound("", id="found")
        yield TextLine(self._text, id="line")
        yield KeysFooter()

    def on_mount(self) -> None:
        """Read the text after the first paint."""
        self._drain_timer: Timer = self.set_interval(DRAIN_SECONDS, self._drain, pause=True)
        # A mixture, a cache or a model that goes on learning: what is seen is not the whole of it.
        whose = "" if self._decoder in (None, self._player.model) else " the LSTM as it was trained"
        self.show_title(f"inside{whose}")
        self.query_one("#found-heading", StatusBar).show(
            Content.styled("f4 finds the words of the training text that drive this unit furthest", MUTED)
        )
        self.call_after_refresh(self._read)

    def on_unmount(self) -> None:
        """Leave no thread behind."""
        if self._reading is not None:
            self._reading.cancel()
        self._stop_search()

    # Reading the text

    def _read(self, word: int | None = None) -> None:
        """Read the text in a thread; then go to `word`, or to the last one."""
        decoder, strips = self._decoder, self.query_one(GateStrips)
        words = split(self._text, self._player.model.vocabulary, line_ends=True)
        if len(words) > MOST_WORDS:
            self._text = self._text[: int(words.ends[MOST_WORDS - 1])]
            words = split(self._text, self._player.model.vocabulary, line_ends=True)
            self.notify(f"Only the first {MOST_WORDS:,} words are read.", markup=False)
        page = Page.of(words)
        self._layers, self._read_words = (), words
        self._word_texts = [page.text[start:end] for start, end in zip(page.starts, page.ends, strict=True)]
        self.query_one(PageText).show(page, len(words) - 1 if word is None else word)
        self._show()
        if decoder is None:
            strips.tell("there is no LSTM inside this model: it only counts words")
        elif not len(words):
            strips.tell("there is no word to read: type a text below, and press enter")
        else:
            strips.tell("…")
            read_with = decoder

            def source(cancellation: Cancellation) -> Iterator[tuple[Gates, ...]]:
                yield gates(read_with, words.ids)

            self._reading = Worker("inside", source).start()
            self._drain_timer.resume()

    def _drain(self) -> None:
        """Show what was read and found; rest when there is nothing more to come."""
        reading = self._reading
        if reading is not None and not reading.running:
            self._reading = None
            if reading.failure is not None:
                self.query_one(GateStrips).tell(f"the text could not be read: {reason_of(reading.failure)}")
            for layers in reading.drain():
                self._layers = layers
                self._show()
                if not self._has_unit:
                    self._has_unit = True
                    self.query_one(GateStrips).action_most()  # something to see
        if self._searching is not None:
            self._drain_search(self._searching)
        if self._reading is None and self._searching is None:
            self._drain_timer.pause()

    # What is shown

    @on(GateStrips.Moved)
    def _show(self) -> None:
        """All of it, as it is with the cursors where they are."""
        strips, along_list, words = self.query_one(GateStrips), self.query_one(UnitAlong), self._read_words
        heading = self.query_one("#along-heading", StatusBar)
        if not self._layers or words is None:
            along_list.clear()
            heading.show(Content(""))
            self._show_legend(None)
            return
        position = self.query_one(PageText).cursor
        layers = f"layer {self._depth + 1} of {len(self._layers)}"
        said = f'on reading "{self._word_texts[position]}"'
        strips.show(self._layers, self._depth, position, f"{layers} · {said} · word {position + 1:,} of {len(words):,}")
        self._show_legend(strips.bin)
        layer, unit, part = self._unit_at_hand()
        values = along(self._layers, layer, unit, part)
        along_list.show(
            self._word_texts,
            values,
            signed=part not in GATES,
            scale=scale_of(self._layers[layer], part),
            cursor=position,
        )
        heading.show(
            Content.assemble(
                (self._named((layer, unit, part)), "bold"),
                (" along the text", MUTED),
                (" · pinned" if self._pinned else "", "$accent"),
            )
        )

    def _show_legend(self, bin: int | None) -> None:
        """What the characters mean, and of how many units one is; None: there is none."""
        width = self.size.width - 2
        if (bin, width) == self._legend:
            return
        self._legend = (bin, width)
        legend = self.query_one("#legend", StatusBar)
        if bin is None:
            legend.show(Content(""), Content(""))
            return
        text = "a cell is a unit" if bin == 1 else f"a cell is {bin} units: a gate's mean, else the furthest from 0"
        signs = f"0 {LEVELS[0]}{LEVELS[3]}{LEVELS[-1]} 1   − {NEGATIVE[::-1]} {ZERO} {POSITIVE} +"
        if len(text) + len(signs) + 3 > width:
            text = "" if bin == 1 else f"{bin} units a cell"
        legend.show(Content.styled(signs, MUTED), Content.styled(text, MUTED))

    def _named(self, unit: Unit) -> str:
        layer, number, part = unit
        return f"unit {number} {part}" if len(self._layers) == 1 else f"layer {layer + 1} unit {number} {part}"

    def _unit_at_hand(self) -> Unit:
        """The pinned unit, or the one under the cursor."""
        strips = self.query_one(GateStrips)
        return self._pinned or (self._depth, strips.unit, strips.part)

    # The cursor

    @on(PageText.WordChosen)
    def _word_chosen(self) -> None:
        self._show()

    @on(UnitAlong.WordChosen)
    def _line_chosen(self, message: UnitAlong.WordChosen) -> None:
        self.query_one(PageText).move_to(message.index)

    def action_word(self, steps: int) -> None:
        """So many words on, or back."""
        self.query_one(PageText).action_step(steps)

    def action_layer(self) -> None:
        """The next layer; behind the last one the first."""
        if self._layers:
            self._depth = (self._depth + 1) % len(self._layers)
            self._show()

    def action_pin(self) -> None:
        """Keep the list of words on the unit under the cursor while that goes on; or let it go."""
        if self._layers:
            self._pinned = self._unit_at_hand() if self._pinned is None else None
            self._show()

    # Searching the training text

    def action_find(self) -> None:
        """Search the training text for what drives the unit furthest; while that goes on, stop it."""
        run, decoder, found = self._player.run, self._decoder, self.query_one(UnitFound)
        if self._searching is not None:
            self._stop_search()
            return
        if decoder is None or not self._layers:
            self.notify("There is no unit to search for.", markup=False)
            return
        if run is None:
            self.notify("There is no training text to search: this model is of no finished run.", markup=False)
            return
        self._search = self._searching = UnitSearch(run, decoder, self._unit_at_hand())
        found.tell("")
        self.add_class("-found")
        self._show_search(self._searching)
        self._drain_timer.resume()

    def _stop_search(self) -> None:
        if self._searching is not None:
            self._searching.stop()

    def _drain_search(self, search: UnitSearch) -> None:
        if search.running:
            self._show_search(search)
            return
        self._searching = None
        heading, found = self.query_one("#found-heading", StatusBar), self.query_one(UnitFound)
        if search.failure is not None:
            heading.show(Content.styled("nothing was found", MUTED))
            found.tell(reason_of(search.failure))
        elif (outcome := search.outcome()) is not None:
            how = "stopped after" if search.stopped else "of all"
            heading.show(
                Content.assemble(
                    (self._named(search.unit), "bold"),
                    (f" · highest and lowest {how} {outcome.words:,} words", MUTED),
                )
            )
            found.show(outcome)

    def _show_search(self, search: UnitSearch) -> None:
        how_far = "reading the text" if search.share is None else f"{search.share:.0%}"
        text = f"searching for {self._named(search.unit)} … {how_far} · f4 stops"
        self.query_one("#found-heading", StatusBar).show(Content.styled(text, MUTED))

    @on(UnitFound.Chosen)
    def _take_line(self, message: UnitFound.Chosen) -> None:
        """Read a line of the training text; the unit stays the one it was found for."""
        search, item = self._search, message.extreme
        assert search is not None, "its lines are shown"
        self._text = self._player.model.vocabulary.decode(search.lines[item.line].tolist())
        self.query_one(TextLine).show(self._text)
        layer, unit, part = search.unit
        strips = self.query_one(GateStrips)
        self._depth, strips.unit, strips.part = layer, unit, part
        self._read(item.position)

    # The other keys

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Where there is one layer there is no next one."""
        return action != "layer" or (self._decoder is not None and self._decoder.config.layers > 1)

    def action_other(self) -> None:
        """On a narrow terminal one list takes the place of the other; on a wide one the cursor goes there."""
        if self.has_class("-narrow"):
            self.toggle_class("-found")
            found = self.has_class("-found")
        else:
            found = not self.query_one(UnitFound).has_focus
        target = self.query_one(UnitFound) if found else self.query_one(UnitAlong)
        self.call_after_refresh(target.focus)

    @on(Input.Submitted)
    def _typed(self) -> None:
        self._text = self.query_one(TextLine).text
        self._read()
        self.query_one(GateStrips).focus()

    def action_edit(self) -> None:
        """To the line with the text, or back to the strips."""
        field = self.query_one(Input)
        (self.query_one(GateStrips) if field.has_focus else field).focus()

    def action_close(self) -> None:
        """Stop the search, or else go back to where one came from."""
        if self._searching is not None:
            self._stop_search()
        else:
            super().action_close()
