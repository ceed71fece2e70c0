"""Activations screen: an LSTM layer on each token of a text, one unit along the text, and its top activations."""

from typing import ClassVar

from lotr_tui.screens.activations.gate_strips import SIGMOID_GATES, GateStrips, strips_legend, value_scale
from lotr_tui.screens.activations.mogrifier_line import mogrifier_line
from lotr_tui.screens.activations.top_activations import UnitTopActivations
from lotr_tui.screens.activations.unit_activations import UnitActivations
from lotr_tui.screens.text.layout import Page, sanitize_text
from lotr_tui.screens.text.screen import TextInputScreen
from lotr_tui.screens.text.text_input import TextInputBar
from lotr_tui.screens.text.token_names import describe_word_around, token_names
from lotr_tui.screens.text.view import TokenTextView
from textual import on
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Container, Vertical
from textual.content import Content
from textual.widgets import Rule

from engine.analysis.activations import LayerActivations, find_lstm, record_activations
from engine.analysis.tokenized_text import TokenizedText
from lotr_tui.formatting import token_noun
from lotr_tui.screens.activations.search_pane import UnitSearchPane
from lotr_tui.session.session_model import SessionModel
from lotr_tui.session.training_text import UnitId
from lotr_tui.theme import MUTED
from lotr_tui.widgets.bindings import binding_table
from lotr_tui.widgets.help_line import HelpLine
from lotr_tui.widgets.key_footer import KeyFooter
from lotr_tui.widgets.status_bar import StatusBar

MAX_TOKENS = 1000
"""Maximum length of a text; the activations of 1,000 tokens in three layers of 1,150 units take 83 MB."""
PLACEHOLDER = "Type a text below and press enter to see the gates of the LSTM."


