"""List of the predictions of the layers of a Transformer for one token (logit lens)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from rich.cells import cell_len
from rich.segment import Segment
from rich.style import Style
from textual.binding import BindingType
from textual.message import Message

from engine.analysis.activations import LayerPrediction
from engine.errors import printable
from lotr_tui.formatting import LINE_END_MARK, format_lone_token, format_percent
from lotr_tui.widgets.bars import bar
from lotr_tui.widgets.line_list import LineList, line_bindings

LAYER_WIDTH, BAR_WIDTH, BITS_WIDTH, RANK_WIDTH, PROB_WIDTH = 7, 8, 6, 8, 9
MAX_BAR_BITS = 8.0
"""Entropy in bits of a full bar: one cell for each bit."""
HEADER = (
    f" {'layer':{LAYER_WIDTH}}{'entropy, bits':<{BAR_WIDTH + BITS_WIDTH + 1}}"
    f"{'rank':>{RANK_WIDTH - 1}}{'prob':>{PROB_WIDTH - 2}}    most likely"
)
"""Headings of the columns."""


def token_label(text: str, *, ends_text: bool = False) -> str:
    """Return a token of a vocabulary as `format_lone_token` does, with a mark for a line end."""
    return printable(format_lone_token(text, ends_text=ends_text).replace("\n", LINE_END_MARK)) or repr(text)[1:-1]


class LayerPredictions(LineList):
    """One line per layer, the embedding first: entropy, rank and probability of the token, and the most likely ones."""

    HELP_LINE = "Logit lens: what each layer would predict; ↑ ↓ choose one"
    DEFAULT_CSS = """
    LayerPredictions > .layer-predictions--plain { color: $foreground; }
    LayerPredictions > .layer-predictions--cursor { text-style: bold; }
    LayerPredictions:focus > .layer-predictions--cursor { text-style: bold reverse; }
    LayerPredictions > .layer-predictions--muted { color: $muted; text-style: $muted-style; }
    LayerPredictions > .layer-predictions--bar { color: $foreground 60%; }
    LayerPredictions > .layer-predictions--token { color: $accent; text-style: bold; }
    """
    COMPONENT_CLASSES: ClassVar[set[str]] = {
        f"layer-predictions--{name}" for name in ("plain", "cursor", "muted", "bar", "token")
    }
    BINDING_GROUP_TITLE = "Logit lens"
    BINDINGS: ClassVar[list[BindingType]] = line_bindings("layer-predictions", up="up,left", down="down,right")

    @dataclass
    class LayerSelected(Message):
        """Posted when the cursor has moved to a layer."""

        layer: int
        """Index of the layer; the line of the embedding selects the first one."""

    def __init__(self, *, ends_text: bool = False, id: str | None = None) -> None:
        """Start without predictions; with `ends_text`, `<eos>` ends a whole text instead of a line."""
        super().__init__(id=id)
        self._ends_text = ends_text
        self._predictions: Sequence[LayerPrediction] = ()
        self._target = ""
        self._is_stale = False
        self.cursor = 0
        """Line of the cursor: 0 is the embedding, 1 the first layer."""

    def show(self, predictions: Sequence[LayerPrediction], target: str) -> None:
        """Show the predictions of the embedding and of each layer for the token whose text is `target`."""
        if predictions is self._predictions and not self._is_stale:
            return
        self._predictions, self._target = predictions, target
        self._is_stale = False
        self.update_virtual_size()
        self.scroll_to_line(self.cursor)
        self.refresh()

    def show_stale(self) -> None:
        """Dim the predictions, which belong to another token until the next `show`."""
        if not self._is_stale:
            self._is_stale = True
            self.refresh()

    def clear(self) -> None:
        """Show nothing."""
        self.show((), "")

    def show_layer(self, layer: int) -> None:
        """Move the cursor to a layer, unless it is on the embedding and the layer is the first one."""
        if layer != max(0, self.cursor - 1):
            self.cursor = layer + 1
            self.scroll_to_line(self.cursor)
            self.refresh()

    def line_count(self) -> int:
        """Return the number of layers and 1 for the embedding, or 0 without predictions."""
        return len(self._predictions)

    def line_segments(self, line: int) -> list[Segment]:
        """Return the figures and the most likely tokens of a layer."""
        prediction = self._predictions[line]
        names = ["plain", "bar", "plain", "token"] if not self._is_stale else ["muted"] * 4
        plain, bar_style, text_style, token_style = map(self._style, names)
        label = f"{'▸' if line == self.cursor else ' '}{'input' if line == 0 else line:<{LAYER_WIDTH}}"
        fraction = prediction.entropy_bits / MAX_BAR_BITS
        segments = [
            Segment(label, self._style("cursor") if line == self.cursor and not self._is_stale else plain),
            Segment(f"{bar(fraction, BAR_WIDTH):{BAR_WIDTH}}", bar_style),
            Segment(f"{prediction.entropy_bits:{BITS_WIDTH}.1f}", plain),
            Segment(f"{prediction.target_rank:{RANK_WIDTH},}", token_style if prediction.target_rank == 1 else plain),
            Segment(f"{format_percent(prediction.target_prob):>{PROB_WIDTH}}", plain),
        ]
        room = self.scrollable_content_region.width - sum(segment.cell_length for segment in segments)
        for text, prob in prediction.top_tokens:
            name, number = f"  {token_label(text, ends_text=self._ends_text)}", f" {format_percent(prob)}"
            if cell_len(name + number) > room:
                break
            room -= cell_len(name + number)
            segments += [
                Segment(name, token_style if text == self._target else text_style),
                Segment(number, self._style("muted")),
            ]
        return segments

    def _style(self, name: str) -> Style:
        return self.get_component_rich_style(f"layer-predictions--{name}")

    @property
    def cursor_line(self) -> int | None:
        """Line of the cursor, or None without predictions."""
        return min(self.cursor, len(self._predictions) - 1) if self._predictions else None

    def select_line(self, line: int) -> None:
        """Move the cursor to a line, and post `LayerSelected`."""
        if line != self.cursor:
            self.cursor = line
            self.scroll_to_line(line)
            self.refresh()
            self.post_message(self.LayerSelected(max(0, line - 1)))