class ActivationsScreen(TextInputScreen[tuple[LayerActivations, ...]]):
    """Activations of the LSTM inside the session's model while it reads a text."""

    CSS_PATH = "activations.tcss"
    AUTO_FOCUS = "#strips"
    HEADING = "activations: inside the LSTM"
    BUSY_MESSAGE = "reading the text …"
    FAILURE_MESSAGE = "cannot compute the activations"
    VERTICAL_BREAKPOINTS = [(0, "-short"), (30, "-high")]  # noqa: RUF012
    BINDINGS: ClassVar[list[BindingType]] = [
        *binding_table(
            "activations",
            """
            close | escape | close | close | Stop the search, or close the screen
            """,
            show=True,
        ),
        *binding_table(
            "activations",
            """
            previous | comma | step_token(-1) | previous word | The previous word or token
            """,
        ),
        *binding_table(
            "activations",
            """
            next  | full_stop | step_token(1) | word  | The next word or token                   | , .
            layer | f2        | next_layer    | layer | The next layer
            pin   | f3        | toggle_pin    | pin   | Keep showing this unit along the text
            find  | f4        | toggle_search | find  | Search for what activates this unit most
            other | f5        | toggle_pane   | other | The unit along the text, or the search
            edit  | f6        | toggle_edit   | edit  | Edit the text, or return to the strips
            """,
            show=True,
        ),
    ]

    def __init__(self, session_model: SessionModel, text: str = "") -> None:
        """Show what the LSTM inside `session_model` does with `text`."""
        super().__init__(session_model, text)
        self._lstm = self.inspected_part = find_lstm(session_model.model)
        self.layer_activations: tuple[LayerActivations, ...] = ()
        """Activations of each layer on the text; empty while they are computed."""
        self._token_texts: list[str] = []
        self.layer_index = 0
        """Index of the shown layer."""
        self.pinned_unit: UnitId | None = None
        """Unit that stays shown along the text, if any."""
        self._initial_unit_selected = False

    @property
    def is_idle(self) -> bool:
        """True once the current text is analysed and no search is running."""
        return super().is_idle and not self.query_one(UnitSearchPane).is_searching

    def compose(self) -> ComposeResult:
        """Yield status, text, strips, mogrifier, legend, the panes for one unit, input and footer."""
        yield StatusBar(id="status")
        yield TokenTextView(PLACEHOLDER, id="text")
        yield Rule(line_style="solid")
        yield GateStrips(self._token_noun, id="strips")
        mogrifier = StatusBar(id="mogrifier")
        mogrifier.display = self._lstm is not None and self._lstm.config.mogrifier_rounds > 0
        yield mogrifier
        yield StatusBar(id="legend")
        with Container(id="body"):
            with Vertical(id="left"):
                yield StatusBar(id="unit-activations-heading")
                yield UnitActivations(self._token_noun, id="unit-activations")
            yield UnitSearchPane(self.unit_label, self._token_noun, id="right")
        yield TextInputBar(self.text, id="line")
        yield HelpLine()
        yield KeyFooter(descriptions={"activations.next": self._token_noun})

    # Analysis

    def tokenize(self) -> TokenizedText:
        """Tokenize the text, cut after `MAX_TOKENS` tokens; of a script, keep the last lines."""
        tokens = super().tokenize()
        if len(tokens) <= MAX_TOKENS:
            return tokens
        last_lines = [start for start in tokens.speakers if start >= len(tokens) - MAX_TOKENS]
        part = "last" if last_lines else "first"
        self.notify(f"Only the {part} {MAX_TOKENS:,} {self._token_noun}s are analysed.", markup=False)
        if last_lines:
            self.text = self.text[self.text.rfind("\n", 0, int(tokens.start_offsets[last_lines[0]])) + 1 :]
        else:
            # The text ends before a word, if possible, so that the last tokens stay the same.
            num_tokens = int(tokens.word_starts[tokens.word_index(MAX_TOKENS)]) or MAX_TOKENS
            self.text = self.text[: int(tokens.end_offsets[num_tokens - 1])]
        return super().tokenize()

    @property
    def _token_noun(self) -> str:
        return token_noun(self._session_model.model.tokenizer)

    def lay_out(self, tokens: TokenizedText) -> Page:
        """Return the page of the tokens of a text, which the LSTM reads one by one."""
        return Page.from_tokens(tokens)

    def find_problem(self) -> str:
        """Return a message if the model contains no LSTM."""
        return f"no LSTM in this model: it only counts {self._token_noun}s" if self._lstm is None else ""

    def show_page(self, page: Page, cursor: int | None) -> None:
        """Show a text with the cursor on a token, by default the last one."""
        self.layer_activations = ()
        self._token_texts = token_names(page, self._session_model.model.tokenizer)
        self.query_one(TokenTextView).show(page, len(page.tokens) - 1 if cursor is None else cursor)
        self._update_view()

    def compute(self, tokens: TokenizedText) -> tuple[LayerActivations, ...]:
        """Record the activations of all layers on each token."""
        assert self._lstm is not None, "checked by find_problem"
        return record_activations(self._lstm, *tokens.read_ids())

    def show_result(self, result: tuple[LayerActivations, ...]) -> None:
        """Show the activations; the first time, the cursor moves to the unit with the largest absolute value."""
        self.layer_activations = result
        self._update_view()
        if not self._initial_unit_selected:
            self._initial_unit_selected = True
            self.query_one(GateStrips).action_go_to_largest()

    def show_message(self, message: str) -> None:
        """Show a message in place of the strips."""
        self.query_one(GateStrips).show_message(message)

    # View

    @on(TokenTextView.TokenHighlighted)
    @on(GateStrips.CursorMoved)
    def _update_view(self) -> None:
        """Update strips, legend and unit for the current cursors."""
        strips = self.query_one(GateStrips)
        mogrifier, legend = self.query_one("#mogrifier", StatusBar), self.query_one("#legend", StatusBar)
        if not self.layer_activations:
            self.query_one(UnitActivations).clear()
            self.show_line("#unit-activations-heading")
            for line in (mogrifier, legend):
                line.show(Content(""), Content(""))
            return
        assert self.page is not None, "the text is analysed"
        position = self.query_one(TokenTextView).cursor
        word_around = describe_word_around(self.page.tokens, position)
        strips.show(
            self.layer_activations[self.layer_index],
            position,
            [
                f"layer {self.layer_index + 1} of {len(self.layer_activations)}",
                f'on reading "{self._token_texts[position]}"{word_around}',
                f"{self._token_noun} {position + 1:,} of {len(self._token_texts):,}",
            ],
        )
        self.query_one(HelpLine).update_text()
        if factors := self.layer_activations[self.layer_index].mogrifier:
            factor_texts = mogrifier_line([factor[position] for factor in factors], self.size.width - 2)
            mogrifier.show(
                *(Content.styled(text, style) for text, style in zip(factor_texts, ("", MUTED), strict=True))
            )
        characters, cells = strips_legend(strips.num_shown_units, strips.num_cells, self.size.width - 2)
        legend.show(Content.styled(characters, MUTED), Content.styled(cells, MUTED))
        unit_id = layer, unit, activation = self._current_unit()
        self.query_one(UnitActivations).show(
            self._token_texts,
            self.layer_activations[layer].get(activation)[:, unit],
            is_signed=activation not in SIGMOID_GATES,
            scale=value_scale(self.layer_activations[layer], activation),
            cursor=position,
        )
        pinned = (" · pinned" if self.pinned_unit else "", "$accent")
        title = (self.unit_label(unit_id), "bold")
        self.show_line("#unit-activations-heading", title, (" along the text", MUTED), pinned)

    def unit_label(self, unit_id: UnitId) -> str:
        """Return the name of a unit for display, without the layer if there is only one."""
        layer, unit, activation = unit_id
        label = f"unit {unit} {activation}"
        return label if len(self.layer_activations) == 1 else f"layer {layer + 1} {label}"

    def _current_unit(self) -> UnitId:
        """Return the pinned unit, or the one under the cursor."""
        strips = self.query_one(GateStrips)
        return self.pinned_unit or (self.layer_index, strips.unit, strips.gate)

    # Keys

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Hide the layer key if there is only one layer."""
        return action != "next_layer" or (self._lstm is not None and self._lstm.config.num_layers > 1)

    @on(UnitActivations.TokenSelected)
    def _move_to_token(self, message: UnitActivations.TokenSelected) -> None:
        self.query_one(TokenTextView).move_cursor(message.index)

    def action_step_token(self, offset: int) -> None:
        """Move the token cursor by a number of tokens."""
        self.query_one(TokenTextView).action_step(offset)

    def action_next_layer(self) -> None:
        """Show the next layer, and the first one after the last."""
        if self.layer_activations:
            self.layer_index = (self.layer_index + 1) % len(self.layer_activations)
            self._update_view()

    def action_toggle_pin(self) -> None:
        """Pin the unit under the cursor, or unpin it."""
        if self.layer_activations:
            self.pinned_unit = self._current_unit() if self.pinned_unit is None else None
            self._update_view()

    def action_toggle_search(self) -> None:
        """Search the training text for the top activations of the current unit, or stop the running search."""
        pane = self.query_one(UnitSearchPane)
        if pane.is_searching:
            pane.stop_search()
        elif self._lstm is None or not self.layer_activations:
            self.notify("There is no unit to search for.", markup=False)
        elif self._session_model.run is None:
            self.notify("No training text to search: this model has no run.", markup=False)
        else:
            self.add_class("-search-results")
            pane.search(self._session_model.run, self._lstm, self._current_unit())

    @on(UnitSearchPane.LineSelected)
    def _load_line(self, message: UnitSearchPane.LineSelected) -> None:
        """Analyse a line of the training text, and show the unit that was searched for."""
        self.text = sanitize_text(message.text).replace("\n", " ")
        self.query_one(TextInputBar).set_text(self.text)
        strips = self.query_one(GateStrips)
        self.layer_index, strips.unit, strips.gate = message.unit
        self.analyse(message.position)

    def action_toggle_pane(self) -> None:
        """Show the other list on a narrow terminal; focus it on a wide one."""
        results = self.query_one(UnitTopActivations)
        if self.has_class("-narrow"):
            self.toggle_class("-search-results")
            show_results = self.has_class("-search-results")
        else:
            show_results = not results.has_focus
        self.call_after_refresh((results if show_results else self.query_one(UnitActivations)).focus)

    def action_close(self) -> None:
        """Stop the running search, or close the screen."""
        pane = self.query_one(UnitSearchPane)
        if pane.is_searching:
            pane.stop_search()
        else:
            super().action_close()
